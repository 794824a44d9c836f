"""In which orders a question's options are shown, and when no further order is needed.

Models prefer some places in a list to others, so their log-probabilities are averaged over several orders.
"""

from __future__ import annotations

from typing import Literal

from edgecal.decisions.questions import QuestionType
from edgecal.errors import InputError

__all__ = ["DEFAULT_ORDERS", "DEFAULT_ORDER_MARGIN", "Orders", "is_decided", "list_orders", "parse_orders"]

# How many orders; "all" is every rotation; "auto" stops early; "choices" is 2, but 1 for yes and no.
Orders = int | Literal["choices", "all", "auto"]

# Another order moves a choice's letters to other options, and averaging makes up for a preferred letter. The words yes
# and no stay with their meaning, so that nothing is made up for, and averaging "no or yes" in made the NLL worse on 7
# of 8 pairs of model and task (docs/real.md, "Typed decisions").
DEFAULT_ORDERS: Orders = "choices"

# By how many nats a further order is assumed to be able to speak against the answer.
DEFAULT_ORDER_MARGIN = 2.0


_NAMED: tuple[Literal["choices", "all", "auto"], ...] = ("choices", "all", "auto")


def parse_orders(value: object) -> Orders:
    """The orders that a user means: 1, 2, ..., "choices", "all" or "auto"; a number also as a text."""
    for name in _NAMED:
        if value == name:
            return name
    try:
        n = int(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else 0
    except ValueError:
        n = 0
    if n < 1:
        raise InputError(
            f'orders is {value!r:.60}, expected a whole number from 1, "choices", "all" or "auto"'
        )
    return n


def list_orders(kind: QuestionType, n: int, orders: Orders) -> list[tuple[int, ...]]:
    """The orders in which n options are shown; each holds the option's index for every place.

    They are evenly spaced rotations, at most n of them, of which the first is the order given: with 2 the second is
    half a turn. The levels of a score keep their sequence, so their second and last order is the reverse. With
    "choices" there are two, but one of a noul; with "auto" there are all, but one of a noul.
    """
    given = tuple(range(n))
    if orders in ("choices", "auto") and kind == "noul":
        return [given]
    if orders == "choices":
        orders = 2
    most = 2 if kind == "score" else n
    count = min(orders, most) if isinstance(orders, int) else most
    if kind == "score":
        return [given, given[::-1]][:count]
    shifts = [n * at // count for at in range(count)]
    return [given[shift:] + given[:shift] for shift in shifts]


def is_decided(margin: float, n_done: int, n_all: int, order_margin: float) -> bool:
    """Whether the remaining orders cannot change the answer.

    Parameters
    ----------
    margin: nats by which the likeliest option leads the next one, in the mean over the orders so far.
    n_done, n_all: orders so far, and all.
    order_margin: nats by which a further order is assumed to be able to speak against the answer.
    """
    return margin * n_done > order_margin * (n_all - n_done)
