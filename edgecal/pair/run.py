"""Runs one model in its own worker process: captures it, plans a capture, checks prompts, generates or examines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecal.cache import default_cache_folder
from edgecal.errors import InputError
from edgecal.llama.settings import CaptureSettings
from edgecal.pair.model_capture import CaptureProgress, CaptureRequest, ModelCapture
from edgecal.pair.worker_examine import Examination, ExamineRequest
from edgecal.pair.worker_generate import GenerateRequest, Generation, GiveUp
from edgecal.pair.worker_project import LabelLogits, ProjectRequest
from edgecal.prompts.records import Prompt
from edgecal.results.fitting import PlannedModel
from edgecal.worker import Worker
from edgecal.worker.process import DEFAULT_TIMEOUT_S

__all__ = [
    "RunOptions",
    "capture_model",
    "check",
    "choice_tokens",
    "examine",
    "find_misfits",
    "generate",
    "name_model",
    "plan_model",
    "project_states",
]

RoleProgress = Callable[[str, CaptureProgress], None]


@dataclass(frozen=True)
class RunOptions:
    """How models are run.

    Attributes
    ----------
    settings: how llama.cpp is run.
    timeout_s: seconds without a message from the worker after which it counts as hung; above 0, otherwise an
        InputError.
    cache: cache each prompt's capture, and use what earlier runs cached.
    """

    settings: CaptureSettings = field(default_factory=CaptureSettings)
    timeout_s: float = DEFAULT_TIMEOUT_S
    cache: bool = True

    def __post_init__(self) -> None:
        if not self.timeout_s > 0:  # catches NaN too
            raise InputError(f"the timeout must be above 0 seconds, got {self.timeout_s}")

    @property
    def cache_folder(self) -> Path | None:
        """The folder of cached captures; None: no cache."""
        return default_cache_folder() if self.cache else None


def name_model(role: str, path: str) -> str:
    """Returns a model's name in messages: "the chat model x.gguf", or "the model x.gguf" if there is only one."""
    return f"the {role} {path}" if role == "model" else f"the {role} model {path}"


def capture_model(
    path: str,
    role: str,
    prompts: Sequence[Prompt],
    *,
    layers: bool,
    options: RunOptions,
    hidden: bool = False,
    on_progress: RoleProgress | None = None,
    worker: Worker | None = None,
) -> ModelCapture:
    """Runs one model over prompts.

    Parameters
    ----------
    path: a GGUF file; of a split model, the first shard.
    role: "base", "chat" or "model", for messages and progress.
    prompts: at least one.
    layers: also capture every block's residual stream and project it onto the choice tokens.
    options: how the model is run.
    hidden: also return the last block's hidden states; needs `layers`.
    on_progress: called with the role and the progress.
    worker: the process to run it in, which may have the model loaded; None: a new one for this call.

    Raises
    ------
    InputError: a prompt does not fit the model.
    ModelError: the model could not be run.
    """
    request = _request(path, role, prompts, options, layers=layers, hidden=hidden)
    capture = _run("edgecal.pair.worker_capture:capture_model", request, role, options, on_progress, worker)
    assert isinstance(capture, ModelCapture)
    return capture


def plan_model(
    path: str,
    role: str,
    prompts: Sequence[Prompt],
    *,
    layers: bool,
    options: RunOptions,
    on_progress: RoleProgress | None = None,
) -> PlannedModel:
    """Predicts the cost of running one model over prompts; parameters and errors as for `capture_model`."""
    request = _request(path, role, prompts, options, layers=layers)
    plan: PlannedModel = _run("edgecal.pair.worker_plan:plan_model", request, role, options, on_progress)
    return plan


def check(
    path: str,
    role: str,
    prompts: Sequence[Prompt],
    *,
    options: RunOptions,
    on_progress: RoleProgress | None = None,
    worker: Worker | None = None,
) -> None:
    """Checks from the vocabulary alone that prompts fit a model; raises as `capture_model` would."""
    request = _request(path, role, prompts, options)
    _run("edgecal.pair.worker_prompts:check_prompts", request, role, options, on_progress, worker)


def find_misfits(
    path: str, role: str, prompts: Sequence[Prompt], *, options: RunOptions
) -> list[tuple[int, str]]:
    """Returns the index of each prompt that does not fit a model, and why; needs the vocabulary alone."""
    request = _request(path, role, prompts, options)
    misfits = _run("edgecal.pair.worker_prompts:find_misfits", request, role, options, None)
    assert isinstance(misfits, list)
    return misfits


def examine(
    request: ExamineRequest, *, layers: bool, options: RunOptions, on_progress: RoleProgress | None = None
) -> Examination:
    """Runs a few random token ids through one model; raises ModelError as `examine_layers` or `examine_outputs`."""
    function = f"edgecal.pair.worker_examine:{'examine_layers' if layers else 'examine_outputs'}"
    with Worker() as process:
        examination = process.call(
            function,
            request,
            what=name_model("model", request.path),
            on_progress=None if on_progress is None else partial(on_progress, "model"),
            timeout_s=options.timeout_s,
        )
    assert isinstance(examination, Examination)
    return examination


def generate(
    path: str,
    role: str,
    prompts: Sequence[Prompt],
    *,
    max_tokens: int,
    stop_pattern: str | None = None,
    give_up: GiveUp | None = None,
    options: RunOptions,
    on_progress: RoleProgress | None = None,
) -> Generation:
    """Generates text after each prompt; parameters as in `GenerateRequest`, errors as for `capture_model`."""
    request = GenerateRequest(
        path, name_model(role, path), tuple(prompts), max_tokens, options.settings, stop_pattern, give_up
    )
    generation = _run("edgecal.pair.worker_generate:generate_texts", request, role, options, on_progress)
    assert isinstance(generation, Generation)
    return generation


def choice_tokens(
    path: str, role: str, prompts: Sequence[Prompt], *, options: RunOptions
) -> NDArray[np.int32]:
    """Returns each prompt's choice tokens, int32 [n, k_max], padded with -1; raises as `check`."""
    request = _request(path, role, prompts, options)
    tokens: NDArray[np.int32] = _run(
        "edgecal.pair.worker_prompts:choice_tokens", request, role, options, None
    )
    return tokens


def project_states(
    path: str, role: str, prompts: Sequence[Prompt], states: NDArray[np.float32], *, options: RunOptions
) -> LabelLogits:
    """Returns a model's logits of all labels for given hidden states; see `ProjectRequest`."""
    request = ProjectRequest(_request(path, role, prompts, options), states)
    logits = _run("edgecal.pair.worker_project:project_states", request, role, options, None)
    assert isinstance(logits, LabelLogits)
    return logits


def _request(
    path: str,
    role: str,
    prompts: Sequence[Prompt],
    options: RunOptions,
    *,
    layers: bool = False,
    hidden: bool = False,
) -> CaptureRequest:
    return CaptureRequest(
        path, name_model(role, path), tuple(prompts), layers, options.settings, options.cache_folder, hidden
    )


def _run(
    function: str,
    request: CaptureRequest | GenerateRequest | ProjectRequest,
    role: str,
    options: RunOptions,
    on_progress: RoleProgress | None,
    worker: Worker | None = None,
) -> Any:
    def call(process: Worker) -> Any:
        return process.call(
            function,
            request,
            what=request.model.name if isinstance(request, ProjectRequest) else request.name,
            on_progress=None if on_progress is None else partial(on_progress, role),
            timeout_s=options.timeout_s,
        )

    if worker is not None:
        return call(worker)
    with Worker() as process:
        return call(process)
