"""Examines which of edgecal's methods one model file supports, by running a few random token ids.

Functions for the worker process. They need no tokenizer, so that files without one can be examined.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgecal.llama.settings import CaptureSettings
from edgecal.pair.model_capture import CaptureProgress

if TYPE_CHECKING:
    from edgecal.llama.model import Model

__all__ = ["Examination", "ExamineRequest", "examine_layers", "examine_outputs"]

N_PROMPTS = 8
_LEAST_TOKENS = 9


@dataclass(frozen=True)
class ExamineRequest:
    """A request to examine one model (of a split model, the first shard); `seed` draws the token ids."""

    path: str
    settings: CaptureSettings
    seed: int


@dataclass(frozen=True)
class Examination:
    """The result of an examination.

    Attributes
    ----------
    n_layer, n_vocab: numbers of blocks and tokens, as llama.cpp reports them.
    captured_layers: number of blocks whose residual stream was captured, the same for every prompt.
    lens_rms: rms error of the re-projected last block over the spread of the logits; NaN if it is not finite; None
        where no layers were captured.
    logit_spread: standard deviation of a prompt's logits over the vocabulary, averaged over the prompts.
    refusal: why the lens is refused, or None.
    llama_cpp: the version of llama.cpp that ran the model.
    """

    n_layer: int
    n_vocab: int
    captured_layers: int
    lens_rms: float | None
    logit_spread: float
    refusal: str | None
    llama_cpp: str


def examine_layers(request: ExamineRequest, report: Callable[[CaptureProgress], None]) -> Examination:
    """Captures every block and re-projects the last one.

    Raises
    ------
    ModelError: llama.cpp cannot run the model, a block cannot be captured, or the head cannot be read.
    """
    from edgecal.errors import ModelError
    from edgecal.llama.capture import capture
    from edgecal.pair.lens_judge import LensJudge
    from edgecal.pair.resident_model import RESIDENT, find_stream

    with RESIDENT.model(request.path, report) as model:
        stream, no_choices = find_stream(request.path), np.zeros(0, np.int32)
        judge = LensJudge.of_model(request.path, model, request.settings, stream, no_choices)
        spread: list[float] = []
        for chunk in capture(
            model,
            _random_prompts(model, request.seed),
            request.settings,
            hidden=True,
            stream=stream,
            progress=_progress(report),
        ):
            assert chunk.hidden is not None
            for hidden, logits in zip(chunk.hidden, chunk.logits, strict=True):
                judge.add(hidden[-1], logits, no_choices)
                spread.append(float(logits.astype(np.float64).std()))
        refusal = None
        try:
            judge.judge()
        except ModelError as error:
            refusal = str(error)
        return _examination(model, model.n_layer, judge.rms, np.array(spread), refusal)


def examine_outputs(request: ExamineRequest, report: Callable[[CaptureProgress], None]) -> Examination:
    """Runs the model for its logits alone.

    Raises
    ------
    ModelError: llama.cpp cannot run the model, or its logits are not finite.
    """
    from edgecal.llama.capture import capture
    from edgecal.pair.resident_model import RESIDENT

    with RESIDENT.model(request.path, report) as model:
        prompts = _random_prompts(model, request.seed)
        chunks = capture(model, prompts, request.settings, hidden=False, progress=_progress(report))
        spread = np.concatenate([chunk.logits.astype(np.float64).std(axis=1) for chunk in chunks])
        return _examination(model, 0, None, spread, None)


def _examination(
    model: Model, captured_layers: int, rms: float | None, spread: NDArray[np.float64], refusal: str | None
) -> Examination:
    from edgecal.llama.library import describe_llama_cpp

    return Examination(
        model.n_layer,
        model.n_vocab,
        captured_layers,
        rms,
        float(spread.mean()),
        refusal,
        describe_llama_cpp(),
    )


def _random_prompts(model: Model, seed: int) -> list[NDArray[np.int32]]:
    """Draws prompts of 9 to 16 tokens, cut to the model's context."""
    rng = np.random.default_rng(seed)
    return [
        rng.integers(0, model.n_vocab, min(_LEAST_TOKENS + i, model.n_ctx_train), dtype=np.int32)
        for i in range(N_PROMPTS)
    ]


def _progress(report: Callable[[CaptureProgress], None]) -> Callable[[int, int], None]:
    return lambda n_prompts, n_rows: report(CaptureProgress("run", n_prompts, N_PROMPTS, n_rows, n_rows))
