"""The map of hidden states: least squares with a ridge, which is chosen by what the map makes of states left out."""

import numpy as np
import pytest

from edgecal.evaluation.linear_map import RIDGES, fit_linear_map


def states(n, n_in, n_out, *, seed=0, noise=0.5):
    rng = np.random.default_rng(seed)
    source = rng.normal(size=(n, n_in)) * np.geomspace(0.1, 30, n_in)
    true = rng.normal(size=(n_out, n_in)) / np.sqrt(n_in)
    return source, source @ true.T + 3.0 + noise * rng.normal(size=(n, n_out))


def solve(source, target, penalty):
    """The penalised least squares by the normal equations, with the intercept left alone."""
    x_mean, y_mean = source.mean(axis=0), target.mean(axis=0)
    x = source - x_mean
    weight = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ (target - y_mean)).T
    return weight, y_mean - weight @ x_mean


def leave_out(source, target, penalty):
    """Every prompt left out once and the map fitted anew on the others."""
    made = []
    for left in range(len(source)):
        others = np.arange(len(source)) != left
        weight, intercept = solve(source[others], target[others], penalty)
        made.append(weight @ source[left] + intercept)
    return np.array(made)


@pytest.mark.parametrize(("n", "n_in", "n_out"), [(40, 6, 6), (40, 6, 4), (12, 20, 20)])
def test_against_the_normal_equations_and_real_refits(n, n_in, n_out):
    source, target = states(n, n_in, n_out, seed=n)
    found = fit_linear_map(source, target)
    top = np.linalg.norm(source - source.mean(axis=0), 2) ** 2
    made = [leave_out(source, target, ridge * top) for ridge in RIDGES]
    best = int(np.argmin([np.sum((one - target) ** 2) for one in made]))
    assert found.ridge == RIDGES[best]
    assert RIDGES[0] < found.ridge < RIDGES[-1]
    np.testing.assert_allclose(found.left_out, made[best], rtol=1e-6, atol=1e-8)
    weight, intercept = solve(source, target, found.ridge * top)
    np.testing.assert_allclose(found.weight, weight, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(found.intercept, intercept, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(found(source), source @ weight.T + intercept, rtol=1e-6, atol=1e-8)


def test_a_map_without_noise_is_found():
    source, target = states(200, 8, 8, noise=0.0)
    found = fit_linear_map(source[:150], target[:150])
    np.testing.assert_allclose(found(source[150:]), target[150:], rtol=1e-3, atol=1e-3)
    assert found.ridge == RIDGES[0]


def test_states_without_a_relation_are_given_their_mean():
    rng = np.random.default_rng(3)
    target = rng.normal(size=(60, 5)) + 7
    found = fit_linear_map(rng.normal(size=(60, 40)), target)
    assert found.ridge == RIDGES[-1]
    np.testing.assert_allclose(
        found(rng.normal(size=(9, 40))), np.tile(target.mean(axis=0), (9, 1)), atol=0.2
    )


def test_the_order_of_prompts_and_a_shift_of_all_states_change_nothing():
    source, target = states(50, 6, 6)
    found = fit_linear_map(source, target)
    order = np.random.default_rng(1).permutation(50)
    again = fit_linear_map(source[order] + 5, target[order] - 2)
    np.testing.assert_allclose(again.weight, found.weight, atol=1e-9)
    np.testing.assert_allclose(again(source + 5), found(source) - 2, atol=1e-4)


def test_states_that_are_all_alike_are_given_the_mean():
    found = fit_linear_map(np.ones((5, 3)), np.full((5, 3), 4.0))
    np.testing.assert_allclose(found(np.ones((2, 3))), np.full((2, 3), 4.0))
