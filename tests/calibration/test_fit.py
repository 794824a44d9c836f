"""The fit: against an independent reference on random and adversarial data, by its laws, and its refusals."""

import itertools
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support import temperature_reference as reference
from support.choice_data import change_logits, make_choice_logits, rebuild
from support.methods import variant_text

from edgecal.calibration import METHODS, TAU_MAX, TAU_MIN, Method, evaluate_loss, fit_temperature
from edgecal.calibration.losses import build_loss, compute_divergence
from edgecal.calibration.search import GRID_TAU, find_minimum, find_valley
from edgecal.errors import InputError, NotIdentifiedError

DUAL = [
    Method(ise=ise, tau_scope=scope, combine=combine)
    for ise, scope, combine in itertools.product(
        ("mixture", "mean"), ("all", "final"), ("stratified", "divergence", "sum")
    )
]
PROCESS = [
    Method("process", ise=ise, tau_scope=scope)
    for ise, scope in itertools.product(("mixture", "mean"), ("all", "final"))
]
CONVEX = [Method("daca"), Method("naive"), Method("ts")]
FITTED = [*CONVEX, *PROCESS, *DUAL, Method(combine="sum", lam=3.0)]
IDS = [f"{method.name} {variant_text(method)}" for method in FITTED]
TAUS = np.geomspace(TAU_MIN, TAU_MAX, 23)


def options_of(method):
    """The method's options as the reference names them."""
    names = {"ise": "kind", "tau_scope": "scope", "combine": "combine", "lambda": "lam"}
    return {names[option]: value for option, value in method.variant.items() if value is not None}


def outliers(seed):
    """Ragged choices, heavy tails, exact ties, repeated layers, a few prompts with huge or equal logits."""
    data = make_choice_logits(150, 4, (2, 7), seed=seed, noise=1.2, sharpness=1.5)
    rng = np.random.default_rng(seed)
    chat = (data.chat_layers * rng.lognormal(0, 1.2, size=(150, 1, 1))).astype(np.float32)
    base = data.base_layers.copy()
    chat[:5] = np.where(np.isneginf(chat[:5]), chat[:5], 1.0)
    chat[5:8] *= np.float32(1e3)
    base[8:10] *= np.float32(1e3)
    chat[10:15, 1] = chat[10:15, 0]
    base[10:15, 1] = base[10:15, 0]
    chat[15:20] = np.where(np.isneginf(chat[15:20]), chat[15:20], np.round(chat[15:20]))
    return rebuild(data, base_final=base[:, -1], chat_final=chat[:, -1], base_layers=base, chat_layers=chat)


def two_camps(seed):
    """Half of the prompts wants a small temperature, half a large one: losses with more than one minimum."""
    data = make_choice_logits(120, 3, 4, seed=seed, noise=0.9, sharpness=1.0)
    scale = np.where(np.arange(120) % 2, 12.0, 0.25)[:, None, None].astype(np.float32)
    chat = data.chat_layers * scale
    return rebuild(data, chat_final=chat[:, -1], chat_layers=chat)


DATA = {
    "plain": make_choice_logits(120, 6, 4, seed=1, noise=0.9),
    "two layers, two choices": make_choice_logits(150, 2, 2, seed=2, noise=1.5),
    "26 choices": make_choice_logits(80, 3, (2, 26), seed=3, noise=1.0),
    "255 choices, 66 layers": make_choice_logits(90, 66, (2, 255), seed=7, noise=0.3),
    "underconfident": make_choice_logits(120, 5, 3, seed=4, sharpness=0.3, noise=1.0),
    "outliers": outliers(5),
    "two camps": two_camps(6),
}


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("method", FITTED, ids=IDS)
def test_loss_and_temperature_equal_the_reference(name, method):
    data = DATA[name]
    options = options_of(method)
    np.testing.assert_allclose(
        evaluate_loss(data, method, TAUS),
        reference.loss(data, method.name, TAUS, **options),
        rtol=1e-10,
        atol=1e-12,
    )
    tau = reference.temperature(data, method.name, n_scan=301, **options)
    if TAU_MIN * 1.0001 < tau < TAU_MAX / 1.0001:
        fit = fit_temperature(data, method, n_bootstrap=0)
        assert fit.temperature == pytest.approx(tau, rel=1e-5)
        assert fit.loss_before == pytest.approx(reference.loss(data, method.name, [1.0], **options)[0])
        assert fit.loss_after == pytest.approx(reference.loss(data, method.name, [tau], **options)[0])
        assert fit.loss_after <= evaluate_loss(data, method, TAUS).min()
    else:
        with pytest.raises(NotIdentifiedError, match="lowest at the end of the range"):
            fit_temperature(data, method, n_bootstrap=0)


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("method", CONVEX, ids=str)
def test_newton_and_the_grid_find_the_same_minimum(name, method):
    loss = build_loss(DATA[name], method)
    assert loss.is_convex
    found = find_minimum(loss.evaluate, *loss.evaluate(GRID_TAU))
    newton = find_valley(loss.in_beta())[0]
    assert newton.tau == pytest.approx(found.tau, rel=1e-9)
    assert newton.loss == pytest.approx(found.loss, rel=1e-12)
    assert newton.at_bound == found.at_bound
    slopes = [loss.in_beta()(1.0 / tau)[1] for tau in (TAU_MIN, newton.tau, TAU_MAX)]
    assert newton.at_bound or abs(slopes[1]) < 1e-12 * max(slopes[0], -slopes[2])


def test_only_the_confidence_loss_counts_as_convex():
    for method in FITTED:
        assert build_loss(DATA["plain"], method).is_convex == (not method.needs_layers)


@pytest.mark.parametrize("method", CONVEX, ids=str)
def test_a_loss_and_its_derivatives_in_beta(method):
    loss = build_loss(DATA["outliers"], method)
    at = loss.in_beta()
    values, slopes = loss.evaluate(TAUS)
    found = np.array([at(1.0 / tau) for tau in TAUS])
    np.testing.assert_allclose(found[:, 0], values, rtol=1e-12)
    np.testing.assert_allclose(-found[:, 1] / TAUS, slopes, rtol=1e-9, atol=1e-12 * np.abs(slopes).max())
    step = 1e-6 / TAUS
    difference = [
        (at(1.0 / t + h)[1] - at(1.0 / t - h)[1]) / (2.0 * h) for t, h in zip(TAUS, step, strict=True)
    ]
    np.testing.assert_allclose(found[:, 2], difference, rtol=1e-5, atol=1e-8 * found[:, 2].max())
    assert np.all(found[:, 2] >= 0.0)


@pytest.mark.parametrize(
    "method", [m for m in FITTED if (m.name, m.tau_scope) != ("process", "final")], ids=str
)
def test_the_refits_change_no_bit_of_the_fit(method):
    with_refits, without = (fit_temperature(DATA["plain"], method, n_bootstrap=n) for n in (20, 0))
    for name in ("temperature", "loss_before", "loss_after", "n_used"):
        assert getattr(with_refits, name) == getattr(without, name)


def test_the_reference_above_was_mostly_compared_inside_the_range():
    for method in FITTED:
        if (method.name, method.tau_scope) != ("process", "final"):
            assert TAU_MIN < fit_temperature(DATA["plain"], method, n_bootstrap=0).temperature < TAU_MAX


@pytest.mark.parametrize("method", FITTED, ids=IDS)
def test_slopes_equal_central_differences(method):
    loss = build_loss(DATA["outliers"], method)
    step = 1e-5
    slopes = loss.evaluate(TAUS)[1]
    difference = (loss.evaluate(TAUS * np.exp(step))[0] - loss.evaluate(TAUS * np.exp(-step))[0]) / (2 * step)
    np.testing.assert_allclose(slopes, difference, rtol=1e-6, atol=1e-9 * loss.evaluate(TAUS)[0].max() / step)


@pytest.mark.parametrize("name", ["plain", "26 choices"])
def test_peak_divergence_layers_equal_the_reference(name):
    data = DATA[name]
    profile, peaks = compute_divergence(data)
    for i, k in enumerate(data.n_choices):
        pdl, d = reference.peak_divergence_layer(data.base_layers[i, :, :k], data.chat_layers[i, :, :k])
        assert peaks[i] == pdl
        assert profile[i, pdl - 1] == pytest.approx(d, abs=1e-14)
    histogram = fit_temperature(data, Method("daca"), n_bootstrap=0).pdl_histogram
    assert histogram == np.bincount(peaks[~data.agreement] - 1, minlength=data.n_layer).tolist()
    assert histogram[0] == 0


# --- laws ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", FITTED, ids=IDS)
def test_a_constant_on_a_prompts_logits_changes_nothing(method):
    data = DATA["plain"]
    shift = np.float32(2.0) ** np.random.default_rng(0).integers(-2, 3, size=(data.n_prompts, 1))
    coarse = rebuild(
        data, **{n: np.round(getattr(data, n) * 256) / 256 for n in ("base_layers", "chat_layers")},
        base_final=np.round(data.base_final * 256) / 256, chat_final=np.round(data.chat_final * 256) / 256,
    )  # fmt: skip
    shifted = rebuild(
        coarse, base_final=coarse.base_final - shift, chat_final=coarse.chat_final + shift,
        base_layers=coarse.base_layers - shift[:, :, None], chat_layers=coarse.chat_layers + shift[:, :, None],
    )  # fmt: skip
    assert fit_or_reason(shifted, method) == fit_or_reason(coarse, method)


def fit_or_reason(data, method):
    try:
        return fit_temperature(data, method, n_bootstrap=0).temperature
    except NotIdentifiedError as error:
        return str(error)


@pytest.mark.parametrize("method", FITTED, ids=IDS)
def test_permuting_the_choices_keeps_the_temperature(method):
    data = DATA["underconfident"]
    order = [2, 0, 1]
    labels = np.argsort(order)[data.labels]
    permuted = rebuild(
        data, base_final=data.base_final[:, order], chat_final=data.chat_final[:, order],
        base_layers=data.base_layers[:, :, order], chat_layers=data.chat_layers[:, :, order], labels=labels,
    )  # fmt: skip
    expected, found = fit_or_reason(data, method), fit_or_reason(permuted, method)
    assert found == (expected if isinstance(expected, str) else pytest.approx(expected, rel=1e-9))


@pytest.mark.parametrize(
    "method", [m for m in FITTED if m.tau_scope != "final" and m.combine != "divergence"], ids=str
)
@pytest.mark.parametrize("factor", [0.5, 4.0])
def test_scaling_the_chat_models_logits_scales_the_temperature(method, factor):
    data = DATA["plain"]
    if method.needs_layers:  # the PDL looks at untempered layers; with two there is only one to choose
        keep = [0, -1]
        data = rebuild(data, base_layers=data.base_layers[:, keep], chat_layers=data.chat_layers[:, keep])
    scaled = change_logits(data, lambda z: z * np.float32(factor))
    expected, found = (fit_temperature(d, method, n_bootstrap=0).temperature for d in (data, scaled))
    assert found == pytest.approx(factor * expected, rel=1e-9)


def test_identical_models_need_no_correction():
    data = DATA["plain"]
    same = rebuild(data, chat_final=data.base_final, chat_layers=data.base_layers)
    fit = fit_temperature(same, Method("daca"))
    assert fit.temperature == pytest.approx(1.0, rel=1e-9)
    assert fit.interval == pytest.approx((1.0, 1.0), rel=1e-4)
    assert (fit.loss_before, fit.agreement_rate) == (pytest.approx(0.0, abs=1e-15), 1.0)
    assert fit.pdl_histogram == [0] * 6


def test_daca_undoes_a_known_temperature():
    data = DATA["plain"]
    hot = rebuild(data, chat_final=data.base_final * np.float32(2.75))
    assert fit_temperature(hot, Method("daca")).temperature == pytest.approx(2.75, rel=1e-6)


def test_disagreements_push_the_naive_temperature_above_daca():
    data = DATA["plain"]
    naive, daca = (fit_temperature(data, Method(name)).temperature for name in ("naive", "daca"))
    assert naive > daca


@pytest.mark.parametrize("method", FITTED, ids=IDS)
def test_huge_logits_do_not_overflow(method):
    data = change_logits(DATA["plain"], lambda z: np.clip(z * np.float32(1e5), -1e4, 1e4))
    losses = evaluate_loss(data, method, [1e-3, TAU_MIN, 1.0, TAU_MAX, 1e6])
    assert np.all(np.isfinite(losses))
    assert np.all(losses >= 0)


def test_evaluate_loss_keeps_the_shape():
    data = DATA["plain"]
    assert evaluate_loss(data, Method("daca"), 1.5).shape == ()
    grid = evaluate_loss(data, Method("daca"), TAUS[:6].reshape(2, 3))
    np.testing.assert_array_equal(grid.ravel(), evaluate_loss(data, Method("daca"), TAUS[:6]))
    assert evaluate_loss(data, Method("daca"), []).shape == (0,)


def test_cutting_into_calls_changes_no_bit(monkeypatch):
    data = DATA["26 choices"]
    whole = fit_temperature(data, Method(), n_bootstrap=50)
    monkeypatch.setattr("edgecal.calibration.losses._WORK_PER_CALL", 1)
    monkeypatch.setattr("edgecal.calibration.bootstrap._WORK_PER_CALL", 1)
    assert fit_temperature(data, Method(), n_bootstrap=50) == whole


# --- what is reported ---------------------------------------------------------------------------------------


def test_counts_in_the_result():
    data = DATA["plain"]
    agree = int(data.agreement.sum())
    used = {"dual-align": 120, "daca": agree, "naive": 120, "process": 120 - agree, "ts": 120, "vanilla": 0}
    for name in set(METHODS) - {"anchored"}:  # which no loss finds
        fit = fit_temperature(data, Method(name), n_bootstrap=100, seed=4, level=0.9)
        assert (fit.n_prompts, fit.n_agreement, fit.n_disagreement) == (120, agree, 120 - agree)
        assert fit.agreement_rate == agree / 120
        assert fit.n_used == used[name]
        assert sum(fit.pdl_histogram) == 120 - agree
        assert (fit.n_bootstrap, fit.seed, fit.level, fit.method) == (100, 4, 0.9, Method(name))


def test_anchored_has_no_loss():
    with pytest.raises(InputError, match="fit_anchored"):
        fit_temperature(DATA["plain"], Method("anchored"))


def test_vanilla_is_one_whatever_the_data():
    for data in (DATA["plain"], DATA["plain"].take([])):
        fit = fit_temperature(data, Method("vanilla"))
        assert (fit.temperature, fit.interval) == (1.0, (1.0, 1.0))
        assert (fit.loss_before, fit.loss_after, fit.n_used, fit.share_at_bound) == (None, None, 0, 0.0)
    assert math.isnan(fit.agreement_rate)


def test_without_layers_there_is_no_histogram():
    data = make_choice_logits(60, 2, 4, layers=False)
    assert fit_temperature(data, Method("daca")).pdl_histogram is None


def test_only_labelled_prompts_count_for_ts():
    data = DATA["plain"]
    half = rebuild(data, labels=np.where(np.arange(120) % 2, data.labels, -1))
    fit = fit_temperature(half, Method("ts"), n_bootstrap=0)
    assert fit.n_used == 60
    alone = fit_temperature(data.take(np.arange(1, 120, 2)), Method("ts"), n_bootstrap=0)
    assert fit.temperature == pytest.approx(alone.temperature, rel=1e-12)


# --- refusals -----------------------------------------------------------------------------------------------


def chosen(n_agree, n_other):
    data = make_choice_logits(600, 3, 4, seed=9, noise=0.9)
    agree, other = np.flatnonzero(data.agreement), np.flatnonzero(~data.agreement)
    return data.take([*agree[:n_agree], *other[:n_other]])


@pytest.mark.parametrize(
    ("method", "n_agree", "n_other", "words"),
    [
        (Method("daca"), 29, 50, r"at least 30 agreement examples \(.*\) and has 29: .* is the base model"),
        (
            Method("process"),
            50,
            29,
            r"at least 30 disagreement examples \(.*\) and has 29: .*; use --method daca",
        ),
        (Method("naive"), 15, 14, "at least 30 examples and has 29"),
        (Method("ts"), 15, 14, "at least 30 labelled examples and has 29"),
        *[
            (Method(combine=combine), n_agree, n_other, words)
            for combine in ("stratified", "divergence", "sum")
            for n_agree, n_other, words in (
                (29, 50, r"at least 30 agreement examples \(.*\) and has 29: .* is the base model"),
                (50, 9, r"at least 10 disagreement examples \(.*\) and has 9: .*; use --method daca"),
            )
        ],
    ],
    ids=str,
)
def test_too_few_examples(method, n_agree, n_other, words):
    with pytest.raises(NotIdentifiedError, match=words):
        fit_temperature(chosen(n_agree, n_other), method)


def test_just_enough_examples():
    assert fit_temperature(chosen(30, 0), Method("daca")).n_used == 30
    assert fit_temperature(chosen(30, 10), Method(combine="sum")).n_used == 40


def test_a_flat_loss():
    flat = change_logits(DATA["plain"], lambda z: np.where(np.isneginf(z), z, np.float32(3)))
    for method in (Method("naive"), Method("ts")):
        with pytest.raises(NotIdentifiedError, match="the loss is flat"):
            fit_temperature(flat, method)


def test_a_minimum_at_either_end():
    data = DATA["plain"]
    sharp = rebuild(data, base_final=data.base_final * np.float32(1e4))
    with pytest.raises(NotIdentifiedError, match=r"end of the range 0.05 to 50.0, at 0.05"):
        fit_temperature(rebuild(sharp, chat_final=data.base_final * np.float32(0.01)), Method("daca"))
    blunt = rebuild(data, base_final=data.base_final * np.float32(1e-4))
    with pytest.raises(NotIdentifiedError, match=r"end of the range 0.05 to 50.0, at 50.0"):
        fit_temperature(blunt, Method("daca"))


def test_what_is_needed_and_missing():
    bare = make_choice_logits(80, 2, 4, layers=False, labels=False)
    for method in (Method(), Method("process")):
        with pytest.raises(InputError, match="needs the logits of every layer"):
            fit_temperature(bare, method)
        with pytest.raises(InputError, match="at least 2 layers"):
            fit_temperature(make_choice_logits(80, 1, 4), method)
    with pytest.raises(InputError, match="needs labels"):
        fit_temperature(bare, Method("ts"))
    with pytest.raises(InputError, match="vanilla has no loss"):
        evaluate_loss(bare, Method("vanilla"), 1.0)
    with pytest.raises(NotIdentifiedError, match="no example"):
        evaluate_loss(bare.take(~bare.agreement), Method("daca"), 1.0)
    for tau in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(InputError, match="not a finite number above 0"):
            evaluate_loss(bare, Method("daca"), tau)


@pytest.mark.parametrize(
    "options", [{"n_bootstrap": -1}, {"level": 0.0}, {"level": 1.0}, {"seed": -1}, {"seed": 2**64}]
)
def test_options_out_of_range(options):
    with pytest.raises(InputError, match="expected"):
        fit_temperature(DATA["plain"], Method("daca"), **options)


def test_importing_the_package_loads_no_numba():
    code = "import sys, edgecal.calibration, edgecal.metrics; print(sorted({'numba', 'scipy'} & set(sys.modules)))"
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
