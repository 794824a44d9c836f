"""Prompts of public tasks for the real pairs: what is trained on, what is asked, and that the two are disjoint.

Rows come from the folder of real questions beside the repository (`EDGECAL_SHARED`, by default `../shared`). Training
rows are zero-shot; what is asked is the same kind of row behind a fixed start of worked examples, one start for each
task, so that llama.cpp computes the start once. It knows no models.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import zip_longest
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TASKS = ("sst", "ag", "sms")
N_ASKED = 300  # of each task
N_SHOTS = 4
LETTERS = "ABCDEFGH"
# What stands in place of a question's content, so that a model's answer shows its bias alone (arXiv 2102.09690).
CONTENT_FREE = ("N/A", "[MASK]", "")


@dataclass(frozen=True)
class Row:
    """A prompt that ends before its label. `answer` is an index into `labels`, each one token with its space."""

    prompt: str
    labels: tuple[str, ...]
    answer: int
    subject: str

    def record(self) -> dict[str, Any]:
        """The row in edgecal's ready-made form."""
        return {
            "prompt": self.prompt,
            "labels": list(self.labels),
            "answer": self.answer,
            "subject": self.subject,
        }


def data_folder() -> Path:
    """The folder of real questions.

    Raises
    ------
    FileNotFoundError: it is not there, as in a clone by itself.
    """
    folder = Path(os.environ.get("EDGECAL_SHARED") or ROOT.parent / "shared") / "data"
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no folder {folder}; set EDGECAL_SHARED to the folder that holds data/"
        )
    return folder


def draw_number(text: str) -> int:
    """A number that depends on the text alone, below 2 ** 64."""
    return int.from_bytes(sha256(text.encode()).digest()[:8], "big")


def read_tasks(folder: Path) -> list[Row]:
    """All rows of the three tasks, without repeats, in an order that depends on their texts alone."""
    rows = {r["prompt"]: r for r in _read(folder / "tasks-train.jsonl")}
    ordered = sorted(rows.values(), key=lambda r: draw_number(r["prompt"]))
    return [Row(r["prompt"], tuple(r["labels"]), r["answer"], r["subject"]) for r in ordered]


def is_asked(row: Row) -> bool:
    """Whether a row is kept for evaluation, which is settled by its prompt: one of three is."""
    return draw_number("asked " + row.prompt) % 3 == 0


@dataclass(frozen=True)
class Split:
    """Rows of the three tasks: worked examples, training rows, rows to ask. No prompt is in two of them."""

    shots: dict[str, tuple[Row, ...]]
    training: tuple[Row, ...]
    asked: tuple[Row, ...]


def split_tasks(rows: Sequence[Row]) -> Split:
    """Splits the rows by their texts.

    The worked examples are training rows too, short and as many of each label, and are left out of the training.
    """
    training = [row for row in rows if not is_asked(row)]
    shots = {task: _choose_shots([r for r in training if r.subject == task]) for task in TASKS}
    taken = {row.prompt for some in shots.values() for row in some}
    asked = [
        row for task in TASKS for row in [r for r in rows if is_asked(r) and r.subject == task][:N_ASKED]
    ]
    return Split(shots, tuple(row for row in training if row.prompt not in taken), tuple(asked))


def _choose_shots(rows: Sequence[Row]) -> tuple[Row, ...]:
    """N_SHOTS rows of one task, balanced over the labels, in an order that mixes them."""
    n_labels = len(rows[0].labels)
    short = [row for row in rows if 60 <= len(row.prompt) <= 200]
    chosen = [
        row for i in range(n_labels) for row in [r for r in short if r.answer == i][: N_SHOTS // n_labels]
    ]
    return tuple(sorted(chosen, key=lambda row: draw_number("shot " + row.prompt)))


def start_of(shots: Sequence[Row]) -> str:
    """Worked examples as the start of a prompt, in the rows' own form."""
    return "".join(f"{row.prompt}{row.labels[row.answer]}\n\n" for row in shots)


def ask_tasks(split: Split) -> list[Row]:
    """What every pair is asked: the rows behind their task's worked examples."""
    starts = {task: start_of(shots) for task, shots in split.shots.items()}
    return [Row(starts[row.subject] + row.prompt, row.labels, row.answer, row.subject) for row in split.asked]


def ask_nothing(split: Split) -> list[Row]:
    """The prompts of `ask_tasks` without content, one set of `CONTENT_FREE` for each task; their answers are 0."""
    asked = []
    for task in TASKS:
        example = split.shots[task][0]
        first, last = example.prompt.split(": ", 1)[0], example.prompt.rsplit("\n", 1)[1]
        start = start_of(split.shots[task])
        asked += [
            Row(f"{start}{first}: {content}\n{last}", example.labels, 0, task) for content in CONTENT_FREE
        ]
    return asked


def read_other_tasks(folder: Path) -> list[Row]:
    """Yes/no questions and science questions with letters: tasks that are never among those asked."""
    rows = [
        Row(r["prompt"], tuple(r["labels"]), r["answer"], "boolq") for r in _read(folder / "boolq-test.jsonl")
    ]
    for name in ("openbookqa-test", "arc-easy-train", "arc-easy-test"):
        rows += [_with_letters(r, name.split("-test")[0]) for r in _read(folder / f"{name}.jsonl")]
    return sorted(rows, key=lambda row: draw_number(row.prompt))


def _with_letters(record: dict[str, Any], subject: str) -> Row:
    letters = LETTERS[: len(record["choices"])]
    lines = [
        record["question"],
        *(f"{a}: {c}" for a, c in zip(letters, record["choices"], strict=True)),
        "Answer:",
    ]
    return Row("\n".join(lines), tuple(f" {letter}" for letter in letters), record["answer"], subject)


def balance(rows: Sequence[Row], n: int) -> list[Row]:
    """n rows, taken from the subjects in turn for as long as each lasts; fewer if there are not so many."""
    by_subject: dict[str, list[Row]] = {}
    for row in rows:
        by_subject.setdefault(row.subject, []).append(row)
    turns = zip_longest(*by_subject.values())
    return [row for turn in turns for row in turn if row is not None][:n]


def give_wrong_answers(rows: Sequence[Row], share: float, seed: str) -> list[Row]:
    """The rows, of which that share, drawn at random, has a wrong answer drawn at random from the others."""
    rng = random.Random(f"noise {seed}")
    noisy = set(rng.sample(range(len(rows)), round(share * len(rows))))
    result = []
    for i, row in enumerate(rows):
        answer = row.answer
        if i in noisy:
            answer = rng.choice([other for other in range(len(row.labels)) if other != row.answer])
        result.append(Row(row.prompt, row.labels, answer, row.subject))
    return result


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
