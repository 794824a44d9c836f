"""What the papers' reviewers asked: which part of the method does what, and how much data it takes.

All from the same captured logits. Knows nothing of models or of how a table is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgecal.calibration import ChoiceLogits, Method
from edgecal.calibration.method import COMBINES, DEFAULT_LAMBDA, ISES, TAU_SCOPES
from edgecal.evaluation.baselines import judge_logits
from edgecal.evaluation.rows import fit_splits
from edgecal.evaluation.shape import shape_spread
from edgecal.evaluation.splits import Split
from edgecal.metrics import compute_ece, compute_nll
from edgecal.results.judging import AblationRow

__all__ = ["compute_ablations", "count_ablations"]

LAMBDAS = (0.01, 0.03, DEFAULT_LAMBDA, 0.3, 1.0, 3.0, 10.0)
_FIRST_COUNT = 50


def compute_ablations(
    logits: ChoiceLogits, method: Method, splits: Sequence[Split], on_step: Callable[[], None] | None = None
) -> dict[str, list[AblationRow]]:
    """Tables and curves around a Dual-Align method, one thing changed at a time.

    Parameters
    ----------
    logits: both models' captured logits of every question, with labels to judge by. Without layer logits only
        what needs none is there.
    method: the variant around which one option is changed.
    splits: fitted on the one part, judged on the other.
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
