"""All methods on the same captured numbers: the table, the ablations, and the headline with its pictures.

Knows nothing of models, files or prompts, nor of how a result is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecal.calibration import ChoiceLogits, LabelCheck, Method, find_doubts, fit_bracket
from edgecal.calibration.harm import MIN_LABELLED
from edgecal.errors import NotIdentifiedError
from edgecal.evaluation.ablations import compute_ablations, count_ablations
from edgecal.evaluation.baselines import judge_consistency, judge_logits, judge_statements
from edgecal.evaluation.judge import judge_parts, list_wrong
from edgecal.evaluation.pictures import picture_judged, picture_layers, picture_loss
from edgecal.evaluation.rows import (
    TEMPERED_METHODS,
    fit_split,
    fixed_row,
    hide_labels,
    tempered_row,
    withheld_row,
)
from edgecal.evaluation.shape import number
from edgecal.evaluation.splits import Split
from edgecal.evaluation.verdict import write_comparison
from edgecal.metrics import Judged

__all__ = ["Permuted", "Stated", "compare_methods"]

_MIN_PARSED_SHARE = 0.5


@dataclass(frozen=True, eq=False)
class Permuted:
    """What averaging over permuted options gave.

    Attributes
    ----------
    probs: float64 [n, k_max], or None where it could not be had.
    n_permutations: most orders of one question, the given one included.
    reason: why there are no probabilities, else None.
    cost: what was run for it, {"n_prompts", "n_tokens"}, or None for nothing.
    """

    probs: npt.NDArray[np.float64] | None
    n_permutations: int
    reason: str | None = None
    cost: dict[str, int] | None = None


@dataclass(frozen=True, eq=False)
class Stated:
    """What the chat model said about its own confidence.

    Attributes
    ----------
    statements: one for each question that was asked, the first ones: (choice, confidence), or None where it was
        not understood.
    reason: why nothing was asked, else None.
    cost: {"n_prompts", "n_tokens", "n_generated"}, or None for nothing.
    """

    statements: Sequence[tuple[int, float] | None]
    reason: str | None = None
    cost: dict[str, int] | None = None


def compare_methods(
    logits: ChoiceLogits,
    splits: Sequence[Split],
    method: Method,
    *,
    base_mass: float,
    mass_words: Mapping[str, str],
    subjects: Sequence[str | None],
    questions: Sequence[Mapping[str, Any]],
    permuted: Permuted,
    stated: Stated,
    no_layers: str | None,
    chat_name: str,
    n_bootstrap: int,
    level: float,
    seed: int,
    on_step: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Everything about a comparison that follows from numbers.

    Parameters
    ----------
    logits: both models' logits of n questions, all labelled.
    splits: the divisions; the first is the headline's.
    method: the headline's.
    base_mass, mass_words: the base model's mean probability on the choices, what it would rather say, and what would
        mend that (`rather` and `remedy` of `find_doubts`).
    subjects, questions: of each question (see `list_wrong`).
    permuted, stated: the extra runs' results.
    no_layers: why there are no layer logits, None if there are.
    chat_name: what the verdict calls the chat model.
    n_bootstrap, level, seed: of the headline's intervals.
    on_step: called with (steps done, steps in all).

    Returns
    -------
    The entries verdict, bracket, settled, harmful, reasons, rows, ablations, headline, figures, subjects, plots and
    wrong of a `CompareResult`.
    """
    variant = method if method.name == "dual-align" else Method()
    n_steps = len(TEMPERED_METHODS) + count_ablations(logits, splits) + 1
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if on_step is not None:
            on_step(done, n_steps)

    rows = _fixed_rows(logits, splits, permuted, stated, no_layers)
    for candidate in TEMPERED_METHODS:
        if candidate.needs_layers and no_layers is not None:
            variant_of = dict(candidate.variant)
            rows.append(withheld_row(candidate.name, candidate.name, no_layers, variant=variant_of))
        else:
            rows.append(tempered_row(logits, candidate, splits, default=candidate == method))
        step()
    if (
        method not in TEMPERED_METHODS
        and method.name != "vanilla"
        and not (method.needs_layers and no_layers)
    ):
        rows.append(tempered_row(logits, method, splits, default=True))
    _count_worse(rows)
    ablations = compute_ablations(logits, variant, splits, step)
    headline, parts = _headline(logits, splits[0], method, no_layers, n_bootstrap)
    judge = splits[0].judge
    figures, subject_rows = judge_parts(
        parts, [subjects[i] for i in judge], n_bootstrap=n_bootstrap, level=level, seed=seed
    )
    step()
    before, after = parts["before"], parts["after"]
    assert before is not None
    supervised = next((row["figures"]["ece"]["values"][0] for row in rows if row["name"] == "ts"), None)
    fit_part = hide_labels(logits.take(splits[0].fit))
    bracket = fit_bracket(fit_part, n_bootstrap=n_bootstrap, level=level, seed=splits[0].seed)
    doubts = () if method.needs_labels else find_doubts(bracket, base_mass, **mass_words)
    against = None if figures["difference"] is None else _speak_against(figures, len(judge))
    loss = (
        None
        if headline is None
        else picture_loss(
            logits.take(splits[0].fit), method, headline["temperature"], tuple(headline["interval"]), bracket
        )
    )
    return {
        "verdict": write_comparison(
            chat_name,
            figures["before"],
            figures["after"],
            figures["difference"],
            None if headline is None else headline["temperature"],
            n_questions=len(judge),
            supervised_ece=supervised,
            uses_labels=method.needs_labels,
            lacks_layers=method.needs_layers and no_layers is not None,
            settled=not doubts,
            harmful=bool(against),
        ),
        "bracket": bracket.to_dict(),
        "settled": not doubts,
        "harmful": None if against is None else bool(against),
        "reasons": [*doubts, *([against] if against else [])],
        "rows": rows,
        "ablations": ablations,
        "headline": headline,
        "figures": figures,
        "subjects": subject_rows,
        "plots": {
            **picture_judged(parts["base"], before, after),
            "loss": loss,
            "layers": picture_layers(logits),
        },
        "wrong": list_wrong([questions[i] for i in judge], before, after),
    }


def _speak_against(figures: Mapping[str, Any], n: int) -> str | None:
    """Why the questions that judged the headline speak against it, "" if they do not; None if they cannot tell."""
    before, after, change = (figures[name]["nll"] for name in ("before", "after", "difference"))
    if n < MIN_LABELLED or change["low"] is None or change["high"] is None:
        return None
    if change["high"] < 0.0:
        return ""
    return LabelCheck(
        n,
        before["value"],
        after["value"],
        change["value"],
        (change["low"], change["high"]),
        "worse" if change["low"] > 0.0 else "undecided",
    ).doubt


def _count_worse(rows: Sequence[dict[str, Any]]) -> None:
    """Marks each fitted row with the number of splits on which its labels are less probable than without it."""
    as_it_is = next(row for row in rows if row["name"] == "polm")["figures"]["nll"]["values"]
    for row in rows:
        if row["temperature"] is not None:
            pairs = zip(as_it_is, row["figures"]["nll"]["values"], strict=True)
            row["n_worse"] = sum(b is not None and a is not None and a > b for b, a in pairs)


def _fixed_rows(
    logits: ChoiceLogits, splits: Sequence[Split], permuted: Permuted, stated: Stated, no_layers: str | None
) -> list[dict[str, Any]]:
    n_choices, labels = logits.n_choices, logits.labels
    rows = [
        fixed_row("plm", "base model as it is", judge_logits(logits.base_final, n_choices, labels), splits),
        fixed_row("polm", "chat model as it is", judge_logits(logits.chat_final, n_choices, labels), splits),
        _stated_row(stated, labels, splits),
    ]
    title = "chat model, mean over permuted options"
    if permuted.probs is None:
        rows.append(withheld_row("cape", title, permuted.reason or "not asked for"))
    else:
        judged = Judged.from_probs(permuted.probs, labels, n_choices)
        rows.append(fixed_row("cape", title, judged, splits, n_permutations=permuted.n_permutations))
    title = "share of the layers that prefer the final answer"
    consistency = judge_consistency(logits)
    if consistency is None:
        reason = no_layers or "there is no layer before the last"
        rows.append(withheld_row("internal-consistency", title, reason))
    else:
        rows.append(fixed_row("internal-consistency", title, consistency, splits))
    return rows


def _stated_row(stated: Stated, labels: npt.NDArray[np.integer], splits: Sequence[Split]) -> dict[str, Any]:
    title = "confidence that the chat model states"
    if stated.reason is not None or not stated.statements:
        return withheld_row("verbalized", title, stated.reason or "nothing was asked")
    n_asked = len(stated.statements)
    judged, which = judge_statements(stated.statements, labels[:n_asked])
    share = len(which) / n_asked
    if judged is None or share < _MIN_PARSED_SHARE:
        reason = (
            f"only {share:.1%} of {n_asked} answers state a letter and a number that can be understood, under "
            f"{_MIN_PARSED_SHARE:.0%}"
        )
        return withheld_row("verbalized", title, reason, parsed_share=share)
    return fixed_row("verbalized", title, judged, splits, which, parsed_share=share)


def _headline(
    logits: ChoiceLogits, split: Split, method: Method, no_layers: str | None, n_bootstrap: int
) -> tuple[dict[str, Any] | None, dict[str, Judged | None]]:
    """The chosen method on one split, and what the models say there before and after."""
    part = logits.take(split.judge)
    parts: dict[str, Judged | None] = {
        "base": judge_logits(part.base_final, part.n_choices, part.labels),
        "before": judge_logits(part.chat_final, part.n_choices, part.labels),
        "after": None,
    }
    if method.needs_layers and no_layers is not None:
        return None, parts
    try:
        tau, interval = fit_split(logits, method, split.fit, split.seed, n_bootstrap)
    except NotIdentifiedError:
        return None, parts
    parts["after"] = judge_logits(part.chat_final, part.n_choices, part.labels, tau)
    return {
        "method": method.name,
        "variant": dict(method.variant),
        "temperature": tau,
        "interval": [number(interval[0]), number(interval[1])],
        "split_seed": split.seed,
        "n_fit": len(split.fit),
        "n_evaluate": len(split.judge),
    }, parts
