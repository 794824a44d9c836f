"""Whether a method has as many examples of each kind as it needs, and whether it can still get them.

A run in a random order that has seen k examples of a kind among n prompts knows by Clopper & Pearson (1934) how
frequent they are at most: the p at which k or fewer of n have probability `doubt`. (With k = 0 and a doubt of 5 % that
is the rule of three, p = 3 / n.) Where even so many of the prompts that are left would not do, the run has no use.

Knows nothing of models, prompts' texts or when a run looks.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from edgecal.calibration.choice_logits import ChoiceLogits
from edgecal.calibration.method import Method
from edgecal.errors import NotIdentifiedError

__all__ = ["check_examples", "foresee_lack"]

_HALVINGS: Final = 40
_MEANING: Final = {
    "agreement": " (prompts on which both models choose alike)",
    "disagreement": " (prompts on which the two models choose differently)",
}


def check_examples(logits: ChoiceLogits, method: Method) -> None:
    """Raises NotIdentifiedError where a kind of example has fewer than the method needs."""
    for kind, least in method.needed.items():
        found = _count(logits, kind)
        if found < least:
            raise NotIdentifiedError(f"{_lack(method, kind, found)}: give more prompts{_way_out(kind)}")


def foresee_lack(logits: ChoiceLogits, method: Method, n_total: int, doubt: float) -> str | None:
    """Why not even all n_total prompts can be expected to hold what the method needs, in one line; None if they may.

    logits: of those that were run, a random part. doubt: the probability with which the bound on the share of a kind
    may be too low. Labels are not foreseen, since who has them counts them before the run.
    """
    n_left = n_total - logits.n_prompts
    for kind, least in method.needed.items():
        if kind not in _MEANING:
            continue
        found = _count(logits, kind)
        share = _highest_share(found, logits.n_prompts, doubt)
        if found + share * n_left < least:
            return (
                f"{_lack(method, kind, found)} after {logits.n_prompts} of {n_total} prompts; at most {share:.2%} of "
                f"all are such ({1 - doubt:.2%} confidence), so no more than {math.floor(share * n_left)} can be "
                f"expected of the other {n_left}, which were not run{_way_out(kind)}"
            )
    return None


def _count(logits: ChoiceLogits, kind: str) -> int:
    agree = logits.agreement
    kinds = {"agreement": agree, "disagreement": ~agree, "labelled": logits.labels >= 0}
    return int(np.count_nonzero(kinds[kind])) if kind else logits.n_prompts


def _lack(method: Method, kind: str, found: int) -> str:
    what = f"{kind} examples".strip() + _MEANING.get(kind, "")
    return f"method {method.name} needs at least {method.needed[kind]} {what} and has {found}"


def _way_out(kind: str) -> str:
    if kind == "disagreement":
        return "; use --method daca, which needs none"
    if kind == "agreement":
        return "; models of one origin agree more often: is the base model the one that the chat model came from?"
    return ""


def _highest_share(found: int, n: int, doubt: float) -> float:
    """The share p of a kind at which `found` or fewer among n have probability `doubt`; by bisection."""
    if found >= n:
        return 1.0
    counts = np.arange(found + 1)
    ways = np.array(
        [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in counts.tolist()]
    )
    low, high = found / n, 1.0
    for _ in range(_HALVINGS):
        share = (low + high) / 2.0
        chance = float(np.exp(ways + counts * math.log(share) + (n - counts) * math.log1p(-share)).sum())
        low, high = (share, high) if chance > doubt else (low, share)
    return high
