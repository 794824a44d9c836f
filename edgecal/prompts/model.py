"""What a question and a prompt are.

A `Question` is content: a text and its options. A `Prompt` is what a model is given: a text whose next
token is to be one of K labels, or the token ids themselves. Rendering turns the first into the second.
Does not know how either is read or tokenized.
"""

from __future__ import annotations

import string
from dataclasses import dataclass

__all__ = ["LABEL_LETTERS", "MAX_CHOICES", "MIN_CHOICES", "Prompt", "Question"]

LABEL_LETTERS = string.ascii_uppercase
MIN_CHOICES = 2
MAX_CHOICES = len(LABEL_LETTERS)


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
    passage: what is to be read before the question, or None.
    """

    question: str
    choices: tuple[str, ...]
    answer: int | None = None
    subject: str | None = None
    source: str = ""
    passage: str | None = None

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
    data: [start, stop) in characters of the parts of `text` that come from data (a question, its options, ...),
        ascending: these are tokenized as plain text, whatever they spell. The rest is given to the tokenizer as it
        stands, so that what spells a control token becomes it; a ready-made prompt is as a whole.
    labels: K label texts.
    labels_verbatim: True: a label is the exact text of one token (`" A"`). False: a label is a letter, and
        whether it takes a leading space is for each model's tokenizer to say.
    tokens: the prompt's token ids, valid for both models; nothing is added, no BOS either.
    choice_tokens: K token ids.
    answer: index of the right label, or None.
    subject, source: as in `Question`.
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

    @property
    def n_choices(self) -> int:
        """K, the number of labels."""
        return len(self.labels if self.labels is not None else self.choice_tokens or ())
