"""The run-time self-check: does the lens, applied to the last block, reproduce llama.cpp's own logits?

edgecal trusts nothing that its table says about an architecture without this check. The caller captures the hidden
states and reproduces the logits.
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
    "check_token_ids",
    "mean_square_errors",
]

# With llama.cpp's roundings reproduced, a right lens was off by 1e-6 on all real models tried (docs/log.md), one whose
# scale is wrong by 1 % by 1.5 % or more. The limit leaves room for builds whose last bits flip a rounding.
ALLOWED_RMS = 0.003
CHECK_TOKENS = 64
CHECK_PROMPTS = 8


def check_token_ids(n_vocab: int, choice_token_ids: NDArray[np.integer]) -> NDArray[np.int32]:
    """Choose the tokens to check: 64 spread evenly over the vocabulary, and all choice tokens.

    Parameters
    ----------
    n_vocab: size of the vocabulary; one of 64 or fewer is taken whole.
    choice_token_ids: any shape; negative entries are padding.

    Returns
    -------
    int32 [r], ascending, without repeats.
    """
    n = min(CHECK_TOKENS, n_vocab)
    spread = (np.arange(n, dtype=np.int64) * 2 + 1) * n_vocab // (2 * n) if n else np.zeros(0, np.int64)
    choices = np.asarray(choice_token_ids, np.int64).ravel()
    return np.union1d(spread, choices[choices >= 0]).astype(np.int32)


@dataclass(frozen=True)
class LensCheck:
    """The error of a lens.

    rms: root mean square of the differences over prompts and tokens, in units of the standard deviation of each
    prompt's logits (0.003 is 0.3 %); NaN or inf where anything was not finite. where: which logits were compared,
    for messages.
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
        ModelError: states the measured and the allowed error, and suggests a method that needs no lens.
        """
        if self.accepted:
            return
        measured = f"{100 * self.rms:.3g} % rms" if math.isfinite(self.rms) else "no finite numbers"
        raise ModelError(
            f"{model}: re-projecting the last block does not reproduce the model's logits (architecture "
            f"{architecture}, {self.where}): expected at most {100 * ALLOWED_RMS:g} % rms of their spread, got "
            f"{measured}; use --method daca, which needs no lens"
        )


def mean_square_errors(
    candidates: Sequence[NDArray[np.float32]], llama_logits: NDArray[np.float32], spread: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Compare reproduced logits with llama.cpp's: each prompt's mean square error, in units of its spread squared.

    Parameters
    ----------
    candidates: float32 [m, r] each, the last block's logits of m prompts for r tokens as different builds of
        llama.cpp would compute them (`edgecal.lens.reproduce`); for each prompt the closest one counts.
    llama_logits: float32 [m, r], llama.cpp's logits of the same prompts and tokens.
    spread: float64 [m], standard deviation of each prompt's logits over the whole vocabulary.

    Returns
    -------
    float64 [m]; NaN where no candidate or not all of llama.cpp's logits are finite, or the spread is zero or not
    finite.

    Raises
    ------
    ValueError: shapes that do not match, or nothing to compare.
    """
    shape = llama_logits.shape
    if len(shape) != 2 or any(logits.shape != shape for logits in candidates) or spread.shape != shape[:1]:
        raise ValueError(
            f"candidates {[logits.shape for logits in candidates]}, llama_logits {shape} and spread {spread.shape} "
            "do not match: expected [m, r] each, [m, r] and [m]"
        )
    if not candidates or not llama_logits.size:
        raise ValueError("nothing to compare: expected at least one prompt and one token")
    errors = np.full(len(spread), math.nan)
    for row, unit in enumerate(spread):
        if not (0 < unit < math.inf and np.isfinite(llama_logits[row]).all()):
            continue
        with np.errstate(all="ignore"):
            differences = [
                (logits[row].astype(np.float64) - llama_logits[row]) / unit for logits in candidates
            ]
        squares = [float(np.mean(d * d)) for d in differences if np.isfinite(d).all()]
        errors[row] = min(squares, default=math.nan)
    return errors
