"""The methods: their names, variants of the Dual-Align loss, which options go with which, and the examples each needs.

`DEFAULTS` is the only place that holds the defaults. Whether a run can still get enough examples is bounded: after k
examples of a kind among n prompts in random order, Clopper & Pearson (1934) bound the kind's frequency from above, by
the p at which k or fewer of n have probability `doubt`. (With k = 0 and a doubt of 5 % this is the rule of three, p =
3 / n.) If not even that share of the remaining prompts would suffice, the run is pointless.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from edgecal.calibration.choice_logits import ChoiceLogits
from edgecal.errors import InputError, NotIdentifiedError
from edgecal.results.fitting import Variant

__all__ = [
    "COMBINES",
    "DEFAULTS",
    "DEFAULT_LAMBDA",
    "DEFAULT_METHOD",
    "ISES",
    "METHODS",
    "MIN_DISAGREEMENTS",
    "MIN_EXAMPLES",
    "TAU_SCOPES",
    "Method",
    "check_examples",
    "foresee_lack",
]

METHODS: Final = ("dual-align", "daca", "naive", "process", "anchored", "ts", "vanilla")
ISES: Final = ("mixture", "mean")
TAU_SCOPES: Final = ("all", "final")
COMBINES: Final = ("stratified", "divergence", "sum")

DEFAULT_METHOD: Final = "dual-align"
# Chosen on the choosing half of the stored pairs, by mean and by worst error (docs/pairs.md). The process loss alone is
# more stable over all layers.
DEFAULTS: Final[dict[str, dict[str, str]]] = {
    "dual-align": {"ise": "mixture", "tau_scope": "all", "combine": "sum"},
    "process": {"ise": "mixture", "tau_scope": "all"},
}
DEFAULT_LAMBDA: Final = 0.1

MIN_EXAMPLES: Final = 30  # in the loss; for Dual-Align of agreements alone
MIN_DISAGREEMENTS: Final = 10  # in addition, for Dual-Align


@dataclass(frozen=True)
class Method:
    """A method with its options, checked and completed.

    Attributes
    ----------
    name : one of METHODS
        `dual-align` (both losses), `daca` (confidence loss on agreement examples), `naive` (the same on all),
        `process` (process loss on disagreement examples), `anchored` (no loss: see `fit_anchored`), `ts` (negative
        log-likelihood of labels), `vanilla` (tau = 1).
    ise : "mixture" or "mean"
        Entropy of the layers' mean distribution, or mean of the layers' entropies.
    tau_scope : "all" or "final"
        Whether tau divides every layer PDL..L of the chat model, or only layer L.
    combine : "stratified", "divergence" or "sum"
        How Dual-Align combines its two losses.
    lam : finite number > 0
        Weight of the process loss in combine="sum".

    An option that is None takes its default if it applies to the method and stays None otherwise. Raises InputError
    for an option that is set but does not apply, or has an unknown value.
    """

    name: str = DEFAULT_METHOD
    ise: str | None = None
    tau_scope: str | None = None
    combine: str | None = None
    lam: float | None = None

    def __post_init__(self) -> None:
        if self.name not in METHODS:
            raise InputError(f"unknown method {self.name!r}, expected one of {', '.join(METHODS)}")
        has_process_loss = self.name in ("dual-align", "process")
        self._complete("ise", ISES, has_process_loss)
        self._complete("tau_scope", TAU_SCOPES, has_process_loss)
        self._complete("combine", COMBINES, self.name == "dual-align")
        if self.combine == "sum":
            lam = DEFAULT_LAMBDA if self.lam is None else self.lam
            if not (math.isfinite(lam) and lam > 0):
                raise InputError(f"lambda is {lam}, expected a finite number above 0")
            object.__setattr__(self, "lam", float(lam))
        elif self.lam is not None:
            raise InputError("lambda applies only to method dual-align with combine=sum; leave it out")

    def _complete(self, option: str, values: tuple[str, ...], applies: bool) -> None:
        """Check an option and set it to its default where it applies and is None."""
        value = getattr(self, option)
        name = option.replace("_", "-")
        if not applies:
            if value is not None:
                raise InputError(f"{name} does not apply to method {self.name}; leave it out")
        elif value is None:
            object.__setattr__(self, option, DEFAULTS[self.name][option])
        elif value not in values:
            raise InputError(f"unknown {name} {value!r}, expected one of {', '.join(values)}")

    @classmethod
    def of(cls, method: Method | str) -> Method:
        """Return `method` itself, or the method of that name with default options."""
        return method if isinstance(method, Method) else cls(method)

    @property
    def needs_layers(self) -> bool:
        """Whether the loss uses the logits of intermediate layers."""
        return self.ise is not None

    @property
    def needs_labels(self) -> bool:
        """Whether the method learns from labels."""
        return self.name in ("ts", "anchored")

    @property
    def needed(self) -> dict[str, int]:
        """Minimum number of examples of each kind: "agreement", "disagreement", "labelled", or "" for any."""
        if self.name in ("vanilla", "anchored"):
            return {"labelled": 1} if self.needs_labels else {}
        kinds = {"dual-align": "agreement", "daca": "agreement", "process": "disagreement", "ts": "labelled"}
        needed = {kinds.get(self.name, ""): MIN_EXAMPLES}
        return needed | {"disagreement": MIN_DISAGREEMENTS} if self.name == "dual-align" else needed

    @property
    def min_examples(self) -> int:
        """The fewest prompts from which this method could find a temperature; the fit also counts each kind."""
        return sum(self.needed.values())

    @property
    def variant(self) -> Variant:
        """The options under their public names; None for one that does not apply."""
        return {"ise": self.ise, "tau_scope": self.tau_scope, "combine": self.combine, "lambda": self.lam}


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
