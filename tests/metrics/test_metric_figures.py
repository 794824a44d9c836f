"""Every figure against its definition in loops, by hand, and by its laws."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from support.metric_data import (
    draw_answers,
    ragged_case,
    random_case,
    twin_aurc,
    twin_auroc,
    twin_bins_error,
    twin_classwise,
    twin_mass_bins,
    twin_mce,
    twin_smece,
    twin_width_bins,
)

from edgecal.errors import InputError
from edgecal.metrics import (
    FIGURES,
    Judged,
    compute_aurc,
    compute_auroc,
    compute_brier_multiclass,
    compute_classwise_ece,
    compute_ece_debiased,
    compute_ece_equal_mass,
    compute_figures,
    compute_mce,
    compute_mean_confidence,
    compute_rmsce_debiased,
    compute_smece,
    estimate_difference,
    estimate_figures,
    softmax_probs,
)
from edgecal.metrics.smooth import cells_for, smooth_error
from edgecal.metrics.tally import tally_examples

NAMES = [figure.name for figure in FIGURES]
OVER_PROBS = {"brier_multiclass", "nll", "classwise_ece"}


def test_the_list_of_figures():
    assert (
        "accuracy confidence ece ece_15 ece_equal_mass ece_debiased rmsce_debiased mce smece "
        "brier brier_multiclass nll auroc aurc classwise_ece"
    ).split() == NAMES
    without_probs = compute_figures(Judged.from_confidence(np.linspace(0.1, 0.9, 60), [0, 1] * 30))
    assert {name for name, value in without_probs.items() if np.isnan(value)} == OVER_PROBS
    for figure in FIGURES:
        assert figure.better in ("lower", "higher", "none")
        assert figure.title and "\n" not in figure.explanation


def twin_figures(judged):
    sure, correct = judged.confidence, judged.correct
    ece = [twin_bins_error(sure, correct, twin_width_bins(sure, n))[0] for n in (10, 15)]
    mass, debiased, rms = twin_bins_error(sure, correct, twin_mass_bins(sure, 15))
    truth = np.eye(judged.probs.shape[1])[judged.labels]
    right = judged.probs[np.arange(len(judged)), judged.labels]
    nll = np.mean([-math.log(p) if p > 0 else math.inf for p in right])
    return {
        "accuracy": np.mean(judged.probs.argmax(axis=1) == judged.labels),
        "confidence": np.mean(judged.probs.max(axis=1)),
        "ece": ece[0],
        "ece_15": ece[1],
        "ece_equal_mass": mass,
        "ece_debiased": debiased,
        "rmsce_debiased": rms,
        "mce": twin_mce(sure, correct),
        "brier": np.mean((sure - correct) ** 2),
        "brier_multiclass": np.mean(np.sum((judged.probs - truth) ** 2, axis=1)),
        "nll": nll,
        "auroc": twin_auroc(sure, correct),
        "aurc": twin_aurc(sure, correct),
        "classwise_ece": twin_classwise(judged.probs, judged.labels, judged.n_choices),
    }


def assert_same(figures, expected, skip=()):
    for name, value in expected.items():
        if name not in skip:
            # the root of a difference of squares loses half of the digits near 0
            tolerance = 1e-7 if name == "rmsce_debiased" else 1e-12
            assert figures[name] == pytest.approx(value, abs=tolerance, rel=1e-12, nan_ok=True), name


def test_figures_equal_their_twins():
    for seed in range(300):
        judged = Judged.from_probs(*random_case(seed))
        assert_same(compute_figures(judged), twin_figures(judged))


def test_figures_equal_their_twins_on_rows_of_different_length():
    for seed in range(40):
        judged = Judged.from_probs(*ragged_case(seed))
        assert_same(compute_figures(judged), twin_figures(judged))


def test_smooth_error_equals_its_twin():
    rng = np.random.default_rng(3)
    cases = [Judged.from_probs(*random_case(seed)) for seed in range(60)]
    for n, power in ((300, 2), (2000, 6), (5000, 40), (5000, 400)):  # ever closer to 1: ever smaller errors
        confidence = np.round(rng.random(n) ** (1 / power), 4 if power > 50 else 3)
        correct = rng.random(n) < confidence
        cases.append(Judged.from_confidence(confidence, correct))
        cases.append(Judged.from_confidence(1.0 - confidence, ~correct))
    widths = []
    for judged in cases:
        tally = tally_examples(judged.confidence, judged.correct)
        expected = twin_smece(tally.levels, ((tally.hits - tally.n * tally.levels) / tally.total)[0])
        assert compute_smece(judged.confidence, judged.correct) == pytest.approx(expected, abs=1e-6)
        coarse = smooth_error(tally, cells_for(expected))[0]
        assert coarse == pytest.approx(expected, abs=2e-5 if expected > 0.002 else 2e-4)
        widths.append(expected)
    assert min(w for w in widths if w > 0) < 0.002


def test_by_hand():
    sure, correct = np.array([0.9, 0.8, 0.8, 0.6]), np.array([True, True, False, False])
    assert compute_mean_confidence(sure) == pytest.approx(0.775)
    assert compute_auroc(sure, correct) == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    # most confident first: 0 wrong of 1; one of the two 0.8 is wrong: 0.5 of 2 expected; 1 of 3; 2 of 4
    assert compute_aurc(sure, correct) == pytest.approx((0 + 0.5 / 2 + 1 / 3 + 2 / 4) / 4)
    # two bins, cut inside the tie: the tie goes to the lower one, {0.6, 0.8, 0.8} and {0.9}
    assert compute_ece_equal_mass(sure, correct, 2) == pytest.approx((abs(1 - 2.2) + 0.1) / 4)
    # only the lower bin shows its noise: d = 0.4, accuracy 1/3
    assert compute_rmsce_debiased(sure, correct, 2) == pytest.approx(math.sqrt(0.75 * (0.16 - (2 / 9) / 2)))
    assert compute_mce(sure, correct) == pytest.approx(0.6)
    assert compute_brier_multiclass([[0.5, 0.5, 0], [1, 0, 0]], [0, 1]) == pytest.approx((0.5 + 2) / 2)
    # A is said 0.6 and 1 (true once), B 0.4 and 0 (true once); each probability in a bin of its own
    assert compute_classwise_ece([[0.6, 0.4], [1, 0]], [0, 1]) == pytest.approx(
        ((0.4 + 1) / 2 + (0.4 + 1) / 2) / 2
    )


def test_the_worst_bin_ignores_a_handful_unless_there_is_nothing_else():
    sure = np.array([0.55] * 30 + [0.95] * 19)
    correct = np.array([True] * 15 + [False] * 15 + [False] * 19)
    assert compute_mce(sure, correct) == pytest.approx(0.05)
    assert compute_mce(sure, correct, min_examples=19) == pytest.approx(0.95)
    assert compute_mce(sure[-19:], correct[-19:]) == pytest.approx(0.95)


@pytest.mark.parametrize("confidence", [0.0, 0.25, 1 / 3, 0.5, 1.0])
@pytest.mark.parametrize("correct", [True, False])
def test_one_example(confidence, correct):
    figures = compute_figures(Judged.from_confidence([confidence], [correct]))
    gap = abs(correct - confidence)
    expected = dict.fromkeys(("ece", "ece_15", "ece_equal_mass", "mce", "smece"), gap)
    expected |= {"accuracy": float(correct), "confidence": confidence, "brier": gap**2, "aurc": 1.0 - correct}
    expected |= dict.fromkeys(("ece_debiased", "rmsce_debiased", "auroc", *OVER_PROBS), math.nan)
    assert_same(figures, expected)


@pytest.mark.parametrize("right", [True, False])
def test_all_right_and_all_wrong(right):
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.25, 1.0, size=500)
    figures = compute_figures(Judged.from_confidence(sure, np.full(500, right)))
    gap = 1 - sure.mean() if right else sure.mean()
    for name in ("ece", "ece_15", "ece_equal_mass", "ece_debiased", "smece"):
        assert figures[name] == pytest.approx(gap, abs=1e-6), name
    assert figures["rmsce_debiased"] >= gap
    assert math.isnan(figures["auroc"])
    assert figures["aurc"] == (0.0 if right else 1.0)


def test_perfect_certainty_has_no_error_at_all():
    figures = compute_figures(Judged.from_probs(np.eye(4)[[0, 1, 2, 3] * 10], [0, 1, 2, 3] * 10))
    assert figures.pop("accuracy") == figures.pop("confidence") == 1.0
    assert math.isnan(figures.pop("auroc"))
    assert set(figures.values()) == {0.0}


def tied_sets():
    rng = np.random.default_rng(6)
    probs = (
        rng.multinomial(10, rng.dirichlet(np.ones(4), size=200)) / 10
    )  # equal confidences, other options differ
    labels = rng.integers(0, 4, size=200)
    tied = Judged.from_probs(probs, labels)
    smooth = Judged.from_probs(rng.dirichlet(np.ones(4), size=200), labels)
    bare = Judged.from_confidence(tied.confidence, tied.correct)
    return [(tied, smooth), (smooth, tied), (bare, smooth), (tied, tied)]


def test_the_order_of_examples_changes_no_bit():
    for number, (judged, other) in enumerate(tied_sets()):
        order = np.random.default_rng(number).permutation(len(judged))
        shuffled, other_shuffled = judged.take(order), other.take(order)
        np.testing.assert_equal(compute_figures(shuffled), compute_figures(judged))
        np.testing.assert_equal(
            estimate_figures(shuffled, n_bootstrap=20), estimate_figures(judged, n_bootstrap=20)
        )
        np.testing.assert_equal(
            estimate_difference(shuffled, other_shuffled, n_bootstrap=20),
            estimate_difference(judged, other, n_bootstrap=20),
        )


def test_the_order_of_options_changes_the_classwise_error_alone():
    rng = np.random.default_rng(5)
    probs = rng.dirichlet(np.full(4, 0.7), size=400)
    labels = np.where(rng.random(400) < 0.3, 0, rng.integers(0, 4, size=400))
    moved = np.argsort(rng.random((400, 4)), axis=1)
    before = compute_figures(Judged.from_probs(probs, labels))
    after = compute_figures(
        Judged.from_probs(
            np.take_along_axis(probs, moved, axis=1), np.argmax(moved == labels[:, None], axis=1)
        )
    )
    assert_same(after, before, skip={"classwise_ece", "smece"})
    assert after["smece"] == pytest.approx(before["smece"], abs=1e-9)
    assert abs(after["classwise_ece"] - before["classwise_ece"]) > 0.01  # the preference for A is gone
    # one renaming of the letters for all questions only changes the order of the mean
    renamed = compute_figures(Judged.from_probs(probs[:, [2, 0, 3, 1]], np.array([1, 3, 0, 2])[labels]))
    assert_same(renamed, before, skip={"smece"})


def test_padding_is_not_an_option():
    probs, labels = random_case(0)
    padded = np.pad(probs, ((0, 0), (0, 3)))
    n_choices = np.full(len(labels), probs.shape[1])
    np.testing.assert_equal(
        compute_figures(Judged.from_probs(padded, labels, n_choices)),
        compute_figures(Judged.from_probs(probs, labels)),
    )


def test_asking_everything_twice_changes_what_knows_no_sample_size_in_nothing():
    for seed in (0, 6, 12, 4):
        judged = Judged.from_probs(*random_case(seed))
        once = compute_figures(judged)
        twice = compute_figures(judged.take(np.tile(np.arange(len(judged)), 2)))
        # the others know how many examples a bin has, or what the coverage of one example is
        knowing = {"ece_equal_mass", "ece_debiased", "rmsce_debiased", "mce", "aurc"}
        assert_same(twice, once, skip=knowing)


def test_a_temperature_keeps_the_accuracy_and_with_two_options_the_ranking():
    rng = np.random.default_rng(8)
    logits = rng.normal(size=(300, 2)) * 2
    labels = rng.integers(0, 2, size=300)
    plain = compute_figures(Judged.from_probs(softmax_probs(logits, np.full(300, 2)), labels))
    for temperature in (0.3, 4.0):
        judged = Judged.from_probs(softmax_probs(logits, np.full(300, 2), temperature), labels)
        figures = compute_figures(judged)
        for name in ("accuracy", "auroc", "aurc"):
            assert figures[name] == pytest.approx(plain[name], abs=1e-12)
        assert abs(figures["nll"] - plain["nll"]) > 0.01


def test_laws_between_figures():
    for seed in range(200):
        judged = Judged.from_probs(*random_case(seed))
        sure, correct = judged.confidence, judged.correct
        f = compute_figures(judged)
        overall = abs(f["accuracy"] - f["confidence"])
        tally = tally_examples(sure, correct)
        by_level = np.abs(tally.hits - tally.n * tally.levels).sum() / len(sure)
        for name in ("ece", "ece_15", "ece_equal_mass", "smece"):
            assert overall - 1e-12 <= f[name] <= by_level + 1e-12, name
        assert compute_mce(sure, correct, min_examples=1) >= f["ece"] - 1e-12
        assert f["mce"] <= compute_mce(sure, correct, min_examples=1) + 1e-12
        assert np.isnan(f["ece_debiased"]) or f["ece_debiased"] <= f["ece_equal_mass"] + 1e-12
        assert 0 <= f["brier_multiclass"] <= 2
        if not math.isnan(f["auroc"]):
            assert compute_auroc(sure, ~correct) == pytest.approx(1 - f["auroc"], abs=1e-12)
        assert compute_smece(1 - sure, ~correct) == pytest.approx(f["smece"], abs=1e-6)  # the mirror image
        squeezed = 0.2 + 0.5 * sure**3
        assert compute_aurc(squeezed, correct) == pytest.approx(f["aurc"], abs=1e-12)
        assert compute_auroc(squeezed, correct) == pytest.approx(f["auroc"], abs=1e-12, nan_ok=True)


def test_the_area_lies_between_a_perfect_and_the_worst_order():
    sure, correct = draw_answers(np.random.default_rng(1), 400, lambda c: c)
    area = compute_aurc(sure, correct)
    best = compute_aurc(np.where(correct, 1.0, 0.5), correct)
    worst = compute_aurc(np.where(correct, 0.5, 1.0), correct)
    assert best < area < 1 - correct.mean() < worst
    assert compute_aurc(np.full(400, 0.25), correct) == pytest.approx(1 - correct.mean(), abs=1e-12)


def test_without_probabilities_three_figures_are_unknown():
    judged = Judged.from_probs(*random_case(0))
    whole = compute_figures(judged)
    part = compute_figures(Judged.from_confidence(judged.confidence, judged.correct))
    for name in NAMES:
        if name in OVER_PROBS:
            assert math.isnan(part[name]) and not math.isnan(whole[name])
        else:
            assert part[name] == whole[name]


def test_judged_keeps_what_it_was_given():
    probs, labels, n_choices = ragged_case(3)
    judged = Judged.from_probs(probs.tolist(), labels, n_choices)
    np.testing.assert_array_equal(judged.predicted, probs.argmax(axis=1))
    np.testing.assert_array_equal(judged.correct, probs.argmax(axis=1) == labels)
    np.testing.assert_array_equal(judged.confidence, probs.max(axis=1))
    part = judged.take([5, 5, 0])
    np.testing.assert_array_equal(part.probs, probs[[5, 5, 0]])
    np.testing.assert_array_equal(part.labels, labels[[5, 5, 0]])
    np.testing.assert_array_equal(judged.take(n_choices == 3).n_choices, 3)
    tie = Judged.from_probs([[0.5, 0.5]], [1])
    assert tie.predicted[0] == 0 and not tie.correct[0]


PAIR = np.array([[0.6, 0.4], [0.3, 0.7]])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Judged.from_probs(np.zeros((0, 4)), np.zeros(0, int)), "no example"),
        (lambda: Judged.from_confidence([], []), "no example"),
        (lambda: Judged.from_probs(PAIR, [0, 1]).take([]), "no example"),
        (lambda: Judged.from_probs(PAIR, [0, 1]).take([False, False]), "no example"),
        (lambda: Judged.from_probs([[math.nan, 1.0]], [0]), "probability is not between"),
        (lambda: Judged.from_probs([[1.2, -0.2]], [0]), "probability is not between"),
        (lambda: Judged.from_probs(PAIR * [[1], [0.9]], [0, 1]), "row 1 sum to 0.9, expected 1"),
        (lambda: Judged.from_probs(PAIR, [0, 2]), "label"),
        (lambda: Judged.from_probs(PAIR, [0.0, 1.0]), "label"),
        (lambda: Judged.from_probs(PAIR, [0, 1], [2, 3]), "number of choices is not"),
        (lambda: Judged.from_probs(PAIR, [0, 0], [2, 1]), "beyond its row's number of choices"),
        (lambda: Judged.from_probs(PAIR, [0]), "do not fit"),
        (lambda: Judged.from_probs([0.5, 0.5], [0, 1]), "expected .n, k_max."),
        (lambda: Judged.from_confidence([0.5], [True, False]), "do not fit"),
        (lambda: Judged.from_confidence([0.5], [0.5]), "other than true and false"),
        (lambda: Judged.from_confidence([math.inf], [True]), "confidence is not between"),
        (lambda: compute_mce([0.5], [True], 0), "number of bins"),
        (lambda: compute_mce([0.5], [True], min_examples=0), "smallest bin"),
        (lambda: compute_classwise_ece(PAIR, [0, 1], n_bins=0), "number of bins"),
        (lambda: compute_mean_confidence([]), "no example"),
        (lambda: compute_mean_confidence([math.nan]), "between 0 and 1"),
    ]
    + [
        (lambda f=f: f([math.nan, 0.5], [True, False]), "between 0 and 1")
        for f in (
            compute_ece_equal_mass, compute_ece_debiased, compute_rmsce_debiased, compute_mce, compute_smece,
            compute_auroc, compute_aurc,
        )
    ]
    + [(lambda f=f: f([], []), "no example") for f in (compute_ece_equal_mass, compute_smece, compute_auroc)]
    + [
        (lambda f=f: f([0.5], [True], 0), "number of bins")
        for f in (compute_ece_equal_mass, compute_ece_debiased, compute_rmsce_debiased)
    ],
)  # fmt: skip
def test_nonsense_is_refused(call, words):
    with pytest.raises(InputError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_importing_the_figures_loads_numpy_alone():
    code = "import edgecal.metrics, sys, json; print(json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    loaded = {name.split(".")[0] for name in json.loads(out)}
    assert "numpy" in loaded
    assert not loaded & {"numba", "scipy", "sklearn", "matplotlib"}
