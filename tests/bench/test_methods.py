"""What docs/pairs.md says of the methods, on fewer draws: bounds and prior do what they were chosen for."""

import json
import math

import numpy as np
import pytest
from methods import Judge, lowest, study
from pairs_page import DEFAULT, MAX_DOUBT, NEAR, per_pair, write_page
from stored_pairs import read_pairs

from edgecal.calibration.anchored import GRID_LN_TAU
from edgecal.results.fitting import MAX_RATIO

PAIRS = read_pairs()


@pytest.fixture(scope="module")
def studies():
    import methods

    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("N_POOLS", 1), ("N_DRAWS", 10), ("N_LABELS", (30, 200)), ("N_VARIANT_POOLS", 1)):
            patch.setattr(methods, name, value)
        patch.setattr(methods, "VARIANTS", methods.VARIANTS[:2])
        yield [study(pair) for pair in PAIRS]


@pytest.mark.parametrize("kind", ["small", "real"])
def test_half_of_each_kind_chooses_and_half_judges(kind):
    halves = [pair.half for pair in PAIRS if pair.kind == kind]
    assert abs(halves.count("choosing") - halves.count("judging")) <= 1
    assert len(halves) >= {"small": 12, "real": 6}[kind]


def test_every_pair_holds_what_a_method_may_ask_for():
    for pair in PAIRS:
        n = pair.logits.n_prompts
        assert n >= 800 and pair.logits.n_layer >= 4 and (pair.logits.labels >= 0).all(), pair.name
        assert pair.truth.sum(axis=1) == pytest.approx(np.ones(n), abs=1e-5), pair.name
        assert ("probs" in pair.arrays) == (pair.kind == "small"), pair.name
        assert pair.meta["name"] == pair.name and pair.meta["recipe"], pair.name
        assert len(pair.meta["base_sha256"]) == len(pair.meta["chat_sha256"]) == 64


def test_the_oracle_is_the_temperature_that_was_put_in():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(3000, 4)) * 2.0
    truth = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    judge = Judge(2.5 * (z - z.max(axis=1, keepdims=True)), truth)
    assert judge.oracle() == pytest.approx(2.5, rel=1e-3)
    assert judge.ece(2.5) < 0.02 < judge.ece(1.0)
    assert math.exp(lowest((GRID_LN_TAU - 0.3) ** 2)) == pytest.approx(math.exp(0.3), rel=1e-9)


def test_a_settled_result_never_harms(studies):
    for found in studies:
        for bracket, entry in zip(found["brackets"], found["found"][DEFAULT], strict=True):
            if bracket["settled"]:
                assert bracket["ratio"] <= MAX_RATIO and not entry["harmful"], found["name"]


def test_settled_results_are_right_within_15_percent_where_the_base_is_a_base(studies):
    """A base model that was taught to be unsure is no yardstick, and no unlabelled prompt tells."""
    for found in studies:
        for bracket, entry in zip(found["brackets"], found["found"][DEFAULT], strict=True):
            if bracket["settled"] and "-then-" not in found["name"]:
                assert entry["error"] <= NEAR, found["name"]
    assert sum(found["brackets"][0]["settled"] for found in studies) >= 6


def ratios(studies, n):
    """Anchored error over supervised error, pair by pair."""
    return [per_pair(s, f"anchored {n}", "error") / per_pair(s, f"supervised {n}", "error") for s in studies]


def test_thirty_labels_are_worth_far_more_with_the_prior(studies):
    for half in ("choosing", "judging"):
        chosen = [s for s in studies if s["half"] == half]
        ours, theirs = (
            np.mean([per_pair(s, f"{kind} 30", "error") for s in chosen])
            for kind in ("anchored", "supervised")
        )
        assert ours < 0.65 * theirs
        assert np.mean(ratios(chosen, 30)) < 0.7


@pytest.mark.parametrize("n", [30, 200])
def test_on_no_pair_do_labels_do_better_alone(studies, n):
    """Beyond the noise of ten draws, and where the base model is no yardstick neither."""
    assert max(ratios(studies, n)) < 1.25


def test_anchored_results_without_doubt_do_not_harm(studies):
    kept = [
        entry
        for found in studies
        for n in (30, 200)
        for entry in found["found"][f"anchored {n}"]
        if entry["doubt"] <= MAX_DOUBT
    ]
    assert len(kept) > 100
    assert np.mean([entry["harmful"] for entry in kept]) <= 0.01


def test_intervals_hold_the_right_temperature(studies):
    covered = [entry["covered"] for s in studies for n in (30, 200) for entry in s["found"][f"anchored {n}"]]
    assert np.mean(covered) > 0.9


def test_the_page_has_every_pair_and_can_be_kept_as_json(studies):
    page = write_page(studies, (30, 200), {"pool": 500, "pools": 1, "draws": 10})
    assert all(f"### {pair.name}\n" in page for pair in PAIRS)
    assert "nan" not in page
    json.dumps(studies)
