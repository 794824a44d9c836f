"""The comparison's rows: every method fitted on one part of the data and judged on the other, split by split.

Label-free methods are handed logits from which the labels have been removed, so they cannot see one.
Knows nothing of models or of how a row is shown.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from edgecal.calibration import ChoiceLogits, Method, fit_temperature
from edgecal.calibration.method import COMBINES, ISES, TAU_SCOPES
from edgecal.errors import NotIdentifiedError
from edgecal.evaluation.baselines import judge_logits
from edgecal.evaluation.shape import shape_spread
from edgecal.evaluation.splits import Split
from edgecal.metrics import FIGURES, Judged, compute_figures
from edgecal.results.fitting import Variant
from edgecal.results.judging import MethodRow

__all__ = [
    "DUAL_ALIGN_VARIANTS",
    "FIT_BOOTSTRAP",
    "TEMPERED_METHODS",
    "fit_split",
    "fixed_row",
    "hide_labels",
    "tempered_row",
    "withheld_row",
]

# Resamples behind each fit of a row: enough to tell whether more than 5 % of the refits end at a bound.
FIT_BOOTSTRAP = 200

DUAL_ALIGN_VARIANTS = tuple(
    Method("dual-align", ise=ise, tau_scope=scope, combine=combine)
    for ise, scope, combine in itertools.product(ISES, TAU_SCOPES, COMBINES)
)
TEMPERED_METHODS = (
    Method("naive"),
    Method("daca"),
    Method("process"),
    *DUAL_ALIGN_VARIANTS,
    Method("ts"),
)


def hide_labels(logits: ChoiceLogits) -> ChoiceLogits:
    """The same logits without a single label."""
    return replace(logits, labels=np.full_like(logits.labels, -1))


def fit_split(
    logits: ChoiceLogits, method: Method, fit_on: npt.NDArray[np.int64], seed: int, n_bootstrap: int
) -> tuple[float, tuple[float, float]]:
    """A method's temperature and interval on some of the questions; without labels unless it is a supervised one.

    Raises
    ------
    NotIdentifiedError: those questions do not determine a temperature.
    """
    part = logits.take(fit_on)
    if not method.needs_labels:
        part = hide_labels(part)
    fitted = fit_temperature(part, method, n_bootstrap=n_bootstrap, seed=seed)
    return fitted.temperature, fitted.interval


def fit_splits(
    logits: ChoiceLogits, method: Method, splits: Sequence[Split], n_fit: int | None = None
) -> list[float | str]:
    """For each split the temperature, or why there is none; on the first `n_fit` of its questions if given."""

    def fit(split: Split) -> float | str:
        try:
            return fit_split(logits, method, split.fit[:n_fit], split.seed, FIT_BOOTSTRAP)[0]
        except NotIdentifiedError as error:
            return str(error)

    return [fit(split) for split in splits]


def tempered_row(
    logits: ChoiceLogits, method: Method, splits: Sequence[Split], *, default: bool = False
) -> MethodRow:
    """A method that divides the chat model's logits by a fitted temperature."""
    fitted = fit_splits(logits, method, splits)
    judged: list[Judged | None] = []
    for split, tau in zip(splits, fitted, strict=True):
        part = logits.take(split.judge)
        judged.append(
            None if isinstance(tau, str) else judge_logits(part.chat_final, part.n_choices, part.labels, tau)
        )
    row = _row(method.name, judged, len(splits[0].judge))
    row["variant"] = method.variant if method.needs_layers else None
    row["uses_labels"] = method.needs_labels
    row["default"] = default
    row["temperature"] = shape_spread(None if isinstance(tau, str) else tau for tau in fitted)
    row["not_identified"] = [tau for tau in fitted if isinstance(tau, str)]
    return row


def fixed_row(
    name: str,
    title: str,
    judged: Judged,
    splits: Sequence[Split],
    which: npt.NDArray[np.int64] | None = None,
) -> MethodRow:
    """Something that is not fitted, judged on the same questions as what is.

    Parameters
    ----------
    name, title: what it is called.
    judged: its examples.
    splits: the divisions; only their second parts are used.
    which: int64 [m], which question each example is, where not every question has one.
    """
    parts: list[Judged | None] = []
    for split in splits:
        if which is None:
            parts.append(judged.take(split.judge))
        else:
            inside = np.flatnonzero(np.isin(which, split.judge))
            parts.append(judged.take(inside) if inside.size else None)
    counts = [0 if part is None else len(part) for part in parts]
    return {**_row(name, parts, min(counts)), "title": title}


def withheld_row(name: str, title: str, reason: str, variant: Variant | None = None) -> MethodRow:
    """A method whose figures would mislead or cannot be had, with the reason."""
    return {**_row(name, [], 0), "title": title, "withheld": reason, "variant": variant}


def _row(name: str, judged: Sequence[Judged | None], n: int) -> MethodRow:
    figures = [None if part is None else compute_figures(part) for part in judged]
    return {
        "name": name,
        "title": name,
        "variant": None,
        "uses_labels": False,
        "default": False,
        "temperature": None,
        "figures": {
            figure.name: shape_spread(None if found is None else found[figure.name] for found in figures)
            for figure in FIGURES
        },
        "n": n,
        "not_identified": [],
        "n_worse": None,
        "withheld": None,
        "parsed_share": None,
        "n_permutations": None,
    }
