"""A labelling session: the questions in their order, the answers so far, and the file that holds both.

The file is the session. After each answer it is written anew, whole and flushed to disk, because the inclusion
probabilities of all labels change with each. Nothing here knows of models, screens and keys.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict

from edgecal.errors import InputError, OutputError
from edgecal.results import LabelResult

if TYPE_CHECKING:
    from edgecal.calibration import AnchoredFit, ChoiceLogits
    from edgecal.calibration.anchored import Prior
    from edgecal.calibration.labelling import LabelOrder
    from edgecal.prompts import Prompt, Question
    from edgecal.results.questions import DataRead, PromptingUsed

__all__ = ["MIN_LABELS", "LabelSession", "LabelSource", "ShownQuestion", "read_source"]

MIN_LABELS: Final = (
    30  # before which no interval is narrow enough: a few labels say little of their own spread
)
_SOURCE: Final = (
    "label_source"  # in each line what it belongs to (readers take such a column for no part of the question)
)
_MANY_UNSURE: Final = 0.2


class LabelSource(TypedDict):
    """What labels belong to; a file of labels can only be continued with the same.

    base, chat, questions: digests of each model's content and of all prompts.
    seed: of the order.
    temperature: the one at which questions got their sizes.
    """

    base: str
    chat: str
    questions: str
    seed: int
    temperature: float


@dataclass(frozen=True)
class ShownQuestion:
    """A question as a person sees it.

    Attributes
    ----------
    text: passage and question, or the ready-made prompt.
    options: the key of each option, one character, and its text.
    """

    text: str
    options: tuple[tuple[str, str], ...]


class LabelSession:
    """Asks questions and keeps the answers.

    Attributes
    ----------
    answers: for each question asked so far the index of the right option; None is "unsure".
    fit: the temperature so far, an `AnchoredFit`.
    ratio: upper by lower end of an interval that is narrow enough.
    """

    def __init__(
        self,
        path: Path,
        source: LabelSource,
        records: Sequence[Question | Prompt],
        logits: ChoiceLogits,
        base_mass: float,
        prior: Prior,
        order: LabelOrder,
        *,
        ratio: float,
        data: DataRead,
        prompting: PromptingUsed,
        warnings: Sequence[str],
    ) -> None:
        """Continues the session in the file at `path`, if there is one. `label` makes the other arguments.

        Raises
        ------
        InputError: the file does not hold the first questions of this order.
        """
        self.ratio = ratio
        self._about = data, prompting, list(warnings)
        self._path, self._source, self._order = path, source, order
        self._records = [records[index] for index in order.order]
        self._logits, self._base_mass, self._prior = logits, base_mass, prior
        self._found = _identify(path)
        self.answers = self._read_answers()
        self.fit = self._fit(self.answers)

    @property
    def n_questions(self) -> int:
        """How many questions there are."""
        return len(self._records)

    @property
    def n_unsure(self) -> int:
        """How many were skipped."""
        return self.answers.count(None)

    @property
    def stopped(self) -> Literal["narrow", "all"] | None:
        """Why no more is asked: the interval is narrow enough, or all questions were asked; None while one is left."""
        low, high = self.fit.interval
        if self.fit.n_labelled >= MIN_LABELS and high / low <= self.ratio:
            return "narrow"
        return "all" if len(self.answers) == self.n_questions else None

    @property
    def question(self) -> ShownQuestion | None:
        """The question to be answered now; None if no more is asked."""
        return None if self.stopped else _show(self._records[len(self.answers)])

    def answer(self, choice: int | None) -> None:
        """Records the index of the right option of the present question, None for "unsure", and flushes it to disk.

        Raises
        ------
        InputError: there is no such option, or no more is asked.
        OutputError: the file could not be written; the answer does not count.
        """
        shown = self.question
        if shown is None:
            raise InputError("no more questions are asked")
        if choice is not None and not 0 <= choice < len(shown.options):
            raise InputError(f"there is no option {choice}, expected 0 to {len(shown.options) - 1}")
        self._keep([*self.answers, choice])

    def undo(self) -> bool:
        """Takes the last answer back, that of an earlier run too; False if there is none.

        Raises
        ------
        OutputError: the file could not be written; the answer still counts.
        """
        if not self.answers:
            return False
        self._keep(self.answers[:-1])
        return True

    def result(self) -> LabelResult:
        """What the labels say so far."""
        fit, n_asked = self.fit, len(self.answers)
        low, high = fit.interval
        data, prompting, warnings = self._about
        if self.n_unsure > _MANY_UNSURE * n_asked:
            warnings = [
                *warnings,
                f"{self.n_unsure} of {n_asked} questions were skipped as unsure: the temperature is that of questions "
                "like the labelled ones",
            ]
        return LabelResult(
            output=str(self._path),
            stopped=self.stopped or "left",
            n_labelled=fit.n_labelled,
            n_unsure=self.n_unsure,
            n_questions=self.n_questions,
            temperature=fit.temperature,
            interval=[low, high],
            ratio=high / low,
            wanted_ratio=self.ratio,
            prior_temperature=fit.prior_temperature,
            prior_interval=list(fit.prior_interval),
            doubt=fit.doubt,
            data=data,
            prompting=prompting,
            warnings=warnings,
        )

    def _fit(self, answers: Sequence[int | None]) -> AnchoredFit:
        from edgecal.calibration import fit_anchored

        labels = self._logits.labels.copy()
        labels[:] = -1
        labels[self._order.order[: len(answers)]] = [-1 if item is None else item for item in answers]
        return fit_anchored(
            replace(self._logits, labels=labels),
            self._base_mass,
            weights=self._order.weights(len(answers)),
            prior=self._prior,
        )

    def _keep(self, answers: list[int | None]) -> None:
        from edgecal.atomic_write import write_whole

        if _identify(self._path) != self._found:
            raise OutputError(
                f"{self._path}: another program has changed this file; start again to continue it"
            )
        lines = []
        for index, (answer, probability) in enumerate(
            zip(answers, self._order.inclusion_probabilities(len(answers)).tolist(), strict=True)
        ):
            line = _describe(self._records[index])
            if answer is not None:
                line |= {"answer": answer, "inclusion_probability": probability}
            lines.append(json.dumps({**line, _SOURCE: self._source}, ensure_ascii=False) + "\n")
        fit = self._fit(answers)
        write_whole(self._path, "".join(lines).encode())
        self.answers, self.fit, self._found = answers, fit, _identify(self._path)

    def _read_answers(self) -> list[int | None]:
        from edgecal.prompts import parse_record

        answers: list[int | None] = []
        for number, line in enumerate(_read_lines(self._path), start=1):
            where = f"{self._path}, line {number}"
            wanted = {} if number > self.n_questions else _describe(self._records[number - 1])
            if not wanted or any(line.get(key) != value for key, value in wanted.items()):
                raise InputError(
                    f"{where}: is not question {number} of this session; put the lines back, or give another --output"
                )
            answers.append(parse_record(line, where).answer)
        return answers


def read_source(path: Path, wanted: LabelSource) -> LabelSource | None:
    """What the labels in a file belong to; None if there is no file, or no line in it.

    Raises
    ------
    InputError: the file holds something else, or labels that belong to something else than `wanted` (its temperature
        aside).
    """
    source: LabelSource | None = None
    named = {"base": "another base model", "chat": "another chat model", "questions": "other questions"}
    for number, line in enumerate(_read_lines(path), start=1):
        where, found = f"{path}, line {number}", line.get(_SOURCE)
        if not (isinstance(found, dict) and found.keys() == wanted.keys()):
            raise InputError(f"{where}: was not written by edgecal label; give another --output")
        for name, value in wanted.items():
            if name != "temperature" and found[name] != value:
                what = named.get(name, f"the {name} {found[name]}")
                raise InputError(f"{where}: belongs to {what}; give the same again, or another --output")
        temperature = found["temperature"]
        if not (isinstance(temperature, float) and 0.0 < temperature < math.inf):
            raise InputError(f"{where}: the temperature is {temperature!r}, expected a number above 0")
        source = wanted | {"temperature": temperature}
    return source


def _read_lines(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise InputError(f"{path}: cannot be read: {reason}") from None
    lines = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise InputError(
                f"{path}, line {number}: was not written by edgecal label; give another --output"
            )
        lines.append(value)
    return lines


def _describe(record: Question | Prompt) -> dict[str, Any]:
    """The question as a line holds it, without what the data may say of its answer."""
    from edgecal.prompts import describe_record

    said = ("answer", "inclusion_probability")
    return {key: value for key, value in describe_record(record).items() if key not in said}


def _identify(path: Path) -> tuple[int, int, int] | None:
    """Changes with every change of a file; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _show(record: Question | Prompt) -> ShownQuestion:
    """Options go by their labels where each is one character, else by A, B, ..."""
    from edgecal.prompts import LABEL_LETTERS, Question

    if isinstance(record, Question):
        parts = [part for part in (record.passage, record.question) if part is not None]
        return ShownQuestion("\n\n".join(parts), tuple(zip(record.labels, record.choices, strict=True)))
    labels = record.labels or ()
    keys = [label.strip().upper() for label in labels]
    if not all(len(key) == 1 and key.isalnum() for key in keys) or len(set(keys)) < len(keys):
        keys = list(LABEL_LETTERS[: len(labels)])
    return ShownQuestion(record.text or "", tuple(zip(keys, labels, strict=True)))
