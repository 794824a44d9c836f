"""What one model file lets edgecal do, found by running a few random token ids: functions for the worker process.

Needs no tokenizer. Does not know what the answer is for.
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
    """One model, the first shard where it is split, and what draws the token ids."""

    path: str
    settings: CaptureSettings
    seed: int


@dataclass(frozen=True)
class Examination:
    """What was found.

    Attributes
    ----------
    n_layer, n_vocab: blocks and tokens, as llama.cpp has them.
    captured_layers: blocks whose residual stream was captured, for every prompt.
    lens_rms: error of the re-projected last block over the spread of the logits; NaN if it was not finite; None
        where no layers were captured.
    logit_spread: standard deviation of a prompt's logits over the vocabulary, mean over the prompts.
    refusal: why the lens is refused, or None.
    llama_cpp: the version that ran the model.
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
        stream, nothing = find_stream(request.path), np.zeros(0, np.int32)
        judge = LensJudge.of_model(request.path, model, request.settings, stream, nothing)
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
                judge.add(hidden[-1], logits, nothing)
                spread.append(float(logits.astype(np.float64).std()))
        refusal = None
        try:
            judge.judge()
        except ModelError as error:
            refusal = str(error)
        return _found(model, model.n_layer, judge.rms, np.array(spread), refusal)


def examine_outputs(request: ExamineRequest, report: Callable[[CaptureProgress], None]) -> Examination:
    """Runs the model for its logits alone.

    Raises
    ------
    ModelError: llama.cpp cannot run the model, or its logits are no numbers.
    """
    from edgecal.llama.capture import capture
    from edgecal.pair.resident_model import RESIDENT

    with RESIDENT.model(request.path, report) as model:
        prompts = _random_prompts(model, request.seed)
        chunks = capture(model, prompts, request.settings, hidden=False, progress=_progress(report))
        spread = np.concatenate([chunk.logits.astype(np.float64).std(axis=1) for chunk in chunks])
        return _found(model, 0, None, spread, None)


def _found(
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
    """Prompts of 9 to 16 tokens, as far as the context reaches."""
    rng = np.random.default_rng(seed)
    return [
        rng.integers(0, model.n_vocab, min(_LEAST_TOKENS + i, model.n_ctx_train), dtype=np.int32)
        for i in range(N_PROMPTS)
    ]


def _progress(report: Callable[[CaptureProgress], None]) -> Callable[[int, int], None]:
    return lambda n_prompts, n_rows: report(CaptureProgress("run", n_prompts, N_PROMPTS, n_rows, n_rows))
