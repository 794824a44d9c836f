"""The search for a minimum: cubic pieces and Newton against a dense scan, ends, ties, plateaus, several minima."""

import math

import numpy as np
import pytest

from edgecal.calibration import TAU_MAX, TAU_MIN
from edgecal.calibration.resample_kernels import _integrate, cell_minimum, grid_minimum, slope_root
from edgecal.calibration.search import GRID_TAU, find_minimum, find_valley, grid_step

X = np.log(GRID_TAU)


def search(function, derivative):
    """find_minimum of a function of x = ln tau."""

    def objective(tau):
        return function(np.log(tau)), derivative(np.log(tau))

    return find_minimum(objective, *objective(GRID_TAU))


def hermite(f0, f1, g0, g1, t):
    return (
        f0 * (1 + 2 * t) * (1 - t) ** 2
        + g0 * t * (1 - t) ** 2
        + f1 * t * t * (3 - 2 * t)
        - g1 * t * t * (1 - t)
    )


def test_the_grid_has_both_ends_exactly():
    assert (GRID_TAU[0], GRID_TAU[-1], GRID_TAU.size) == (TAU_MIN, TAU_MAX, 65)
    np.testing.assert_allclose(np.diff(X), grid_step(GRID_TAU.size), rtol=1e-9)


def test_cell_minimum_equals_a_dense_scan():
    rng = np.random.default_rng(0)
    t = np.linspace(0, 1, 20001)
    inside = 0
    for _ in range(300):
        cell = rng.normal(size=4)
        values = hermite(*cell, t)
        place, value = cell_minimum(*cell)
        at = int(values.argmin())
        if 0 < at < t.size - 1:
            inside += 1
            assert place == pytest.approx(t[at], abs=1e-4)
            assert value == pytest.approx(values[at], abs=1e-7)
        elif place >= 0:  # a local minimum, above an end
            assert value == pytest.approx(hermite(*cell, place), abs=1e-12)
            assert value >= values[at] - 1e-12
    assert inside > 50


@pytest.mark.parametrize(
    "cell",
    [(0, 0, 0, 0), (0, 1, 1, 1), (1, 0, -1, -1), (0, 0, 1, -1), (np.nan, 0, -1, 1), (0, np.nan, 1, 1)],
)
def test_cells_without_a_minimum_inside(cell):
    place, value = cell_minimum(*map(float, cell))
    assert place == -1.0 or np.isnan(value) or np.isnan(place)


def test_cell_minimum_of_a_parabola_is_exact():
    for place in (0.0, 0.1, 0.5, 0.999, 1.0):
        found = cell_minimum(place**2, (1 - place) ** 2, -2 * place, 2 * (1 - place))
        assert found[0] == pytest.approx(place, abs=1e-12)
        assert found[1] == pytest.approx(0.0, abs=1e-15)


def test_grid_minimum_counts_the_ends_and_breaks_ties_to_the_left():
    two = np.array([1.0, 0.0, 1.0, 0.0, 1.0, 1.0]), np.zeros(6)
    assert grid_minimum(*two)[0] == 1.0
    rising = np.arange(6.0), np.ones(6)
    assert grid_minimum(*rising) == (0.0, 0.0)
    assert grid_minimum(rising[0][::-1].copy(), -rising[1]) == (5.0, 0.0)
    assert grid_minimum(np.ones(6), np.zeros(6)) == (0.0, 1.0)


@pytest.mark.parametrize("place", [0.0, 0.3, 1.0, 4.0, 5.5, 7.9, 8.0])
def test_the_root_is_that_of_the_polynomial_through_six_slopes(place):
    """Exact for slopes of the fifth degree, in every cell, whatever the guess."""
    nodes = np.arange(9.0)
    slopes = (nodes - place) * (1 + 0.1 * (nodes - place) ** 4)
    cell = min(int(place), 7)
    if slopes[cell] < 0 < slopes[cell + 1]:
        for guess in (0.0, 0.5, 1.0):
            assert slope_root(slopes, cell, guess) == pytest.approx(place - cell, abs=1e-9)
    for other in set(range(8)) - {cell - 1, cell}:
        assert slope_root(slopes, other, 0.25) == 0.25


@pytest.mark.parametrize("place", [-2.9, -1.0, 0.0, 0.123456789, 1.1, 3.9, X[40] + 1e-6, X[40] - 1e-6])
@pytest.mark.parametrize("lean", [-9.0, 3.0])
def test_a_lopsided_minimum(place, lean):
    def loss(x):
        return np.expm1(lean * (x - place)) - lean * (x - place)

    found = search(loss, lambda x: lean * np.expm1(lean * (x - place)))
    assert found.tau == pytest.approx(np.exp(place), rel=1e-10)


@pytest.mark.parametrize("degree", range(4))
@pytest.mark.parametrize("n_nodes", [6, 7, 65])
def test_values_are_the_integral_of_the_slopes(degree, n_nodes):
    """Exact up to the third degree, also in the two cells at each end."""
    nodes = np.arange(n_nodes) / n_nodes
    values = np.empty(n_nodes)
    _integrate(nodes**degree / n_nodes, values)
    np.testing.assert_allclose(values, nodes ** (degree + 1) / (degree + 1), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("place", [-2.9, -1.0, 0.0, 0.123456789, 1.1, 3.9])
@pytest.mark.parametrize("power", [2, 4])
def test_a_single_minimum(place, power):
    found = search(lambda x: (x - place) ** power, lambda x: power * (x - place) ** (power - 1))
    assert not found.at_bound
    assert found.tau == pytest.approx(np.exp(place), rel=1e-10 if power == 2 else 1e-5)


def test_a_steep_kink_like_minimum():
    width = 1e-4
    found = search(
        lambda x: np.sqrt((x - 0.3) ** 2 + width**2), lambda x: (x - 0.3) / np.sqrt((x - 0.3) ** 2 + width**2)
    )
    assert found.tau == pytest.approx(np.exp(0.3), rel=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_the_lowest_of_many_minima(seed):
    rng = np.random.default_rng(seed)
    size, rate, phase = rng.uniform(0.2, 1, 12), rng.uniform(1, 12, 12), rng.uniform(0, 6, 12)

    def function(x):
        return 0.02 * x**2 + np.sum(size * np.sin(np.outer(x, rate) + phase), axis=1)

    def derivative(x):
        return 0.04 * x + np.sum(size * rate * np.cos(np.outer(x, rate) + phase), axis=1)

    found = search(function, derivative)
    dense = np.linspace(X[0], X[-1], 1_000_001)
    expected = dense[np.argmin(np.concatenate([function(part) for part in np.array_split(dense, 20)]))]
    assert np.log(found.tau) == pytest.approx(expected, abs=2e-5)


def test_equal_minima_go_to_the_lowest_tau():
    found = search(lambda x: (x**2 - 1) ** 2, lambda x: 4 * x * (x**2 - 1))
    assert abs(abs(np.log(found.tau)) - 1) < 1e-9
    exact = search(lambda x: np.maximum(np.abs(x) - 1, 0), lambda x: np.sign(x) * (np.abs(x) > 1))
    assert np.log(exact.tau) == pytest.approx(-1.0, abs=grid_step(GRID_TAU.size))  # a plateau from -1 to 1


def test_the_ends():
    rising = search(lambda x: x, np.ones_like)
    assert (rising.tau, rising.at_bound) == (TAU_MIN, True)
    falling = search(lambda x: -x, lambda x: -np.ones_like(x))
    assert (falling.tau, falling.at_bound) == (TAU_MAX, True)
    # a local minimum inside, but lower at the upper end
    both = search(
        lambda x: np.where(x < 2, (x - 1) ** 2, 1 - 3 * (x - 2)), lambda x: np.where(x < 2, 2 * (x - 1), -3)
    )
    assert both.at_bound
    assert both.tau == TAU_MAX
    near = search(lambda x: (x - X[0] - 1e-4) ** 2, lambda x: 2 * (x - X[0] - 1e-4))
    assert not near.at_bound
    assert near.tau == pytest.approx(TAU_MIN * np.exp(1e-4), rel=1e-10)


# --- convex in beta = 1 / tau -------------------------------------------------------------------------------

# name: (beta, place) -> (loss, its two derivatives in beta), least at beta = place
CONVEX = {
    "parabola": lambda b, at: ((b - at) ** 2, 2 * (b - at), 2.0),
    "nearly flat there": lambda b, at: ((b - at) ** 4, 4 * (b - at) ** 3, 12 * (b - at) ** 2),
    "kink": lambda b, at: (
        math.hypot(b - at, 1e-5),
        (b - at) / math.hypot(b - at, 1e-5),
        1e-10 / math.hypot(b - at, 1e-5) ** 3,
    ),
    "entropy": lambda b, at: (b * math.log(b / at) - b, math.log(b / at), 1 / b),
    "barrier": lambda b, at: (b / at - math.log(b), 1 / at - 1 / b, 1 / b**2),
    "without curvature": lambda b, at: (abs(b - at), float(np.sign(b - at)), 0.0),
}
REL = {"nearly flat there": 1e-6, "kink": 1e-9, "without curvature": 1e-11}


@pytest.mark.parametrize("tau", [0.0501, 0.2, 0.999, 1.0, 1.7, 3.0, 49.9])
@pytest.mark.parametrize("name", CONVEX)
def test_the_minimum_of_a_convex_loss(name, tau):
    betas = []

    def objective(beta):
        betas.append(beta)
        return CONVEX[name](beta, 1.0 / tau)

    found, losses = find_valley(objective)
    assert not found.at_bound
    assert found.tau == pytest.approx(tau, rel=REL.get(name, 1e-12))
    assert found.loss == CONVEX[name](1.0 / found.tau, 1.0 / tau)[0]
    assert losses.tolist() == [CONVEX[name](1.0 / at, 1.0 / tau)[0] for at in (TAU_MIN, 1.0, TAU_MAX)]
    assert len(betas) <= (20 if name in ("parabola", "barrier", "entropy") else 75)


def test_the_ends_of_a_convex_loss():
    for slope, tau in ((1.0, TAU_MAX), (-1.0, TAU_MIN), (0.0, TAU_MIN)):  # ties go to the lowest tau
        found = find_valley(lambda beta, slope=slope: (slope * beta, slope, 0.0))[0]
        assert (found.tau, found.loss, found.at_bound) == (tau, slope / tau, True)
    for tau in (TAU_MIN, TAU_MAX):
        found = find_valley(lambda beta, tau=tau: CONVEX["parabola"](beta, 1.0 / tau))[0]
        assert (found.tau, found.at_bound) == (tau, True)


def test_a_convex_loss_of_nan_ends_the_search():
    assert np.all(np.isnan(find_valley(lambda beta: (math.nan, math.nan, math.nan))[1]))
