"""A linear map from the chat model's last hidden state to the base model's logits of the labels (BaseCal-Proj).

Found by least squares, with a ridge that is chosen without labels. The base model's head is linear, so a map to its
hidden states with the head's rows behind it is one row for each label, and only these rows are fitted. NumPy in
float64 and closed forms only, so the same states give the same map.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["MIN_MAPPED", "RIDGES", "LinearMap", "fit_linear_map"]

FloatArray = npt.NDArray[np.float64]

# The ridges that are tried, each times the largest squared singular value of the centred states.
RIDGES = 10.0 ** np.arange(-8.0, 2.5, 0.5)

MIN_MAPPED = 30  # fewer prompts do not show what the map is to be


@dataclass(frozen=True, eq=False)
class LinearMap:
    """h -> weight h + intercept.

    weight: float64 [n_out, n_in]; intercept: float64 [n_out]. ridge: the one of `RIDGES` that was chosen. left_out:
    float64 [n, n_out], for each state what the map makes of it that is fitted without it, with the same ridge.
    """

    weight: FloatArray
    intercept: FloatArray
    ridge: float
    left_out: FloatArray

    def __call__(self, states: npt.NDArray[np.floating]) -> FloatArray:
        """Maps states, float [m, n_in], to float64 [m, n_out]."""
        mapped: FloatArray = np.asarray(states, dtype=np.float64) @ self.weight.T + self.intercept
        return mapped


def fit_linear_map(source: npt.NDArray[np.floating], target: npt.NDArray[np.floating]) -> LinearMap:
    """The map W, b that minimises `sum |W x + b - y|^2 + ridge |W|^2`.

    The ridge is the one with the least leave-one-out error, in closed form from the singular values; on a tie the
    larger one.

    Parameters
    ----------
    source: float [n, n_in], n >= 2. target: float [n, n_out].
    """
    x, y = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    x_mean, y_mean = x.mean(axis=0), y.mean(axis=0)
    rest = y - y_mean
    left, singular, right = np.linalg.svd(x - x_mean, full_matrices=False)
    along, squares = left.T @ rest, singular**2
    ridges = RIDGES[::-1] * (float(squares[0]) or 1.0)

    def errors_left_out(ridge: float) -> FloatArray:
        shrink = squares / (squares + ridge)
        leverage = 1.0 / len(x) + (left**2) @ shrink
        errors: FloatArray = (rest - left @ (shrink[:, None] * along)) / np.maximum(1.0 - leverage, 1e-12)[
            :, None
        ]
        return errors

    best = int(np.argmin([np.sum(errors_left_out(ridge) ** 2) for ridge in ridges]))
    scale = singular / (squares + ridges[best])
    weight = (scale[:, None] * along).T @ right
    return LinearMap(
        weight, y_mean - weight @ x_mean, float(RIDGES[::-1][best]), y - errors_left_out(ridges[best])
    )
