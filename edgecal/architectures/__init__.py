"""The facts about each llama.cpp architecture, in one table, and how a file's metadata completes them.

`table` says how a family's residual stream becomes logits and which node of its graph holds that stream; `resolve`
reads from one file's metadata what the table leaves open: kind and epsilon of the final norm, logit scale, soft cap,
number of streams. The facts are those of the llama.cpp release that edgecal is pinned to (its `src/models/*.cpp`).
Whether they hold for a model is not assumed but measured, by `edgecal.lens.self_check`.
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
