"""The self-check: which tokens it takes, what it accepts, and what a refusal says."""

import math

import numpy as np
import pytest
from support.lens_checks import check_lens

from edgecal.errors import ModelError
from edgecal.lens import ALLOWED_RMS, check_token_ids


@pytest.mark.parametrize("n_vocab", [65, 100, 544, 32000, 151936])
def test_tokens_are_spread_over_the_vocabulary(n_vocab):
    ids = check_token_ids(n_vocab, np.zeros((0, 4), np.int32))
    assert ids.dtype == np.int32 and len(ids) == 64
    assert ids.min() >= 0 and ids.max() < n_vocab
    gaps = np.diff(ids, prepend=-1, append=n_vocab)
    assert gaps.min() >= 1 and gaps.max() <= math.ceil(n_vocab / 64) + 1


def test_choice_tokens_are_always_among_them():
    choices = np.array([[7, 9, -1], [9, 31000, 5]])
    ids = check_token_ids(32000, choices)
    assert set(ids) >= {5, 7, 9, 31000} and -1 not in ids
    assert len(ids) == len(set(ids)) == 68 and (np.diff(ids) > 0).all()
    np.testing.assert_array_equal(ids, check_token_ids(32000, choices[::-1]))


@pytest.mark.parametrize("n_vocab", [0, 1, 2, 63, 64])
def test_a_small_vocabulary_is_taken_whole(n_vocab):
    np.testing.assert_array_equal(check_token_ids(n_vocab, np.array([-1])), np.arange(n_vocab))


def some_logits(m=8, r=64):
    return np.random.default_rng(0).standard_normal((m, r)).astype(np.float32)


def test_the_error_is_in_units_of_each_prompts_spread():
    logits = some_logits()
    spread = np.linspace(1.0, 5.0, 8)
    off = (0.001 * spread[:, None] * np.where(np.arange(64) % 2, 1, -1)).astype(np.float32)
    check = check_lens([logits + off], logits, spread)
    assert check.rms == pytest.approx(0.001, rel=1e-3)
    assert check.accepted and check.where == "64 tokens of 8 prompts"
    check.raise_if_refused("chat.gguf", "llama")


def test_each_prompt_counts_in_the_way_that_fits_it_best():
    """Builds of llama.cpp round the head's input or do not, some by how many rows there are; nothing else is right."""
    logits = some_logits()
    off = np.zeros_like(logits)
    off[:4] = 0.1
    ways = [logits + off, logits + off[::-1]]
    assert check_lens(ways, logits, np.ones(8)).rms == 0
    assert not check_lens(ways[:1], logits, np.ones(8)).accepted
    assert not check_lens([logits + np.float32(0.01), logits - np.float32(0.02)], logits, np.ones(8)).accepted


@pytest.mark.parametrize("share, accepted", [(0.0, True), (0.00299, True), (0.00301, False), (1.0, False)])
def test_the_limit(share, accepted):
    logits = some_logits()
    assert ALLOWED_RMS == 0.003
    assert check_lens([logits + np.float32(share)], logits, np.ones(8)).accepted is accepted


def test_one_prompt_that_is_far_off_is_enough():
    logits = some_logits()
    projected = logits.copy()
    projected[3] += 0.1
    assert not check_lens([projected], logits, np.ones(8)).accepted


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["projected", "logits", "both", "spread"])
def test_what_is_not_finite_is_refused(bad, where):
    projected, logits, spread = some_logits(), some_logits(), np.ones(8)
    if where in ("projected", "both"):
        projected[2, 5] = bad
    if where in ("logits", "both"):
        logits[2, 5] = bad
    if where == "spread":
        spread[2] = bad
    check = check_lens([projected], logits, spread)
    assert not check.accepted
    with pytest.raises(ModelError, match="no finite numbers"):
        check.raise_if_refused("chat.gguf", "llama")


def test_no_spread_is_refused():
    logits = np.zeros((1, 64), np.float32)
    assert not check_lens([logits], logits, np.zeros(1)).accepted


def test_a_refusal_says_all_in_one_line():
    logits = some_logits()
    with pytest.raises(ModelError) as caught:
        check_lens([logits + 0.1234], logits, np.ones(8)).raise_if_refused("dir/chat.gguf", "gemma3n")
    message = str(caught.value)
    assert "\n" not in message and caught.value.exit_code == 3
    for part in (
        "dir/chat.gguf",
        "gemma3n",
        "12.3 %",
        "at most 0.3 %",
        "64 tokens of 8 prompts",
        "--method daca",
    ):
        assert part in message


@pytest.mark.parametrize(
    "shapes", [((8, 64), (8, 63), (8,)), ((8, 64), (8, 64), (7,)), ((64,), (64,), (1,)), ((0, 64), (0, 64), (0,)),
               ((8, 0), (8, 0), (8,))],
)  # fmt: skip
def test_shapes_that_do_not_fit(shapes):
    with pytest.raises(ValueError, match="expected"):
        projected, logits, spread = (np.zeros(shape, np.float32) for shape in shapes)
        check_lens([projected], logits, spread)
    with pytest.raises(ValueError, match="expected"):
        check_lens([], some_logits(), np.ones(8))
