"""The run-time self-check: does the lens, applied to the last block, reproduce llama.cpp's own logits?

Nothing about an architecture is believed without it. Knows arrays and the verdict; who captures and reproduces
is the caller's business.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecal.errors import ModelError

__all__ = [
    "ALLOWED_RMS",
    "CHECK_PROMPTS",
    "CHECK_TOKENS",
    "LensCheck",
    "check_lens",
    "check_token_ids",
    "mean_square_errors",
]

# With llama.cpp's roundings reproduced a right lens was off by 1e-6 on all real models tried (docs/log.md), and a scale
# that is wrong by 1 % by 1.5 % and more. In between there is room for builds whose last bits turn a rounding.
ALLOWED_RMS = 0.003
CHECK_TOKENS = 64
CHECK_PROMPTS = 8


def check_token_ids(n_vocab: int, choice_token_ids: NDArray[np.integer]) -> NDArray[np.int32]:
    """The tokens to check: 64 spread evenly over the vocabulary, and all choice tokens.

    Parameters
    ----------
    n_vocab: size of the vocabulary; with 64 or fewer all of it is taken.
    choice_token_ids: any shape; negative entries are padding.

    Returns
    -------
    int32 [r], ascending, without repeats; the same for the same input.
    """
    n = min(CHECK_TOKENS, n_vocab)
    spread = (np.arange(n, dtype=np.int64) * 2 + 1) * n_vocab // (2 * n) if n else np.zeros(0, np.int64)
    choices = np.asarray(choice_token_ids, np.int64).ravel()
    return np.union1d(spread, choices[choices >= 0]).astype(np.int32)


@dataclass(frozen=True)
class LensCheck:
    """How far the lens is off.

    rms: root mean square over prompts and tokens of the difference, in units of each prompt's spread of
    logits (0.003 is 0.3 %); NaN or inf where anything was not finite. where: what was compared, for messages.
    """

    rms: float
    where: str

    @property
    def accepted(self) -> bool:
        """True only for a finite error of at most 0.3 %."""
        return self.rms <= ALLOWED_RMS

    def raise_if_refused(self, model: object, architecture: str) -> None:
        """Raise unless `accepted`; `model` names the file.

        Raises
        ------
        ModelError: with the measured and the allowed error, and the offer of a method without a lens.
        """
        if self.accepted:
            return
        found = f"{100 * self.rms:.3g} % rms" if math.isfinite(self.rms) else "no finite numbers"
        raise ModelError(
            f"{model}: re-projecting the last block does not reproduce the model's logits (architecture "
            f"{architecture}, {self.where}): expected at most {100 * ALLOWED_RMS:g} % rms of their spread, got "
            f"{found}; use --method daca, which needs no lens"
        )


def check_lens(
    ways: Sequence[NDArray[np.float32]], llama_logits: NDArray[np.float32], spread: NDArray[np.float64]
) -> LensCheck:
    """Compare reproduced logits with llama.cpp's, in units of each prompt's spread.

    Parameters
    ----------
    ways: float32 [m, r] each, the last block's logits of m prompts for r tokens, in the ways in which builds of
        llama.cpp compute them (`edgecal.lens.reproduce`): for each prompt the best of them counts.
    llama_logits: float32 [m, r], llama.cpp's logits of the same prompts and tokens.
    spread: float64 [m], standard deviation of each prompt's logits over the whole vocabulary.

    Returns
    -------
    LensCheck. Anything that is not finite, and a spread of zero, gives an error that is not accepted.

    Raises
    ------
    ValueError: shapes that do not fit, or nothing to compare.
    """
    shape = llama_logits.shape
    if len(shape) != 2 or any(way.shape != shape for way in ways) or spread.shape != shape[:1]:
        raise ValueError(
            f"logits {[way.shape for way in ways]}, llama_logits {shape} and spread {spread.shape} "
            "do not fit: expected [m, r] each, [m, r] and [m]"
        )
    if not ways or not llama_logits.size:
        raise ValueError("nothing to compare: expected at least one prompt and one token")
    errors = mean_square_errors(ways, llama_logits, spread)
    return LensCheck(float(np.sqrt(errors.mean())), f"{shape[1]} tokens of {shape[0]} prompts")


def mean_square_errors(
    ways: Sequence[NDArray[np.float32]], llama_logits: NDArray[np.float32], spread: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Each prompt's mean square difference over its tokens, in units of its spread squared, in its best way.

    Parameters as for `check_lens`.

    Returns
    -------
    float64 [m]; NaN where anything is not finite, or the spread is zero.
    """
    errors = np.full(len(spread), math.nan)
    for row, unit in enumerate(spread):
        if not (0 < unit < math.inf and np.isfinite(llama_logits[row]).all()):
            continue
        with np.errstate(all="ignore"):
            off = [(way[row].astype(np.float64) - llama_logits[row]) / unit for way in ways]
        found = [float(np.mean(one * one)) for one in off if np.isfinite(one).all()]
        errors[row] = min(found, default=math.nan)
    return errors
