"""What a model says about single prompts, as small arrays: made from captured chunks, and kept in a cache.

An answer depends on the model, the prompt's tokens, its choice tokens and the settings only, so that it is the same
wherever it comes from. Does not know the other model, nor files.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecal.lens import LensCheck, check_token_ids, mean_square_errors, project, read_head
from edgecal.lens.check import CHECK_PROMPTS
from edgecal.lens.head import Head
from edgecal.llama.dequantize import dequantize_rows

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

    def __init__(self, name: str, n_vocab: int, head: Head | None, row_ids: NDArray[np.int32]) -> None:
        """`row_ids` are the token ids of the head's rows, ascending, as `head_token_ids` gives them; without a head
        there are no layers. `name` is the model's, for messages."""
        self._name = name
        self._head = head
        self._row_ids = row_ids
        self._check_ids = check_token_ids(n_vocab, np.zeros(0, np.int32))
        self._errors: list[float] = []

    @staticmethod
    def head_token_ids(n_vocab: int, choice_ids: list[NDArray[np.int32]]) -> NDArray[np.int32]:
        """The head's rows that answers with these choices need, and those of the check."""
        return check_token_ids(n_vocab, np.concatenate(choice_ids))

    @classmethod
    def with_lens(
        cls, name: str, n_vocab: int, choice_ids: list[NDArray[np.int32]], shards: Any
    ) -> AnswerMaker:
        row_ids = cls.head_token_ids(n_vocab, choice_ids)
        return cls(name, n_vocab, read_head(shards, row_ids, dequantize_rows), row_ids)

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
        if self._head is not None:
            assert hidden is not None
            rows = np.searchsorted(self._row_ids, choice_ids).astype(np.int32)
            answer["layer_logits"] = project(hidden[None], self._head, rows[None])[0]
            answer["lens_error"] = np.asarray(self._lens_error(choice_ids, logits, hidden, float(wide.std())))
        return answer

    def _lens_error(
        self,
        choice_ids: NDArray[np.int32],
        logits: NDArray[np.float32],
        hidden: NDArray[np.float32],
        spread: float,
    ) -> float:
        assert self._head is not None
        ids = np.union1d(self._check_ids, choice_ids)
        rows = np.searchsorted(self._row_ids, ids).astype(np.int32)
        projected = project(hidden[None, -1:], self._head, rows[None])[0]
        error = float(mean_square_errors(projected, logits[None, ids], np.array([spread]))[0])
        self._errors.append(error)
        if len(self._errors) == CHECK_PROMPTS:
            self.judge()
        return error

    @property
    def is_sure(self) -> bool:
        """Whether the lens, if there is one, has been judged."""
        return self._head is None or len(self._errors) >= CHECK_PROMPTS

    def judge(self) -> None:
        """Judges the lens on all answers so far; raises ModelError if it is refused."""
        if self._head is not None and self._errors:
            rms = float(np.sqrt(np.mean(self._errors)))
            check = LensCheck(rms, math.nan, len(self._errors), len(self._check_ids))
            check.raise_if_refused(self._name, self._head.architecture)
