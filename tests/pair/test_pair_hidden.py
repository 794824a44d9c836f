"""The last hidden states that a capture returns when asked, and a model's head on hidden states that are given."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from support.prompts import random_token_prompts
from support.reference import ReferenceLlama
from support.tiny_archs import tiny_arch
from support.tiny_models import tiny_folder, write_tiny_pair

import edgecal
from edgecal.errors import ModelError
from edgecal.pair.run import RunOptions, capture_model, choice_tokens, project_states
from edgecal.pair.worker_project import pick

OPTIONS = RunOptions(settings=edgecal.CaptureSettings(n_threads=1))
PROMPTS = edgecal.load_prompts(random_token_prompts(14, seed=3, length=12))


@cache
def pair():
    folder = tiny_folder() / "pair hidden"
    folder.mkdir()
    return write_tiny_pair(folder / "base.gguf", folder / "chat.gguf", seed=5, n_layer=2, n_embd=32)


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGECAL_CACHE_DIR", str(tmp_path / "cache"))


def capture(path, prompts=PROMPTS, *, layers=True, hidden=True, options=OPTIONS):
    runs = []
    seen = capture_model(
        str(path), "model", prompts, layers=layers, hidden=hidden, options=options,
        on_progress=lambda role, at: runs.append(at.total - at.done) if at.stage == "run" else None,
    )  # fmt: skip
    return seen, runs[0] if runs else 0


def project(path, prompts, states):
    found = project_states(str(path), "base", prompts, states, options=OPTIONS)
    tokens = choice_tokens(str(path), "base", prompts, options=OPTIONS)
    counted = tokens >= 0
    np.testing.assert_array_equal(found.columns >= 0, counted)
    np.testing.assert_array_equal(found.token_ids[found.columns[counted]], tokens[counted])
    assert [list(row[row >= 0]) for row in tokens] == [list(prompt.choice_tokens) for prompt in prompts]
    return found


def test_the_models_own_head_on_its_own_states_is_its_last_layer():
    seen, _ = capture(pair()[0])
    assert seen.last_hidden.shape == (14, 32) and seen.last_hidden.dtype == np.float32
    found = project(pair()[0], PROMPTS, seen.last_hidden)
    logits = pick(found.logits, found.columns)
    np.testing.assert_array_equal(logits, seen.layer_logits[:, -1])
    counted = np.isfinite(seen.final_logits)
    np.testing.assert_allclose(logits[counted], seen.final_logits[counted], atol=1e-3)
    turned = np.arange(14)[::-1].repeat(2)
    again = project(pair()[0], PROMPTS, seen.last_hidden[turned])
    np.testing.assert_array_equal(again.logits, found.logits[turned])


def test_against_the_reference():
    """llama.cpp keeps keys and values as 16-bit floats; the reference computes in float64."""
    for path in pair():
        model = ReferenceLlama(path)
        expected = np.array([model.hidden(list(prompt.tokens))[-1] for prompt in PROMPTS])
        np.testing.assert_allclose(capture(path)[0].last_hidden, expected, atol=0.02)


@pytest.mark.parametrize("name", ["gemma3n", "hy_v4"])
def test_several_streams_are_merged(name):
    prompts = edgecal.load_prompts(random_token_prompts(10, seed=4, length=12, n_vocab=200))
    path = tiny_arch(name)
    seen, _ = capture(path, prompts)
    found = project(path, prompts, seen.last_hidden)
    np.testing.assert_array_equal(pick(found.logits, found.columns), seen.layer_logits[:, -1])


def test_states_of_another_width_are_refused():
    with pytest.raises(ModelError, match="hidden states of 32 numbers, got 31"):
        project(pair()[0], PROMPTS, np.zeros((1, 31), np.float32))


def test_hidden_states_are_cached_and_serve_runs_without_but_not_the_other_way_round():
    bare, n_bare = capture(pair()[1], hidden=False)
    assert n_bare == 14 and bare.last_hidden is None
    first, n_first = capture(pair()[1])
    again, n_again = capture(pair()[1])
    without, n_without = capture(pair()[1], hidden=False)
    assert (n_first, n_again, n_without) == (14, 0, 0)
    np.testing.assert_array_equal(first.last_hidden, again.last_hidden)
    uncached, _ = capture(pair()[1], options=replace(OPTIONS, cache=False))
    np.testing.assert_array_equal(first.last_hidden, uncached.last_hidden)
    assert without.last_hidden is None
    np.testing.assert_array_equal(without.layer_logits, first.layer_logits)
    np.testing.assert_array_equal(bare.layer_logits, first.layer_logits)


def test_parts_and_another_order_keep_each_prompts_state():
    whole, _ = capture(pair()[1])
    parts = capture(pair()[1], PROMPTS[:5])[0].then(capture(pair()[1], PROMPTS[5:])[0])
    np.testing.assert_array_equal(parts.last_hidden, whole.last_hidden)
    order = list(range(13, -1, -1))
    np.testing.assert_array_equal(whole.ordered(order).last_hidden, whole.last_hidden[order])
