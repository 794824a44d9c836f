"""Real pairs: a published model, and what low-rank post-training on public tasks makes of it.

All pairs are asked the same questions, rows of three tasks that no recipe trains on. The recipes differ in what they
teach: the tasks that are asked, one of them, other tasks, wrong answers, little or too much. A chat model follows from
the settings of its recipe alone; its training goes on where it was stopped.
"""

from __future__ import annotations

import random
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from factory import real_data as data
from factory.lowrank import Training, write_with_update
from factory.real_data import Row, Split
from factory.recipe import Evaluation, Made, NotHereError, PairRecipe, Say

ROOT = Path(__file__).resolve().parents[2]
SEED_ORDER = 16  # of the questions
BASES = {
    "gemma": "Gemma 3 270M, Q4_K_M",
    "smollm2": "SmolLM2 135M Instruct, Q4_1",
    "qwen-0.5b": "Qwen2.5 Coder 0.5B Instruct, Q4_K_M",
}


@dataclass(frozen=True)
class Teaching:
    """What a recipe teaches, and how.

    Attributes
    ----------
    name: of the pair.
    base: the model before, a key of `BASES`.
    words: what is done to it.
    teaches: "tasks": the three tasks that are asked; "sst": the first of them alone; "other": yes/no questions and
        science questions with letters, and none of those asked.
    n_examples: training rows.
    wrong_share: share of the training rows with a wrong answer.
    training: how the change is found.
    hidden: whether the last hidden states are stored (1.3 MB; those of the base are the same in all its pairs).
    """

    name: str
    base: str
    words: str
    teaches: str = "tasks"
    n_examples: int = 600
    wrong_share: float = 0.0
    training: Training = field(default_factory=Training)
    hidden: bool = False


TEACHINGS = (
    Teaching("gemma-sft-tasks", "gemma", "supervised on the tasks that are asked", hidden=True),
    Teaching("gemma-sft-other-tasks", "gemma", "supervised on other tasks", "other", hidden=True),
    Teaching(
        "gemma-dpo-tasks",
        "gemma",
        "preference optimisation on the tasks that are asked",
        n_examples=480,
        training=Training("dpo"),
        hidden=True,
    ),
    Teaching(
        "gemma-sft-wrong-answers",
        "gemma",
        "supervised on the tasks that are asked, 30 % of the answers wrong",
        n_examples=640,
        wrong_share=0.3,
    ),
    Teaching(
        "gemma-sft-few-steps",
        "gemma",
        "supervised on the tasks that are asked, few steps",
        n_examples=200,
        training=Training(n_epochs=1),
    ),
    Teaching(
        "smollm2-sft-tasks",
        "smollm2",
        "an instruct model supervised further on the tasks that are asked",
        hidden=True,
    ),
    Teaching(
        "gemma-sft-many-steps",
        "gemma",
        "supervised on few rows of the tasks that are asked, many times",
        n_examples=160,
        training=Training(n_epochs=6),
    ),
    Teaching(
        "gemma-sft-sst", "gemma", "supervised on one of the tasks that are asked", "sst", n_examples=800
    ),
    Teaching(
        "qwen-sft-tasks",
        "qwen-0.5b",
        "an instruct model supervised further on the tasks that are asked",
        n_examples=480,
        training=Training(n_epochs=1),
    ),
)


def training_rows(teaching: Teaching, split: Split, folder: Path) -> list[Row]:
    """What is taught: rows that are never asked, of which `wrong_share` have a wrong answer."""
    if teaching.teaches == "other":
        rows = data.balance(data.read_other_tasks(folder), teaching.n_examples)
    elif teaching.teaches == "tasks":
        rows = data.balance(split.training, teaching.n_examples)
    else:
        rows = [row for row in split.training if row.subject == teaching.teaches][: teaching.n_examples]
    return data.give_wrong_answers(rows, teaching.wrong_share, teaching.name)


def evaluation_of(split: Split, hidden: bool) -> Evaluation:
    """What every pair is asked, in an order drawn once, and the same without content."""
    asked = data.ask_tasks(split)
    free = data.ask_nothing(split)
    return Evaluation(
        records=[row.record() for row in random.Random(SEED_ORDER).sample(asked, len(asked))],
        free=[{"prompt": row.prompt, "labels": list(row.labels)} for row in free],
        free_subjects=[row.subject for row in free],
        hidden=hidden,
    )


def settings_of(teaching: Teaching) -> dict[str, Any]:
    """Everything that the pair follows from, as JSON."""
    about = asdict(teaching)
    for name in ("name", "base", "words"):
        del about[name]
    asked = {"n_asked": data.N_ASKED, "n_shots": data.N_SHOTS, "seed_order": SEED_ORDER}
    return {**about, **asked, "seed": teaching.name}


def recipe_of(teaching: Teaching) -> PairRecipe:
    """The recipe of the factory."""

    def make(work: Path, say: Say) -> Made:
        return make_pair(teaching, work, say)

    return PairRecipe(
        teaching.name, "real", BASES[teaching.base], teaching.words, settings_of(teaching), make
    )


def make_pair(teaching: Teaching, work: Path, say: Say) -> Made:
    """Fetches the base, trains the chat model (or goes on with it) and writes it.

    Raises
    ------
    NotHereError: the base model, the questions or a library for the training cannot be had.
    """
    base = fetch_base(teaching.base)
    try:
        folder = data.data_folder()
    except FileNotFoundError as error:
        raise NotHereError(str(error)) from error
    split = data.split_tasks(data.read_tasks(folder))
    chat = work / "real" / teaching.name / f"{teaching.name}.gguf"
    if not chat.exists():
        try:
            from factory.finetune import encode, post_train
        except ModuleNotFoundError as error:
            raise NotHereError(f"{error.name} is not installed; the extra [train] has it") from error
        update = post_train(
            base,
            work / "real/networks" / teaching.base,
            encode(base, training_rows(teaching, split, folder)),
            teaching.training,
            chat.parent,
            teaching.name,
            lambda text: say(f"{teaching.name}: {text}"),
        )
        write_with_update(base, chat, update, teaching.name)
    return Made(base, chat, evaluation_of(split, teaching.hidden))


def fetch_base(name: str) -> Path:
    """The published model, which is fetched if it is not on this machine; NotHereError if it cannot be had."""
    tests = str(ROOT / "tests")
    if tests not in sys.path:
        sys.path.append(tests)
    from tools.real_models import UnavailableError, fetch, models_folder

    try:
        return fetch(name, models_folder())
    except UnavailableError as error:
        raise NotHereError(str(error)) from error


RECIPES = tuple(recipe_of(teaching) for teaching in TEACHINGS)
