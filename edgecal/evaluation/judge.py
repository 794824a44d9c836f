"""Sets of judged examples side by side: overall, by subject, and where they are most confidently wrong.

Knows nothing of what the sets are, beyond that "before" and "after" are the same questions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgecal.evaluation.shape import shape_figures
from edgecal.metrics import Judged, estimate_figures, estimate_paired
from edgecal.results.judging import (
    AskedQuestion,
    Figures,
    FiguresByState,
    FigureSet,
    SubjectFigures,
    WrongAnswer,
)

__all__ = ["SUBJECT_BOOTSTRAP", "judge_parts", "list_wrong"]

# Resamples for a subject's intervals at most: there can be many subjects, and their intervals are wide anyway.
SUBJECT_BOOTSTRAP = 200

_SHOWN_WRONG = 20


def judge_parts(
    before: Judged,
    after: Judged | None,
    subjects: Sequence[str | None],
    *,
    base: Judged | None = None,
    n_bootstrap: int,
    level: float,
    seed: int,
) -> tuple[Figures, list[SubjectFigures]]:
    """Figures with intervals of several sets of examples on the same n questions, overall and by subject.

    Parameters
    ----------
    before, after, base: n examples each, in the same order; `after` is None without a temperature.
    subjects: n subjects, None where a question has none.
    n_bootstrap, level, seed: of the intervals; for a subject at most `SUBJECT_BOOTSTRAP` resamples. All sets
        are resampled alike.

    Returns
    -------
    Figures of each set (the base model's only if it is given); and the same of each subject, in alphabetical order.
    No subjects, no entries.
    """
    overall = _figures(base, before, after, n_bootstrap, level, seed)
    rows: list[SubjectFigures] = []
    for subject in sorted({subject for subject in subjects if subject is not None}):
        where = np.array([i for i, other in enumerate(subjects) if other == subject], dtype=np.int64)
        base_part, after_part = (None if one is None else one.take(where) for one in (base, after))
        n_resamples = min(n_bootstrap, SUBJECT_BOOTSTRAP)
        part = _figures(base_part, before.take(where), after_part, n_resamples, level, seed)
        rows.append({"subject": subject, "n": len(where), **_without_difference(part)})
    return overall, rows


def _without_difference(figures: Figures) -> FiguresByState:
    states: FiguresByState = {"before": figures["before"], "after": figures["after"]}
    return {"base": figures["base"], **states} if "base" in figures else states


def _figures(
    base: Judged | None, before: Judged, after: Judged | None, n_bootstrap: int, level: float, seed: int
) -> Figures:
    def estimate(one: Judged) -> FigureSet:
        return shape_figures(estimate_figures(one, n_bootstrap=n_bootstrap, level=level, seed=seed))

    figures: Figures
    if after is None:
        figures = {"before": estimate(before), "after": None, "difference": None}
    else:
        sets = estimate_paired(before, after, n_bootstrap=n_bootstrap, level=level, seed=seed)
        was, now, difference = map(shape_figures, sets)
        figures = {"before": was, "after": now, "difference": difference}
    return figures if base is None else {"base": estimate(base), **figures}


def list_wrong(questions: Sequence[AskedQuestion], before: Judged, after: Judged | None) -> list[WrongAnswer]:
    """The questions that were answered wrongly with the most confidence, the worst first; at most 20.

    `questions` are those that the examples answer.
    """
    predicted, labels = before.predicted, before.labels
    if predicted is None or labels is None:
        return []
    wrong = np.flatnonzero(~before.correct)
    worst = wrong[np.argsort(-before.confidence[wrong], kind="stable")][:_SHOWN_WRONG]
    return [
        {
            **questions[int(i)],
            "answer": int(labels[i]),
            "predicted": int(predicted[i]),
            "confidence_before": float(before.confidence[i]),
            "confidence_after": None if after is None else float(after.confidence[i]),
        }
        for i in worst
    ]
