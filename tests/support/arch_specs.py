"""Which tiny models the tests make: one row for each, with the keys that its architecture needs.

A row says how llama.cpp's graph is to be read too (what the residual stream is called, how many streams there
are), so that tests compare the package's own table with one that was written apart from it. `tiny_archs` makes the
models.
"""

from __future__ import annotations

from support.arch_spec import ArchSpec
from support.arch_specs_dense import DENSE
from support.arch_specs_experts import EXPERTS
from support.arch_specs_states import STATES

__all__ = ["ARCHS", "REFUSED"]

ARCHS: dict[str, ArchSpec] = {**DENSE, **EXPERTS, **STATES}

# llama.cpp gives wrong logits for these.
REFUSED: dict[str, ArchSpec] = {
    "chameleon": ArchSpec("chameleon", n_vocab=8704),
    "chameleon-swin": ArchSpec("chameleon", n_vocab=8704, keys={"swin_norm": True}),
    "cogvlm": ArchSpec("cogvlm", last_keeps_all_rows=True),
}
