"""From whatever holds questions to what each model is given: read, rendered, drawn, in canonical order.

Knows no llama.cpp and no mathematics.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecal.api.loaded import LoadedQuestions, exceeds_a_fifth
from edgecal.errors import InputError
from edgecal.results import QuestionsResult

if TYPE_CHECKING:
    from edgecal.data import Data
    from edgecal.gguf.header import Header
    from edgecal.prompts import Prompt, PromptTemplate, Question

__all__ = [
    "PromptSource",
    "QuestionOptions",
    "data_files",
    "load_prompts",
    "load_questions",
    "read_questions",
]

PathLike = str | Path
PromptSource = PathLike | Iterable["PathLike | Mapping[str, Any] | Question | Prompt"]


@dataclass(frozen=True)
class QuestionOptions:
    """How questions are read and put to a model.

    Attributes
    ----------
    template: a built-in template's name, Jinja text, the path of a Jinja file, or a `PromptTemplate`; None:
        "default". See `edgecal.prompts.resolve_template`.
    limit: draw so many questions, by `seed`; None takes all.
    seed: of the draw, of the worked examples and of options that are shuffled.
    format: what the files are (see `edgecal.data.FORMATS`); None finds out.
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
        """The files that these options name, over which no output may be written."""
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
            raise InputError("a source of worked examples needs a number of them (--shots)")
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
    chat_header: of the model whose own chat template is used, needed for `chat_template="own"`.
    labelled: only questions with an answer count; the others are skipped (an error if `strict`).

    Raises
    ------
    InputError: a file, a record or an option is wrong, more than a fifth of the rows do not fit, or nothing is left.
    """
    from edgecal.data import SkippedRow
    from edgecal.prompts import Prompting, canonical_pairs, draw_pairs, resolve_chat_template

    options.check()
    chat_template = resolve_chat_template(options.chat_template, chat_header)
    read = _read(source, options)
    skipped = list(read.skipped)
    records = list(read.records)
    n_read = len(records) + len(skipped)
    if exceeds_a_fifth(len(skipped), n_read):
        raise InputError(
            f"{skipped[0].where}: {skipped[0].reason} ({len(skipped)} of {n_read} rows do not fit, more than a fifth; "
            "edgecal questions shows how the data are read)"
        )
    if labelled:
        unlabelled = [record for record in records if record.answer is None]
        if unlabelled and (options.strict or len(unlabelled) == len(records)):
            raise InputError(
                f"{unlabelled[0].source}: there is no answer, and judging needs one; give data with answers (of a data "
                "set whose test answers are hidden, take the validation part)"
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
    questions: how; what it says of worked examples and of turns of a conversation is not used.

    Returns
    -------
    The questions in the order of the files, also where more rows do not fit than `fit` would take.

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
    """Reads and renders prompts as both models of a pair are given them, in their canonical order.

    A row that does not fit is an error, in files and records alike: a list of prompts could not tell what was skipped.

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
    """The files among what holds questions; standard input is none."""
    if source is None or isinstance(source, Mapping):
        return []
    items = [source] if isinstance(source, (str, Path)) else source
    return [Path(item) for item in items if isinstance(item, (str, Path)) and str(item) != "-"]
