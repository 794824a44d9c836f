"""Orders of options: distinct, balanced, repeatable, and mapped back to where they were."""

import math

import numpy as np
import pytest

from edgecal import InputError
from edgecal.prompts import Question, permute_question, reorder


def question(k, name="Which?"):
    return Question(
        name, tuple(f"option {i}" for i in range(k)), answer=k - 1, subject="s", source="f, line 1"
    )


@pytest.mark.parametrize("k", [2, 3, 4, 5, 7, 8, 26])
def test_identity_then_every_option_under_every_letter(k):
    orders = permute_question(question(k), k, seed=1)
    assert orders[0] == tuple(range(k))
    assert sorted(orders) == sorted(tuple((j + s) % k for j in range(k)) for s in range(k))
    assert all(set(column) == set(range(k)) for column in zip(*orders, strict=True))
    assert permute_question(question(k), 1, seed=1) == orders[:1]


@pytest.mark.parametrize(
    ("k", "n"), [(2, 2), (2, 9), (3, 5), (3, 6), (3, 99), (4, 24), (5, 100), (8, 200), (26, 60)]
)
def test_more_are_distinct_and_at_most_all(k, n):
    orders = permute_question(question(k), n, seed=1)
    assert len(orders) == len(set(orders)) == min(n, math.factorial(k))
    assert all(sorted(order) == list(range(k)) for order in orders)
    assert orders[: min(n, k)] == permute_question(question(k), min(n, k), seed=7)


@pytest.mark.parametrize("k", [4, 9])
def test_the_further_ones_depend_on_seed_and_content(k):
    orders = permute_question(question(k), 12, seed=1)
    assert permute_question(question(k), 12, seed=1) == orders
    assert permute_question(question(k), 12, seed=2) != orders
    assert permute_question(question(k, "Who?"), 12, seed=1) != orders
    assert permute_question(question(k), 10, seed=1) == orders[:10]


@pytest.mark.parametrize("n", [0, -1, 5041])
def test_absurd_numbers(n):
    with pytest.raises(InputError, match=f"got {n}"):
        permute_question(question(4), n, seed=0)


def test_the_answer_moves_along_and_probabilities_map_back():
    asked = question(4)
    original = np.array([0.1, 0.2, 0.3, 0.4])
    for order in permute_question(asked, 24, seed=0):
        moved = reorder(asked, order)
        assert moved.choices[moved.answer] == asked.choices[asked.answer]
        assert moved.choices == tuple(asked.choices[i] for i in order)
        assert (moved.question, moved.subject, moved.source) == (asked.question, asked.subject, asked.source)
        permuted = np.array([original[asked.choices.index(choice)] for choice in moved.choices])
        back = np.empty(4)
        back[list(order)] = permuted
        np.testing.assert_array_equal(back, original)
        np.testing.assert_array_equal(original[list(order)], permuted)
    assert reorder(Question("x", ("a", "b")), (1, 0)).answer is None


@pytest.mark.parametrize("order", [(0, 1), (0, 1, 1), (1, 2, 3), (0, 1, 2, 3)])
def test_what_is_no_order(order):
    with pytest.raises(InputError, match="is not an order of 3 options"):
        reorder(question(3), order)
