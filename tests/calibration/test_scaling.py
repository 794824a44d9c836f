"""More than one number: planted subjects and biases are found, noise is not, and the optimum is one."""

from dataclasses import replace

import numpy as np
import pytest
from support.choice_data import make_choice_logits, rebuild

from edgecal.calibration import Method, choose_scaling, fit_temperature
from edgecal.calibration.scaling import FORMS, _minimise
from edgecal.errors import InputError
from edgecal.metrics import compute_nll, softmax_probs


def planted(n, *, scale=lambda subject: 0.4, scales=1.0, biases=0.0, n_subjects=3, seed=0, k=4):
    """Logits z, subjects, and labels drawn from softmax(scale(subject) scales (z - mean) + biases)."""
    rng = np.random.default_rng(seed)
    logits = make_choice_logits(n, 1, k, seed=seed, layers=False)
    subjects = [f"s{i}" for i in rng.integers(n_subjects, size=n)]
    z = logits.chat_final - logits.chat_final.mean(axis=1, keepdims=True, dtype=np.float64)
    own = np.array([[scale(subject)] for subject in subjects])
    probs = softmax_probs(z * own * scales + biases, logits.n_choices)
    labels = (rng.uniform(size=(n, 1)) > probs.cumsum(axis=1)).sum(axis=1)
    return rebuild(logits, labels=np.minimum(labels, logits.n_choices - 1)), subjects


def test_one_temperature_is_that_of_ts():
    logits, subjects = planted(300)
    found = choose_scaling(logits, subjects)
    tau = fit_temperature(logits, Method("ts"), n_bootstrap=0).temperature
    assert found.scalings["temperature"].temperature == pytest.approx(tau, rel=1e-9)
    scaled = found.scalings["temperature"].apply(logits.chat_final, subjects)
    np.testing.assert_allclose(
        softmax_probs(scaled, logits.n_choices),
        softmax_probs(logits.chat_final, logits.n_choices, tau),
        atol=1e-9,
    )
    assert set(found.trials) == set(FORMS[1:]) and not found.withheld and found.n_labelled == 300


def test_planted_subjects_are_found():
    truth = {"s0": 1.0, "s1": 0.25, "s2": 0.5}
    logits, subjects = planted(1500, scale=truth.get)
    found = choose_scaling(logits, subjects)
    assert found.form == "subject" and found.trials["subject"].low > 0
    taus = found.scalings["subject"].subjects
    for subject, scale in truth.items():
        assert abs(np.log(taus[subject] * scale)) < 0.2
    unseen = found.scalings["subject"]
    scaled = unseen.apply(logits.chat_final[:2], ["other", None])
    np.testing.assert_allclose(
        np.diff(scaled) * unseen.temperature, np.diff(logits.chat_final[:2]), rtol=1e-5
    )


def test_a_subject_with_few_labels_stays_near_the_common_temperature():
    logits, subjects = planted(400, n_subjects=2)
    few = ["rare" if i < 2 else subject for i, subject in enumerate(subjects)]
    found = choose_scaling(logits, few).scalings["subject"]
    assert abs(np.log(found.subjects["rare"] / found.temperature)) < 0.5


@pytest.mark.parametrize("k", [2, 4])
def test_planted_biases_are_found(k):
    truth = np.array([1.2, -0.4, -0.8, 0.0])[:k]
    logits, subjects = planted(1500, biases=truth, k=k)
    found = choose_scaling(logits, subjects)
    assert found.form == "bias"
    biases = found.scalings["bias"].biases
    np.testing.assert_allclose(biases - biases.mean(), truth - truth.mean(), atol=0.25)
    assert 1 / found.scalings["bias"].temperature == pytest.approx(0.4, rel=0.2)


def test_planted_scales_of_labels_are_found():
    truth = np.array([0.3, 1.0, 1.0, 1.7])
    found = choose_scaling(planted(3000, scales=truth)[0])
    assert found.form == "vector"
    vector = found.scalings["vector"]
    np.testing.assert_allclose(vector.scales / vector.temperature, 0.4 * truth, atol=0.1)


def test_noise_is_not_found():
    """One temperature is the truth: 3 forms in 40 sets, each allowed 2 standard errors."""
    forms = [choose_scaling(*planted(200, seed=seed)).form for seed in range(40)]
    assert forms.count("temperature") >= 38


def test_few_labels_and_unlike_labels_offer_less():
    logits, subjects = planted(99)
    few = choose_scaling(logits, subjects)
    assert few.form == "temperature" and list(few.scalings) == ["temperature"]
    assert few.withheld["bias"] == "needs at least 100 labels, has 99"
    logits, subjects = planted(150)
    words = [("yes", "no") if i % 2 else ("A", "B", "C", "D") for i in range(150)]
    found = choose_scaling(logits, None, words)
    assert found.withheld["subject"] == "the questions do not have two subjects or more"
    for form in ("bias", "vector"):
        assert found.withheld[form] == "the labels differ between prompts: 'A' and 'yes' both name choice 1"
    letters = [
        tuple("ABCD"[: 2 + i % 3]) for i in range(150)
    ]  # fewer choices, but the same label at each place
    assert set(choose_scaling(logits, subjects, letters).trials) == set(FORMS[1:])
    with pytest.raises(InputError, match="2 subjects for 150 prompts"):
        choose_scaling(logits, ["a", "b"])
    with pytest.raises(InputError, match="no label"):
        choose_scaling(rebuild(logits, labels=np.full(150, -1, dtype=np.int32)))


def test_unlabelled_prompts_a_constant_and_the_order_of_choices_change_nothing():
    logits, subjects = planted(200, biases=np.array([0.8, 0.0, 0.0, -0.5]))
    found = choose_scaling(logits, subjects)
    more = logits.take(np.tile(np.arange(200), 2))
    more = rebuild(more, labels=np.where(np.arange(400) < 200, more.labels, -1))
    shifted = rebuild(logits, chat_final=logits.chat_final + np.float32(2.0))
    order = [2, 0, 3, 1]
    turned = rebuild(
        logits, chat_final=logits.chat_final[:, order], base_final=logits.base_final[:, order],
        labels=np.argsort(order)[logits.labels],
    )  # fmt: skip
    same = np.arange(4)
    for given, back in ((more, same), (shifted, same), (turned, np.argsort(order))):
        other = choose_scaling(given, (subjects * 2)[: given.n_prompts])
        assert other.form == found.form and other.n_labelled == 200
        np.testing.assert_allclose(
            other.scalings["vector"].biases[back], found.scalings["vector"].biases, atol=1e-4
        )
        for form, trial in found.trials.items():
            assert other.trials[form].gain == pytest.approx(trial.gain, abs=1e-4)


def test_ragged_choices_have_no_probability_where_there_is_none():
    logits = make_choice_logits(300, 1, (2, 5), seed=4, layers=False)
    for scaling in choose_scaling(logits).scalings.values():
        scaled = scaling.apply(logits.chat_final, [None] * 300)
        assert np.array_equal(np.isfinite(scaled), np.arange(5) < logits.n_choices[:, None])
        assert np.isfinite(compute_nll(softmax_probs(scaled, logits.n_choices), logits.labels))


@pytest.mark.parametrize("answers", [np.argmax, np.argmin])
def test_labels_that_are_all_right_or_all_wrong_end_at_a_bound_and_not_in_infinity(answers):
    logits, subjects = planted(120)
    certain = rebuild(logits, labels=answers(logits.chat_final, axis=1).astype(np.int32))
    for scaling in choose_scaling(certain, subjects).scalings.values():
        assert 0.05 <= scaling.temperature <= 50
        scaled = scaling.apply(logits.chat_final, subjects)
        assert np.isfinite(scaled).all()


def test_the_minimum_has_no_slope():
    rng = np.random.default_rng(0)
    offset, features = rng.normal(size=(50, 3)), rng.normal(size=(50, 3, 4))
    labels, precision = rng.integers(3, size=50), np.array([0.1, 1.0, 2.0, 5.0])
    found = _minimise(offset, features, labels, precision)

    def objective(t):
        z = offset + features @ t
        return np.sum(np.log(np.exp(z).sum(axis=1)) - z[np.arange(50), labels]) + precision @ t**2 / 2

    step = 1e-5 * np.eye(4)
    slopes = [(objective(found + one) - objective(found - one)) / 2e-5 for one in step]
    np.testing.assert_allclose(slopes, 0.0, atol=1e-4)


def test_the_same_input_gives_the_same_numbers_and_the_seed_draws_the_folds():
    logits, subjects = planted(150)
    gains = [choose_scaling(logits, subjects, seed=seed).trials["bias"].gain for seed in (0, 0, 1)]
    assert gains[0] == gains[1] != gains[2]
    with_layers = replace(
        logits, base_layers=logits.base_final[:, None], chat_layers=logits.chat_final[:, None]
    )
    assert choose_scaling(with_layers, subjects).trials["bias"].gain == gains[0]
