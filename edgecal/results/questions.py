"""The part that every result about questions has: what was read, and how it was put to a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict, final

from edgecal.results.printed import Count, NotRequired, Ordinal, Printed, Probability, Seed

__all__ = [
    "DataRead",
    "Effect",
    "MeasuredPrompting",
    "PromptLine",
    "PromptingUsed",
    "QuestionLine",
    "QuestionsResult",
    "Skipped",
    "TokensLine",
]


class Skipped(TypedDict):
    """A row that was left out.

    where: file and line, or what else names the row.
    reason: why it does not fit.
    """

    where: str
    reason: str


class DataRead(TypedDict):
    """What was read.

    files: the files, in the order in which they were read.
    formats: as what each was read.
    decisions: what was decided for the data as a whole, such as what answers are counted from.
    n_read: rows, the skipped ones included.
    n_questions: questions that fit.
    n_skipped: rows that were skipped.
    skipped: the first of these.
    sha256: hash of what the models were asked, in any order.
    limit: how many were drawn; null: all.
    seed: seed of that draw.
    subjects: the subjects that were kept; null: all.
    """

    files: list[str]
    formats: list[str]
    decisions: list[str]
    n_read: Count
    n_questions: Count
    n_skipped: Count
    skipped: list[Skipped]
    sha256: str
    limit: Ordinal | None
    seed: Seed
    subjects: list[str] | None


class PromptingUsed(TypedDict):
    """How questions were put to the models.

    template: the template's name, or the path of its file.
    shots: worked examples before each question.
    chat_template: where the template of the conversation comes from; null: there is no conversation.
    """

    template: str
    shots: Count
    chat_template: str | None


class Effect(TypedDict):
    """One way of asking, on a sample of the questions.

    name: what is done.
    n: questions in the sample.
    choice_mass: mean probability on all choice tokens together, by model: "base" and "chat", or "model".
    """

    name: str
    n: Count
    choice_mass: dict[str, float]


class MeasuredPrompting(PromptingUsed):
    """How questions were put to the models, and what that did to the choice mass.

    choice_mass: mean probability on all choice tokens together, by model: "base" and "chat", or "model".
    effects: each part of the prompting alone, then all together; empty for the plainest prompting.
    """

    choice_mass: dict[str, float]
    effects: list[Effect]


@final
class QuestionLine(TypedDict):
    """A question with its options.

    passage: a text that the question is about; left out where there is none.
    question: the question.
    choices: the options.
    answer: index of the right choice, from 0; left out where it is not known.
    subject: what it is about; left out where it is not known.
    inclusion_probability: with which it was chosen to be labelled; left out where it is not known.
    """

    passage: NotRequired[str]
    question: str
    choices: list[str]
    answer: NotRequired[Count]
    subject: NotRequired[str]
    inclusion_probability: NotRequired[Probability]


@final
class PromptLine(TypedDict):
    """A ready-made prompt.

    prompt: the text.
    labels: texts of which each is one token that may come next.
    answer: index of the right label, from 0; left out where it is not known.
    subject: what it is about; left out where it is not known.
    inclusion_probability: with which it was chosen to be labelled; left out where it is not known.
    """

    prompt: str
    labels: list[str]
    answer: NotRequired[Count]
    subject: NotRequired[str]
    inclusion_probability: NotRequired[Probability]


@final
class TokensLine(TypedDict):
    """A prompt as token ids.

    tokens: the prompt.
    choice_tokens: tokens that may come next.
    answer: index of the right one of these, from 0; left out where it is not known.
    subject: what it is about; left out where it is not known.
    inclusion_probability: with which it was chosen to be labelled; left out where it is not known.
    """

    tokens: list[Count]
    choice_tokens: list[Count]
    answer: NotRequired[Count]
    subject: NotRequired[str]
    inclusion_probability: NotRequired[Probability]


@dataclass(frozen=True)
class QuestionsResult(Printed):
    """How questions were read.

    Attributes
    ----------
    questions: each in edgecal's own form: question, choices and perhaps passage; or prompt and labels; or tokens and
        choice_tokens; with answer (an index from 0) and subject if known.
    sources: where each comes from.
    prompts: each as a base model gets it: a text, or token ids.
    data: what was read; its `decisions` say what was decided for the data as a whole.
    warnings: one line each.
    """

    questions: list[QuestionLine | PromptLine | TokensLine]
    sources: list[str]
    prompts: list[str | list[int]]
    data: DataRead
    warnings: list[str]
