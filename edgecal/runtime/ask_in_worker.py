"""Asks one question in a process of its own, so that a file on which llama.cpp aborts ends only that process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgecal.runtime.answer import Answer
from edgecal.stamping.record import FileCalibration

__all__ = ["AskRequest", "AskResult", "ask"]


@dataclass(frozen=True)
class AskRequest:
    """A question for `Model.choose`.

    Attributes
    ----------
    path: the model.
    question, choices, template, subject, chat_template, min_confidence: those of `Model.choose`.
    basecal, llama_options: those of `load`.
    """

    path: str
    question: str
    choices: tuple[str, ...]
    template: str | None = None
    subject: str | None = None
    chat_template: str | None = None
    min_confidence: float | None = None
    basecal: str | None = None
    llama_options: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class AskResult:
    """The answer, and how the file is calibrated."""

    answer: Answer
    calibration: FileCalibration


def ask(request: AskRequest, *, timeout_s: float) -> AskResult:
    """Loads the model in a worker process and asks it.

    Raises
    ------
    InputError: as `load` and `Model.choose`.
    ModelError: as these; or llama.cpp aborted, or showed no sign of life for `timeout_s` seconds.
    """
    from edgecal.worker import run_in_worker

    asked = run_in_worker(
        "edgecal.runtime.ask_in_worker:answer", request, what=f"the model {request.path}", timeout_s=timeout_s
    )
    assert isinstance(asked, AskResult)
    return asked


def answer(request: AskRequest, report: Callable[[Any], None]) -> AskResult:
    """Runs in the worker; reports a sign of life once the model is loaded."""
    import warnings

    from edgecal.errors import UnsettledWarning
    from edgecal.prompts import resolve_template
    from edgecal.runtime.load import load

    template = resolve_template(request.template)  # refuse a mistyped name before the model is loaded
    warnings.simplefilter("ignore", UnsettledWarning)  # the caller learns of it from `AskResult.calibration`
    with load(request.path, basecal=request.basecal, **dict(request.llama_options)) as model:
        report("loaded")
        said = model.choose(
            request.question,
            request.choices,
            template=template,
            subject=request.subject,
            chat_template=request.chat_template,
            min_confidence=request.min_confidence,
        )
        return AskResult(said, model.calibration)
