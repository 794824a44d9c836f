"""The logit lens: the answer a model would give if it stopped after block l.

Reads the final norm and the requested rows of the output head from the GGUF (`head`, `weight_rows`), as
`edgecal.architectures` describes the end of the architecture, and applies them to hidden states (`project`).
A run-time check (`self_check`) compares the last block's logits with llama.cpp's own; for that they are computed with
llama.cpp's roundings (`reproduce`, `rounding`).
"""

from __future__ import annotations

from edgecal.lens.head import Head, read_head
from edgecal.lens.project import project
from edgecal.lens.reproduce import reproduce
from edgecal.lens.self_check import ALLOWED_RMS, LensCheck, check_token_ids, mean_square_errors

__all__ = [
    "ALLOWED_RMS",
    "Head",
    "LensCheck",
    "check_token_ids",
    "mean_square_errors",
    "project",
    "read_head",
    "reproduce",
]
