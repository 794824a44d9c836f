"""What a recipe of the factory is: a name, what it does in words and in numbers, and the function that does it.

It does not know how models are trained, captured or stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Say = Callable[[str], None]


class NotHereError(Exception):
    """What a recipe needs (a model, a data set) is not on this machine; the text says what, and how to get it."""


@dataclass(frozen=True)
class Evaluation:
    """The questions on which a pair is captured, in the order in which they are stored.

    Attributes
    ----------
    records: as `edgecal.load_prompts` takes them, each with "answer" and "subject".
    probs: the known probability of each choice, float [n, most choices], padded with 0; None where nobody knows it.
    free: records without content, of the same form but without "answer" ("N/A" instead of question and options).
    free_subjects: of each of `free`, its subject; None: they stand for all subjects.
    rotate: also ask the first questions with their options rotated; only for records with "question".
    hidden: also store the first questions' last hidden states, which are most of a large model's file.
    """

    records: Sequence[Mapping[str, Any]]
    probs: NDArray[np.float64] | None = None
    free: Sequence[Mapping[str, Any]] = ()
    free_subjects: Sequence[str] | None = None
    rotate: bool = False
    hidden: bool = True


@dataclass(frozen=True)
class Made:
    """What a recipe makes: two GGUF files, and the questions to ask both models."""

    base: Path
    chat: Path
    evaluation: Evaluation


@dataclass(frozen=True)
class PairRecipe:
    """One pair of the benchmark.

    Attributes
    ----------
    name: of the pair and its file; it says the base and what was taught, nothing about how it came out.
    kind: "small" (trained from random weights here) or "real" (post-trained from a published model).
    base: the base model in words.
    words: what was done to it.
    settings: every hyperparameter and seed, as JSON. A stored pair with other settings is made again.
    make: makes the pair in a folder that all recipes share and that outlives the run, so that a base is trained once.
        It goes on from what is there, and a file that is there under its name is complete.
    """

    name: str
    kind: str
    base: str
    words: str
    settings: Mapping[str, Any]
    make: Callable[[Path, Say], Made] = field(compare=False, repr=False)
