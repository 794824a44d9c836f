"""A linear map from one model's hidden states to another's, by least squares with a ridge chosen without labels.

NumPy in float64 and closed forms only, so the same states give the same map.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["RIDGES", "LinearMap", "fit_linear_map"]

FloatArray = npt.NDArray[np.float64]

# The ridges that are tried, each times the largest squared singular value of the centred states.
RIDGES = 10.0 ** np.arange(-8.0, 2.5, 0.5)


@dataclass(frozen=True, eq=False)
class LinearMap:
    """h -> weight h + intercept.

    weight: float64 [n_out, n_in]; intercept: float64 [n_out]. ridge: the one of `RIDGES` that was chosen.
    """

    weight: FloatArray
    intercept: FloatArray
    ridge: float

    def __call__(self, states: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """Maps states, float [m, n_in], to float32 [m, n_out]."""
        mapped: FloatArray = np.asarray(states, dtype=np.float64) @ self.weight.T + self.intercept
        return mapped.astype(np.float32)


def fit_linear_map(source: npt.NDArray[np.floating], target: npt.NDArray[np.floating]) -> LinearMap:
    """The map W, b that minimises `sum |W x + b - y|^2 + ridge |W - W0|^2`.

    W0 is the identity where both sides have one width, since post-training changes a model little, else zero. The
    ridge is the one with the least leave-one-out error, in closed form from the singular values; each output's squared
    error counts in units of its variance, because a few of a residual stream's numbers are hundreds of times larger
    than the rest. On a tie the larger ridge is taken.

    Parameters
    ----------
    source: float [n, n_in], n >= 2. target: float [n, n_out].
    """
    x, y = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    prior = np.eye(x.shape[1]) if x.shape[1] == y.shape[1] else np.zeros((y.shape[1], x.shape[1]))
    x_mean, y_mean = x.mean(axis=0), y.mean(axis=0)
    centred = x - x_mean
    rest = (y - y_mean) - centred @ prior.T
    variance = ((y - y_mean) ** 2).mean(axis=0)
    weights = np.divide(1.0, variance, out=np.zeros_like(variance), where=variance > 0.0)
    left, singular, right = np.linalg.svd(centred, full_matrices=False)
    along = left.T @ rest
    squares = singular**2
    top = float(squares[0])
    best, best_error = float(RIDGES[-1]), np.inf
    if top > 0.0:
        for ridge in RIDGES[::-1]:
            shrink = squares / (squares + ridge * top)
            leverage = 1.0 / len(x) + (left**2) @ shrink
            residual = (rest - left @ (shrink[:, None] * along)) / np.maximum(1.0 - leverage, 1e-12)[:, None]
            error = float((residual**2).sum(axis=0) @ weights)
            if error < best_error:
                best, best_error = float(ridge), error
    scale = np.divide(singular, squares + best * top, out=np.zeros_like(singular), where=singular > 0.0)
    weight = prior + ((scale[:, None] * along).T @ right)
    return LinearMap(weight, y_mean - weight @ x_mean, best)
