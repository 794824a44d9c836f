"""Loads questions from any source and makes each model's prompts: read, drawn, rendered, in canonical order.

Questions that do not fit a model (too long for its context, a label that is not a single token) are skipped: a run
refuses the first of them before it computes anything, and only then are the others looked for.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from edgecal.errors import InputError, ModelError
from edgecal.results import QuestionsResult

if TYPE_CHECKING:
    from edgecal.data import Data, SkippedRow
    from edgecal.gguf.header import Header
    from edgecal.pair.run import RunOptions
    from edgecal.prompts import Prompt, Prompting, PromptPair, PromptTemplate, Question
    from edgecal.results.judging import AskedQuestion
    from edgecal.results.questions import DataRead, PromptingUsed

__all__ = [
    "LoadedQuestions",
    "PromptSource",
    "QuestionOptions",
    "data_files",
    "exceeds_a_fifth",
    "load_prompts",
    "load_questions",
    "read_fitting",
    "read_questions",
    "run_those_that_fit",
]

_SHOWN_SKIPPED = 20


@dataclass(frozen=True)
class LoadedQuestions:
    """Questions with the models' prompts.

    Attributes
    ----------
    pairs: in canonical order.
    prompting: how they were rendered.
    files, formats: the files that were read, and the format of each.
    n_read: rows, the skipped ones included.
    skipped: rows that do not fit in the files' order, then those without an answer, then those that do not fit
        a model.
    notes: remarks on how the files were read.
    decisions: what was decided for the data as a whole, such as what answers are counted from.
    label_files: where the labels of an anchored fit were read; files of these are in `files` too.
    """

    pairs: tuple[PromptPair, ...]
    prompting: Prompting
    files: tuple[str, ...]
    formats: tuple[str, ...]
    n_read: int
    skipped: tuple[SkippedRow, ...]
    notes: tuple[str, ...]
    decisions: tuple[str, ...] = ()
    label_files: tuple[str, ...] = ()

    @property
    def base(self) -> list[Prompt]:
        """The base model's prompts."""
        return [pair.base for pair in self.pairs]

    @property
    def chat(self) -> list[Prompt]:
        """The chat model's prompts."""
        return [pair.chat for pair in self.pairs]

    @property
    def records(self) -> list[Question | Prompt]:
        """The questions before rendering; ready-made prompts as they came."""
        return [pair.base if pair.question is None else pair.question for pair in self.pairs]

    @property
    def n_choices(self) -> npt.NDArray[np.int32]:
        """int32 [n], number of choices."""
        return np.array([pair.base.n_choices for pair in self.pairs], dtype=np.int32)

    @property
    def labels(self) -> npt.NDArray[np.int32]:
        """int32 [n], index of the right choice, -1 where there is none."""
        answers = [pair.base.answer for pair in self.pairs]
        return np.array([-1 if answer is None else answer for answer in answers], dtype=np.int32)

    @property
    def label_weights(self) -> npt.NDArray[np.float64] | None:
        """float64 [n], the inverse of the probability with which each labelled question was chosen to be labelled, NaN
        for the others; None where these probabilities are not known."""
        chances = [pair.base.inclusion_probability for pair in self.pairs]
        if all(chance is None for chance in chances):
            return None
        return np.array([math.nan if chance is None else 1.0 / chance for chance in chances])

    @property
    def subjects(self) -> list[str | None]:
        """Each question's subject."""
        return [pair.base.subject for pair in self.pairs]

    def take(self, indices: Sequence[int]) -> LoadedQuestions:
        """Some of the questions, in the order of the indices; the others count as read."""
        return replace(self, pairs=tuple(self.pairs[index] for index in indices))

    def without(self, misfits: Mapping[int, str]) -> LoadedQuestions:
        """The questions without some (index to reason) that do not fit a model; these count as skipped.

        Raises
        ------
        InputError: they are more than a fifth of all.
        """
        from edgecal.data import SkippedRow

        if exceeds_a_fifth(len(misfits), len(self.pairs)):
            first = misfits[min(misfits)]
            raise InputError(
                f"{first} ({len(misfits)} of {len(self.pairs)} questions do not fit, more than a fifth)"
            )
        places = {index: self.pairs[index].base.source for index in sorted(misfits)}
        return replace(
            self,
            pairs=tuple(pair for index, pair in enumerate(self.pairs) if index not in misfits),
            skipped=(
                *self.skipped,
                *(SkippedRow(where, misfits[i].removeprefix(f"{where}: ")) for i, where in places.items()),
            ),
        )

    def describe_pairs(self) -> list[AskedQuestion]:
        """Each question for people."""
        return [_describe(pair) for pair in self.pairs]

    def compute_sha256(self, *, with_answers: bool) -> str:
        """SHA-256 (hex) of the models' prompts, independent of the files' order.

        It is that of the base model's prompts or, if the chat model's differ, that of both hashes joined.
        """
        from edgecal.prompts import compute_prompts_sha256

        plain = compute_prompts_sha256(self.base, with_answers=with_answers)
        if all(pair.chat is pair.base for pair in self.pairs):
            return plain
        turns = compute_prompts_sha256(self.chat, with_answers=with_answers)
        return hashlib.sha256((plain + turns).encode()).hexdigest()

    def describe(self, options: QuestionOptions, *, with_answers: bool = True) -> DataRead:
        """What was read, as plain values (the `data` of a result). `with_answers`: the hash covers the answers too."""
        return {
            "files": list(self.files),
            "formats": list(self.formats),
            "decisions": list(self.decisions),
            "n_read": self.n_read,
            "n_questions": len(self.pairs),
            "n_skipped": len(self.skipped),
            "skipped": [{"where": row.where, "reason": row.reason} for row in self.skipped[:_SHOWN_SKIPPED]],
            "sha256": self.compute_sha256(with_answers=with_answers),
            "limit": options.limit,
            "seed": options.seed,
            "subjects": list(options.subjects) or None,
        }

    def describe_prompting(self) -> PromptingUsed:
        """How the questions were put, as plain values."""
        chat = self.prompting.chat_template
        return {
            "template": self.prompting.template.name,
            "shots": self.prompting.n_shots,
            "chat_template": None if chat is None else chat.name,
        }

    def warnings(self) -> list[str]:
        """One line for each remark, and one for what was skipped."""
        found = list(self.notes)
        chat = self.prompting.chat_template
        if chat is not None and chat.warning is not None:
            found.append(chat.warning)
        if self.skipped:
            first = self.skipped[0]
            more = f" and {len(self.skipped) - 1} more" if len(self.skipped) > 1 else ""
            found.append(
                f"{len(self.skipped)} of {self.n_read} rows do not fit and were skipped: {first.where}: "
                f"{first.reason}{more} (--strict stops at the first)"
            )
        return found


def _describe(pair: PromptPair) -> AskedQuestion:
    prompt, question = pair.base, pair.question
    if question is not None:
        text = question.question if question.passage is None else f"{question.passage}\n\n{question.question}"
        choices = list(question.choices)
    else:
        text = prompt.text if prompt.text is not None else f"{len(prompt.tokens or ())} tokens"
        choices = [str(label) for label in prompt.labels or prompt.choice_tokens or ()]
    return {
        "where": prompt.source,
        "subject": prompt.subject,
        "question": text,
        "choices": choices,
    }


def exceeds_a_fifth(n_misfits: int, n: int) -> bool:
    """Whether more than a fifth of n do not fit, so that the data were probably misread."""
    return n_misfits * 5 > n


PathLike = str | Path
PromptSource = PathLike | Iterable["PathLike | Mapping[str, Any] | Question | Prompt"]


@dataclass(frozen=True)
class QuestionOptions:
    """How questions are read and put to a model.

    Attributes
    ----------
    template: a built-in template's name, Jinja text, the path of a Jinja file, or a `PromptTemplate`; None:
        "default". See `edgecal.prompts.resolve_template`.
    limit: draw this many questions, by `seed`; None takes all.
    seed: seed of the draw, of the worked examples and of shuffled options.
    format: format of the files (see `edgecal.data.FORMATS`); None recognises it.
    mapping: which columns hold what, for files that no reader recognises; see `edgecal.data.read_data`.
    strict: a row that does not fit is an error instead of being skipped.
    subjects: only these; empty takes all.
    shots: worked examples before each question.
    shots_from: a file or folder of questions with answers to take them from; None: the data themselves.
    chat_template: "own" (the template in the chat model's file) or the path of a Jinja file: the chat model is
        asked in a turn of a conversation, while the base model stays plain; None: both plain. See
        `edgecal.prompts.resolve_chat_template`.
    """

    template: PathLike | PromptTemplate | None = None
    limit: int | None = None
    seed: int = 0
    format: str | None = None
    mapping: Mapping[str, object] | None = None
    strict: bool = False
    subjects: Sequence[str] = ()
    shots: int = 0
    shots_from: PathLike | None = None
    chat_template: PathLike | None = None

    @cached_property
    def prompt_template(self) -> PromptTemplate:
        """What `template` means; its file is read once."""
        from edgecal.prompts import resolve_template

        return resolve_template(self.template)

    @property
    def files(self) -> list[Path]:
        """The files that these options name, which no output may overwrite."""
        from edgecal.prompts import OWN_CHAT_TEMPLATE

        chat_template = None if self.chat_template == OWN_CHAT_TEMPLATE else self.chat_template
        named = (self.shots_from, self.prompt_template.path, chat_template)
        return [Path(path) for path in named if path is not None]

    def check(self) -> None:
        """Raises InputError for a number out of range, and for a template that cannot be found or used."""
        if self.limit is not None and self.limit < 1:
            raise InputError(f"the limit of prompts must be at least 1, got {self.limit}")
        if not 0 <= self.seed < 2**64:
            raise InputError(f"the seed is {self.seed}, expected 0 to 2^64 - 1")
        if self.shots < 0:
            raise InputError(f"the number of worked examples must be at least 0, got {self.shots}")
        if self.shots_from is not None and self.shots == 0:
            raise InputError("a source of worked examples was given, but not how many to show (--shots)")
        _ = self.prompt_template


def load_questions(
    source: PromptSource | None,
    options: QuestionOptions,
    *,
    chat_header: Header | None = None,
    labelled: bool = False,
) -> LoadedQuestions:
    """Reads questions, renders them for each model and puts them in canonical order.

    Parameters
    ----------
    source: files, folders or records; None takes the built-in bank.
    options: how.
    chat_header: the chat model's header, needed for `chat_template="own"`.
    labelled: keep only questions with an answer; the others are skipped (an error if `strict`).

    Raises
    ------
    InputError: a file, a record or an option is wrong, more than a fifth of the rows do not fit, or nothing is left.
    """
    from edgecal.data import SkippedRow
    from edgecal.prompts import Prompting, canonical_pairs, draw_pairs, resolve_chat_template

    options.check()
    chat_template = resolve_chat_template(options.chat_template, chat_header)
    read = read_fitting(source, options)
    skipped = list(read.skipped)
    records = list(read.records)
    n_read = len(records) + len(skipped)
    if labelled:
        unlabelled = [record for record in records if record.answer is None]
        if unlabelled and (options.strict or len(unlabelled) == len(records)):
            raise InputError(
                f"{unlabelled[0].source}: there is no answer, and judging needs one; give data with answers (for a "
                "data set whose test answers are hidden, the validation split)"
            )
        skipped.extend(SkippedRow(record.source, "there is no answer") for record in unlabelled)
        records = [record for record in records if record.answer is not None]
    if not records:
        raise InputError("there are no prompts; give at least one question (see edgecal fit --help)")
    pool = list(read.worked)
    prompting = Prompting(
        options.prompt_template,
        n_shots=options.shots,
        seed=options.seed,
        pool=pool,
        chat_template=chat_template,
    )
    pairs = prompting.render(records)
    ordered = (
        canonical_pairs(pairs) if options.limit is None else draw_pairs(pairs, options.limit, options.seed)
    )
    return LoadedQuestions(
        pairs=tuple(ordered),
        prompting=prompting,
        files=read.files,
        formats=read.formats,
        n_read=n_read,
        skipped=tuple(skipped),
        notes=read.notes,
        decisions=read.decisions,
    )


def read_questions(source: PromptSource, *, questions: QuestionOptions | None = None) -> QuestionsResult:
    """Reads questions as `fit`, `evaluate` and `compare` do, and shows how they were read. No model is needed.

    Parameters
    ----------
    source: files or folders (see `edgecal.data`), or records (see `fit`).
    questions: how they are read; worked examples and chat templates are ignored.

    Returns
    -------
    The questions in the order of the files, even if more rows do not fit than `fit` would accept.

    Raises
    ------
    InputError: a file, a row (if `questions.strict`), the template or an option is wrong, or there is no question.
    """
    from edgecal.prompts import Prompting, describe_record, draw_pairs

    options = questions or QuestionOptions()
    options.check()
    read = _read(source, options)
    prompting = Prompting(options.prompt_template)
    pairs = prompting.render(read.records)
    if options.limit is not None:
        drawn = set(map(id, draw_pairs(pairs, options.limit, options.seed)))
        pairs = [pair for pair in pairs if id(pair) in drawn]
    n_read = len(read.records) + len(read.skipped)
    loaded = LoadedQuestions(
        tuple(pairs), prompting, read.files, read.formats, n_read, read.skipped, read.notes, read.decisions
    )
    warnings = loaded.warnings()
    if exceeds_a_fifth(len(read.skipped), n_read):
        warnings.append(
            "more than a fifth of the rows do not fit, so that fit, eval and compare refuse these data"
        )
    return QuestionsResult(
        questions=[describe_record(record) for record in loaded.records],
        sources=[prompt.source for prompt in loaded.base],
        prompts=[prompt.text or list(prompt.tokens or ()) for prompt in loaded.base],
        data=loaded.describe(options),
        warnings=warnings,
    )


def read_fitting(source: PromptSource | None, options: QuestionOptions) -> Data:
    """Reads records from any source; InputError if a file cannot be read, or more than a fifth of the rows do not
    fit."""
    read = _read(source, options)
    n_read = len(read.records) + len(read.skipped)
    if exceeds_a_fifth(len(read.skipped), n_read):
        first = read.skipped[0]
        raise InputError(
            f"{first.where}: {first.reason} ({len(read.skipped)} of {n_read} rows do not fit, more than a fifth; "
            "edgecal questions shows how the data are read)"
        )
    return read


def _read(source: PromptSource | None, options: QuestionOptions) -> Data:
    from edgecal.data import Data, read_data
    from edgecal.prompts import Question, read_bank

    if source is None:
        bank = Data(tuple(read_bank()), files=("the built-in bank",), formats=("edgecal",))
        if options.shots_from is None:
            return bank
        given = _read([options.shots_from], replace(options, shots_from=None, subjects=()))
        worked = [item for item in (*given.worked, *given.records) if isinstance(item, Question)]
        return replace(bank, worked=tuple(worked))
    if isinstance(source, Mapping):
        raise InputError("the prompts are one record; give a list of records, or a file")
    items = [source] if isinstance(source, (str, Path)) else list(source)
    if not items:
        raise InputError("there are no prompts; give at least one question (see edgecal fit --help)")
    return read_data(
        [item for item in items if isinstance(item, (str, Path))],
        format=options.format,
        mapping=options.mapping,
        strict=options.strict,
        seed=options.seed,
        subjects=options.subjects,
        worked_from=options.shots_from,
        python_records=[
            (f"prompt {number}", item)
            for number, item in enumerate(items, start=1)
            if not isinstance(item, (str, Path))
        ],
    )


def load_prompts(
    source: PromptSource | None = None,
    *,
    template: PathLike | PromptTemplate | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> list[Prompt]:
    """Reads questions and renders the same prompts for both models of a pair, in canonical order.

    A row that does not fit is an error, in files and records alike, since a list of prompts could not report what was
    skipped.

    Parameters
    ----------
    source, template, limit, seed: as in `fit`.

    Raises
    ------
    InputError: a record or the template is wrong, or there is no prompt at all.
    """
    options = QuestionOptions(template=template, limit=limit, seed=seed, strict=True)
    return load_questions(source, options).base


def data_files(source: PromptSource | None) -> list[Path]:
    """The files among sources of questions; standard input does not count."""
    if source is None or isinstance(source, Mapping):
        return []
    items = [source] if isinstance(source, (str, Path)) else source
    return [Path(item) for item in items if isinstance(item, (str, Path)) and str(item) != "-"]


Result = TypeVar("Result")


def run_those_that_fit(
    loaded: LoadedQuestions,
    run: Callable[[LoadedQuestions], Result],
    models: Sequence[tuple[str, str, Callable[[LoadedQuestions], Sequence[Prompt]]]],
    *,
    strict: bool,
    options: RunOptions,
) -> tuple[LoadedQuestions, Result]:
    """Runs models over the questions that fit all of them.

    Parameters
    ----------
    loaded: the questions.
    run: runs the models over all questions that it gets.
    models: each one's path, role and prompts.
    strict: a question that does not fit is an error.
    options: how models are run.

    Returns
    -------
    The questions that were run, the others counted as skipped, and what `run` returned.

    Raises
    ------
    InputError: as `run`, unless it is only about some of the questions; or more than a fifth do not fit.
    ModelError: a model could not be run.
    """
    from edgecal.pair.run import find_misfits

    try:
        return loaded, run(loaded)
    except InputError as error:
        if strict:
            raise
        misfits: dict[int, str] = {}
        try:
            for path, role, prompts in models:
                found = find_misfits(path, role, prompts(loaded), options=options)
                misfits |= dict(found) | misfits
        except ModelError:
            raise error from None
        if not 0 < len(misfits) < len(loaded.pairs):
            raise
    fitting = loaded.without(misfits)
    return fitting, run(fitting)
