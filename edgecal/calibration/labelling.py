"""Which questions to label first, and what that choice does to the weight of their labels.

Questions are drawn without replacement with probabilities proportional to a size (Efraimidis and Spirakis 2006): each
gets a key, an exponential random number divided by its size, and they are labelled in the order of their keys. After n
of them the key n + 1 is a threshold. Given it, question i had the probability 1 - exp(-size_i * threshold) of being
among the n, and the inverse probabilities weigh the labels so that the choice does not bias the fit (Cohen and Kaplan
2007, rank conditioning).

With such weights the variance of the fitted ln tau is smallest if sizes are proportional to the root of the expected
square of a label's score, the derivative of its negative log-likelihood by ln tau (Neyman 1934). The Fisher
information itself, without the root, gains nothing: it trades questions for weights one to one. Where the models
differ nobody knows which one is right, so the expectation is over labels drawn from both. Half of the mean is added to
half of each size, so that no label weighs more than twice what it would in a uniform draw, however wrong both models
are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from edgecal.calibration.arrays import FloatArray, IntArray
from edgecal.calibration.choice_logits import ChoiceLogits
from edgecal.errors import InputError

__all__ = ["LabelOrder", "compute_label_sizes", "draw_label_order"]

_FLOOR: Final = 0.5  # share of a size that all questions have in common


@dataclass(frozen=True, eq=False)
class LabelOrder:
    """Questions in the order in which they are to be labelled.

    Attributes
    ----------
    sizes : float64 [n_prompts], proportional to the probability of being drawn first; their mean is 1
    keys : float64 [n_prompts]
    order : int64 [n_prompts], the indices of the questions by ascending key
    """

    sizes: FloatArray
    keys: FloatArray
    order: IntArray

    def inclusion_probabilities(self, n_asked: int) -> FloatArray:
        """The probability of each of the first `n_asked` questions of the order to be among them, given the key of the
        next one: float64 [n_asked], above 0; all 1 if no question is left."""
        asked = self.order[:n_asked]
        if n_asked >= self.order.size:
            return np.ones(asked.size)
        probabilities: FloatArray = -np.expm1(-self.sizes[asked] * self.keys[self.order[n_asked]])
        return probabilities

    def weights(self, n_asked: int) -> FloatArray:
        """The inverse of these probabilities at their questions' indices, 1 elsewhere: float64 [n_prompts]."""
        weights = np.ones(self.order.size)
        weights[self.order[:n_asked]] = 1.0 / self.inclusion_probabilities(n_asked)
        return weights


def compute_label_sizes(logits: ChoiceLogits, temperature: float) -> FloatArray:
    """How much each question's label says of ln tau near `temperature`: float64 [n_prompts], 0.5 and more, mean 1.

    With f = softmax(z / tau) and g the base model's probabilities, the root of sum_k h_k (z_k - sum_j f_j z_j)^2 for
    h = (f + g) / 2. All 1 if no label says anything. Labels are not looked at.
    """
    chat, base = (array.astype(np.float64) for array in (logits.chat_final, logits.base_final))
    f, g = _softmax(chat / temperature), _softmax(base)
    z = np.where(np.isfinite(chat), chat, 0.0)
    away = z - (f * z).sum(axis=1, keepdims=True)
    root: FloatArray = np.sqrt(((f + g) / 2.0 * away**2).sum(axis=1))
    mean = root.mean() if root.size else 0.0
    if not mean > 0.0:
        return np.ones(root.size)
    sizes: FloatArray = _FLOOR + (1.0 - _FLOOR) * root / mean
    return sizes


def draw_label_order(sizes: FloatArray, seed: int) -> LabelOrder:
    """Draws the order of labelling; `sizes`: float64 [n_prompts], above 0.

    Raises
    ------
    InputError: a size is not a finite number above 0.
    """
    if not np.all(np.isfinite(sizes) & (sizes > 0.0)):
        raise InputError("a size is not a finite number above 0")
    rng = np.random.Generator(np.random.PCG64(seed))
    keys = rng.standard_exponential(sizes.size) / sizes
    return LabelOrder(sizes, keys, np.argsort(keys, kind="stable"))


def _softmax(z: FloatArray) -> FloatArray:
    powers = np.exp(z - z.max(axis=1, keepdims=True, initial=-np.inf))
    probs: FloatArray = powers / powers.sum(axis=1, keepdims=True)
    return probs
