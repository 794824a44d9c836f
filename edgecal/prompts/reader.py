"""Reads prompts from JSON Lines: one object a line, in one of three forms.

    {"question": "...", "choices": ["...", ...]}      rendered with a template later
    {"prompt": "...", "labels": [" A", " B", ...]}    taken verbatim
    {"tokens": [1, 5, ...], "choice_tokens": [7, 9]}  ids for both models

Each may hold `"answer"` (an index from 0, or a label) and `"subject"`, a question also `"passage"`; other keys are
ignored.
Does not know templates or tokenizers.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import NoReturn

from edgecal.errors import InputError
from edgecal.prompts.model import LABEL_LETTERS, MAX_CHOICES, MIN_CHOICES, Prompt, Question

__all__ = ["check_prompt", "parse_record", "read_json_lines"]

_FORMS = {"question": "choices", "prompt": "labels", "tokens": "choice_tokens"}
_MAX_TOKEN_ID = 2**31 - 1


def read_json_lines(path: str | Path) -> Iterator[Question | Prompt]:
    """Yields the records of a JSON Lines file; `-` is standard input.

    Blank lines are skipped and a UTF-8 byte order mark is accepted.

    Raises
    ------
    InputError: the file cannot be read, or a line is not valid; the message has the line's number.
    """
    name = "standard input" if str(path) == "-" else str(path)
    for number, line in _read_lines(path, name):
        source = f"{name}, line {number}"
        try:
            record = json.loads(line, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise InputError(
                f"{source}: not valid JSON ({reason}); expected one JSON object on each line"
            ) from None
        yield parse_record(record, source)


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
    forms = [form for form in _FORMS if form in record]
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
    if options_key not in record:
        _fail(source, f'"{form}" needs "{options_key}" beside it, which is missing')
    subject = record.get("subject")
    if subject is not None and not isinstance(subject, str):
        _fail(source, f'"subject" must be a text, got {_kind(subject)}')

    if form == "tokens":
        tokens = _token_ids(record["tokens"], "tokens", source)
        if not tokens:
            _fail(source, '"tokens" is empty; a prompt needs at least one token')
        choice_tokens = _token_ids(record["choice_tokens"], "choice_tokens", source)
        _check_count(len(choice_tokens), options_key, source)
        if len(set(choice_tokens)) < len(choice_tokens):
            _fail(source, '"choice_tokens" holds the same id twice; each choice needs a token of its own')
        answer = _answer(record.get("answer"), (), len(choice_tokens), source)
        return Prompt(
            tokens=tokens, choice_tokens=choice_tokens, answer=answer, subject=subject, source=source
        )

    text = record[form]
    if not isinstance(text, str) or not text.strip():
        _fail(source, f'"{form}" must be a text that is not empty, got {_kind(text)}')
    _check_unicode(text, form, source)
    options = _texts(record[options_key], options_key, source, strip=form == "question")
    if form == "question":
        letters = tuple(LABEL_LETTERS[: len(options)])
        answer = _answer(record.get("answer"), letters, len(options), source)
        return Question(text, options, answer, subject, source, _passage(record.get("passage"), source))
    answer = _answer(record.get("answer"), options, len(options), source)
    return Prompt(text=text, labels=options, answer=answer, subject=subject, source=source)


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
    values = {
        "question": item.question if isinstance(item, Question) else None,
        "choices": item.choices if isinstance(item, Question) else None,
        "passage": item.passage if isinstance(item, Question) else None,
        "prompt": item.text if isinstance(item, Prompt) else None,
        "labels": item.labels if isinstance(item, Prompt) else None,
        "tokens": item.tokens if isinstance(item, Prompt) else None,
        "choice_tokens": item.choice_tokens if isinstance(item, Prompt) else None,
        "answer": item.answer,
        "subject": item.subject,
    }
    parse_record({key: value for key, value in values.items() if value is not None}, item.source)
    return item


def _read_lines(path: str | Path, name: str) -> Iterator[tuple[int, str]]:
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else Path(path).read_bytes()
    except FileNotFoundError:
        raise InputError(
            f"{name}: no such file; --data takes a JSON Lines file or - for standard input"
        ) from None
    except IsADirectoryError:
        raise InputError(f"{name}: is a folder; --data takes a JSON Lines file") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise InputError(f"{name}: cannot be read ({getattr(error, 'strerror', error)})") from None
    for number, raw in enumerate(data.split(b"\n"), start=1):
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{name}, line {number}: not UTF-8 text (byte {error.start + 1} of the line is "
                f"0x{raw[error.start]:02x}); save the file as UTF-8"
            ) from None
        if line.strip():
            yield number, line


def _texts(value: object, key: str, source: str, *, strip: bool) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)):
        _fail(source, f'"{key}" must be a list of texts, got {_kind(value)}')
    _check_count(len(value), key, source)
    for index, item in enumerate(value):
        if not isinstance(item, str):
            _fail(source, f'"{key}" item {index} must be a text, got {_kind(item)}')
        if not item or (strip and not item.strip()):
            _fail(source, f'"{key}" item {index} is empty; every choice needs a text')
        _check_unicode(item, f"{key} item {index}", source)
    seen: dict[str, int] = {}
    for index, item in enumerate(value):
        first = seen.setdefault(item.strip() if strip else item, index)
        if first != index:
            _fail(
                source,
                f'"{key}" items {first} and {index} are the same ({item.strip()!r}); choices must differ',
            )
    return tuple(value)


def _check_unicode(text: str, what: str, source: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        _fail(source, f'"{what}" holds half of a surrogate pair (character {error.start}), which is no text')


def _passage(value: object, source: str) -> str | None:
    """A passage; null and one of blanks alone are none."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if not isinstance(value, str):
        _fail(source, f'"passage" must be a text, got {_kind(value)}')
    _check_unicode(value, "passage", source)
    return value


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
    """Also numpy's integers, which people have in Python; truth values are none."""
    return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else None


def _check_count(count: int, key: str, source: str) -> None:
    if not MIN_CHOICES <= count <= MAX_CHOICES:
        _fail(source, f'"{key}" must hold {MIN_CHOICES} to {MAX_CHOICES} items, got {count}')


def _answer(value: object, labels: tuple[str, ...], n_choices: int, source: str) -> int | None:
    if value is None:
        return None
    number = _whole_number(value)
    if number is not None:
        if 0 <= number < n_choices:
            return number
        _fail(source, f'"answer" must be an index from 0 to {n_choices - 1}, got {value}')
    if isinstance(value, str):
        if value in labels:
            return labels.index(value)
        stripped = [label.strip() for label in labels]
        if stripped.count(value.strip()) == 1:
            return stripped.index(value.strip())
    wanted = f" or one of the labels {', '.join(map(repr, labels))}" if labels else ""
    _fail(source, f'"answer" must be an index from 0 to {n_choices - 1}{wanted}, got {value!r:.60}')


def _kind(value: object) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object"}
    if isinstance(value, str):
        return "an empty text" if not value.strip() else f"the text {value!r:.40}"
    return names.get(type(value), type(value).__name__)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _fail(source: str, reason: str) -> NoReturn:
    raise InputError(f"{source}: {reason}")
