"""`edgecal.plan`: what it says is what a run then does."""

import json
from functools import cache

import pytest
from support.options import grouped
from support.prompts import random_token_prompts
from support.tiny_models import tiny_folder, write_tiny_pair

import edgecal
from edgecal import InputError, ModelError, RunOptions
from edgecal.llama.settings import CaptureSettings

ONE_THREAD = CaptureSettings(n_threads=1)
METHODS = ("dual-align", "daca")


def shared_prompts():
    """24 prompts: four beginnings of 16 tokens, six endings each; each ending a length of its own; one repeats."""
    records = random_token_prompts(4, seed=1, length=1000)
    beginnings = [record["tokens"][:16] for record in records]
    made = []
    for number, tail in enumerate(random_token_prompts(24, seed=2, length=12)):
        made.append({**tail, "tokens": beginnings[number % 4] + tail["tokens"]})
    return [*made, {**made[3], "choice_tokens": made[4]["choice_tokens"]}]


RECORDS = shared_prompts()


def count_prefixes(records):
    """Tokens that any order must compute: the distinct beginnings of all prompts."""
    return len(
        {tuple(record["tokens"][:n]) for record in records for n in range(1, len(record["tokens"]) + 1)}
    )


@cache
def pair():
    folder = tiny_folder() / "plan"
    folder.mkdir()
    return write_tiny_pair(folder / "base.gguf", folder / "chat.gguf", seed=5, n_layer=2, n_embd=32)


def files_below(*folders):
    return {path: path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def found():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGECAL_CACHE_DIR", str(tiny_folder() / "no cache yet"))
        seen = []
        plan = edgecal.plan(
            *pair(), RECORDS, on_progress=seen.append, run=RunOptions(settings=ONE_THREAD, cache=False)
        )
        return plan, seen


@pytest.mark.parametrize("role", ["base", "chat"])
def test_the_numbers_are_the_prompts(found, role):
    plan, _ = found
    model = plan.models[role]
    assert plan.n_questions == model["n_prompts"] == len(RECORDS) and model["n_kept"] == 0
    assert model["n_tokens"] == sum(len(record["tokens"]) for record in RECORDS)
    assert model["n_distinct"] == count_prefixes(RECORDS) < model["n_tokens"]
    assert model["n_distinct"] <= model["n_computed"] <= model["n_tokens"] + 12 * len(RECORDS)
    path = pair()[role == "chat"]
    assert model["path"] == str(path) and model["file_bytes"] == path.stat().st_size
    assert model["n_decodes"] >= 1 and 1 <= model["n_sequences"] <= ONE_THREAD.n_seq_max
    assert model["n_threads"] == 1 == plan.settings["n_threads"]
    assert model["cache_bytes"] > 0 and model["available_bytes"] > 0
    assert model["tokens_per_s"] > 0 and model["seconds"] >= model["n_computed"] / model["tokens_per_s"]


def test_both_models_take_what_each_takes_and_json_holds_it(found):
    plan, seen = found
    assert plan.seconds == sum(model["seconds"] for model in plan.models.values())
    assert json.loads(json.dumps(plan.to_dict(), allow_nan=False)) == plan.to_dict()
    assert list(plan.to_dict()) == ["n_questions", "data", "models", "seconds", "settings", "warnings"]
    assert list(plan.models) == ["base", "chat"]
    assert {progress.stage for progress in seen} == {"load"}  # no prompt is run


def test_a_run_then_computes_what_was_planned():
    prompts = edgecal.load_prompts(RECORDS)
    edgecal.capture(*pair(), prompts[:10], run=RunOptions(settings=ONE_THREAD))
    plan = edgecal.plan(*pair(), prompts, run=RunOptions(settings=ONE_THREAD))
    missing = [{"tokens": list(prompt.tokens)} for prompt in prompts[10:]]
    seen = []
    edgecal.capture(*pair(), prompts, on_progress=seen.append, run=RunOptions(settings=ONE_THREAD))
    for role, model in plan.models.items():
        assert (model["n_prompts"], model["n_kept"]) == (len(RECORDS), 10)
        assert model["n_tokens"] == sum(len(record["tokens"]) for record in missing)
        assert model["n_distinct"] == count_prefixes(missing)
        runs = [progress for progress in seen if (progress.stage, progress.model) == ("run", role)]
        assert runs[0].done == 10 and runs[-1].done == len(RECORDS)
        assert runs[-1].n_tokens_done == runs[-1].n_tokens_total == model["n_computed"]
    for model in edgecal.plan(*pair(), prompts, run=RunOptions(settings=ONE_THREAD)).models.values():
        assert model["n_kept"] == len(RECORDS) and model["seconds"] == 0.0
        assert model["n_tokens"] == model["n_distinct"] == model["n_computed"] == model["n_decodes"] == 0


def test_what_daca_kept_is_not_enough_for_layers():
    prompts = edgecal.load_prompts(RECORDS)
    edgecal.capture(*pair(), prompts, layers=False, run=RunOptions(settings=ONE_THREAD))
    kept = {
        method: [
            model["n_kept"]
            for model in edgecal.plan(
                *pair(), prompts, method=method, run=RunOptions(settings=ONE_THREAD)
            ).models.values()
        ]
        for method in METHODS
    }
    assert kept == {"daca": [len(RECORDS)] * 2, "dual-align": [0, 0]}


def test_nothing_is_written_but_the_models_digests(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGECAL_CACHE_DIR", str(tmp_path))
    before = files_below(pair()[0].parent)
    edgecal.plan(*pair(), RECORDS[:3], run=RunOptions(settings=ONE_THREAD, cache=False))
    assert files_below(tmp_path) == {} and files_below(pair()[0].parent) == before


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"method": "guess"}, InputError, "guess"),
        ({"timeout_s": 0}, InputError, "timeout"),
        ({"prompts": [{"tokens": [10**6], "choice_tokens": [1, 2]}]}, InputError, "token id 1000000"),
        ({"base": "/no/such.gguf"}, InputError, "/no/such.gguf"),
    ],
)
def test_bad_input_is_one_line(options, error, told):
    base, chat = pair()
    given = {"base": base, "chat": chat, "prompts": RECORDS[:3], "settings": ONE_THREAD, "cache": False}
    with pytest.raises(error, match=told) as caught:
        edgecal.plan(**grouped(**(given | options)))
    assert "\n" not in str(caught.value)


def test_a_model_that_cannot_be_loaded_is_a_models_error(tmp_path):
    bad = tmp_path / "chat.gguf"
    content = bytearray(pair()[1].read_bytes())
    bad.write_bytes(content.replace(b"blk.1.ffn_up.weight", b"blk.1.ffn_xx.weight"))
    with pytest.raises(ModelError) as caught:
        edgecal.plan(pair()[0], bad, RECORDS[:3], run=RunOptions(settings=ONE_THREAD, cache=False))
    assert "\n" not in str(caught.value) and str(bad) in str(caught.value)
