"""Asks a real model the same typed questions alone and in company, and counts the answers whose bits differ.

    python tests/tools/decision_bits.py MODEL [--requests 200] [--seed 0]

Random requests draw from a few states, some of which begin alike, and questions of all types, under random ids and in
random order; now and then the model answers something else in between, forgets every state, or gets two requests about
one state through `decide_many`. Then each question that was asked is asked alone, in a context of its own.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

import edgecal
from edgecal import Choice, Noul, Score
from edgecal.decisions import Request

_SENTENCES = (
    "The parcel arrived on Tuesday, and the box was wet.",
    "Nobody answered the phone for two days.",
    "I paid 40 euros for express delivery, and it took nine days.",
    "The lamp works, but the shade has a crack.",
    "Please send me a new shade or give me the money back.",
    "My neighbour ordered the same lamp and is happy with it.",
    "The invoice shows another address than mine.",
    "I have been your customer since 2014.",
)
_QUESTIONS = (
    Noul("Is the customer angry?"),
    Noul("Was something damaged?", true="A part is broken or wet."),
    Noul(true="The customer wants money.", false="The customer wants no money."),
    Choice("Which team answers?", {"delivery": "parcels", "billing": "invoices", "returns": None}),
    Choice("What is it about?", ["a lamp", "a phone", "a table", "a chair", "a bed"]),
    Choice("Which language is it?", ["English", "French"], none_of_the_above=True),
    Score("How urgent is it?", ["not at all", "this week", "today"]),
    Score("How satisfied is the customer?", ["not at all", "a little", "rather", "very"]),
)
_OPTIONS = ({"orders": 1}, {"orders": 2}, {"orders": "auto"}, {"readout": "letters", "orders": 1})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    states = _states(rng)
    answers: dict[tuple[int, int, int], list[edgecal.Decision]] = {}
    n_rows = n_tokens = 0
    start_s = time.monotonic()
    with edgecal.load(arguments.model) as model:
        for number in range(arguments.requests):
            state, way = int(rng.integers(len(states))), int(rng.integers(len(_OPTIONS)))
            chosen = rng.permutation(len(_QUESTIONS))[: int(rng.integers(1, 5))].tolist()
            ids = rng.permutation(1000)[: len(chosen)].tolist()
            questions = {f"id{key}": _QUESTIONS[which] for key, which in zip(ids, chosen, strict=True)}
            if number % 11 == 10:
                model.choose("Is this asked in between?", ["yes", "no"])
            if number % 29 == 28:
                model._decider._context.close()
            if number % 5 == 4:
                (_, given), _ = model.decide_many(
                    [Request(states[state], questions), Request(states[state], {"x": _QUESTIONS[0]})],
                    **_OPTIONS[way],
                )
            else:
                given = model.decide(states[state], questions, **_OPTIONS[way])
            n_rows, n_tokens = n_rows + given.tokens_computed, n_tokens + given.input_tokens
            for which, decision in zip(chosen, given.values(), strict=True):
                answers.setdefault((state, which, way), []).append(decision)
        n_answers = sum(map(len, answers.values()))
        print(
            f"{arguments.requests} requests about {len(states)} states: {n_answers} answers, "
            f"{n_rows} rows computed of {n_tokens} tokens, {time.monotonic() - start_s:.0f} s",
            flush=True,
        )
        n_wrong = 0
        for (state, which, way), found in sorted(answers.items()):
            model._decider._context.close()
            (alone,) = model.decide(states[state], {"q": _QUESTIONS[which]}, **_OPTIONS[way]).values()
            n_wrong += sum(each != alone for each in found)
    print(f"{len(answers)} questions alone: {n_wrong} of {n_answers} answers differ in any bit")
    sys.exit(1 if n_wrong else 0)


def _states(rng: np.random.Generator) -> list[str]:
    """Eight states; every second one goes on where the one before ends."""
    states: list[str] = []
    for number in range(8):
        order = rng.permutation(len(_SENTENCES))[: int(rng.integers(1, 5))]
        text = " ".join(_SENTENCES[at] for at in order)
        states.append(f"{states[-1]} {text}" if number % 2 else text)
    return states


if __name__ == "__main__":
    main()
