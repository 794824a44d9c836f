"""`edgecal decide`: answers requests of typed questions, each answer with its probability."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from edgecal.cli.options import ANY_PATH, chat_template_option, llama_options
from edgecal.cli.request_options import gather_decisions
from edgecal.cli.stdio import printing, say

if TYPE_CHECKING:
    from edgecal.decisions import Decisions, Request
    from edgecal.errors import InputError
    from edgecal.runtime.request_lines import RequestLine

__all__ = ["decide_command"]

_SAY_EVERY_S = 5.0


@click.command("decide", short_help="Answer typed questions about a state, with probabilities.")
@click.argument("model", type=ANY_PATH)
@click.argument("requests", metavar="REQUEST.json", type=ANY_PATH)
@click.option(
    "--readout",
    type=click.Choice(["labels", "letters", "texts"]),
    help="Read answers as labels in all of their one-token forms, as bare letters (as llama.cpp's decision mode does), "
    "or as the options' own texts.  [default: what the file's temperatures were fitted for, else labels]",
)
@click.option(
    "--orders",
    metavar="N|choices|all|auto",
    help="Show the options in N orders and average; choices: in two, yes and no in one; all: every rotation; auto: "
    "until no further order can change the answer by --order-margin.  [default: what the file's temperatures were "
    "fitted for, else choices]",
)
@click.option(
    "--order-margin",
    type=click.FloatRange(min=0),
    metavar="NATS",
    help="For --orders auto: how strongly a further order is assumed to be able to speak against the answer."
    "  [default: 2]",
)
@click.option(
    "--min-mass",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    metavar="X",
    help="Mark an answer (x_abstained) if the labels have less than X of the model's probability.",
)
@click.option(
    "--min-confidence",
    type=click.FloatRange(0, 1),
    metavar="X",
    help="Mark an answer (x_abstained) if its probability (x_probability) is below X.",
)
@click.option(
    "--template",
    type=ANY_PATH,
    metavar="FILE|TEXT",
    help="Template of the questions: a Jinja file, or Jinja text.  [default: edgecal's own]",
)
@chat_template_option(
    "Ask in a turn of a conversation, using the chat template in the model's own file (no value, or own) or in FILE; "
    "none: in plain text.  [default: auto, its own if it has one, else none]"
)
@click.option(
    "--ctx-size",
    "-c",
    type=click.IntRange(min=16),
    metavar="N",
    help="Most tokens of a state with a question.  [default: what the model was trained for, at most 4096]",
)
@llama_options
@click.option("--quiet", "-q", is_flag=True, help="No progress and no warnings on stderr.")
def decide_command(model: str, requests: str, **values: Any) -> None:
    """Answer the questions of REQUEST.json and print the response, as `POST /v1/systemone` does.

    REQUEST.json holds one request, JSON Lines of requests, or a list of requests; - is standard input. Requests about
    one state share its computation. For each, one JSON object is printed on a line of its own, in the requests' order,
    as soon as it is known. Facts beyond the format have names that begin with x_; confidence is the format's own and no
    probability of being right, x_probability is that.

    One bad request of several costs that request: its line is {"error": {"line", "detail"}}, and the exit code at the
    end is 2.
    """
    from edgecal.decisions import resolve_decision_template
    from edgecal.runtime.decide_in_worker import DecideWorker
    from edgecal.runtime.request_lines import read_batches

    options = gather_decisions(values)
    resolve_decision_template(options.template)  # refuse a mistyped name before the model is loaded
    llama = {
        "n_threads": values["threads"],
        "n_threads_batch": values["threads"],
        "n_ctx": values["ctx_size"],
    }
    if values["ubatch_size"] is not None:
        llama |= {"n_ubatch": values["ubatch_size"], "n_batch": max(512, values["ubatch_size"])}
    given = {name: value for name, value in llama.items() if value is not None}
    output = _Output(quiet=values["quiet"])
    with DecideWorker(model, options, given, timeout_s=values["timeout"]) as worker:
        is_loaded = False
        for batch in read_batches(requests):
            asked = output.begin(batch)
            if asked and not is_loaded:
                output.warn(worker.load())
                is_loaded = True
            if asked:
                worker.decide(asked, output.put)
    output.end("standard input" if requests == "-" else requests)


class _Output:
    """Prints results in the requests' order, whatever the order in which they are ready."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._batch: list[RequestLine] = []
        self._asked: list[int] = []  # of the batch's requests, those that the model is asked
        self._ready: dict[int, Decisions | InputError] = {}
        self._n_shown = 0  # of the batch
        self._n_requests = self._n_ready = self._n_refused = self._n_answers = self._n_marked = 0
        self._held: tuple[RequestLine, InputError] | None = None
        self._warned: set[str] = set()
        self._said_s = self._started_s = time.monotonic()

    def begin(self, batch: list[RequestLine]) -> list[Request]:
        """Takes the next batch, and returns the requests that are to be answered."""
        from edgecal.decisions import RequestError

        self._batch, self._asked, self._ready, self._n_shown = batch, [], {}, 0
        asked: list[Request] = []
        for at, line in enumerate(batch):
            if isinstance(line.request, RequestError):
                self._ready[at] = line.request
            else:
                self._asked.append(at)
                asked.append(line.request)
        self._show()
        return asked

    def put(self, index: int, found: Decisions | InputError) -> None:
        """Takes what came of one of the requests that `begin` returned."""
        self._ready[self._asked[index]] = found
        self._n_ready += 1
        self._show()
        now = time.monotonic()
        if self._n_ready > 1 and not self._quiet and now - self._said_s >= _SAY_EVERY_S:
            self._said_s = now
            say(
                f"{self._n_ready} requests answered, {self._n_ready / (now - self._started_s):.3g} per second"
            )

    def warn(self, texts: Sequence[str], where: str = "") -> None:
        """Says each text on stderr, once in all."""
        for text in texts if not self._quiet else ():
            if text not in self._warned:
                self._warned.add(text)
                say(f"warning: {where}{text}")

    def end(self, path: str) -> None:
        """Says how it went.

        Raises
        ------
        InputError: there was no request, or one was refused.
        """
        from edgecal.errors import InputError

        if self._n_requests == 0:
            raise InputError(f"{path}: holds no request")
        if self._held is not None:
            raise self._held[1]
        if self._n_marked:
            marked = f"{self._n_marked} of {self._n_answers} answers should not be used"
            self.warn([f"{marked} (x_abstained is true); their x_doubts say why"])
        if self._n_refused:
            raise InputError(
                f"{path}: {self._n_refused} of {self._n_requests} requests were refused; their lines say why"
            )

    def _show(self) -> None:
        while self._n_shown in self._ready:
            line, found = self._batch[self._n_shown], self._ready.pop(self._n_shown)
            self._n_shown += 1
            self._n_requests += 1
            if self._held is not None:
                held, self._held = self._held, None
                self._refuse(*held)
            if not isinstance(found, Mapping):
                if self._n_requests == 1:  # it may be the only one
                    self._held = line, found
                else:
                    self._refuse(line, found)
                continue
            self._answer(line, found)

    def _answer(self, line: RequestLine, found: Decisions) -> None:
        request = line.request
        assert not isinstance(request, Exception)
        self.warn(request.warnings, f"{request.source}: ")
        for decision in found.values():
            self.warn([decision.temperature_doubt] if decision.temperature_doubt else [])
            self._n_answers += 1
            self._n_marked += decision.abstained
        _print_line(found.to_dict())

    def _refuse(self, line: RequestLine, error: InputError) -> None:
        from edgecal.decisions import detail_of

        self._n_refused += 1
        say(str(error))
        _print_line({"error": {"line": line.number, "detail": detail_of(error)}})


def _print_line(value: dict[str, Any]) -> None:
    with printing():
        click.echo(json.dumps(value, allow_nan=False))
