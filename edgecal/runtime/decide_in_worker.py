"""Answers requests in a process of its own, so that a file on which llama.cpp aborts ends only that process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgecal.decisions import DecisionOptions, Decisions, Request
from edgecal.errors import InputError

if TYPE_CHECKING:
    from edgecal.runtime.calibrated_model import Model

__all__ = ["DecideRequest", "DecideWorker"]

OnAnswer = Callable[[int, "Decisions | InputError"], None]


@dataclass(frozen=True)
class DecideRequest:
    """Requests for `Model.decide_many`.

    Attributes
    ----------
    path, llama_options: those of `load`.
    requests, options: those of `Model.decide_many`.
    """

    path: str
    options: DecisionOptions
    llama_options: tuple[tuple[str, Any], ...]
    requests: tuple[Request, ...] = ()


class DecideWorker:
    """A worker process in which a model stays loaded; a context manager that ends it.

    Parameters
    ----------
    path, options, llama_options: as in `DecideRequest`.
    timeout_s: seconds without a sign of life after which llama.cpp counts as hung.
    """

    def __init__(
        self, path: str, options: DecisionOptions, llama_options: dict[str, Any], *, timeout_s: float
    ) -> None:
        from edgecal.worker import Worker

        self._worker = Worker()
        self._path, self._options, self._timeout_s = path, options, timeout_s
        self._llama_options = tuple(llama_options.items())

    def load(self) -> list[str]:
        """Loads the model, and returns what a user should know of how it is asked, one line each.

        Raises
        ------
        InputError: the model's file, a template or an option is wrong.
        ModelError: llama.cpp cannot load the model.
        """
        warnings: list[str] = self._call("load_model", ())
        return warnings

    def decide(self, requests: Sequence[Request], on_answer: OnAnswer) -> None:
        """Answers requests; `on_answer` gets each one's index and its answers, or the error that it cost, in the order
        in which they are ready.

        Raises
        ------
        ModelError: llama.cpp failed or aborted, or showed no sign of life.
        """
        self._call("answer", tuple(requests), lambda pair: None if pair is None else on_answer(*pair))

    def _call(
        self, function: str, requests: tuple[Request, ...], on_progress: Callable[[Any], None] | None = None
    ) -> Any:
        return self._worker.call(
            f"edgecal.runtime.decide_in_worker:{function}",
            DecideRequest(self._path, self._options, self._llama_options, requests),
            what=f"the model {self._path}",
            on_progress=on_progress,
            timeout_s=self._timeout_s,
        )

    def __enter__(self) -> DecideWorker:
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.close()


_loaded: dict[str, Model] = {}


def load_model(request: DecideRequest, report: Callable[[Any], None]) -> list[str]:
    """Runs in the worker; what is wrong with a template shows before the weights are read."""
    import warnings
    from pathlib import Path

    from edgecal.decisions import DecisionPrompting
    from edgecal.errors import UnsettledWarning
    from edgecal.gguf.shards import find_shards
    from edgecal.runtime.load import load
    from edgecal.stamping.decision_record import read_temperatures

    header = find_shards(Path(request.path)).header
    options = request.options.for_file(read_temperatures(header))
    chat_template = DecisionPrompting.for_file(options, header).chat_template
    warnings.simplefilter("ignore", UnsettledWarning)  # every answer says so in its doubts
    _loaded[request.path] = load(request.path, **dict(request.llama_options))
    return [] if chat_template is None or chat_template.warning is None else [chat_template.warning]


def answer(request: DecideRequest, report: Callable[[Any], None]) -> None:
    """Runs in the worker; reports each request's index and answers."""
    for pair in _loaded[request.path].decide_many(request.requests, options=request.options):
        report(pair)
