"""What edgecal knows about each architecture of llama.cpp, in one table, and how a file's keys fill it in.

`table` says how a family's residual stream becomes logits, `stream` where its graph has that stream, `ending` what
one file makes of both: kind and epsilon of the final norm, logit scale, soft cap. Facts of llama.cpp as of the
release that edgecal is pinned to (its `src/models/*.cpp`); whether they hold for a model is never assumed but
measured, by `edgecal.lens.self_check`.

Knows metadata keys and the names of tensors. Reads no tensors, runs nothing.
"""

from __future__ import annotations

from edgecal.architectures.resolve import (
    PLAIN_STREAM,
    Norm,
    ResidualStream,
    Transform,
    norm_of,
    stream_of,
    transform_of,
)
from edgecal.architectures.table import (
    FAMILIES,
    REFUSALS,
    Family,
    Merge,
    family_of,
    refusal_of,
    why_no_layers,
)

__all__ = [
    "FAMILIES",
    "PLAIN_STREAM",
    "REFUSALS",
    "Family",
    "Merge",
    "Norm",
    "ResidualStream",
    "Transform",
    "family_of",
    "norm_of",
    "refusal_of",
    "stream_of",
    "transform_of",
    "why_no_layers",
]
