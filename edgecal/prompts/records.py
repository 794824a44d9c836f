"""Defines questions and prompts, and the three forms of a record.

A `Question` is content: a text and its options. A `Prompt` is what a model is given: a text whose next token is to be
one of K labels, or the token ids themselves. A template renders the first to the second. As JSON, or as a row of a
table:

    {"question": "...", "choices": ["...", ...]}      rendered with a template later
    {"prompt": "...", "labels": [" A", " B", ...]}    taken verbatim
    {"tokens": [1, 5, ...], "choice_tokens": [7, 9]}  token ids for both models

Each may have "answer" (an index from 0 or a label; also as a text, or in a list of one) and "subject", and a question
may have "passage". "inclusion_probability" is the probability with which an answered record was chosen to be labelled
(see `fit_anchored`). Other keys are ignored. Null, NaN and blank texts count as missing.
"""

from __future__ import annotations

import json
import math
import re
import string
from collections.abc import Mapping
from dataclasses import dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from typing import NoReturn

from edgecal.errors import InputError
from edgecal.results.questions import PromptLine, QuestionLine, TokensLine

__all__ = [
    "LABEL_LETTERS",
    "Prompt",
    "Question",
    "check_prompt",
    "describe_record",
    "parse_record",
    "read_bank",
]

LABEL_LETTERS = string.ascii_uppercase
_MIN_CHOICES = 2
_MAX_CHOICES = len(LABEL_LETTERS)


@dataclass(frozen=True)
class Question:
    """A multiple-choice question; its options are labelled A, B, ... in order.

    Attributes
    ----------
    question: the text, not empty.
    choices: 2 to 26 distinct, non-empty texts.
    answer: index of the right choice, or None where unknown.
    subject: free text for grouping, or None.
    source: where it came from, for messages (`"file.jsonl, line 3"`).
    passage: a text to be read before the question, or None.
    inclusion_probability: with which it was chosen to be labelled, above 0 and at most 1; None where unknown.
    """

    question: str
    choices: tuple[str, ...]
    answer: int | None = None
    subject: str | None = None
    source: str = ""
    passage: str | None = None
    inclusion_probability: float | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The option letters, one for each choice."""
        return tuple(LABEL_LETTERS[: len(self.choices)])


@dataclass(frozen=True)
class Prompt:
    """One prompt with K labels, any of which can be the next token.

    Either `text` and `labels` are set, or `tokens` and `choice_tokens`; the other two are None.

    Attributes
    ----------
    text: the prompt.
    data: [start, stop), in characters, of the parts of `text` that come from data (a question, its options, ...),
        ascending. These are tokenized as plain text, whatever they spell. In the rest, and in all of a ready-made
        prompt, text that spells a control token becomes that token.
    labels: K label texts.
    labels_verbatim: True: a label is the exact text of one token (`" A"`). False: a label is a letter, and each
        model's tokenizer decides whether it takes a leading space.
    label_forms: for each label the texts that count as it (`("yes", "Yes", " yes")`); those that are one token where
        they stand are summed. None: the label itself alone.
    labels_alone: each label is the token that the tokenizer makes of it by itself, wherever it stands.
    tokens: the prompt's token ids, valid for both models. Nothing is added to them, not even BOS.
    choice_tokens: K token ids.
    answer: index of the right label, or None.
    subject, source, inclusion_probability: as in `Question`.
    """

    text: str | None = None
    labels: tuple[str, ...] | None = None
    labels_verbatim: bool = True
    tokens: tuple[int, ...] | None = None
    choice_tokens: tuple[int, ...] | None = None
    answer: int | None = None
    subject: str | None = None
    source: str = ""
    data: tuple[tuple[int, int], ...] = ()
    inclusion_probability: float | None = None
    label_forms: tuple[tuple[str, ...], ...] | None = None
    labels_alone: bool = False

    @property
    def n_choices(self) -> int:
        """K, the number of labels."""
        return len(self.labels if self.labels is not None else self.choice_tokens or ())


_FORMS = {"question": "choices", "prompt": "labels", "tokens": "choice_tokens"}
_MAX_TOKEN_ID = 2**31 - 1
_WHOLE = re.compile(r"[+-]?\d{1,18}(?:\.0+)?")
_WRAPPED_LETTER = re.compile(r"\(?([A-Za-z])[).]?")


def parse_record(record: object, source: str) -> Question | Prompt:
    """Checks a decoded record and makes a `Question` or a `Prompt` of it.

    Parameters
    ----------
    record: a mapping in one of this module's three forms.
    source: its place, for messages.

    Raises
    ------
    InputError: with the place, what was expected, and what was found.
    """
    if not isinstance(record, Mapping):
        _fail(source, f"expected a JSON object, got {_kind(record)}")
    forms = [form for form in _FORMS if not _is_blank(record.get(form))] or [
        form for form in _FORMS if record.get(form) is not None
    ]
    if len(forms) != 1:
        found = (
            f"got the keys {sorted(map(str, record))[:8]}" if not forms else f"got both {' and '.join(forms)}"
        )
        _fail(
            source,
            'expected one of "question" with "choices", "prompt" with "labels", '
            f'"tokens" with "choice_tokens"; {found}',
        )
    form = forms[0]
    options_key = _FORMS[form]
    if record.get(options_key) is None:
        _fail(source, f'"{form}" needs "{options_key}" beside it, which is missing')
    subject = _optional_text(record.get("subject"), "subject", source)
    chance = _probability(record.get("inclusion_probability"), source)

    if form == "tokens":
        tokens = _token_ids(record["tokens"], "tokens", source)
        if not tokens:
            _fail(source, '"tokens" is empty; a prompt needs at least one token')
        choice_tokens = _token_ids(record["choice_tokens"], "choice_tokens", source)
        _check_count(len(choice_tokens), options_key, source)
        if len(set(choice_tokens)) < len(choice_tokens):
            _fail(source, '"choice_tokens" holds the same id twice; each choice needs a token of its own')
        answer = _answer(record.get("answer"), (), (), len(choice_tokens), source)
        return Prompt(
            tokens=tokens,
            choice_tokens=choice_tokens,
            answer=answer,
            subject=subject,
            source=source,
            inclusion_probability=chance,
        )

    text = _number_text(record[form])
    if not isinstance(text, str) or not text.strip():
        _fail(source, f'"{form}" must be non-empty text, got {_kind(text)}')
    _check_unicode(text, form, source)
    options = _texts(record[options_key], options_key, source, strip=form == "question")
    if form == "question":
        letters = tuple(LABEL_LETTERS[: len(options)])
        answer = _answer(record.get("answer"), letters, options, len(options), source)
        passage = _optional_text(record.get("passage"), "passage", source)
        return Question(text, options, answer, subject, source, passage, chance)
    answer = _answer(record.get("answer"), options, (), len(options), source)
    return Prompt(
        text=text,
        labels=options,
        answer=answer,
        subject=subject,
        source=source,
        inclusion_probability=chance,
    )


def describe_record(item: Question | Prompt) -> QuestionLine | PromptLine | TokensLine:
    """The JSON-ready record of which `parse_record` makes the same object, its source aside."""
    line: QuestionLine | PromptLine | TokensLine
    if isinstance(item, Question):
        line = {"question": item.question, "choices": list(item.choices)}
        if item.passage is not None:
            line = {"passage": item.passage, **line}
    elif item.text is not None:
        line = {"prompt": item.text, "labels": list(item.labels or ())}
    else:
        line = {"tokens": list(item.tokens or ()), "choice_tokens": list(item.choice_tokens or ())}
    if item.answer is not None:
        line["answer"] = item.answer
    if item.subject is not None:
        line["subject"] = item.subject
    if item.inclusion_probability is not None:
        line["inclusion_probability"] = item.inclusion_probability
    return line


def check_prompt(item: Question | Prompt, source: str) -> Question | Prompt:
    """Checks an object made in Python by the rules for records.

    Returns
    -------
    The same object, with `source` if it has none of its own.

    Raises
    ------
    InputError: as `parse_record`.
    """
    item = item if item.source else replace(item, source=source)
    # Not by `describe_record`, which takes for granted that a prompt has either a text or tokens.
    record = {"prompt" if name == "text" else name: value for name, value in vars(item).items()}
    parse_record(record, item.source)
    if not isinstance(item, Prompt) or item.label_forms is None:
        return item
    texts = [text for of_label in item.label_forms for text in of_label]
    if len(item.label_forms) != item.n_choices or not all(isinstance(text, str) and text for text in texts):
        _fail(item.source, "label_forms must hold, for each label, the texts that count as it")
    return item


def _texts(value: object, key: str, source: str, *, strip: bool) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)):
        _fail(source, f'"{key}" must be a list of texts, got {_kind(value)}')
    _check_count(len(value), key, source)
    texts: list[str] = []
    for index, item in enumerate(map(_number_text, value)):
        if not isinstance(item, str):
            _fail(source, f'"{key}" item {index} must be a text, got {_kind(item)}')
        if not item or (strip and not item.strip()):
            _fail(source, f'"{key}" item {index} is empty; every choice needs a text')
        _check_unicode(item, f"{key} item {index}", source)
        texts.append(item)
    seen: dict[str, int] = {}
    for index, item in enumerate(texts):
        first = seen.setdefault(item.strip() if strip else item, index)
        if first != index:
            _fail(
                source,
                f'"{key}" items {first} and {index} are the same ({item.strip()!r}); choices must differ',
            )
    return tuple(texts)


def _check_unicode(text: str, what: str, source: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        _fail(
            source,
            f'"{what}" holds half of a surrogate pair (character {error.start}), which is not valid text',
        )


def _optional_text(value: object, what: str, source: str) -> str | None:
    """A text, a number as a text, or None."""
    if _is_blank(value):
        return None
    text = _number_text(value)
    if not isinstance(text, str):
        _fail(source, f'"{what}" must be a text, got {_kind(value)}')
    _check_unicode(text, what, source)
    return text


def _is_blank(value: object) -> bool:
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, Real) and value != value)


def _number_text(value: object) -> object:
    """A number as a text; anything else, also NaN, unchanged."""
    if isinstance(value, str):
        return value
    is_number = isinstance(value, Real) and not isinstance(value, bool) and value == value
    return str(value) if is_number else value


def _probability(value: object, source: str) -> float | None:
    """A number above 0 and at most 1, or None."""
    if _is_blank(value):
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(str(value))
    except ValueError:
        number = math.nan
    if not 0 < number <= 1:
        _fail(
            source, f'"inclusion_probability" must be a number above 0 and at most 1, got {str(value)!r:.40}'
        )
    return number


def _token_ids(value: object, key: str, source: str) -> tuple[int, ...]:
    if not isinstance(value, (list, tuple)):
        _fail(source, f'"{key}" must be a list of token ids, got {_kind(value)}')
    ids = []
    for index, item in enumerate(value):
        number = _whole_number(item)
        if number is None or not 0 <= number <= _MAX_TOKEN_ID:
            _fail(source, f'"{key}" item {index} must be a token id (an integer from 0), got {item!r:.40}')
        ids.append(number)
    return tuple(ids)


def _whole_number(value: object) -> int | None:
    """The integer that a value is or spells (`3`, `3.0`, `"3"`, or numpy's), else None; booleans are none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        return int(float(value)) if _WHOLE.fullmatch(value.strip()) else None
    if isinstance(value, Integral):
        return int(value)
    return int(float(value)) if isinstance(value, Real) and float(value).is_integer() else None


def _check_count(count: int, key: str, source: str) -> None:
    if not _MIN_CHOICES <= count <= _MAX_CHOICES:
        _fail(source, f'"{key}" must hold {_MIN_CHOICES} to {_MAX_CHOICES} items, got {count}')


def _answer(
    value: object, labels: tuple[str, ...], texts: tuple[str, ...], n_choices: int, source: str
) -> int | None:
    """The index of the right choice, from an index or a label; the case of letters is ignored. A text that is an index
    and also the text of another option is refused."""
    if isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    if _is_blank(value):
        return None
    number = _whole_number(value)
    if isinstance(value, str):
        if value in labels:
            return labels.index(value)
        stripped = [label.strip() for label in labels]
        if stripped.count(value.strip()) == 1:
            return stripped.index(value.strip())
        match = _WRAPPED_LETTER.fullmatch(value.strip())
        if match and match.group(1).upper() in (labels if texts else ()):
            return labels.index(match.group(1).upper())
        meant = [index for index, text in enumerate(texts) if text.strip() == value.strip()]
        if number is not None and 0 <= number < n_choices and meant not in ([], [number]):
            _fail(
                source,
                f'"answer" {value!r} may be the index of {texts[number]!r:.40} or choice {meant[0]} itself; give the '
                "index as a number, or a letter",
            )
    if number is not None and 0 <= number < n_choices:
        return number
    wanted = f" or one of the labels {', '.join(map(repr, labels))}" if labels and number is None else ""
    _fail(source, f'"answer" must be an index from 0 to {n_choices - 1}{wanted}, got {value!r:.60}')


def _kind(value: object) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object"}
    if isinstance(value, str):
        return "an empty text" if not value.strip() else f"the text {value!r:.40}"
    return names.get(type(value), type(value).__name__)


def _fail(source: str, reason: str) -> NoReturn:
    raise InputError(f"{source}: {reason}")


_BANK_PATH = Path(__file__).with_name("bank.jsonl")


def read_bank() -> list[Question]:
    """The built-in bank of questions over many subjects, without answers, for users who have no prompts of their
    own."""
    lines = _BANK_PATH.read_text("utf-8").splitlines()
    records = [parse_record(json.loads(line), f"the bank, line {n}") for n, line in enumerate(lines, start=1)]
    return [record for record in records if isinstance(record, Question)]
