"""What a model says about single prompts, as small arrays: made from captured chunks, and kept in a cache.

An answer depends on the model, the prompt's tokens, its choice tokens and the settings only, so that it is the same
wherever it comes from. Does not know the other model, nor files.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecal.lens import project
from edgecal.pair.judge import LensJudge

__all__ = ["Answer", "AnswerMaker", "answer_key"]

# Arrays of one prompt with k choices: final_logits float32 [k], choice_mass float64 [], top_token int32 []; with
# layers also layer_logits float32 [n_layer, k] and lens_error float64 [].
Answer = dict[str, NDArray[Any]]


def answer_key(tokens: NDArray[np.int32], choice_ids: NDArray[np.int32]) -> bytes:
    """Names a prompt: 32 bytes that depend on its tokens and its choices."""
    digest = hashlib.sha256(np.int64(len(tokens)).tobytes())
    digest.update(np.ascontiguousarray(tokens, "<i4").tobytes())
    digest.update(np.ascontiguousarray(choice_ids, "<i4").tobytes())
    return digest.digest()


class AnswerMaker:
    """Turns captured logits and hidden states into answers, and judges the lens after the first ones."""

    def __init__(self, judge: LensJudge | None = None) -> None:
        """Without the judge of a lens there are no layers."""
        self._judge = judge

    def make(
        self, choice_ids: NDArray[np.int32], logits: NDArray[np.float32], hidden: NDArray[np.float32] | None
    ) -> Answer:
        """The answer to one prompt.

        Parameters
        ----------
        choice_ids: int32 [k].
        logits: float32 [n_vocab], llama.cpp's own.
        hidden: float32 [n_layer, n_embd], with a head.

        Raises
        ------
        ModelError: the lens does not reproduce the model's logits.
        """
        chosen = logits[choice_ids]
        wide = logits.astype(np.float64)
        peak = wide.max()
        log_total = peak + np.log(np.exp(wide - peak).sum())
        answer: Answer = {
            "final_logits": chosen,
            "choice_mass": np.asarray(np.exp(chosen.astype(np.float64) - log_total).sum()),
            "top_token": np.asarray(logits.argmax(), dtype=np.int32),
        }
        if self._judge is not None:
            assert hidden is not None
            head, was_sure = self._judge.head, self._judge.is_sure
            rows = np.searchsorted(head.token_ids, choice_ids).astype(np.int32)
            answer["layer_logits"] = project(hidden[None], head, rows[None])[0]
            answer["lens_error"] = np.asarray(self._judge.add(hidden[-1], logits, choice_ids))
            if self._judge.is_sure and not was_sure:
                self._judge.judge()
        return answer

    @property
    def is_sure(self) -> bool:
        """Whether the lens, if there is one, has been judged."""
        return self._judge is None or self._judge.is_sure
