"""Orders of options: each shows every option once, and places are shared out evenly."""

from collections import Counter

import numpy as np
import pytest

from edgecal.decisions import DEFAULT_ORDERS, is_decided, list_orders, parse_orders
from edgecal.errors import InputError


@pytest.mark.parametrize("n", [2, 3, 4, 7, 10, 26, 255, 256])
@pytest.mark.parametrize("orders", [1, 2, 3, 5, 1000, "all", "auto"])
def test_each_order_holds_every_option_once(n, orders):
    found = list_orders("choice", n, orders)
    assert found[0] == tuple(range(n))
    assert len(set(found)) == len(found) == (min(orders, n) if isinstance(orders, int) else n)
    assert all(sorted(order) == list(range(n)) for order in found)


def test_the_second_order_is_half_a_turn():
    assert list_orders("choice", 4, 2) == [(0, 1, 2, 3), (2, 3, 0, 1)]
    assert list_orders("choice", 3, 2) == [(0, 1, 2), (1, 2, 0)]
    assert list_orders("noul", 2, "all") == [(0, 1), (1, 0)]


def test_by_default_yes_and_no_are_asked_once():
    assert DEFAULT_ORDERS == "choices"
    for orders in ("choices", "auto"):
        assert list_orders("noul", 2, orders) == [(0, 1)]
    for kind in ("choice", "score"):
        assert list_orders(kind, 4, "choices") == list_orders(kind, 4, 2)


@pytest.mark.parametrize("n", [3, 5, 8])
def test_in_all_rotations_every_option_stands_everywhere_once(n):
    for place in range(n):
        assert Counter(order[place] for order in list_orders("choice", n, "all")) == Counter(range(n))


def test_fewer_rotations_are_evenly_spaced():
    assert list_orders("choice", 6, 3) == [(0, 1, 2, 3, 4, 5), (2, 3, 4, 5, 0, 1), (4, 5, 0, 1, 2, 3)]


@pytest.mark.parametrize("orders", [2, 7, "all", "auto"])
def test_the_levels_of_a_score_keep_their_sequence(orders):
    assert list_orders("score", 5, orders) == [(0, 1, 2, 3, 4), (4, 3, 2, 1, 0)]
    assert list_orders("score", 5, 1) == [(0, 1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("value", "meant"), [(1, 1), ("2", 2), (7, 7), ("all", "all"), ("auto", "auto"), ("choices", "choices")]
)
def test_orders_that_a_user_may_ask_for(value, meant):
    assert parse_orders(value) == meant


@pytest.mark.parametrize("value", [0, -1, "0", "few", "", 1.0, 2.5, True, None, [1], "9" * 5000])
def test_orders_that_there_are_not(value):
    with pytest.raises(
        InputError, match=r'^orders is .*, expected a whole number from 1, "choices", "all" or "auto"$'
    ):
        parse_orders(value)


def test_a_decided_answer_stays():
    """However the remaining orders speak within the stated margin, the mean has the same first option."""
    rng = np.random.default_rng(5)
    stopped = 0
    for _ in range(500):
        n_all, k = int(rng.integers(2, 8)), 4
        seen = rng.normal(0, 2, (n_all, k))
        for n_done in range(1, n_all):
            mean = seen[:n_done].mean(axis=0)
            first, second = np.sort(mean)[::-1][:2]
            if not is_decided(first - second, n_done, n_all, 2.0):
                continue
            stopped += 1
            # Each further order prefers the second to the first option by nearly the margin.
            against = np.full((n_all - n_done, k), -1.0)
            against[:, mean.argsort()[-2]] = 0.0
            against[:, mean.argmax()] = -1.999
            assert np.concatenate([seen[:n_done], against]).mean(axis=0).argmax() == mean.argmax()
    assert stopped > 100
    assert is_decided(1.1, 1, 1, 2.0) and not is_decided(0.0, 1, 2, 0.0)
    assert not is_decided(2.0, 1, 2, 2.0)
