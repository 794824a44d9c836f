"""The factory of pairs: its command on a toy recipe, what it stores, and the stored files of the benchmark."""

import json
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
from support.pages import ROOT

pytest.importorskip("torch")
pytest.importorskip("tokenizers")

import pretrain
import torch
from bpe import BEGIN, letter_ids
from factory import bases, small
from factory.bases import BaseRun
from factory.make_pairs import RECIPES, choose, main, make_pairs
from factory.recipe import NotHereError, PairRecipe
from factory.store import check_arrays, check_file, is_stored, read_meta
from network import Shape
from posttrain import PostRecipe, answer_log_probs, posttrain
from pretrain import Recipe, weighted_loss
from world import World

import edgecal
from edgecal.calibration import ChoiceLogits

RUN = BaseRun(
    "toy",
    world_seed=3,
    seed=3,
    shape=Shape(n_embd=32, n_layer=2, n_head=2, n_head_kv=1, n_ff=64),
    recipe=Recipe(n_documents=600, n_rows=8, warmup=5),
    stops=(0.5, 1.0),
)
TEACHING = small.Teaching("toy", "a few questions", PostRecipe("sft", 32, 1, learning_rate=1e-3))
N_QUESTIONS = 40


def toy(**changes) -> PairRecipe:
    return small.recipe_of(RUN, 1.0, replace(TEACHING, **changes), 5, N_QUESTIONS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A toy pair that the command made and stored, and the models that it left."""
    path = tmp_path_factory.mktemp("factory")
    make_pairs([toy()], path / "work", path / "pairs", lambda text: None)
    return path


def test_a_stored_pair_holds_what_the_models_say(folder):
    arrays = check_file(folder / "pairs/toy-late-toy.npz")
    base, chat = folder / "work/bases/toy/base-100-Q8_0.gguf", folder / "work/small/toy-late-toy-Q8_0.gguf"
    evaluation = small.evaluation_of(RUN.world_seed, N_QUESTIONS)
    # Any order of prompts gives the same logits, so the canonical one is matched by the text.
    place = {edgecal.load_prompts([record])[0].text: i for i, record in enumerate(evaluation.records)}
    prompts = edgecal.load_prompts(list(evaluation.records))
    logits = edgecal.capture(base, chat, prompts).logits
    order = [place[prompt.text] for prompt in prompts]
    for name in ("base_final", "chat_final", "n_choices", "labels"):
        np.testing.assert_array_equal(arrays[name][order], getattr(logits, name))
    np.testing.assert_allclose(arrays["chat_layers"][order], logits.chat_layers, atol=2**-7 + 2**-9)
    for i, record in enumerate(evaluation.records):
        assert arrays["labels"][i] == record["answer"]
        assert arrays["subject_names"][arrays["subjects"][i]] == record["subject"]
        np.testing.assert_allclose(arrays["probs"][i].sum(), 1, rtol=1e-6)
    first = edgecal.load_prompts([evaluation.records[0]])
    hidden = edgecal.capture(base, chat, first, hidden=True).base.last_hidden[0]
    np.testing.assert_allclose(arrays["base_hidden"][0], hidden, rtol=2**-8)
    ChoiceLogits(
        *(arrays[n] for n in ("base_final", "chat_final", "base_layers", "chat_layers")),
        arrays["n_choices"],
        arrays["labels"],
    )


def test_rotations_are_mapped_back_to_the_options(folder):
    """Rotation 1 of a question is the question whose options were turned by hand, and row 0 is the question itself."""
    arrays = check_file(folder / "pairs/toy-late-toy.npz")
    record = small.evaluation_of(RUN.world_seed, N_QUESTIONS).records[0]
    first, *others = record["choices"]
    k = len(record["choices"])
    turned = {"question": record["question"], "choices": [*others, first]}
    base, chat = folder / "work/bases/toy/base-100-Q8_0.gguf", folder / "work/small/toy-late-toy-Q8_0.gguf"
    final = edgecal.capture(base, chat, edgecal.load_prompts([turned]), layers=False).logits.chat_final[0]
    np.testing.assert_allclose(arrays["chat_rotated"][0, 1, :k], [final[k - 1], *final[: k - 1]], atol=2**-11)
    np.testing.assert_array_equal(arrays["chat_rotated"][0, 0], arrays["chat_final"][0])
    assert np.isneginf(arrays["chat_rotated"][0, k:]).all()


def test_what_is_stored_is_not_made_again(folder):
    said = []
    assert make_pairs([toy()], folder / "work", folder / "pairs", said.append) == []
    assert said == ["toy-late-toy: stored already"]
    assert is_stored(folder / "pairs/toy-late-toy.npz", toy())
    other = toy(recipe=replace(TEACHING.recipe, learning_rate=2e-3))
    assert not is_stored(folder / "pairs/toy-late-toy.npz", other)


def test_a_run_that_was_killed_goes_on_and_gives_the_same_bytes(folder, tmp_path, monkeypatch):
    """The reference ran through; this one dies in its 12th step of pre-training."""
    losses = count()

    def loss(*args):
        if next(losses) == 11:
            raise KeyboardInterrupt
        return weighted_loss(*args)

    heard = []
    with monkeypatch.context() as patch:
        patch.setattr(bases, "EVERY_S", 0.0)
        patch.setattr(pretrain, "weighted_loss", loss)
        with pytest.raises(KeyboardInterrupt):
            make_pairs([toy()], tmp_path / "work", tmp_path / "pairs", heard.append)
    assert not (tmp_path / "pairs").exists()
    make_pairs([toy()], tmp_path / "work", tmp_path / "pairs", heard.append)
    assert "toy: going on after step 11" in heard
    again = tmp_path / "pairs/toy-late-toy.npz"
    assert again.read_bytes() == (folder / "pairs/toy-late-toy.npz").read_bytes()
    assert not (tmp_path / "work/bases/toy/checkpoint.pt").exists()


def test_a_base_that_was_taught_itself(folder):
    """Its weights are the run's after the first lesson; the chat model is made from them, not from the run's end."""
    recipe = small.recipe_of(RUN, 1.0, TEACHING, 5, N_QUESTIONS, before=replace(TEACHING, name="first"))
    assert recipe.name == "toy-late-first-then-toy"
    make_pairs([recipe], folder / "work", folder / "pairs", lambda text: None)
    then, once = (check_file(folder / f"pairs/{name}.npz") for name in (recipe.name, "toy-late-toy"))
    assert not np.array_equal(then["base_final"], once["base_final"])
    assert not np.array_equal(then["chat_final"], once["chat_final"])
    assert read_meta(folder / f"pairs/{recipe.name}.npz")["settings"]["before"]["seed"] == 1005


def test_an_early_stop_is_the_same_run_on_its_way(folder):
    early, late = (
        torch.load(bases.weights_path(folder / "work/bases", RUN, stop), weights_only=True)
        for stop in RUN.stops
    )
    assert early.keys() == late.keys()
    assert any(not torch.equal(early[name], late[name]) for name in early)
    with pytest.raises(ValueError, match=r"kept after \(0.5, 1.0\)"):
        bases.make_base(folder / "work/bases", RUN, 0.7)


def test_a_recipe_whose_models_are_not_here_is_left_out(tmp_path):
    def make(work, say):
        raise NotHereError("no such model; get it")

    said = []
    recipe = PairRecipe("real-none", "real", "a base", "nothing", {}, make)
    assert make_pairs([recipe], tmp_path, tmp_path / "pairs", said.append) == [recipe]
    assert said[-1] == "real-none: left out, no such model; get it"


def test_recipes_are_told_apart_by_name_and_settings():
    names = [recipe.name for recipe in RECIPES]
    assert len(set(names)) == len(names)
    settings = [json.dumps([recipe.base, recipe.settings], sort_keys=True) for recipe in RECIPES]
    assert len(set(settings)) == len(settings)
    assert sum(recipe.kind == "small" for recipe in RECIPES) >= 12


def test_only_names_recipes_in_its_order():
    first, second = RECIPES[0], RECIPES[1]
    assert choose(RECIPES, f"{second.name},{first.name}") == [second, first]
    assert choose(RECIPES, None) == list(RECIPES)
    with pytest.raises(ValueError, match="no recipe is called nothing"):
        choose(RECIPES, "nothing")


def test_list_makes_nothing(tmp_path, capsys):
    assert main(["--list", "--output", str(tmp_path / "pairs"), "--work", str(tmp_path / "work")]) == 0
    printed = capsys.readouterr().out
    assert all(f"{recipe.name}  ({recipe.kind}, not stored)" in printed for recipe in RECIPES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("answers", ["best", "drawn", "noisy", "A too often"])
def test_answers_that_are_taught(answers):
    teaching = replace(TEACHING, answers=answers, recipe=replace(TEACHING.recipe, n_questions=1000))
    questions, taught = small.questions_of(teaching, RUN, 0)
    best = np.array([question.best() for question in questions])
    right = np.array([max(question.probs) for question in questions])
    expected = {
        "best": 1.0,
        "drawn": right.mean(),
        "noisy": 0.7,
        "A too often": 0.6 + 0.4 * np.mean(best == 0),
    }
    assert np.mean(np.array(taught) == best) == pytest.approx(expected[answers], abs=0.05)
    assert all(answer < len(question.choices) for answer, question in zip(taught, questions, strict=True))


@pytest.mark.parametrize("kind", ["sft", "dpo", "grpo"])
def test_post_training_prefers_what_is_taught(folder, kind):
    """A toy model learns one letter for all questions, by each kind of recipe; the base stays as it was."""
    base, tokenizer = bases.make_base(folder / "work/bases", RUN, 1.0)
    before = {name: value.clone() for name, value in base.state_dict().items()}
    questions = [q for q in World(RUN.world_seed).posttrain(1, 80) if len(q.choices) == 4]
    n_epochs = 30 if kind == "grpo" else 6
    recipe = PostRecipe(kind, len(questions), n_epochs, learning_rate=3e-3, beta=0.1, anchor=0.2, n_samples=8)
    chat = posttrain(base, tokenizer, questions, recipe, 0, lambda text: None, [2] * len(questions))
    prompts = [[tokenizer.token_to_id(BEGIN), *tokenizer.encode(q.prompt()).ids] for q in questions]
    c = letter_ids(tokenizer)[2]
    gain = answer_log_probs(chat, prompts)[:, c] - answer_log_probs(base, prompts)[:, c]
    assert gain.mean() > 0.5
    assert all(torch.equal(before[name], value) for name, value in base.state_dict().items())


def stored_pairs():
    return sorted((ROOT / "bench/pairs").glob("*.npz"))


@pytest.mark.parametrize("path", [pytest.param((p,), id=p.stem) for p in stored_pairs()])
def test_a_pair_of_the_benchmark_is_whole(path):
    """It fits together, and it is what its recipe says."""
    arrays = check_file(*path)
    meta = read_meta(*path)
    recipe = next(recipe for recipe in RECIPES if recipe.name == meta["name"])
    assert is_stored(*path, recipe)
    assert (meta["kind"], meta["base"], meta["recipe"]) == (recipe.kind, recipe.base, recipe.words)
    assert len(meta["base_sha256"]) == len(meta["chat_sha256"]) == 64
    if meta["kind"] == "small":
        assert len(arrays["labels"]) == small.N_QUESTIONS
        assert {"probs", "base_rotated", "chat_rotated", "base_free", "chat_free"} <= arrays.keys()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("labels", lambda a: np.full_like(a, 7), "a label is not one"),
        ("subjects", lambda a: np.full_like(a, 100), "a subject has no name"),
        ("probs", lambda a: a / 2, "do not sum to 1"),
        ("base_final", lambda a: np.zeros_like(a), "base_final is not finite where"),
        ("chat_layers", lambda a: a.astype(np.float32), "chat_layers is float32"),
        ("chat_hidden", lambda a: a[1:], "chat_hidden is float16"),
    ],
)
def test_a_damaged_pair_is_refused(folder, name, change, message):
    arrays = check_file(folder / "pairs/toy-late-toy.npz")
    with pytest.raises(ValueError, match=message):
        check_arrays({**arrays, name: change(arrays[name])})
