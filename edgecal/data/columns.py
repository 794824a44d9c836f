"""Converters for options in columns or plain lists: our own forms, MMLU and MMLU-Pro, MedMCQA.

Also decides, once for a file, whether its numeric answers count from 0 or from 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from edgecal.data.fields import (
    Context,
    Fields,
    answer_index,
    as_list,
    as_text,
    is_blank,
    labelled_options,
    letter_index,
    make_question,
    subject_text,
    whole_number,
)
from edgecal.data.literals import parse_list_text
from edgecal.data.model import fail
from edgecal.prompts import Prompt, Question, parse_record

__all__ = [
    "SUBJECT_KEYS",
    "from_edgecal",
    "from_medmcqa",
    "from_mmlu",
    "from_mmlu_cells",
    "is_edgecal",
    "is_mmlu",
    "medmcqa_base",
    "mmlu_base",
]

_TEXT_KEYS = ("question", "prompt", "question_text", "input", "query", "problem")
_LIST_KEYS = ("choices", "options")
_ANSWER_KEYS = (
    "answer",
    "label",
    "answerkey",
    "answer_key",
    "correct_answer",
    "correct",
    "correct_option",
    "correct_choice",
    "target",
    "gold",
    "answer_index",
    "answer_idx",
)
SUBJECT_KEYS = ("subject", "category", "subject_name", "task")
_LETTER_COLUMN = re.compile(r"(?:(?:option|choice)_?)?([a-z])")
_NUMBER_COLUMN = re.compile(r"(?:option|choice)_?([0-9]{1,2})")
_OWN_LISTS = ("choices", "labels", "tokens", "choice_tokens")
_OWN_KEYS = (*_OWN_LISTS, "question", "prompt", "answer", "subject", "passage")
_MEDMCQA_OPTIONS = ("opa", "opb", "opc", "opd")


def is_edgecal(fields: Fields) -> bool:
    """One of the three forms of `edgecal.prompts`."""
    if "choice_tokens" in fields or "labels" in fields:
        return True
    if "answer" not in fields and any(key in fields for key in _ANSWER_KEYS):
        return False  # an answer under another name would be lost
    answer = fields.get("answer")
    if isinstance(answer, str) and len(answer.strip()) > 1 and whole_number(answer) is None:
        return "prompt" in fields  # a label; beside a question it is an option's text, which others may use
    choices = fields.get("choices")
    if isinstance(choices, str):
        choices = parse_list_text(choices)
    return (
        "question" in fields and isinstance(choices, list) and not any(isinstance(c, dict) for c in choices)
    )


def from_edgecal(fields: Fields, context: Context) -> Question | Prompt:
    """Our own forms, by the same rules as everywhere; a table's columns hold lists as JSON text."""
    own = {key: fields[key] for key in _OWN_KEYS if not is_blank(fields.get(key))}
    for key in _OWN_LISTS:
        if isinstance(own.get(key), str):
            own[key] = as_list(own[key], f'"{key}"', context.where)
    if whole_number(own.get("answer")) == -1 and "-1" not in as_list(
        own.get("labels", []), "labels", context.where
    ):
        del own["answer"]
    return parse_record(own, context.where)


def is_mmlu(fields: Fields) -> bool:
    """A question, options in a list or in lettered columns, and an answer column."""
    return (
        _first(fields, _TEXT_KEYS) is not None
        and (bool(_option_columns(fields)) or _first(fields, _LIST_KEYS) is not None)
        and any(key in fields for key in _ANSWER_KEYS)
    )


def from_mmlu(fields: Fields, context: Context) -> Question:
    """MMLU's and MMLU-Pro's columns, and what resembles them."""
    where = context.where
    options = _mmlu_options(fields, where)
    texts = [as_text(option, f"choice {index}", where) for index, option in enumerate(options)]
    answer = answer_index(_mmlu_answer(fields), texts, where, index_base=context.index_base)
    if "answer_index" in fields and "answer" in fields:  # MMLU-Pro
        other = answer_index(fields["answer_index"], texts, where, texts=False)
        if answer is not None and other is not None and answer != other:
            fail(where, f"answer {fields['answer']!r:.20} and answer_index {other} contradict each other")
        answer = other if answer is None else answer
        texts, answer = _drop_missing(texts, answer, where)
    subject = next((text for key in SUBJECT_KEYS if (text := subject_text(fields.get(key)))), context.subject)
    return make_question(where, _first(fields, _TEXT_KEYS), texts, answer, subject=subject)


def from_mmlu_cells(cells: Sequence[str], context: Context) -> Question:
    """A row of MMLU's own files, which have no header: question, options, letter."""
    question, *options, letter = cells
    if len(options) < 2:
        fail(context.where, f"has {len(cells)} columns, expected a question, its options and a letter")
    filled = _without_trailing_blanks(options)
    answer = letter_index(letter, len(filled))
    if answer is None and not is_blank(letter):
        fail(
            context.where,
            f"the last column must be the letter of one of {len(filled)} options, got {letter!r:.40}",
        )
    return make_question(context.where, question, filled, answer, subject=context.subject)


def mmlu_base(rows: Iterable[Fields]) -> tuple[int | None, str | None]:
    """How the numeric answers of a file are meant: from 0, unless none is 0 and one is the number of options.

    They are texts if one of them is beyond the options' count but an option itself, or if the file's other
    answers are options' texts.

    Returns
    -------
    The base, or None for texts; and a remark if it is not 0.
    """
    has_zero = has_last = has_number = are_texts = False
    for fields in rows:
        value = _mmlu_answer(fields)
        number = whole_number(value)
        if number is None and not (isinstance(value, str) and len(value.strip()) > 1):
            continue
        shown = _shown_options(fields)
        n_options = len(shown)
        has_number |= number is not None
        has_zero |= number in (0, -1)
        has_last |= number is not None and number == n_options > 0
        if isinstance(value, str) and (number is None or not -1 <= number <= n_options):
            are_texts |= value.strip() in [option.strip() for option in shown if isinstance(option, str)]
    if are_texts and has_number:
        return None, "some answers are options' texts, so those that look like numbers were read as texts too"
    if has_last and not has_zero:
        return (
            1,
            "no answer is 0 and one is the number of options, so the answers were read as counting from 1",
        )
    return 0, None


def from_medmcqa(fields: Fields, context: Context) -> Question:
    """MedMCQA: the options in `opa` to `opd`, the answer's number in `cop`."""
    options = _without_trailing_blanks([fields.get(key) for key in _MEDMCQA_OPTIONS])
    texts = [as_text(option, f"op{'abcd'[index]}", context.where) for index, option in enumerate(options)]
    value = fields.get("cop")
    answer = answer_index(value, texts, context.where, index_base=context.index_base, texts=False)
    subject = subject_text(fields.get("subject_name"))
    return make_question(context.where, fields.get("question"), texts, answer, subject=subject)


def medmcqa_base(rows: Iterable[Fields]) -> tuple[int | None, str | None]:
    """Where a file's `cop` counts from: the original's from 1, the Hub's from 0 (with -1 where hidden).

    Returns
    -------
    0 or 1, and a remark where the file does not settle it.
    """
    seen = {whole_number(fields.get("cop")) for fields in rows} - {None}
    if seen & {0, -1}:
        return 0, None
    if 4 in seen:
        return 1, None
    if seen:
        return 0, "cop is never 0 and never 4, so whether it counts from 0 or 1 is unknown; read as from 0"
    return 0, None


def _mmlu_options(fields: Fields, where: str) -> list[object]:
    held = _first(fields, _LIST_KEYS)
    if held is None:
        return _without_trailing_blanks([fields[key] for key in _option_columns(fields)])
    parsed = parse_list_text(held) if isinstance(held, str) else held
    if isinstance(parsed, dict) or (isinstance(parsed, list) and parsed and isinstance(parsed[0], dict)):
        return list(labelled_options(parsed, where)[0])
    return as_list(held, "the list of options", where)


def _shown_options(fields: Fields) -> list[object]:
    """The options as they stand; none if they are not to be had."""
    columns = _option_columns(fields)
    if columns:
        return _without_trailing_blanks([fields[key] for key in columns])
    held = _first(fields, _LIST_KEYS)
    held = parse_list_text(held) if isinstance(held, str) else held
    if isinstance(held, dict):
        held = held["text"] if isinstance(held.get("text"), list) else list(held.values())
    return list(held) if isinstance(held, (list, tuple)) else []


def _mmlu_answer(fields: Fields) -> object:
    return _first(fields, _ANSWER_KEYS)


def _option_columns(fields: Fields) -> list[str]:
    """The columns that hold options, in order: `a`, `b`, ... or `option_a`, ... or `option_1`, ..., from the first."""
    for pattern, first in ((_LETTER_COLUMN, "a"), (_NUMBER_COLUMN, "1"), (_NUMBER_COLUMN, "0")):
        found = {match.group(1): key for key in fields if (match := pattern.fullmatch(key))}
        names = []
        name = first
        while name in found:
            names.append(found[name])
            name = chr(ord(name) + 1) if name.isalpha() else str(int(name) + 1)
        if len(names) > 1:
            return names
    return []


def _without_trailing_blanks(options: Sequence[object]) -> list[object]:
    """Questions with fewer options than the table has columns leave the last ones empty."""
    kept = list(options)
    while kept and is_blank(kept[-1]):
        kept.pop()
    return kept


def _drop_missing(options: list[str], answer: int | None, where: str) -> tuple[list[str], int | None]:
    """MMLU-Pro fills questions of fewer options up with "N/A"."""
    if answer is not None and options[answer] == "N/A":
        fail(where, 'the answer is an option that is "N/A"')
    kept = [index for index, option in enumerate(options) if option != "N/A"]
    return [options[index] for index in kept], None if answer is None else kept.index(answer)


def _first(fields: Fields, keys: Sequence[str]) -> object:
    return next((fields[key] for key in keys if not is_blank(fields.get(key))), None)
