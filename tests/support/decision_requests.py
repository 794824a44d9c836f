"""Requests of typed questions, for tests: one that holds everything that the format allows, and broken copies."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Sequence
from typing import Any

REQUEST: dict[str, Any] = {
    "model": "any",
    "state": {"subject": "Refund?", "lines": ["I paid twice.", 12.5, None, True]},
    "questions": {
        "q1 refund": {"type": "noul", "instructions": "Does the customer want money back?"},
        "q2 noul": {"type": "noul", "criteria": {"true": "It is urgent."}},
        "q3 team": {
            "type": "choice",
            "instructions": ["Route it.", {"to": "one team"}],
            "criteria": {"billing": "Money", "tech": None, "sales": {"who": ["new", "customers"]}},
        },
        "q4 anger": {
            "type": "score",
            "instructions": "How angry?",
            "criteria": ["calm", ["a", "bit"], "very"],
        },
    },
}

# What a field may hold by mistake.
ODD = (
    None, True, 0, -1, 2.5, math.nan, math.inf, 10**5000, "", " ", "x", "\ud800", "a\x00b", "<|im_end|>", [], {},
    [None], {"": 1}, {"true": "a"}, {"a": None, "b": None}, ["a", "b"], ["a"] * 11,
    {str(at): None for at in range(256)}, "noul", "choice", "score", b"bytes", {1: 2}, {1, 2}, object,
)  # fmt: skip


def one_question(**question: Any) -> dict[str, Any]:
    """A request with this question, under the id "q"."""
    return {"state": "s", "questions": {"q": question}}


def mutated(rng: random.Random, grow: Sequence[int] = (2, 2, 2, 300, 100_000)) -> Any:
    """A copy of `REQUEST` in which one to three places were replaced, removed, nested, renamed or repeated (`grow`
    times)."""
    body: Any = copy.deepcopy(REQUEST)
    for _ in range(rng.randint(1, 3)):
        places = list(_places(body))
        holder, key = rng.choice(places)
        action = rng.choice(("replace", "replace", "remove", "nest", "rename", "grow"))
        if action == "remove":
            del holder[key]
        elif action == "nest":
            for _ in range(rng.choice((1, 3, 100))):
                holder[key] = [holder[key]] if rng.random() < 0.5 else {"a": holder[key]}
        elif action == "rename" and isinstance(holder, dict):
            holder[rng.choice(("", "type", "criteria", "\ud800", "x_none_of_the_above", "answer", 3))] = (
                holder.pop(key)
            )
        elif action == "grow" and isinstance(holder[key], str):
            holder[key] *= rng.choice(grow)
        else:
            holder[key] = copy.deepcopy(rng.choice(ODD))
        if not body:
            break
    return body


def _places(value: Any) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield value, key
        yield from _places(item)
