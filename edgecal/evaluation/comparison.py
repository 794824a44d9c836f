"""Compares all methods on the same captured numbers: the table, the ablations, and the headline with its pictures.

Every method is judged on the same captured logits, so that differences between rows are the methods' own.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from edgecal.calibration import ChoiceLogits, LabelCheck, Method, find_doubts, fit_bracket
from edgecal.calibration.harm import MIN_LABELLED
from edgecal.errors import NotIdentifiedError
from edgecal.evaluation.baselines import (
    judge_consistency,
    judge_logits,
    judge_reevaluation,
    judge_statements,
)
from edgecal.evaluation.judged_sets import (
    judge_parts,
    list_wrong,
    picture_judged,
    picture_layers,
    picture_loss,
)
from edgecal.evaluation.learning_curve import fit_anchored_draws, measure_learning
from edgecal.evaluation.method_rows import (
    TEMPERED_METHODS,
    anchored_row,
    compute_ablations,
    count_ablations,
    fit_split,
    fixed_row,
    hide_labels,
    split_row,
    tempered_row,
    withheld_row,
)
from edgecal.evaluation.scalings import compare_scalings
from edgecal.evaluation.splits import Split
from edgecal.evaluation.verdict import write_comparison
from edgecal.metrics import Judged
from edgecal.results.judging import AskedQuestion, Comparison, Figures, Headline, MethodRow, RunCost

__all__ = ["Permuted", "Projected", "Stated", "compare_methods"]

_MIN_PARSED_SHARE = 0.5


@dataclass(frozen=True, eq=False)
class Permuted:
    """The result of averaging over permuted options.

    Attributes
    ----------
    probs: float64 [n, k_max], or None if unavailable.
    n_permutations: the most orders used for a question, the given one included.
    reason: why there are no probabilities, else None.
    cost: what was run for it, or None for nothing.
    """

    probs: npt.NDArray[np.float64] | None
    n_permutations: int
    reason: str | None = None
    cost: RunCost | None = None


@dataclass(frozen=True, eq=False)
class Projected:
    """The base model's logits as a linear map makes them of the chat model's last hidden states.

    Attributes
    ----------
    logits: for each split float32 [n, k_max], of the questions that it judges on; None where they could not be had.
    reason: why there are none, else None.
    """

    logits: Sequence[npt.NDArray[np.float32]] | None
    reason: str | None = None


@dataclass(frozen=True, eq=False)
class Stated:
    """The confidence that the chat model stated.

    Attributes
    ----------
    statements: one for each question that was asked (perhaps only the first ones): (choice, confidence), or None if not
        understood.
    reason: why nothing was asked, else None.
    cost: what was run for it, or None for nothing.
    """

    statements: Sequence[tuple[int, float] | None]
    reason: str | None = None
    cost: RunCost | None = None


def compare_methods(
    logits: ChoiceLogits,
    splits: Sequence[Split],
    method: Method,
    *,
    base_mass: float,
    mass_words: Mapping[str, str],
    subjects: Sequence[str | None],
    questions: Sequence[AskedQuestion],
    choice_labels: Sequence[Sequence[Hashable]],
    permuted: Permuted,
    projected: Projected,
    stated: Stated,
    no_layers: str | None,
    chat_name: str,
    n_bootstrap: int,
    level: float,
    seed: int,
    on_step: Callable[[int, int], None] | None = None,
) -> Comparison:
    """The part of a comparison that follows from captured numbers alone.

    Parameters
    ----------
    logits: both models' logits of n questions, all labelled.
    splits: the divisions; the first is the headline's.
    method: the headline's.
    base_mass, mass_words: the base model's choice mass, what it would rather say, and the remedy (`rather` and `remedy`
        of `find_doubts`).
    subjects, questions, choice_labels: of each question (see `list_wrong` and `choose_scaling`).
    permuted, projected, stated: what `edgecal.api.extra_runs` found.
    no_layers: why there are no layer logits; None if there are.
    chat_name: what the verdict calls the chat model.
    n_bootstrap, level, seed: of the headline's intervals.
    on_step: called with (steps done, steps in all).

    """
    variant = method if method.name == "dual-align" else Method()
    n_steps = len(TEMPERED_METHODS) + count_ablations(logits, splits) + len(splits) + 2
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if on_step is not None:
            on_step(done, n_steps)

    rows = _fixed_rows(logits, splits, permuted, projected, stated, no_layers)
    for candidate in TEMPERED_METHODS:
        if candidate.needs_layers and no_layers is not None:
            rows.append(withheld_row(candidate.name, candidate.name, no_layers, candidate.variant))
        else:
            rows.append(tempered_row(logits, candidate, splits, default=candidate == method))
        step()
    if (
        method not in TEMPERED_METHODS
        and method.name != "vanilla"
        and not (method.needs_layers and no_layers)
    ):
        rows.append(tempered_row(logits, method, splits, default=True))
    anchored = [fit_anchored_draws(logits, split, base_mass) for split in splits]
    rows.append(anchored_row(logits, splits, anchored))
    _count_worse(rows)
    label_free: dict[str, list[float | None]] = {}
    for row in rows:
        default = row["name"] == "dual-align" and row["variant"] == Method().variant
        if row["temperature"] is not None and (default or row["name"] == "daca"):
            label_free[row["name"]] = row["temperature"]["values"]
    label_free["vanilla"] = [1.0] * len(splits)
    learning_curve = measure_learning(logits, splits, anchored, label_free, step)
    scalings = compare_scalings(logits, splits, subjects, choice_labels)
    step()
    ablations = compute_ablations(logits, variant, splits, step)
    headline = _headline(logits, splits[0], method, no_layers, n_bootstrap)
    judge = splits[0].judge
    part = logits.take(judge)
    base = judge_logits(part.base_final, part.n_choices, part.labels)
    before = judge_logits(part.chat_final, part.n_choices, part.labels)
    after = None
    if headline is not None:
        after = judge_logits(part.chat_final, part.n_choices, part.labels, headline["temperature"])
    figures, subject_rows = judge_parts(
        before,
        after,
        [subjects[i] for i in judge],
        base=base,
        n_bootstrap=n_bootstrap,
        level=level,
        seed=seed,
    )
    step()
    supervised = next((row["figures"]["ece"]["values"][0] for row in rows if row["name"] == "ts"), None)
    fit_part = hide_labels(logits.take(splits[0].fit))
    bracket = fit_bracket(fit_part, n_bootstrap=n_bootstrap, level=level, seed=splits[0].seed)
    doubts = () if method.needs_labels else find_doubts(bracket, base_mass, **mass_words)
    against = _speak_against(figures, len(judge))
    loss = (
        None
        if headline is None
        else picture_loss(
            logits.take(splits[0].fit), method, headline["temperature"], headline["interval"], bracket
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
        "learning_curve": learning_curve,
        "scalings": scalings,
        "headline": headline,
        "figures": figures,
        "subjects": subject_rows,
        "plots": picture_judged(base, before, after, loss=loss, layers=picture_layers(logits)),
        "wrong": list_wrong([questions[i] for i in judge], before, after),
    }


def _speak_against(figures: Figures, n: int) -> str | None:
    """Why the headline's judging questions speak against its temperature: "" if they do not; None if they cannot
    tell."""
    if n < MIN_LABELLED or figures["after"] is None or figures["difference"] is None:
        return None
    change = figures["difference"]["nll"]
    was, now, difference = (
        figures["before"]["nll"]["value"],
        figures["after"]["nll"]["value"],
        change["value"],
    )
    low, high = change["low"], change["high"]
    if low is None or high is None:
        return None
    if high < 0.0:
        return ""
    assert (
        was is not None and now is not None and difference is not None
    )  # a figure with an interval has a value
    return LabelCheck(n, was, now, difference, (low, high), "worse" if low > 0.0 else "undecided").doubt


def _count_worse(rows: Sequence[MethodRow]) -> None:
    """Adds to each fitted row the number of splits on which its temperature makes the labels less probable."""
    as_it_is = next(row for row in rows if row["name"] == "polm")["figures"]["nll"]["values"]
    for row in rows:
        if row["temperature"] is not None:
            pairs = zip(as_it_is, row["figures"]["nll"]["values"], strict=True)
            row["n_worse"] = sum(b is not None and a is not None and a > b for b, a in pairs)


def _fixed_rows(
    logits: ChoiceLogits,
    splits: Sequence[Split],
    permuted: Permuted,
    projected: Projected,
    stated: Stated,
    no_layers: str | None,
) -> list[MethodRow]:
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
        rows.append(fixed_row("cape", title, judged, splits))
        rows[-1]["n_permutations"] = permuted.n_permutations
    title = "share of the layers that prefer the final answer"
    consistency = judge_consistency(logits)
    if consistency is None:
        reason = no_layers or "there is no layer before the last"
        rows.append(withheld_row("internal-consistency", title, reason))
    else:
        rows.append(fixed_row("internal-consistency", title, consistency, splits))
    title = "base model's probability of the chat model's choice"
    rows.append(fixed_row("basecal-reeval", title, judge_reevaluation(logits), splits))
    title = "the same, mapped linearly from the chat model's last hidden state"
    if projected.logits is None:
        rows.append(withheld_row("basecal-proj", title, projected.reason or "not asked for"))
    else:
        parts = [
            judge_reevaluation(
                replace(logits.take(split.judge), base_final=found, base_layers=None, chat_layers=None)
            )
            for split, found in zip(splits, projected.logits, strict=True)
        ]
        rows.append(split_row("basecal-proj", title, parts))
    return rows


def _stated_row(stated: Stated, labels: npt.NDArray[np.integer], splits: Sequence[Split]) -> MethodRow:
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
        return {**withheld_row("verbalized", title, reason), "parsed_share": share}
    return {**fixed_row("verbalized", title, judged, splits, which), "parsed_share": share}


def _headline(
    logits: ChoiceLogits, split: Split, method: Method, no_layers: str | None, n_bootstrap: int
) -> Headline | None:
    """The chosen method on one split; None if it finds no temperature there."""
    if method.needs_layers and no_layers is not None:
        return None
    try:
        tau, interval = fit_split(logits, method, split.fit, split.seed, n_bootstrap)
    except NotIdentifiedError:
        return None
    return {
        "method": method.name,
        "variant": method.variant,
        "temperature": tau,
        "interval": list(interval),
        "split_seed": split.seed,
        "n_fit": len(split.fit),
        "n_evaluate": len(split.judge),
    }
