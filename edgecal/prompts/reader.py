"""The three forms of a record, as JSON or a table's row holds them, checked and made a `Question` or a `Prompt`.

    {"question": "...", "choices": ["...", ...]}      rendered with a template later
    {"prompt": "...", "labels": [" A", " B", ...]}    taken verbatim
    {"tokens": [1, 5, ...], "choice_tokens": [7, 9]}  ids for both models

Each may hold `"answer"` (an index from 0, or a label; also as a text, or in a list of one) and `"subject"`, a
question also `"passage"`; other keys are ignored. Null, NaN and a text of blanks are as no key.
Does not know templates or tokenizers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from numbers import Integral, Real
from typing import NoReturn

from edgecal.errors import InputError
from edgecal.prompts.model import LABEL_LETTERS, MAX_CHOICES, MIN_CHOICES, Prompt, Question

__all__ = ["check_prompt", "describe_record", "parse_record"]

_FORMS = {"question": "choices", "prompt": "labels", "tokens": "choice_tokens"}
_MAX_TOKEN_ID = 2**31 - 1
_WHOLE = re.compile(r"[+-]?\d{1,18}(?:\.0+)?")
_WRAPPED_LETTER = re.compile(r"\(?([A-Za-z])[).]?")


def parse_record(record: object, source: str) -> Question | Prompt:
    """Checks one decoded record and turns it into a `Question` or a `Prompt`.

    Parameters
    ----------
    record: what the JSON object decoded to, in one of the three forms of this module.
    source: where it stands, for messages.

    Raises
    ------
    InputError: with the source, what was expected and what was found.
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
            tokens=tokens, choice_tokens=choice_tokens, answer=answer, subject=subject, source=source
        )

    text = _number_text(record[form])
    if not isinstance(text, str) or not text.strip():
        _fail(source, f'"{form}" must be a text that is not empty, got {_kind(text)}')
    _check_unicode(text, form, source)
    options = _texts(record[options_key], options_key, source, strip=form == "question")
    if form == "question":
        letters = tuple(LABEL_LETTERS[: len(options)])
        answer = _answer(record.get("answer"), letters, options, len(options), source)
        passage = _optional_text(record.get("passage"), "passage", source)
        return Question(text, options, answer, subject, source, passage)
    answer = _answer(record.get("answer"), options, (), len(options), source)
    return Prompt(text=text, labels=options, answer=answer, subject=subject, source=source)


def describe_record(item: Question | Prompt) -> dict[str, object]:
    """The record that `parse_record` makes the same object of, but for its source; JSON-ready."""
    if isinstance(item, Question):
        values: dict[str, object] = {
            "passage": item.passage,
            "question": item.question,
            "choices": item.choices,
        }
    else:
        values = {"prompt": item.text, "labels": item.labels, "tokens": item.tokens}
        values |= {"choice_tokens": item.choice_tokens}
    values |= {"answer": item.answer, "subject": item.subject}
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in values.items()
        if value is not None
    }


def check_prompt(item: Question | Prompt, source: str) -> Question | Prompt:
    """Holds an object that was made in Python to the rules for records.

    Returns
    -------
    The same, with `source` as its source if it has none.

    Raises
    ------
    InputError: as `parse_record`.
    """
    item = item if item.source else replace(item, source=source)
    parse_record(describe_record(item), item.source)
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
        _fail(source, f'"{what}" holds half of a surrogate pair (character {error.start}), which is no text')


def _optional_text(value: object, what: str, source: str) -> str | None:
    """A text or None; also a number, as its text."""
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
    """A number's text; anything else, NaN too, as it is."""
    if isinstance(value, str):
        return value
    is_number = isinstance(value, Real) and not isinstance(value, bool) and value == value
    return str(value) if is_number else value


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
    """The integer that a value is or spells (`3`, numpy's, `3.0`, `"3"`), else None; truth values are none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        return int(float(value)) if _WHOLE.fullmatch(value.strip()) else None
    if isinstance(value, Integral):
        return int(value)
    return int(float(value)) if isinstance(value, Real) and float(value).is_integer() else None


def _check_count(count: int, key: str, source: str) -> None:
    if not MIN_CHOICES <= count <= MAX_CHOICES:
        _fail(source, f'"{key}" must hold {MIN_CHOICES} to {MAX_CHOICES} items, got {count}')


def _answer(
    value: object, labels: tuple[str, ...], texts: tuple[str, ...], n_choices: int, source: str
) -> int | None:
    """The index of the right choice: from 0, or a label, case aside if labels are letters only.

    A text that may be an index and, by `texts`, another option is refused.
    """
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
