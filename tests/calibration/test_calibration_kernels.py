"""Every kernel against a plain NumPy twin written from the definition, at ordinary and at awkward inputs."""

import numpy as np
import pytest

from edgecal.calibration import layer_kernels, prompt_kernels
from edgecal.calibration.vector_math import exp_row, log_row
from edgecal.jit import kernel

BETAS = np.geomspace(0.02, 20.0, 17)


# --- twins: one prompt at a time, the definitions as they stand -------------------------------------------


def twin_softmax(z):
    with np.errstate(invalid="ignore"):
        powers = np.exp(z.astype(np.float64) - np.max(z, axis=-1, keepdims=True))
        return powers / powers.sum(axis=-1, keepdims=True)


def twin_entropy(p):
    return -np.sum(np.where(p == 0, 0.0, p * np.log(np.where(p == 0, 1.0, p))), axis=-1)


def twin_jsd(base, chat):
    p, q = twin_softmax(base), twin_softmax(chat)
    return twin_entropy((p + q) / 2) - (twin_entropy(p) + twin_entropy(q)) / 2


def twin_stability(layers, first, mixture, all_layers, beta):
    scale = np.full(len(layers), beta if all_layers else 1.0)
    scale[-1] = beta
    p = twin_softmax((layers.astype(np.float64) * scale[:, None])[first:])
    return twin_entropy(p.mean(axis=0)) if mixture else twin_entropy(p).mean()


def twin_conf(target, z, beta):
    z = z.astype(np.float64) * beta
    log_f = z - z.max() - np.log(np.exp(z - z.max()).sum())
    return np.sum(np.where(target == 0, 0.0, target * (np.log(np.where(target == 0, 1.0, target)) - log_f)))


def ragged(n, n_layer, low, high, seed, spread=3.0):
    rng = np.random.default_rng(seed)
    n_choices = rng.integers(low, high + 1, size=n).astype(np.int32)
    base, chat = (rng.normal(size=(2, n, n_layer, high)) * spread).astype(np.float32)
    for array in (base, chat):
        array[np.broadcast_to(np.arange(high) >= n_choices[:, None, None], array.shape)] = -np.inf
    return base, chat, n_choices


SHAPES = [(7, 4, 2, 2), (9, 5, 2, 26), (5, 2, 26, 26), (6, 1, 3, 5), (0, 3, 4, 4), (3, 70, 2, 4)]


@pytest.mark.parametrize(("n", "n_layer", "low", "high"), SHAPES)
@pytest.mark.parametrize("spread", [0.01, 3.0, 1e4])
def test_softmax_and_divergence(n, n_layer, low, high, spread):
    base, chat, n_choices = ragged(n, n_layer, low, high, seed=high, spread=spread)
    probs = prompt_kernels.softmax_rows(base[:, -1], n_choices)
    profile = layer_kernels.divergence_profile(base, chat, n_choices)
    assert probs.shape == (n, high)
    assert profile.shape == (n, n_layer)
    for i, k in enumerate(n_choices):
        np.testing.assert_allclose(probs[i, :k], twin_softmax(base[i, -1, :k]), rtol=1e-14, atol=1e-300)
        assert np.all(probs[i, k:] == 0)
        np.testing.assert_allclose(profile[i], twin_jsd(base[i, :, :k], chat[i, :, :k]), atol=3e-16 * k)


def test_jsd_laws():
    base, chat, n_choices = ragged(50, 3, 2, 6, seed=1)
    profile = layer_kernels.divergence_profile(base, chat, n_choices)
    np.testing.assert_array_equal(profile, layer_kernels.divergence_profile(chat, base, n_choices))
    assert np.all(profile > 0)
    assert np.all(profile <= np.log(2))
    assert np.all(layer_kernels.divergence_profile(base, base, n_choices) == 0)
    shifted = layer_kernels.divergence_profile(base + np.float32(8), chat, n_choices)
    np.testing.assert_allclose(shifted, profile, atol=1e-6)  # float32 logits are rounded by the shift
    apart = np.array([[[1e4, -1e4]]], dtype=np.float32)
    assert layer_kernels.divergence_profile(apart, -apart, np.array([2]))[0, 0] == np.log(2)
    root = np.sqrt(profile)  # the root of JSD is a metric
    third = np.flip(base, axis=0)[:, :, :2] * 0.5
    two = np.full(50, 2)
    ab, bc, ac = (
        np.sqrt(layer_kernels.divergence_profile(x[:, :, :2], y[:, :, :2], two))
        for x, y in ((base, chat), (chat, third), (base, third))
    )
    assert np.all(ac <= ab + bc + 1e-12)
    assert root.max() <= np.sqrt(np.log(2))


def test_jsd_keeps_its_digits_for_nearly_equal_rows():
    # p = 1/2 + e against q = 1/2 - e: JSD = 2 e^2 to first order, far below what a difference of entropies sees
    z = np.array([[[np.float32(1e-6), np.float32(0)]]])
    e = np.float64(np.float32(1e-6)) / 4
    found = layer_kernels.divergence_profile(z, -z, np.array([2]))[0, 0]
    assert found == pytest.approx(2 * e * e, rel=1e-6)


def test_peak_divergence_layer():
    profile = np.array(
        [
            [0.1, 0.1, 0.5, 0.5],  # one jump
            [0.0, 0.25, 0.0, 0.25],  # equal jumps up and down: the lowest layer
            [0.3, 0.3, 0.3, 0.3],  # none
            [0.5, 0.4, 0.3, 0.0],  # downwards
        ]
    )
    assert prompt_kernels.peak_divergence_layers(profile).tolist() == [3, 2, 2, 4]
    assert prompt_kernels.peak_divergence_layers(np.array([[0.2, 0.9]])).tolist() == [2]
    assert prompt_kernels.peak_divergence_layers(np.zeros((0, 5))).shape == (0,)


@pytest.mark.parametrize(("n", "n_layer", "low", "high"), SHAPES)
@pytest.mark.parametrize("mixture", [True, False])
@pytest.mark.parametrize("all_layers", [True, False])
@pytest.mark.parametrize("spread", [3.0, 1e4])
def test_stability_entropy(n, n_layer, low, high, mixture, all_layers, spread):
    layers, _, n_choices = ragged(n, n_layer, low, high, seed=n_layer, spread=spread)
    first = np.random.default_rng(0).integers(0, n_layer, size=n)
    entropy, slope = layer_kernels.stability_entropy(layers, n_choices, first, mixture, all_layers, BETAS)
    assert entropy.shape == slope.shape == (n, BETAS.size)
    step = 1e-5
    near = [
        layer_kernels.stability_entropy(layers, n_choices, first, mixture, all_layers, BETAS * np.exp(-d))[0]
        for d in (step, -step)
    ]
    for i, k in enumerate(n_choices):
        twin = [twin_stability(layers[i, :, :k], first[i], mixture, all_layers, b) for b in BETAS]
        np.testing.assert_allclose(entropy[i], twin, rtol=1e-12, atol=1e-14)
        assert np.all(entropy[i] >= 0)
        assert np.all(entropy[i] <= np.log(k) + 1e-12)
    if all_layers:
        at_one = layer_kernels.stability_at_one(layers, n_choices, first, mixture)
        at_beta = layer_kernels.stability_entropy(layers, n_choices, first, mixture, True, np.ones(1))[0][
            :, 0
        ]
        np.testing.assert_allclose(at_one, at_beta, rtol=1e-12, atol=1e-14)
    # ln tau = -ln beta; central differences carry an error of step^2 and of rounding / step
    np.testing.assert_allclose(slope, (near[0] - near[1]) / (2 * step), atol=2e-8)


@pytest.mark.parametrize(("n", "low", "high"), [(8, 2, 2), (9, 2, 26), (0, 4, 4)])
@pytest.mark.parametrize("spread", [0.01, 3.0, 1e4])
def test_confidence_rows(n, low, high, spread):
    base, chat, n_choices = ragged(n, 1, low, high, seed=5, spread=spread)
    targets = prompt_kernels.softmax_rows(base[:, 0], n_choices)
    weights = np.linspace(0.5, 1.0, n)

    def rows(betas):
        losses, slopes = np.ones((n, betas.size)), np.ones((n, betas.size))
        prompt_kernels.add_confidence_rows(targets, chat[:, 0], n_choices, weights, betas, losses, slopes)
        return losses - 1.0, slopes - 1.0

    losses, slopes = rows(BETAS)
    for i, k in enumerate(n_choices):
        twin = [weights[i] * twin_conf(targets[i, :k], chat[i, 0, :k], b) for b in BETAS]
        np.testing.assert_allclose(losses[i], twin, rtol=1e-12, atol=1e-13)
    step = 1e-5
    difference = (rows(BETAS * np.exp(-step))[0] - rows(BETAS * np.exp(step))[0]) / (2 * step)
    np.testing.assert_allclose(
        slopes, difference, rtol=1e-6, atol=1e-7 * max(1.0, np.abs(losses).max(initial=0))
    )


def test_confidence_rows_with_one_hot_targets_are_the_negative_log_likelihood():
    _, chat, n_choices = ragged(6, 1, 3, 3, seed=2)
    targets = np.eye(3)[[0, 1, 2, 0, 1, 2]]
    losses, slopes = np.zeros((6, 1)), np.zeros((6, 1))
    prompt_kernels.add_confidence_rows(targets, chat[:, 0], n_choices, np.ones(6), np.ones(1), losses, slopes)
    expected = -np.log(twin_softmax(chat[:, 0])[np.arange(6), [0, 1, 2, 0, 1, 2]])
    np.testing.assert_allclose(losses[:, 0], expected, rtol=1e-12)


def test_process_rows():
    rng = np.random.default_rng(4)
    entropies, slopes = rng.uniform(size=(2, 5, 3))
    reference, weights = rng.uniform(size=(2, 5))
    losses, loss_slopes = np.ones((5, 3)), np.ones((5, 3))
    prompt_kernels.add_process_rows(entropies, slopes, reference, weights, losses, loss_slopes)
    gap = entropies - reference[:, None]
    np.testing.assert_allclose(losses, 1 + weights[:, None] * gap**2, rtol=1e-14)
    np.testing.assert_allclose(loss_slopes, 1 + weights[:, None] * 2 * gap * slopes, rtol=1e-14)


def test_accumulated_rows_do_not_depend_on_the_cut():
    rng = np.random.default_rng(6)
    rows, groups = rng.normal(size=(101, 7)), rng.integers(0, 2, size=101)
    whole, pieces = np.zeros((2, 7)), np.zeros((2, 7))
    prompt_kernels.accumulate_rows(rows, groups, whole)
    for start in range(0, 101, 13):
        prompt_kernels.accumulate_rows(rows[start : start + 13], groups[start : start + 13], pieces)
    np.testing.assert_array_equal(whole, pieces)
    np.testing.assert_allclose(whole, [rows[groups == g].sum(axis=0) for g in (0, 1)], atol=1e-12)


@pytest.mark.parametrize(("n", "low", "high"), [(8, 2, 2), (200, 2, 26), (64, 4, 4), (0, 4, 4)])
@pytest.mark.parametrize("spread", [0.01, 3.0, 1e4])
@pytest.mark.parametrize("one_hot", [False, True])
def test_confidence_sums(n, low, high, spread, one_hot):
    base, chat, n_choices = ragged(n, 1, low, high, seed=5, spread=spread)
    targets = prompt_kernels.softmax_rows(base[:, 0], n_choices)
    if one_hot:
        targets = np.eye(high)[np.arange(n) % low]
    weights = np.linspace(0.5, 1.0, n)
    columns = prompt_kernels.confidence_columns(targets, chat[:, 0], n_choices)
    assert [column.shape for column in columns] == [(high, n), (n,), (n,)]
    for beta in BETAS:
        losses, slopes, curvatures = np.zeros((3, n))
        for i, k in enumerate(n_choices):
            z, target = chat[i, 0, :k].astype(np.float64), targets[i, :k]
            p = twin_softmax(z * beta)
            losses[i] = twin_conf(target, z, beta)
            slopes[i] = np.sum(p * (z - z.max())) - np.sum(target * (z - z.max()))
            curvatures[i] = np.sum(p * (z - np.sum(p * z)) ** 2)
        expected = [(weights * each).sum() for each in (losses, slopes, curvatures)]
        found = prompt_kernels.confidence_sums(*columns, weights, beta)
        np.testing.assert_allclose(found[:2], expected[:2], rtol=1e-11, atol=1e-13 * max(n, 1) * spread)
        np.testing.assert_allclose(found[2], expected[2], rtol=1e-9, atol=1e-13 * max(n, 1) * spread**2)


def test_no_prompts_confidence_loss_is_below_zero():
    _, chat, n_choices = ragged(300, 1, 2, 9, seed=3)
    targets = prompt_kernels.softmax_rows(chat[:, 0], n_choices)  # at beta = 1 all that is left is rounding
    columns = prompt_kernels.confidence_columns(targets, chat[:, 0], n_choices)
    losses = [prompt_kernels.confidence_sums(*columns, alone, 1.0)[0] for alone in np.eye(300)]
    assert min(losses) == 0.0
    assert 0.0 < max(losses) < 1e-14


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_nan_and_infinity_make_the_sums_nan(bad, place):
    base, chat, n_choices = ragged(70, 1, 3, 3, seed=8)
    targets = prompt_kernels.softmax_rows(base[:, 0], n_choices)
    chat[66, 0, place] = bad
    columns = prompt_kernels.confidence_columns(targets, chat[:, 0], n_choices)
    assert np.isnan(columns[1]).nonzero()[0].tolist() == [66]
    assert np.all(np.isnan(prompt_kernels.confidence_sums(*columns, np.ones(70), 1.0)))


@pytest.mark.parametrize(("n", "k_max"), [(0, 3), (1, 2), (500, 2), (500, 9)])
def test_agreeing_rows(n, k_max):
    rng = np.random.default_rng(k_max)
    base, chat = rng.integers(0, 3, size=(2, n, k_max)).astype(np.float32)  # many ties
    base[: n // 2, -1] = chat[: n // 3, -1] = -np.inf
    expected = np.argmax(base, axis=1) == np.argmax(chat, axis=1)
    np.testing.assert_array_equal(prompt_kernels.agreeing_rows(base, chat), expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_nan_and_infinity_stay_in_their_prompt(bad, place):
    base, chat, n_choices = ragged(3, 3, 3, 3, seed=8)
    clean = base.copy()
    base[1, 1, place] = bad
    first = np.zeros(3, dtype=np.int64)
    assert np.all(np.isnan(prompt_kernels.softmax_rows(base[:, 1], n_choices)[1]))
    assert np.all(np.isnan(twin_softmax(base[1, 1])))
    profile = layer_kernels.divergence_profile(base, chat, n_choices)
    assert np.isnan(profile[1, 1])
    assert np.isnan(twin_jsd(base[1, 1], chat[1, 1]))
    np.testing.assert_array_equal(
        profile[[0, 2]], layer_kernels.divergence_profile(clean, chat, n_choices)[[0, 2]]
    )
    for mixture in (True, False):
        found = layer_kernels.stability_entropy(base, n_choices, first, mixture, True, BETAS)
        sound = layer_kernels.stability_entropy(clean, n_choices, first, mixture, True, BETAS)
        assert np.all(np.isnan(found[0][1]))
        assert np.isnan(twin_stability(base[1], 0, mixture, True, 1.0))
        np.testing.assert_array_equal(found[0][[0, 2]], sound[0][[0, 2]])
    losses, slopes = np.zeros((3, 2)), np.zeros((3, 2))
    targets = np.full((3, 3), 1 / 3)
    prompt_kernels.add_confidence_rows(targets, base[:, 1], n_choices, np.ones(3), BETAS[:2], losses, slopes)
    assert np.isnan(losses).tolist() == [[False] * 2, [True] * 2, [False] * 2]


def test_a_choice_that_the_model_rules_out_counts_nothing():
    layers = np.array([[[2.0, 1.0, -np.inf], [0.0, 1.0, -np.inf]]], dtype=np.float32)
    first = np.zeros(1, dtype=np.int64)
    for mixture in (True, False):
        three = layer_kernels.stability_entropy(layers, np.array([3]), first, mixture, True, np.ones(1))[0]
        two = layer_kernels.stability_entropy(layers, np.array([2]), first, mixture, True, np.ones(1))[0]
        if mixture:
            assert three[0, 0] == pytest.approx(two[0, 0], rel=1e-15)
    profile = layer_kernels.divergence_profile(layers, layers[:, ::-1].copy(), np.array([3]))
    assert (
        profile[0, 0] == layer_kernels.divergence_profile(layers, layers[:, ::-1].copy(), np.array([2]))[0, 0]
    )


def test_ties_give_the_uniform_distribution():
    z = np.full((1, 2, 4), 5.0, dtype=np.float32)
    assert prompt_kernels.softmax_rows(z[:, 0], np.array([4])).tolist() == [[0.25] * 4]
    for mixture in (True, False):
        entropy, slope = layer_kernels.stability_entropy(
            z, np.array([4]), np.array([0]), mixture, True, BETAS
        )
        np.testing.assert_allclose(entropy, np.log(4), rtol=1e-15)
        assert np.all(slope == 0)


@kernel()
def exp_log_rows(x):
    """(exp(-x), log(x)) as the kernels compute them, float64 [n]; x float64 [n] >= 0."""
    scratch = np.empty(x.shape[0])
    powers = -x
    logs = np.empty(x.shape[0])
    exp_row(powers, scratch)
    log_row(x, logs, scratch)
    return powers, logs


def test_exp_and_log_are_within_2_units_in_the_last_place():
    rng = np.random.default_rng(0)
    x = np.concatenate(
        [rng.uniform(0, 708, 20_000), np.geomspace(1e-300, 700, 20_000), 1 + rng.normal(size=999) / 1e6]
    )
    powers, logs = exp_log_rows(x)
    assert np.max(np.abs(powers - np.exp(-x)) / np.spacing(np.exp(-x))) <= 2
    assert np.max(np.abs(logs - np.log(x)) / np.spacing(np.abs(np.log(x)))) <= 2


def test_exp_and_log_at_their_ends():
    powers, logs = exp_log_rows(np.array([0.0, 1.0, 2.0, 709.0, np.inf, np.nan]))
    np.testing.assert_array_equal(powers[[0, 3, 4, 5]], [1.0, 0.0, 0.0, np.nan])
    np.testing.assert_array_equal(logs[[1, 2, 5]], [0.0, np.log(2.0), np.nan])
    assert logs[0] == np.log(2.2250738585072014e-308)
