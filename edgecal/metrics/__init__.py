"""Figures of merit of answers against labels, with intervals. NumPy only: any answers can be judged."""

from edgecal.metrics.binned import (
    Reliability,
    compute_ece_debiased,
    compute_ece_equal_mass,
    compute_mce,
    compute_reliability,
    compute_rmsce_debiased,
)
from edgecal.metrics.estimate import (
    Estimate,
    compute_figures,
    estimate_difference,
    estimate_figures,
    estimate_paired,
)
from edgecal.metrics.figure import FIGURES, Figure, find_figure
from edgecal.metrics.judged import Judged
from edgecal.metrics.ranking import compute_aurc, compute_auroc, compute_risk_coverage
from edgecal.metrics.scores import (
    compute_accuracy,
    compute_brier,
    compute_brier_multiclass,
    compute_classwise_ece,
    compute_ece,
    compute_mean_confidence,
    compute_nll,
    softmax_confidence,
    softmax_probs,
)
from edgecal.metrics.smooth import compute_smece

__all__ = [
    "FIGURES",
    "Estimate",
    "Figure",
    "Judged",
    "Reliability",
    "compute_accuracy",
    "compute_aurc",
    "compute_auroc",
    "compute_brier",
    "compute_brier_multiclass",
    "compute_classwise_ece",
    "compute_ece",
    "compute_ece_debiased",
    "compute_ece_equal_mass",
    "compute_figures",
    "compute_mce",
    "compute_mean_confidence",
    "compute_nll",
    "compute_reliability",
    "compute_risk_coverage",
    "compute_rmsce_debiased",
    "compute_smece",
    "estimate_difference",
    "estimate_figures",
    "estimate_paired",
    "find_figure",
    "softmax_confidence",
    "softmax_probs",
]
