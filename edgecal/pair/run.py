"""Runs one model in a worker process of its own and returns what it says.

Does not know the other model of a pair, nor what the numbers are for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from edgecal.cache import default_cache_folder
from edgecal.errors import InputError
from edgecal.llama.settings import CaptureSettings
from edgecal.pair.model_capture import CaptureProgress, CaptureRequest, ModelCapture
from edgecal.pair.worker_examine import Examination, ExamineRequest
from edgecal.pair.worker_generate import GenerateRequest, Generation, GiveUp
from edgecal.prompts.records import Prompt
from edgecal.results.fitting import PlannedModel
from edgecal.worker import Worker
from edgecal.worker.process import DEFAULT_TIMEOUT_S

__all__ = [
    "RunOptions",
    "capture_model",
    "check",
    "examine",
    "find_misfits",
    "generate",
    "name_model",
    "plan_model",
]

RoleProgress = Callable[[str, CaptureProgress], None]


@dataclass(frozen=True)
class RunOptions:
    """How models are run.

    Attributes
    ----------
    settings: how llama.cpp is run.
    timeout_s: seconds without a sign of life after which a run counts as hung; above 0, else an InputError.
    cache: keep what models say about each prompt for the next run, and use what an earlier run kept.
    """

    settings: CaptureSettings = field(default_factory=CaptureSettings)
    timeout_s: float = DEFAULT_TIMEOUT_S
    cache: bool = True

    def __post_init__(self) -> None:
        if not self.timeout_s > 0:  # also not a number
            raise InputError(f"the timeout must be above 0 seconds, got {self.timeout_s}")

    @property
    def cache_folder(self) -> Path | None:
        """Where answers are kept; None keeps nothing."""
        return default_cache_folder() if self.cache else None


def name_model(role: str, path: str) -> str:
    """What messages call a model: "the chat model x.gguf", or "the model x.gguf" where there is only one."""
    return f"the {role} {path}" if role == "model" else f"the {role} model {path}"


def capture_model(
    path: str,
    role: str,
    prompts: Sequence[Prompt],
    *,
    layers: bool,
    options: RunOptions,
    on_progress: RoleProgress | None = None,
    worker: Worker | None = None,
) -> ModelCapture:
    """Runs one model over prompts.

    Parameters
    ----------
    path: a GGUF file, the first shard where the model is split.
    role: "base", "chat" or "model", for messages and progress.
    prompts: at least one.
    layers: also capture every block's residual stream and project it onto the choice tokens.
    options: how.
    on_progress: called with the role and the progress.
    worker: the process to run it in, which may have the model loaded; None: one for this call.

    Raises
    ------
    InputError: a prompt does not fit the model.
    ModelError: the model could not be run.
    """
    request = _request(path, role, prompts, options, layers=layers)
    seen = _run("edgecal.pair.worker_capture:capture_model", request, role, options, on_progress, worker)
    assert isinstance(seen, ModelCapture)
    return seen


def plan_model(
    path: str,
    role: str,
    prompts: Sequence[Prompt],
    *,
    layers: bool,
    options: RunOptions,
    on_progress: RoleProgress | None = None,
) -> PlannedModel:
    """What running one model over prompts would cost; parameters and errors as for `capture_model`."""
    request = _request(path, role, prompts, options, layers=layers)
    found = _run("edgecal.pair.worker_plan:plan_model", request, role, options, on_progress)
    planned: PlannedModel = found
    return planned


def check(
    path: str,
    role: str,
    prompts: Sequence[Prompt],
    *,
    options: RunOptions,
    on_progress: RoleProgress | None = None,
    worker: Worker | None = None,
) -> None:
    """Checks that prompts fit a model, from its vocabulary alone; raises as `capture_model` would."""
    request = _request(path, role, prompts, options)
    _run("edgecal.pair.worker_prompts:check_prompts", request, role, options, on_progress, worker)


def find_misfits(
    path: str, role: str, prompts: Sequence[Prompt], *, options: RunOptions
) -> list[tuple[int, str]]:
    """The index of each prompt that does not fit a model, and why, from its vocabulary alone."""
    request = _request(path, role, prompts, options)
    found = _run("edgecal.pair.worker_prompts:find_misfits", request, role, options, None)
    assert isinstance(found, list)
    return found


def examine(
    request: ExamineRequest, *, layers: bool, options: RunOptions, on_progress: RoleProgress | None = None
) -> Examination:
    """Runs a few random token ids through one model; ModelError as `examine_layers` and `examine_outputs` raise it."""
    function = f"edgecal.pair.worker_examine:{'examine_layers' if layers else 'examine_outputs'}"
    with Worker() as process:
        found = process.call(
            function,
            request,
            what=name_model("model", request.path),
            on_progress=None if on_progress is None else partial(on_progress, "model"),
            timeout_s=options.timeout_s,
        )
    assert isinstance(found, Examination)
    return found


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
    """Lets one model go on from prompts; parameters and errors as `GenerateRequest` and `capture_model` have them."""
    request = GenerateRequest(
        path, name_model(role, path), tuple(prompts), max_tokens, options.settings, stop_pattern, give_up
    )
    said = _run("edgecal.pair.worker_generate:generate_texts", request, role, options, on_progress)
    assert isinstance(said, Generation)
    return said


def _request(
    path: str, role: str, prompts: Sequence[Prompt], options: RunOptions, *, layers: bool = False
) -> CaptureRequest:
    return CaptureRequest(
        path, name_model(role, path), tuple(prompts), layers, options.settings, options.cache_folder
    )


def _run(
    function: str,
    request: CaptureRequest | GenerateRequest,
    role: str,
    options: RunOptions,
    on_progress: RoleProgress | None,
    worker: Worker | None = None,
) -> Any:
    def call(process: Worker) -> Any:
        return process.call(
            function,
            request,
            what=request.name,
            on_progress=None if on_progress is None else partial(on_progress, role),
            timeout_s=options.timeout_s,
        )

    if worker is not None:
        return call(worker)
    with Worker() as process:
        return call(process)
