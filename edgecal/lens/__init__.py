"""The logit lens: what a model would answer if it stopped after block l.

Reads the final norm and the few rows of the output head that are asked for from the GGUF (`head`, `rows`),
as `edgecal.architectures` says that the architecture ends, applies them to hidden states
(`project`), and checks at run time that all this reproduces llama.cpp's own logits (`check`), which for that are made
as llama.cpp makes them (`reproduce`, `rounding`).

Does not run models and knows nothing of prompts, temperatures or losses.
"""

from __future__ import annotations

from edgecal.lens.head import Head, read_head
from edgecal.lens.project import project
from edgecal.lens.reproduce import reproduce
from edgecal.lens.self_check import ALLOWED_RMS, LensCheck, check_lens, check_token_ids, mean_square_errors

__all__ = [
    "ALLOWED_RMS",
    "Head",
    "LensCheck",
    "check_lens",
    "check_token_ids",
    "mean_square_errors",
    "project",
    "read_head",
    "reproduce",
]
