"""From a row's values to a question whose answer is still to be read.

Knows roles and options; what answers mean is decided over the whole data set later.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from edgecal.data.fields import (
    Fields,
    as_list,
    as_text,
    is_blank,
    parsed,
    running_text,
    subject_text,
    whole_number,
)
from edgecal.data.model import fail
from edgecal.data.options import Options, carried_labels, options_from_columns, read_options
from edgecal.data.roles import Roles
from edgecal.data.spelling import Shown, Spelled, spell
from edgecal.prompts import Prompt, parse_record

__all__ = ["Asked", "read_prompt", "read_record", "take_off_labels"]

_PADDING = "N/A"
_LISTS = ("labels", "tokens", "choice_tokens")


@dataclass(slots=True)
class Asked:
    """A question as it stands in a row.

    Attributes
    ----------
    question, passage, subject: as in `Question`.
    shown: its options.
    held: what the columns of answers hold.
    right: the right option where the row itself says so, else None.
    answers: `held` as far as it says anything, by column; empty until `look_at_answers`.
    """

    question: str
    passage: str | None
    subject: str | None
    shown: Shown
    held: tuple[tuple[str, object], ...]
    right: int | None = None
    answers: dict[str, Spelled] = field(default_factory=dict)

    def look_at_answers(self) -> None:
        """Fills `answers`. Raises InputError where there are several right ones."""
        for column, value in self.held:
            spelled = spell(value, self.shown)
            if spelled is not None:
                self.answers[column] = spelled


def read_record(fields: Fields, roles: Roles, where: str, *, seed: int, subject: str | None) -> Asked:
    """Reads one row.

    Parameters
    ----------
    fields: its values.
    roles: which of them is what.
    where: its place.
    seed: of the order of options that come with the right one first.
    subject: for rows that say nothing of it.

    Raises
    ------
    InputError: the question or an option is missing or is no text.
    """
    passages = [running_text(fields.get(key), "the passage", where) for key in roles.passages]
    held = fields.get(roles.question)
    if is_blank(held) and any(passages):  # an instruction alone is the question
        held = next(passage for passage in passages if passage)
        passages = [passage for passage in passages if passage != held]
    question = as_text(held, "the question", where)
    right: int | None = None
    if roles.right is not None:
        options, right = _shuffled(fields, roles, question, where, seed)
    elif len(roles.options) > 1:
        options = options_from_columns([fields.get(key) for key in roles.options], roles.labels, where)
    else:
        options = read_options(fields.get(roles.options[0]), where)
        if "answer_index" in roles.answers:  # MMLU-Pro fills questions of fewer options up
            options = _without_padding(options)
    own = next((text for key in roles.subjects if (text := subject_text(fields.get(key)))), subject)
    return Asked(
        question,
        "\n\n".join(passage for passage in passages if passage) or None,
        own,
        Shown(
            where,
            options.texts,
            options.labels,
            roles.options if len(roles.options) > 1 else (),
            options.numbers,
        ),
        tuple((key, fields.get(key)) for key in roles.answers),
        options.right if right is None else right,
    )


def take_off_labels(rows: Sequence[Asked]) -> list[Asked | None]:
    """Takes `B. `, `(B) ` or `2) ` off the options of a file where every option of a question carries another one,
    and has them for labels.

    Numbers count as labels where all questions of the file carry them.

    Returns
    -------
    For each question None if its options carry letters with a gap, while others of the file carry them without.
    """
    found = [carried_labels(row.shown.texts) for row in rows]
    n_even = sum(item is not None and not item.has_gap for item in found)
    n_labelled = n_even + sum(row.shown.labels is not None for row in rows)
    made: list[Asked | None] = []
    for row, item in zip(rows, found, strict=True):
        if item is None:
            made.append(row)
        elif item.has_gap:
            made.append(None if n_labelled * 2 >= len(rows) else row)
        elif (item.labels[0].isdecimal() and n_even < len(rows)) or row.shown.labels not in (
            None,
            item.labels,
        ):
            made.append(row)
        else:
            made.append(replace(row, shown=row.shown._replace(texts=item.texts, labels=item.labels)))
    return made


def _shuffled(fields: Fields, roles: Roles, question: str, where: str, seed: int) -> tuple[Options, int]:
    """The right option and the others, in an order drawn from the seed and this row's own texts, so that neither
    other rows nor the order in which the file lists them matter."""
    assert roles.right is not None
    right = as_text(fields.get(roles.right), "the right answer", where)
    wrong = []
    for key in roles.wrong:
        held = parsed(fields.get(key))
        items = held if isinstance(held, (list, tuple)) else [held]
        wrong += [as_text(item, "a wrong answer", where) for item in items if not is_blank(item)]
    if not wrong:
        fail(where, "there is no wrong answer beside the right one")
    texts = sorted([right, *wrong], key=lambda option: _draw(seed, question, option))
    return Options(tuple(texts)), texts.index(right)


def _draw(seed: int, question: str, option: str) -> bytes:
    content = json.dumps([seed, question, option]).encode()
    return hashlib.sha256(content).digest()


def _without_padding(options: Options) -> Options:
    n = len(options.texts)
    while n > 2 and options.texts[n - 1] == _PADDING:
        n -= 1
    return Options(options.texts[:n], None if options.labels is None else options.labels[:n])


def read_prompt(fields: Fields, where: str) -> Prompt | None:
    """A ready-made prompt, of text with labels or of tokens; lists may be the texts that a table keeps of them.

    Returns
    -------
    None if the row is none.

    Raises
    ------
    InputError: it breaks a rule of `edgecal.prompts`.
    """
    is_text = not is_blank(fields.get("prompt")) and not is_blank(fields.get("labels"))
    if not is_text and is_blank(fields.get("tokens")) and is_blank(fields.get("choice_tokens")):
        return None
    own = {
        key: fields[key] for key in (*_LISTS, "prompt", "answer", "subject") if not is_blank(fields.get(key))
    }
    own |= {key: parsed(own[key]) for key in _LISTS if key in own}
    if whole_number(own.get("answer")) == -1 and "-1" not in as_list(own.get("labels", []), "labels", where):
        del own["answer"]
    prompt = parse_record(own, where)
    assert isinstance(prompt, Prompt)
    return prompt
