"""Prompts: reading questions, rendering them with a template, and telling prompts apart.

Knows nothing of models or tokens beyond the ids that a user may hand over ready-made.
"""

from edgecal.prompts.bank import read_bank
from edgecal.prompts.digest import canonical_order, compute_prompts_sha256, count_repeats, draw_prompts
from edgecal.prompts.model import LABEL_LETTERS, Prompt, Question
from edgecal.prompts.reader import check_prompt, parse_record, read_json_lines
from edgecal.prompts.template import DEFAULT_TEMPLATE, PromptTemplate

__all__ = [
    "DEFAULT_TEMPLATE",
    "LABEL_LETTERS",
    "Prompt",
    "PromptTemplate",
    "Question",
    "canonical_order",
    "check_prompt",
    "compute_prompts_sha256",
    "count_repeats",
    "draw_prompts",
    "parse_record",
    "read_bank",
    "read_json_lines",
]
