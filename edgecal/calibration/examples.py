"""Checks that a method has enough examples of each kind, and whether it can still get them.

After k examples of a kind among n prompts in random order, Clopper & Pearson (1934) bound the kind's frequency from
above: by the p at which k or fewer of n have probability `doubt`. (With k = 0 and a doubt of 5 % this is the rule of
three, p = 3 / n.) If not even that share of the remaining prompts would suffice, the run is pointless.
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
    """Raises NotIdentifiedError if there are fewer examples of a kind than the method needs."""
    for kind, least in method.needed.items():
        found = _count(logits, kind)
        if found < least:
            raise NotIdentifiedError(f"{_lack(method, kind, found)}: give more prompts{_advice(kind)}")


def foresee_lack(logits: ChoiceLogits, method: Method, n_total: int, doubt: float) -> str | None:
    """Say in one line why even all n_total prompts would lack examples that the method needs; None if they may suffice.

    logits: of the prompts that were run, a random subset. doubt: probability that the bound on a kind's share is too
    low. The number of labels is not predicted, because the caller can count labels before the run.
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
                f"expected of the other {n_left}, which were not run{_advice(kind)}"
            )
    return None


def _count(logits: ChoiceLogits, kind: str) -> int:
    agree = logits.agreement
    kinds = {"agreement": agree, "disagreement": ~agree, "labelled": logits.labels >= 0}
    return int(np.count_nonzero(kinds[kind])) if kind else logits.n_prompts


def _lack(method: Method, kind: str, found: int) -> str:
    what = f"{kind} examples".strip() + _MEANING.get(kind, "")
    return f"method {method.name} needs at least {method.needed[kind]} {what} and has {found}"


def _advice(kind: str) -> str:
    if kind == "disagreement":
        return "; use --method daca, which needs none"
    if kind == "agreement":
        return "; models of one origin agree more often: is the base model the one that the chat model came from?"
    return ""


def _highest_share(found: int, n: int, doubt: float) -> float:
    """The share p at which `found` or fewer examples among n have probability `doubt`, by bisection."""
    if found >= n:
        return 1.0
    counts = np.arange(found + 1)
    log_binomials = np.array(
        [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in counts.tolist()]
    )
    low, high = found / n, 1.0
    for _ in range(_HALVINGS):
        share = (low + high) / 2.0
        log_probs = log_binomials + counts * math.log(share) + (n - counts) * math.log1p(-share)
        low, high = (share, high) if float(np.exp(log_probs).sum()) > doubt else (low, share)
    return high
