"""Questions as the models are given them, and what is said of them.

Knows no llama.cpp and no mathematics, nor how questions are read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgecal.errors import InputError

if TYPE_CHECKING:
    from edgecal.api.questions import QuestionOptions
    from edgecal.data import SkippedRow
    from edgecal.prompts import Prompt, Prompting, PromptPair, Question
    from edgecal.results.judging import AskedQuestion
    from edgecal.results.questions import Data, PromptingUsed

__all__ = ["LoadedQuestions", "exceeds_a_fifth"]

_SHOWN_SKIPPED = 20


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
    decisions: what was decided for the data as a whole, such as what answers are counted from.
    """

    pairs: tuple[PromptPair, ...]
    prompting: Prompting
    files: tuple[str, ...]
    formats: tuple[str, ...]
    n_read: int
    skipped: tuple[SkippedRow, ...]
    notes: tuple[str, ...]
    decisions: tuple[str, ...] = ()

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
        """Those that are left when some (index to reason) do not fit a model; these count as skipped.

        Raises
        ------
        InputError: they are more than a fifth.
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
        """SHA-256 (hex) of what the models are given, whatever the files' order.

        That of the base model's prompts; where the chat model is given others, that of both hashes in a row.
        """
        from edgecal.prompts import compute_prompts_sha256

        plain = compute_prompts_sha256(self.base, with_answers=with_answers)
        if all(pair.chat is pair.base for pair in self.pairs):
            return plain
        turns = compute_prompts_sha256(self.chat, with_answers=with_answers)
        return hashlib.sha256((plain + turns).encode()).hexdigest()

    def describe(self, options: QuestionOptions, *, with_answers: bool = True) -> Data:
        """What was read, as plain values (the `data` of a result); without answers where none was looked at."""
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
    """Whether so many of n do not fit that the data are not what they were taken for."""
    return n_misfits * 5 > n
