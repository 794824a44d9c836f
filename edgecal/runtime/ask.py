"""One question in a process of its own, so that a file on which llama.cpp aborts ends that process alone.

Knows how an answer is asked for; `Model` knows how it is given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgecal.runtime.answer import Answer
from edgecal.stamping.record import FileCalibration

__all__ = ["AskRequest", "Asked", "ask"]


@dataclass(frozen=True)
class AskRequest:
    """A question for `Model.choose`.

    Attributes
    ----------
    path: the model.
    question, choices, template, subject, chat_template, min_confidence: as `Model.choose` takes them.
    llama_options: as `load` takes them.
    """

    path: str
    question: str
    choices: tuple[str, ...]
    template: str | None = None
    subject: str | None = None
    chat_template: str | None = None
    min_confidence: float | None = None
    llama_options: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Asked:
    """The answer, and how the file is calibrated."""

    answer: Answer
    calibration: FileCalibration


def ask(request: AskRequest, *, timeout_s: float) -> Asked:
    """Loads the model in a worker process and asks it.

    Raises
    ------
    InputError: as `load` and `Model.choose`.
    ModelError: so too; and llama.cpp aborted, or gave no sign of life for `timeout_s` seconds.
    """
    from edgecal.worker import run_in_worker

    asked = run_in_worker(
        "edgecal.runtime.ask:answer", request, what=f"the model {request.path}", timeout_s=timeout_s
    )
    assert isinstance(asked, Asked)
    return asked


def answer(request: AskRequest, report: Callable[[Any], None]) -> Asked:
    """The worker's side; a sign of life once the model is loaded."""
    import warnings

    from edgecal.errors import UnsettledWarning
    from edgecal.prompts import resolve_template
    from edgecal.runtime.load import load

    template = resolve_template(request.template)  # a mistyped name is told before the model is loaded
    warnings.simplefilter("ignore", UnsettledWarning)  # whoever asked is told by `Asked.calibration`
    with load(request.path, **dict(request.llama_options)) as model:
        report("loaded")
        said = model.choose(
            request.question,
            request.choices,
            template=template,
            subject=request.subject,
            chat_template=request.chat_template,
            min_confidence=request.min_confidence,
        )
        return Asked(said, model.calibration)
