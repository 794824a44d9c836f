"""The list of figures: each one's name and explanation, which direction is good, and whether it is a share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["FIGURES", "Figure", "find_figure"]


@dataclass(frozen=True)
class Figure:
    """One figure of merit.

    name: its key in results. title, explanation: for people who have not read the papers; its `compute_` function says
        how it is computed. better: which direction is good; "none" where neither is. percent: a share of something,
    shown in percent (the values are still shares).
    """

    name: str
    title: str
    explanation: str
    better: Literal["lower", "higher", "none"]
    percent: bool


FIGURES: tuple[Figure, ...] = (
    Figure(
        "accuracy",
        "Accuracy",
        "How often the chosen answer is right. A temperature never changes it.",
        "higher",
        True,
    ),
    Figure(
        "confidence",
        "Average confidence",
        "How sure the model was on average. Honest means: equal to the accuracy.",
        "none",
        True,
    ),
    Figure(
        "ece",
        "Calibration error (ECE)",
        "How far confidence and accuracy lie apart on average, in ten groups from unsure to sure.",
        "lower",
        True,
    ),
    Figure(
        "ece_15", "ECE, 15 groups", "The same with fifteen groups, as other papers have it.", "lower", True
    ),
    Figure(
        "ece_equal_mass",
        "ECE, equal groups",
        "The same with groups that hold equally many questions.",
        "lower",
        True,
    ),
    Figure(
        "ece_debiased",
        "ECE, debiased",
        "The same less what chance alone would show on this many questions.",
        "lower",
        True,
    ),
    Figure(
        "rmsce_debiased",
        "RMS calibration error, debiased",
        "As above, but large gaps count more than small ones.",
        "lower",
        True,
    ),
    Figure(
        "mce",
        "Largest gap (MCE)",
        "The gap of the worst group; a group with few questions can set it by chance.",
        "lower",
        True,
    ),
    Figure(
        "smece",
        "Smooth calibration error",
        "The calibration error without groups, so that no group's edge matters.",
        "lower",
        True,
    ),
    Figure(
        "brier",
        "Brier score, chosen answer",
        "Squared distance between the confidence and what happened (1 right, 0 wrong).",
        "lower",
        False,
    ),
    Figure(
        "brier_multiclass",
        "Brier score, all answers",
        "The same, summed over every option of a question.",
        "lower",
        False,
    ),
    Figure(
        "nll",
        "Surprise (NLL)",
        "How surprised the model is by the right answers, in nats. The steadiest single judge.",
        "lower",
        False,
    ),
    Figure(
        "auroc",
        "Separation (AUROC)",
        "How well confidence tells right answers from wrong ones: 0.5 is a coin, 1 is perfect.",
        "higher",
        False,
    ),
    Figure(
        "aurc",
        "Area under risk and coverage (AURC)",
        "The share of wrong answers, averaged over answering only the surest few up to all.",
        "lower",
        True,
    ),
    Figure(
        "classwise_ece",
        "ECE, each option",
        "The calibration error of every option's probability, not only the chosen one's.",
        "lower",
        True,
    ),
)
_BY_NAME = {figure.name: figure for figure in FIGURES}


def find_figure(name: str) -> Figure:
    """The figure of that name; for an unknown name a plain number without a direction."""
    return _BY_NAME.get(name) or Figure(name, name, "", "none", False)
