"""`edgecal.evaluate` on a real model: its figures are those of llama.cpp's own logits, and it says what it judged."""

import json
from functools import cache

import numpy as np
import pytest
from support.options import grouped
from support.prompts import write_json_lines
from support.questions import SUBJECTS, make_questions
from support.tiny_models import tiny_folder, write_tiny_llama, write_tiny_pair

import edgecal
from edgecal import RunOptions
from edgecal.llama.settings import CaptureSettings
from edgecal.metrics import compute_accuracy, compute_ece, compute_nll, softmax_probs

ONE_THREAD = CaptureSettings(n_threads=1)
RECORDS = make_questions(60, seed=1)


@cache
def pair():
    folder = tiny_folder() / "evaluate"
    folder.mkdir()
    return write_tiny_pair(folder / "base.gguf", folder / "chat.gguf", seed=5, perturbation=0.3)


@pytest.fixture(scope="module")
def model():
    return pair()[1]


def evaluate(model, data=RECORDS, **options):
    return edgecal.evaluate(model, data, **grouped(**({"settings": ONE_THREAD, "n_bootstrap": 50} | options)))


@pytest.fixture(scope="module")
def result(model):
    return evaluate(model, temperature=2.0)


def test_figures_are_those_of_the_captured_logits(model, result):
    prompts = edgecal.load_prompts(RECORDS)
    logits = edgecal.capture(model, model, prompts, layers=False, run=RunOptions(settings=ONE_THREAD)).logits
    for state, tau in (("before", 1.0), ("after", 2.0)):
        probs = softmax_probs(logits.chat_final, logits.n_choices, tau)
        figures = result.figures[state]
        assert figures["accuracy"]["value"] == pytest.approx(compute_accuracy(probs, logits.labels))
        assert figures["nll"]["value"] == pytest.approx(compute_nll(probs, logits.labels))
        ece = compute_ece(probs.max(axis=1), probs.argmax(axis=1) == logits.labels)
        assert figures["ece"]["value"] == pytest.approx(ece)
    assert result.temperature == {"value": 2.0, "source": "option"}
    assert result.figures["difference"]["accuracy"]["value"] == 0.0


def test_subjects_and_what_was_read(result):
    assert [(row["subject"], row["n"]) for row in result.subjects] == [(s, 20) for s in sorted(SUBJECTS)]
    assert (result.data["n_read"], result.data["n_questions"], result.data["n_skipped"]) == (60, 60, 0)
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False)) == result.to_dict()


def test_order_of_the_questions_reaches_no_number(model, result):
    again = evaluate(model, RECORDS[::-1], temperature=2.0)
    for name in ("figures", "subjects", "plots", "verdict", "prompting"):
        assert getattr(again, name) == getattr(result, name)
    assert again.data["sha256"] == result.data["sha256"]


def test_the_files_temperature_is_the_default(tmp_path):
    path = write_tiny_llama(tmp_path / "m.gguf", seed=4, metadata={"edgecal.temperature": 1.5})
    assert evaluate(path).temperature == {"value": 1.5, "source": "file"}
    assert evaluate(path, temperature=3.0).temperature == {"value": 3.0, "source": "option"}


def test_no_temperature_no_after(tmp_path):
    result = evaluate(write_tiny_llama(tmp_path / "m.gguf", seed=4), n_bootstrap=0)
    assert result.figures["after"] is None and result.figures["difference"] is None
    assert result.figures["before"]["ece"]["low"] is None
    assert result.temperature == {"value": None, "source": None}


def test_rows_without_answer_are_skipped_and_counted(model):
    mixed = [*RECORDS[:10], *make_questions(3, seed=9, answers=False)]
    result = evaluate(model, mixed)
    assert (result.data["n_read"], result.data["n_questions"], result.data["n_skipped"]) == (13, 10, 3)
    assert {row["reason"] for row in result.data["skipped"]} == {"there is no answer"}
    assert any("3 of 13 rows do not fit" in warning for warning in result.warnings)
    with pytest.raises(edgecal.InputError, match="prompt 11: there is no answer"):
        evaluate(model, mixed, strict=True)
    with pytest.raises(edgecal.InputError, match="there is no answer"):
        evaluate(model, mixed[10:])


def test_subjects_can_be_chosen(model, tmp_path):
    path = write_json_lines(tmp_path / "q.jsonl", RECORDS)
    assert evaluate(model, path, subjects=["Birds"]).data["n_questions"] == 20
    assert evaluate(model, RECORDS, subjects=["birds", "rivers"]).data["n_questions"] == 40
    with pytest.raises(edgecal.InputError, match="fish"):
        evaluate(model, path, subjects=["fish"])


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, []),
        ({"template": "plain"}, ["plain"]),
        ({"shots": 2, "chat_template": "own"}, ["2 worked examples", "chat template"]),
    ],
)
def test_effects_of_prompting(model, options, names):
    result = evaluate(model, effect_sample=8, **options)
    effects = result.prompting["effects"]
    if not names:
        assert effects == []
        return
    assert len(effects) == 2 + (len(names) if len(names) > 1 else 0)
    assert all(effect["n"] == 8 and 0 < effect["choice_mass"]["model"] <= 1 for effect in effects)
    assert all(name in effects[-1]["name"] for name in names)
    # What was asked for is measured on the same prompts as the whole run's.
    assert evaluate(model, effect_sample=60, **options).prompting["effects"][-1]["choice_mass"][
        "model"
    ] == pytest.approx(result.prompting["choice_mass"]["model"])


def test_worked_examples_and_chat_template_reach_the_model(model):
    plain = evaluate(model)
    turned = evaluate(model, chat_template="own")
    shown = evaluate(model, shots=2)
    assert plain.model["n_tokens"] < turned.model["n_tokens"]
    assert plain.model["n_tokens"] < shown.model["n_tokens"]
    assert len({result.data["sha256"] for result in (plain, turned, shown)}) == 3


def test_no_chat_template_to_own(tmp_path):
    path = write_tiny_llama(tmp_path / "m.gguf", seed=4)
    with pytest.raises(edgecal.InputError, match="holds no chat template"):
        evaluate(path, chat_template="own")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"n_bootstrap": 5}, "at least 20 resamples"),
        ({"effect_sample": -1, "shots": 1}, "must be 0 or more"),
        ({"shots": -1}, "worked examples must be at least 0"),
        ({"shots_from": "x.jsonl"}, "but not how many to show"),
        ({"limit": 0}, "limit"),
        ({"template": "{{"}, "not a valid template"),
        ({"data": []}, "there are no prompts"),
    ],
)
def test_bad_options(model, options, message):
    with pytest.raises(edgecal.InputError, match=message):
        evaluate(model, **options)


def test_one_question_is_enough(model):
    result = evaluate(model, RECORDS[:1], temperature=2.0)
    assert result.data["n_questions"] == 1
    assert result.figures["before"]["accuracy"]["value"] in (0.0, 1.0)
    assert np.isfinite(result.figures["after"]["nll"]["value"])


def test_a_baked_file_is_judged_as_it_is(tmp_path, model):
    from edgecal.baking.bake import bake as bake_model

    bake_model(model, tmp_path / "baked.gguf", temperature=2.0)
    baked, divided = evaluate(tmp_path / "baked.gguf"), evaluate(model, temperature=2.0)
    assert baked.temperature == {"value": None, "source": "baked"}
    assert baked.figures["after"] is None
    assert baked.figures["before"]["nll"]["value"] == pytest.approx(
        divided.figures["after"]["nll"]["value"], abs=1e-3
    )
    assert baked.verdict.endswith("(with 2 baked into its weights).")
