"""Prompts: reading questions, rendering them with templates and worked examples, and telling prompts apart.

Knows nothing of models or tokens beyond the ids that a user may hand over ready-made.
"""

from edgecal.prompts.bank import read_bank
from edgecal.prompts.chat import OWN_CHAT_TEMPLATE, ChatTemplate, resolve_chat_template, special_tokens
from edgecal.prompts.digest import canonical_order, compute_prompts_sha256, count_repeats, draw_prompts
from edgecal.prompts.model import LABEL_LETTERS, Prompt, Question
from edgecal.prompts.permute import permute_question, reorder
from edgecal.prompts.prompting import Prompting, PromptPair, canonical_pairs, draw_pairs
from edgecal.prompts.reader import check_prompt, describe_record, parse_record
from edgecal.prompts.shots import WorkedQuestion, with_shots
from edgecal.prompts.template import DEFAULT_TEMPLATE, PromptTemplate
from edgecal.prompts.templates import TEMPLATES, resolve_template
from edgecal.prompts.verbalized import parse_verbalized, render_verbalized
from edgecal.prompts.worked import holds_worked_examples

__all__ = [
    "DEFAULT_TEMPLATE",
    "LABEL_LETTERS",
    "OWN_CHAT_TEMPLATE",
    "TEMPLATES",
    "ChatTemplate",
    "Prompt",
    "PromptPair",
    "PromptTemplate",
    "Prompting",
    "Question",
    "WorkedQuestion",
    "canonical_order",
    "canonical_pairs",
    "check_prompt",
    "compute_prompts_sha256",
    "count_repeats",
    "describe_record",
    "draw_pairs",
    "draw_prompts",
    "holds_worked_examples",
    "parse_record",
    "parse_verbalized",
    "permute_question",
    "read_bank",
    "render_verbalized",
    "reorder",
    "resolve_chat_template",
    "resolve_template",
    "special_tokens",
    "with_shots",
]
