"""Figures of merit of probabilities against labels. NumPy only; knows nothing of models or temperatures' origin."""

from edgecal.metrics.scores import (
    compute_accuracy,
    compute_brier,
    compute_ece,
    compute_nll,
    softmax_confidence,
    softmax_probs,
)

__all__ = [
    "compute_accuracy",
    "compute_brier",
    "compute_ece",
    "compute_nll",
    "softmax_confidence",
    "softmax_probs",
]
