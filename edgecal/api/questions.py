"""From whatever holds questions to what each model is given: read, rendered, drawn, in canonical order.

Knows no llama.cpp and no mathematics.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgecal.errors import InputError

if TYPE_CHECKING:
    from edgecal.data import Data, SkippedRow
    from edgecal.gguf import Header
    from edgecal.prompts import ChatTemplate, Prompt, Prompting, PromptPair, PromptTemplate, Question

__all__ = [
    "OWN_CHAT_TEMPLATE",
    "LoadedQuestions",
    "PromptSource",
    "QuestionOptions",
    "data_files",
    "load_prompts",
    "load_questions",
]

PathLike = str | Path
PromptSource = PathLike | Iterable["PathLike | Mapping[str, Any] | Question | Prompt"]

OWN_CHAT_TEMPLATE = "own"
_SHOWN_SKIPPED = 20


@dataclass(frozen=True)
class QuestionOptions:
    """How questions are read and put to a model.

    Attributes
    ----------
    template: a built-in template's name, Jinja source or a `PromptTemplate`; None: "default".
    limit: draw so many questions, by `seed`; None takes all.
    seed: of the draw, of the worked examples and of options that are shuffled.
    format: what the files are (see `edgecal.data.FORMATS`); None finds out.
    strict: a row that does not fit is an error instead of being skipped.
    subjects: only these; empty takes all.
    shots: worked examples before each question.
    shots_from: a file or folder of questions with answers to take them from; None: the data themselves.
    chat_template: "own" (the chat model's own template, from its file) or a template's file: the chat model is
        asked in a turn of a conversation, while the base model stays plain; None: both plain.
    """

    template: str | PromptTemplate | None = None
    limit: int | None = None
    seed: int = 0
    format: str | None = None
    strict: bool = False
    subjects: Sequence[str] = ()
    shots: int = 0
    shots_from: PathLike | None = None
    chat_template: PathLike | None = None

    @property
    def files(self) -> list[Path]:
        """The files that these options name."""
        named: list[PathLike | None] = [self.shots_from, getattr(self.template, "path", None)]
        if self.chat_template is not None and str(self.chat_template) != OWN_CHAT_TEMPLATE:
            named.append(self.chat_template)
        return [Path(path) for path in named if path is not None]

    def check(self) -> None:
        """Raises InputError for numbers out of range."""
        if self.limit is not None and self.limit < 1:
            raise InputError(f"the limit of prompts must be at least 1, got {self.limit}")
        if not 0 <= self.seed < 2**64:
            raise InputError(f"the seed is {self.seed}, expected 0 to 2^64 - 1")
        if self.shots < 0:
            raise InputError(f"the number of worked examples must be at least 0, got {self.shots}")
        if self.shots_from is not None and self.shots == 0:
            raise InputError("a source of worked examples needs a number of them (--shots)")


@dataclass(frozen=True)
class LoadedQuestions:
    """Questions as the models are given them.

    Attributes
    ----------
    pairs: in canonical order.
    prompting: how they were rendered.
    files, formats: what was read, and as what.
    n_read: rows, the skipped ones included.
    skipped: rows that do not fit in the files' order, then those without an answer, then those that do not fit
        a model.
    notes: remarks on how the files were read.
    """

    pairs: tuple[PromptPair, ...]
    prompting: Prompting
    files: tuple[str, ...]
    formats: tuple[str, ...]
    n_read: int
    skipped: tuple[SkippedRow, ...]
    notes: tuple[str, ...]

    @property
    def base(self) -> list[Prompt]:
        """What a base model is given."""
        return [pair.base for pair in self.pairs]

    @property
    def chat(self) -> list[Prompt]:
        """What a chat model is given."""
        return [pair.chat for pair in self.pairs]

    @property
    def records(self) -> list[Question | Prompt]:
        """The questions before they were rendered; what came as a ready-made prompt is one still."""
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
    def subjects(self) -> list[str | None]:
        """Each question's subject."""
        return [pair.base.subject for pair in self.pairs]

    def take(self, indices: Sequence[int]) -> LoadedQuestions:
        """Some of the questions, in the order of the indices; the others count as read."""
        return replace(self, pairs=tuple(self.pairs[index] for index in indices))

    def without(self, misfits: Mapping[int, str]) -> LoadedQuestions:
        """Those that are left when some (index to reason) do not fit a model; these count as skipped."""
        from edgecal.data import SkippedRow

        places = {index: self.pairs[index].base.source for index in sorted(misfits)}
        return replace(
            self,
            pairs=tuple(pair for index, pair in enumerate(self.pairs) if index not in misfits),
            skipped=(
                *self.skipped,
                *(SkippedRow(where, misfits[i].removeprefix(f"{where}: ")) for i, where in places.items()),
            ),
        )

    def describe_pairs(self) -> list[dict[str, Any]]:
        """Each question for people: where, subject, question, choices, answer."""
        return [_describe(pair) for pair in self.pairs]

    def compute_sha256(self, *, with_answers: bool) -> str:
        """SHA-256 (hex) of what the models are given, whatever the files' order.

        That of the base model's prompts; where the chat model is given others, that of both hashes in a row.
        """
        from edgecal.prompts import compute_prompts_sha256

        plain = compute_prompts_sha256(self.base, with_answers=with_answers)
        if all(pair.chat is pair.base for pair in self.pairs):
            return plain
        turns = compute_prompts_sha256(self.chat, with_answers=with_answers)
        return hashlib.sha256((plain + turns).encode()).hexdigest()

    def describe(self, options: QuestionOptions) -> dict[str, Any]:
        """What was read, as plain values (the `data` of a result)."""
        return {
            "files": list(self.files),
            "formats": list(self.formats),
            "n_read": self.n_read,
            "n_questions": len(self.pairs),
            "n_skipped": len(self.skipped),
            "skipped": [{"where": row.where, "reason": row.reason} for row in self.skipped[:_SHOWN_SKIPPED]],
            "sha256": self.compute_sha256(with_answers=True),
            "limit": options.limit,
            "seed": options.seed,
            "subjects": list(options.subjects) or None,
        }

    def describe_prompting(self) -> dict[str, Any]:
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


def _describe(pair: PromptPair) -> dict[str, Any]:
    prompt, question = pair.base, pair.question
    if question is not None:
        text, choices = question.question, list(question.choices)
    else:
        text = prompt.text if prompt.text is not None else f"{len(prompt.tokens or ())} tokens"
        choices = [str(label) for label in prompt.labels or prompt.choice_tokens or ()]
    return {
        "where": prompt.source,
        "subject": prompt.subject,
        "question": text,
        "choices": choices,
        "answer": prompt.answer,
    }


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
    InputError: a file, a record or an option is wrong, or nothing is left.
    """
    from edgecal.data import SkippedRow, read_data
    from edgecal.prompts import Prompting, Question, canonical_pairs, draw_pairs

    options.check()
    read = _read(source, options)
    skipped = list(read.skipped)
    records = list(read.records)
    n_read = len(records) + len(skipped)
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
    if options.shots_from is not None:
        given = read_data([options.shots_from], seed=options.seed, strict=options.strict)
        pool = [record for record in (*given.worked, *given.records) if isinstance(record, Question)]
    prompting = Prompting(
        _template(options.template),
        n_shots=options.shots,
        seed=options.seed,
        pool=pool,
        chat_template=None
        if options.chat_template is None
        else _chat_template(options.chat_template, chat_header),
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
    )


def _read(source: PromptSource | None, options: QuestionOptions) -> Data:
    from edgecal.data import Data, read_data
    from edgecal.prompts import Prompt, Question, check_prompt, parse_record, read_bank

    def read(paths: Sequence[PathLike]) -> Data:
        return read_data(
            paths,
            format=options.format,
            strict=options.strict,
            seed=options.seed,
            subjects=options.subjects,
        )

    if source is None:
        bank = read_bank()
        return Data(tuple(bank), (), (), ("the built-in bank",), ("edgecal",), ())
    if isinstance(source, Mapping):
        raise InputError("the prompts are one record; give a list of records, or a file")
    items = [source] if isinstance(source, (str, Path)) else list(source)
    files = [item for item in items if isinstance(item, (str, Path))]
    if len(files) == len(items):
        if not files:
            raise InputError("there are no prompts; give at least one question (see edgecal fit --help)")
        return read(files)
    records: list[Question | Prompt] = []
    for number, item in enumerate(items, start=1):
        if isinstance(item, Mapping):
            records.append(parse_record(item, f"prompt {number}"))
        elif isinstance(item, (Question, Prompt)):
            records.append(check_prompt(item, f"prompt {number}"))
        elif not isinstance(item, (str, Path)):
            raise InputError(
                f"prompt {number}: expected a file's path, a record (a dict), a Question or a Prompt, got "
                f"{type(item).__name__}"
            )
    if options.subjects:
        wanted = {subject.casefold() for subject in options.subjects}
        records = [record for record in records if (record.subject or "").casefold() in wanted]
    if not files:
        return Data(tuple(records), (), (), (), (), ())
    data = read(files)
    return replace(data, records=(*data.records, *records))


def _template(template: str | PromptTemplate | None) -> PromptTemplate:
    """A ready one, a built-in one by name, or one from its source."""
    from edgecal.prompts import TEMPLATES, PromptTemplate, find_template

    if isinstance(template, PromptTemplate):
        return template
    name = "default" if template is None else template
    return find_template(name) if name in TEMPLATES else PromptTemplate(name, "the template")


def _chat_template(chosen: PathLike, header: Header | None) -> ChatTemplate:
    """The chat model's own template, or a file's; with the texts of the model's first and last tokens."""
    from edgecal.prompts import ChatTemplate, chat_template_from_header, special_tokens

    if header is None:
        raise InputError("a chat template needs a chat model, whose special tokens it names")
    if str(chosen) == OWN_CHAT_TEMPLATE:
        return chat_template_from_header(header, str(header.path))
    bos, eos = special_tokens(header)
    return ChatTemplate.from_file(chosen, bos_token=bos, eos_token=eos)


def load_prompts(
    source: PromptSource | None = None,
    *,
    template: str | PromptTemplate | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> list[Prompt]:
    """Reads and renders prompts as both models of a pair are given them, in their canonical order.

    Parameters
    ----------
    source, template, limit, seed: as in `fit`.

    Raises
    ------
    InputError: a record is wrong, the template fails, or there is no prompt at all.
    """
    options = QuestionOptions(template=template, limit=limit, seed=seed, strict=True)
    return load_questions(source, options).base


def data_files(source: PromptSource | None) -> list[Path]:
    """The files among what holds questions; standard input is none."""
    if source is None or isinstance(source, Mapping):
        return []
    items = [source] if isinstance(source, (str, Path)) else source
    return [Path(item) for item in items if isinstance(item, (str, Path)) and str(item) != "-"]
