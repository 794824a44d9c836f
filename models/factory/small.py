"""The small pairs: base models of several worlds, sizes and lengths of training, and what each was taught afterwards.

Every base is one run of pre-training on a generated world; it is taken at its end ("late") or on the way, where the
learning rate has not fallen to the end and less is known ("early"). No recipe was chosen by how its pair came out.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from export import quantize, write_gguf
from factory.bases import BaseRun, make_base, weights_path
from factory.recipe import Evaluation, Made, PairRecipe, Say
from network import Network, Shape
from posttrain import RECIPES as POST_RECIPES
from posttrain import PostRecipe, posttrain
from pretrain import Recipe, save_whole
from tokenizers import Tokenizer
from world import INSTRUCTION, LETTERS, Question, World, question_rows, render

N_QUESTIONS = 1600
SEED_ORDER = 16
SEED_BEFORE = 1000  # added to a pair's seed for what its base was taught
CONTENT_FREE = ("N/A", "[MASK]", "")
QUANTIZATION = "Q8_0"
LATE = 1.0
EARLY = {"elm": 0.6, "oak": 0.75, "ash": 0.75, "fir": 0.6}

RUNS = {
    run.name: run
    for run in (
        BaseRun(
            "elm",
            world_seed=11,
            seed=11,
            shape=Shape(n_embd=128, n_head=4, n_head_kv=2, n_ff=384),
            recipe=Recipe(n_documents=120_000, n_rows=16),
        ),
        BaseRun(
            "oak",
            world_seed=12,
            seed=12,
            shape=Shape(n_embd=128, n_head=4, n_head_kv=2, n_ff=384),
            recipe=Recipe(n_documents=100_000, n_rows=16),
        ),
        BaseRun(
            "ash",
            world_seed=13,
            seed=13,
            shape=Shape(n_embd=96, n_layer=6, n_head=3, n_head_kv=3, n_ff=288),
            recipe=Recipe(n_documents=100_000, n_rows=16, learning_rate=1.6e-3),
        ),
        BaseRun(
            "fir",
            world_seed=14,
            seed=14,
            shape=Shape(n_embd=192, n_layer=4, n_head=6, n_head_kv=3, n_ff=512),
            recipe=Recipe(n_documents=75_000, n_rows=16, learning_rate=1.0e-3),
        ),
    )
}


@dataclass(frozen=True)
class Teaching:
    """What post-training teaches.

    `task`: "world" asks what the base was trained on, "lookup" asks which letter stands before a given word, "other
    world" asks about another world's entities. `answers`, what counts as right: "best", the likeliest option; "drawn",
    one drawn from the known probabilities; "noisy", the likeliest but for 3 in 10 questions, where it is any other; "A
    too often", the likeliest but for 4 in 10 questions, where it is the first option.
    """

    name: str
    words: str
    recipe: PostRecipe
    answers: str = "best"
    task: str = "world"


SFT, DPO = POST_RECIPES["sft"], POST_RECIPES["dpo"]
TEACHINGS = {
    teaching.name: teaching
    for teaching in (
        Teaching("sft", "fine-tuned on the best answers to 1,500 questions", SFT),
        Teaching("dpo", "preference optimisation on 1,500 questions", DPO),
        Teaching(
            "few",
            "fine-tuned on the best answers to 150 questions, eight times each",
            replace(SFT, n_questions=150, n_epochs=8),
        ),
        Teaching(
            "many",
            "fine-tuned on the best answers to 5,000 questions, twice each",
            replace(SFT, n_questions=5000, n_epochs=2),
        ),
        Teaching(
            "noisy",
            "fine-tuned on 2,000 questions of which 30 % have a wrong answer",
            replace(SFT, n_questions=2000),
            answers="noisy",
        ),
        Teaching(
            "reinforced",
            "reinforcement on its own answers to 3,000 questions, the best one rewarded",
            PostRecipe("grpo", 3000, 1, learning_rate=2e-4, beta=0.02, n_samples=8),
        ),
        Teaching(
            "taught",
            "taught the world: fine-tuned on the best answers to 8,000 new questions",
            replace(SFT, n_questions=8000, n_epochs=1, learning_rate=6e-4),
        ),
        Teaching(
            "drawn",
            "taught the world: fine-tuned on drawn answers to 8,000 new questions",
            replace(SFT, n_questions=8000, n_epochs=1, learning_rate=6e-4),
            answers="drawn",
        ),
        Teaching(
            "sampled",
            "fine-tuned once on drawn answers to 3,000 questions",
            replace(SFT, n_questions=3000, n_epochs=1),
            answers="drawn",
        ),
        Teaching(
            "smoothed",
            "fine-tuned on the best answers to 1,500 questions, 40 % of the target shared by the others",
            replace(SFT, smoothing=0.4),
        ),
        Teaching(
            "lookup",
            "fine-tuned on 1,500 questions of another task, in which the options alone give the answer",
            SFT,
            task="lookup",
        ),
        Teaching(
            "biased",
            "fine-tuned on 1,500 questions, A taught as the answer to 40 % of them, right or wrong",
            SFT,
            answers="A too often",
        ),
        Teaching(
            "elsewhere",
            "fine-tuned on the best answers to 1,500 questions about another world",
            SFT,
            task="other world",
        ),
    )
}


def questions_of(teaching: Teaching, run: BaseRun, seed: int) -> tuple[list[Question], list[int]]:
    """The questions that are taught, and the index of the answer that counts as right."""
    n = teaching.recipe.n_questions
    rng = random.Random(f"factory {run.world_seed} {teaching.name} {seed}")
    if teaching.task == "lookup":
        questions = [_world(run.world_seed).draw_lookup(rng) for _ in range(n)]
    elif teaching.task == "other world":
        questions = _world(run.world_seed + 100).posttrain(seed, n)
    else:
        questions = _world(run.world_seed).posttrain(seed, n)
    return questions, [_answer(question, teaching.answers, rng) for question in questions]


def _answer(question: Question, answers: str, rng: random.Random) -> int:
    best, everyone = question.best(), range(len(question.choices))
    if answers == "best":
        return best
    if answers == "drawn":
        return rng.choices(everyone, question.probs)[0]
    if answers == "noisy":
        return rng.choice([i for i in everyone if i != best]) if rng.random() < 0.3 else best
    if answers == "A too often":
        return 0 if rng.random() < 0.4 else best
    raise ValueError(f"unknown kind of answers: {answers}")


@lru_cache(maxsize=4)
def _world(seed: int) -> World:
    return World(seed)


def evaluation_of(world_seed: int, n_questions: int) -> Evaluation:
    """Held-out questions of a world in a shuffled order, with drawn labels and their known probabilities."""
    world = _world(world_seed)
    questions = world.held_out()["test"]
    rows = list(question_rows(world, "test", questions))
    order = random.Random(f"factory order {SEED_ORDER}").sample(range(len(rows)), n_questions)
    probs = np.zeros((n_questions, max(len(questions[i].probs) for i in order)))
    for row, i in enumerate(order):
        probs[row, : len(questions[i].probs)] = questions[i].probs
    records = [{key: value for key, value in rows[i].items() if key != "id"} for i in order]
    return Evaluation(records, probs, free=tuple(_content_free()), rotate=True)


def _content_free() -> Iterator[dict[str, Any]]:
    for text in CONTENT_FREE:
        for n in (3, 4, 5):
            labels = [f" {letter}" for letter in LETTERS[:n]]
            yield {"prompt": INSTRUCTION + render(text, [text] * n), "labels": labels}


def make_small(
    run: BaseRun,
    stop: float,
    before: Teaching | None,
    teaching: Teaching,
    seed: int,
    n_questions: int,
    work: Path,
    say: Say,
) -> Made:
    """Train what is not there yet and write both models."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    bases = work / "bases"
    base, tokenizer = make_base(bases, run, stop, say)
    base_stem = weights_path(bases, run, stop).with_suffix("")
    name = _name(run, stop, before, teaching)
    stem = work / "small" / name
    chat_path = stem.with_name(f"{name}-{QUANTIZATION}.gguf")

    def teach(network: Network, what: Teaching, seed: int) -> Network:
        questions, answers = questions_of(what, run, seed)
        report = partial(_report, say, name)
        return posttrain(network, tokenizer, questions, what.recipe, seed, report, answers)

    if before is not None:
        base_stem = stem.with_name(f"{name}-base")
        weights = base_stem.with_suffix(".pt")
        if not weights.exists():
            weights.parent.mkdir(parents=True, exist_ok=True)
            save_whole(teach(base, before, SEED_BEFORE + seed).state_dict(), weights)
        base.load_state_dict(torch.load(weights, weights_only=True))
    base_path = _write(base, tokenizer, base_stem, "Base")
    if not chat_path.exists():
        _write(teach(base, teaching, seed), tokenizer, stem, "Chat")
    return Made(base_path, chat_path, evaluation_of(run.world_seed, n_questions))


def _report(say: Say, name: str, text: str) -> None:
    say(f"{name}: {text}")


def _write(network: Network, tokenizer: Tokenizer, stem: Path, finetune: str) -> Path:
    """The quantized file beside `stem`, written unless it is there; whole or not at all."""
    target = stem.with_name(f"{stem.name}-{QUANTIZATION}.gguf")
    if target.exists():
        return target
    stem.parent.mkdir(parents=True, exist_ok=True)
    whole, partial_path = stem.with_name(f"{stem.name}-F16.gguf"), stem.with_name(f"{stem.name}.partial")
    write_gguf(network, tokenizer, whole, finetune, "A model of edgecal's factory of pairs.")
    quantize(whole, partial_path, QUANTIZATION, n_threads=1)
    whole.unlink()
    partial_path.replace(target)
    return target


def _name(run: BaseRun, stop: float, before: Teaching | None, teaching: Teaching) -> str:
    when = "late" if stop == LATE else "early"
    return "-".join([run.name, when, *([before.name, "then"] if before else []), teaching.name])


def recipe_of(
    run: BaseRun,
    stop: float,
    teaching: Teaching,
    seed: int,
    n_questions: int = N_QUESTIONS,
    before: Teaching | None = None,
) -> PairRecipe:
    """The recipe as the factory lists it. With `before`, the pair's base model was itself taught that already."""
    shape = run.shape
    when = "whole pre-training" if stop == LATE else f"stopped after {stop:.0%} of its pre-training"
    settings: dict[str, Any] = {
        "world_seed": run.world_seed,
        "pretrain_seed": run.seed,
        "shape": asdict(shape),
        "pretrain": asdict(run.recipe),
        "stop": stop,
        "posttrain": asdict(teaching.recipe),
        "answers": teaching.answers,
        "task": teaching.task,
        "posttrain_seed": seed,
        "quantization": QUANTIZATION,
        "n_questions": n_questions,
        "order_seed": SEED_ORDER,
    }
    if before:
        settings["before"] = {**asdict(before), "seed": SEED_BEFORE + seed}
    return PairRecipe(
        name=_name(run, stop, before, teaching),
        kind="small",
        base=f"{run.name}: {shape.n_layer} blocks of {shape.n_embd}, world {run.world_seed}, {when}"
        + (f", then {before.words}" if before else ""),
        words=teaching.words,
        settings=settings,
        make=partial(make_small, run, stop, before, teaching, seed, n_questions),
    )


PAIRS = (
    ("elm", "late", "sft"),
    ("elm", "late", "reinforced"),
    ("elm", "early", "taught"),
    ("elm", "early", "noisy"),
    ("oak", "late", "dpo"),
    ("oak", "late", "biased"),
    ("oak", "early", "drawn"),
    ("oak", "early", "many"),
    ("ash", "late", "few"),
    ("ash", "late", "lookup"),
    ("ash", "early", "sft"),
    ("ash", "early", "sampled"),
    ("fir", "late", "sampled"),
    ("fir", "late", "smoothed"),
    ("fir", "early", "reinforced"),
    ("fir", "early", "elsewhere"),
)
# Pairs whose base model is no yardstick: it was taught something itself, and then more.
TAUGHT_BASES = (
    ("oak", "late", "sft", "reinforced"),
    ("fir", "late", "smoothed", "sft"),
)
RECIPES = (
    *(
        recipe_of(RUNS[run], EARLY[run] if when == "early" else LATE, TEACHINGS[teaching], seed)
        for seed, (run, when, teaching) in enumerate(PAIRS)
    ),
    *(
        recipe_of(
            RUNS[run],
            EARLY[run] if when == "early" else LATE,
            TEACHINGS[teaching],
            seed,
            before=TEACHINGS[before],
        )
        for seed, (run, when, before, teaching) in enumerate(TAUGHT_BASES, len(PAIRS))
    ),
)
