"""Fits every method on one part of the data and judges it on the other, split by split; then again with one option
changed.

All rows come from the same captured logits. Label-free methods get logits without the labels, so that they cannot see
any. The ablations show what each part of the method does, and how much data it needs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from edgecal.calibration import ChoiceLogits, Method, fit_temperature
from edgecal.calibration.method import COMBINES, DEFAULT_LAMBDA, ISES, TAU_SCOPES
from edgecal.errors import NotIdentifiedError
from edgecal.evaluation.baselines import judge_logits
from edgecal.evaluation.judged_sets import shape_spread
from edgecal.evaluation.splits import Split
from edgecal.metrics import FIGURES, Judged, compute_ece, compute_figures, compute_nll
from edgecal.results.fitting import Variant
from edgecal.results.judging import AblationRow, MethodRow

__all__ = [
    "DUAL_ALIGN_VARIANTS",
    "FIT_BOOTSTRAP",
    "TEMPERED_METHODS",
    "anchored_row",
    "compute_ablations",
    "count_ablations",
    "fit_split",
    "fixed_row",
    "hide_labels",
    "split_row",
    "tempered_row",
    "withheld_row",
]

# Resamples for each fit of a row: enough to tell whether more than 5 % of the refits end at a bound.
FIT_BOOTSTRAP = 200
ANCHOR_LABELS = 30  # of the anchored row

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
    """The same logits without labels."""
    return replace(logits, labels=np.full_like(logits.labels, -1))


def fit_split(
    logits: ChoiceLogits, method: Method, fit_on: npt.NDArray[np.int64], seed: int, n_bootstrap: int
) -> tuple[float, tuple[float, float]]:
    """A method's temperature and interval on some of the questions; only a supervised method sees labels.

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
    """For each split the temperature, or why there is none; fitted on the first `n_fit` of its questions if given."""

    def fit(split: Split) -> float | str:
        try:
            return fit_split(logits, method, split.fit[:n_fit], split.seed, FIT_BOOTSTRAP)[0]
        except NotIdentifiedError as error:
            return str(error)

    return [fit(split) for split in splits]


def tempered_row(
    logits: ChoiceLogits, method: Method, splits: Sequence[Split], *, default: bool = False
) -> MethodRow:
    """The row of a method that divides the chat model's logits by a fitted temperature."""
    row = judged_row(method.name, logits, splits, fit_splits(logits, method, splits))
    row["variant"] = method.variant if method.needs_layers else None
    row["uses_labels"] = method.needs_labels
    row["default"] = default
    return row


def anchored_row(
    logits: ChoiceLogits, splits: Sequence[Split], anchored: Sequence[Mapping[int, Sequence[float]]]
) -> MethodRow:
    """The row of the anchored fit with 30 labels: of each split the first draw of `fit_anchored_draws`."""
    title = f"label-free prior and {ANCHOR_LABELS} labels"
    if any(ANCHOR_LABELS not in found for found in anchored):
        reason = f"needs {ANCHOR_LABELS} questions to label, has {len(splits[0].fit)}"
        return withheld_row("anchored", title, reason)
    row = judged_row("anchored", logits, splits, [found[ANCHOR_LABELS][0] for found in anchored])
    return {**row, "title": title, "uses_labels": True, "n_labelled": ANCHOR_LABELS}


def judged_row(
    name: str, logits: ChoiceLogits, splits: Sequence[Split], fitted: Sequence[float | str]
) -> MethodRow:
    """The row of temperatures, one for each split, or why there is none."""
    judged: list[Judged | None] = []
    for split, tau in zip(splits, fitted, strict=True):
        part = logits.take(split.judge)
        judged.append(
            None if isinstance(tau, str) else judge_logits(part.chat_final, part.n_choices, part.labels, tau)
        )
    row = _row(name, judged, len(splits[0].judge))
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
    """The row of a method without a fit, judged on the same questions as the fitted ones.

    Parameters
    ----------
    name, title: what it is called.
    judged: its examples.
    splits: the divisions; only their second parts are used.
    which: int64 [m], each example's question, if not every question has an example.
    """
    parts: list[Judged | None] = []
    for split in splits:
        if which is None:
            parts.append(judged.take(split.judge))
        else:
            inside = np.flatnonzero(np.isin(which, split.judge))
            parts.append(judged.take(inside) if inside.size else None)
    return split_row(name, title, parts)


def split_row(name: str, title: str, parts: Sequence[Judged | None]) -> MethodRow:
    """Something without a temperature, judged on each split's examples; None where a split has none."""
    counts = [0 if part is None else len(part) for part in parts]
    return {**_row(name, parts, min(counts)), "title": title}


def withheld_row(name: str, title: str, reason: str, variant: Variant | None = None) -> MethodRow:
    """The row of a method whose figures would mislead or are unavailable, with the reason."""
    return {**_row(name, [], 0), "title": title, "withheld": reason, "variant": variant}


def _row(name: str, judged: Sequence[Judged | None], n: int) -> MethodRow:
    figures = [None if part is None else compute_figures(part) for part in judged]
    return {
        "name": name,
        "title": name,
        "variant": None,
        "uses_labels": False,
        "n_labelled": None,
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


LAMBDAS = (0.01, 0.03, DEFAULT_LAMBDA, 0.3, 1.0, 3.0, 10.0)
_FIRST_COUNT = 50


def compute_ablations(
    logits: ChoiceLogits, method: Method, splits: Sequence[Split], on_step: Callable[[], None] | None = None
) -> dict[str, list[AblationRow]]:
    """Tables and curves around a Dual-Align method, one thing changed at a time.

    Parameters
    ----------
    logits: both models' captured logits of every question, with labels to judge by. Without layer logits, ablations
        that need them are left out.
    method: the variant around which one option is changed.
    splits: each method is fitted on one part and judged on the other.
    on_step: called after each row.

    Returns
    -------
    `tau_scope` (what tau divides), `ise`, `combine` (how the losses are joined), `losses` (output only, process
    only, both), `lambda` (weight of the process loss where the two are summed) and `prompts` (how many were
    fitted on). Each entry has `name`, `temperature`, `ece`, `nll` (spreads over splits) and `not_identified`
    (number of splits).
    """

    def row(name: str, chosen: Method, n_fit: int | None = None) -> AblationRow:
        made = _judge(name, logits, chosen, splits, n_fit)
        if on_step is not None:
            on_step()
        return made

    def weighed(lam: float) -> AblationRow:
        return {**row(f"{lam:g}", _change(method, combine="sum", lam=lam)), "lambda": lam}

    output_only = [
        row("output only, agreement examples (daca)", Method("daca")),
        row("output only, all examples (naive)", Method("naive")),
    ]
    layered = logits.n_layer is not None and logits.n_layer > 1
    if not layered:
        return {
            "tau_scope": [],
            "ise": [],
            "combine": [],
            "losses": output_only,
            "lambda": [],
            "prompts": _prompt_curve(row, [Method("daca")], splits),
        }
    return {
        "tau_scope": [row(scope, _change(method, tau_scope=scope)) for scope in TAU_SCOPES],
        "ise": [row(ise, _change(method, ise=ise)) for ise in ISES],
        "combine": [row(combine, _change(method, combine=combine)) for combine in COMBINES],
        "losses": [
            *output_only,
            *(
                row(f"process only, tau divides {scope}", Method("process", tau_scope=scope))
                for scope in TAU_SCOPES
            ),
            row("both", method),
        ],
        "lambda": [weighed(lam) for lam in LAMBDAS],
        "prompts": _prompt_curve(row, [method, Method("daca"), Method("ts")], splits),
    }


def count_ablations(logits: ChoiceLogits, splits: Sequence[Split]) -> int:
    """How many rows `compute_ablations` makes."""
    counts = len(_prompt_counts(len(splits[0].fit)))
    if logits.n_layer is None or logits.n_layer < 2:
        return 2 + counts
    return len(TAU_SCOPES) + len(ISES) + len(COMBINES) + 3 + len(TAU_SCOPES) + len(LAMBDAS) + 3 * counts


def _prompt_curve(
    row: Callable[[str, Method, int], AblationRow], methods: Sequence[Method], splits: Sequence[Split]
) -> list[AblationRow]:
    return [
        {**row(f"{method.name}, {n} prompts", method, n), "method": method.name, "n_prompts": n}
        for method in methods
        for n in _prompt_counts(len(splits[0].fit))
    ]


def _prompt_counts(n_fit: int) -> list[int]:
    """50, 100, 200, ... and all of them."""
    counts = []
    count = _FIRST_COUNT
    while count < n_fit:
        counts.append(count)
        count *= 2
    return [*counts, n_fit]


def _change(
    method: Method,
    *,
    ise: str | None = None,
    tau_scope: str | None = None,
    combine: str | None = None,
    lam: float | None = None,
) -> Method:
    combine = method.combine if combine is None else combine
    return Method(
        method.name,
        ise=method.ise if ise is None else ise,
        tau_scope=method.tau_scope if tau_scope is None else tau_scope,
        combine=combine,
        lam=(method.lam if lam is None else lam) if combine == "sum" else None,
    )


def _judge(
    name: str, logits: ChoiceLogits, method: Method, splits: Sequence[Split], n_fit: int | None
) -> AblationRow:
    taus, eces, nlls = [], [], []
    fitted = fit_splits(logits, method, splits, n_fit)
    for split, tau in zip(splits, fitted, strict=True):
        if isinstance(tau, str):
            continue
        part = logits.take(split.judge)
        judged = judge_logits(part.chat_final, part.n_choices, part.labels, tau)
        assert judged.probs is not None
        taus.append(tau)
        eces.append(compute_ece(judged.confidence, judged.correct))
        nlls.append(compute_nll(judged.probs, part.labels))
    return {
        "name": name,
        "temperature": shape_spread(taus),
        "ece": shape_spread(eces),
        "nll": shape_spread(nlls),
        "not_identified": sum(isinstance(tau, str) for tau in fitted),
    }
