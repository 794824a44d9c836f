"""Questions and prompts, templates and worked examples, and orders that depend only on contents.

`records` holds `Question` and `Prompt`; `prompting` renders the first to the second for a pair of models, by
`question_templates`, `worked_examples` and `chat_template`, all Jinja in a `jinja_sandbox`; `traced_text` tracks which
parts of a rendered text come from data. `orders` sorts, draws and permutes; `verbalized` asks for a confidence in
words.
"""

from edgecal.prompts.chat_template import (
    OWN_CHAT_TEMPLATE,
    ChatTemplate,
    resolve_chat_template,
    special_tokens,
)
from edgecal.prompts.orders import (
    canonical_order,
    compute_prompts_sha256,
    count_repeats,
    digest_prompt,
    permute_question,
    reorder,
)
from edgecal.prompts.prompting import Prompting, PromptPair, canonical_pairs, draw_pairs
from edgecal.prompts.question_templates import DEFAULT_TEMPLATE, TEMPLATES, PromptTemplate, resolve_template
from edgecal.prompts.records import (
    LABEL_LETTERS,
    Prompt,
    Question,
    check_prompt,
    describe_record,
    parse_record,
    read_bank,
)
from edgecal.prompts.verbalized import parse_verbalized, render_verbalized
from edgecal.prompts.worked_examples import WorkedQuestion, holds_worked_examples, with_shots

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
    "digest_prompt",
    "draw_pairs",
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
