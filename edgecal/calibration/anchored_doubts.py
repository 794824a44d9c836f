"""Do no harm, for an anchored temperature: states what speaks against it, as `harm` does for others.

It has used the labels up, so they cannot judge it, and they may overrule bracket and choice mass. It is settled if its
own posterior is narrow and hardly leaves room for harm.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Final

from edgecal.calibration.anchored import AnchoredFit

__all__ = ["MAX_ANCHORED_DOUBT", "MAX_ANCHORED_RATIO", "find_anchored_doubts"]

MAX_ANCHORED_RATIO: Final = 2.0  # of the interval's ends
MAX_ANCHORED_DOUBT: Final = 0.05  # that the temperature is worse than 1
_HOPELESS_LABELS: Final = 2000


def find_anchored_doubts(fit: AnchoredFit) -> tuple[str, ...]:
    """Say why an anchored temperature is not settled, one line per reason: figure, limit, how many labels may settle
    it. Empty if it is settled."""
    low, high = fit.interval
    found = []
    if high / low > MAX_ANCHORED_RATIO:
        found.append(
            f"with {fit.n_labelled} labels the right temperature may lie anywhere from {low:.3g} to {high:.3g} "
            f"({fit.level:.0%}), a ratio of {high / low:.2g} where at most {MAX_ANCHORED_RATIO:g} is allowed: "
            + _more_labels(fit, math.log(MAX_ANCHORED_RATIO))
        )
    if fit.doubt > MAX_ANCHORED_DOUBT:
        # Half of ln tau must be as many deviations from the posterior's middle as the limit asks.
        deviations = NormalDist().inv_cdf(1.0 - MAX_ANCHORED_DOUBT)
        width = NormalDist().inv_cdf((1.0 + fit.level) / 2.0) / deviations * abs(math.log(fit.temperature))
        found.append(
            f"with a probability of {fit.doubt:.0%} the right temperature is nearer to 1 than to "
            f"{fit.temperature:.3g}, which would then do harm, and at most {MAX_ANCHORED_DOUBT:.0%} is allowed: "
            + _more_labels(fit, width)
        )
    return tuple(found)


def _more_labels(fit: AnchoredFit, width: float) -> str:
    """Advice on how many labels may narrow ln tau's interval to `width`: prompts and labels each bring information,
    the inverse square of a width, and every label the same."""
    low, high = fit.interval
    prior, now = (math.log(b / a) ** -2 for a, b in (fit.prior_interval, (low, high)))
    each = (now - prior if now > prior else now) / fit.n_labelled  # labels against the prompts may widen it
    needed = fit.n_labelled + (width**-2 - now) / each if width > 0.0 else math.inf
    if needed > _HOPELESS_LABELS:
        return f"leave the model as it is, or give far more labels (over {_HOPELESS_LABELS:,})"
    return f"give more labels, about {max(math.ceil(needed / 10.0) * 10, fit.n_labelled + 10)} in all"
