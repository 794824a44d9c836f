"""Runs typed questions about a state on a loaded model: `Model.decide`, `Model.decide_many` and `Model.state`.

A question in each order of its options is a prompt; the prompts of a request run together in a context of their own
(`edgecal.llama.resident`), which computes the state once and remembers it for the next request. Of each prompt's logits
only what the answer needs is kept. A question's answer is the same bits whatever questions, orders and ids stand beside
it and whatever was asked before; only for a mixture of experts, in a process that had computed before its first
question, the last digits may differ, and then every answer says so in its doubts.

With the readout "texts" an option's logit is the mean log-probability of its own tokens after the prompt, and the label
mass is the probability of the tokens with which the options' texts begin.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from edgecal.decisions import (
    DecisionOptions,
    DecisionPrompting,
    Decisions,
    Problem,
    Request,
    RequestError,
    TypedTemperatures,
    UsedTemperature,
    answer_question,
    is_decided,
    label_logits,
    list_orders,
    parse_request,
)
from edgecal.decisions.answers import average_orders
from edgecal.errors import InputError, ModelError
from edgecal.llama.model import Model
from edgecal.llama.prefix_tree import n_common
from edgecal.llama.resident import ResidentContext
from edgecal.llama.settings import MAX_THREADS, CaptureSettings
from edgecal.runtime.llama_logits import context_size, log_softmax, remember_threads

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgecal.decisions import Decision, DecisionPrompt, Question
    from edgecal.gguf.header import Header
    from edgecal.llama.tokenizer import Tokenizer

    Tokens = NDArray[np.int32]

__all__ = ["Decider", "State", "group_by_state", "make_request", "merge_options"]

_NOT_EXACT = (
    "experts in a process that had computed before: the last digits may depend on the other questions"
)

# Options of `llama_cpp.Llama` that change what a model computes, with its defaults; the context of ours follows them.
_POSITIONS = {
    "rope_scaling_type": -1,
    "rope_freq_base": 0.0,
    "rope_freq_scale": 0.0,
    "yarn_ext_factor": -1.0,
    "yarn_attn_factor": 1.0,
    "yarn_beta_fast": 32.0,
    "yarn_beta_slow": 1.0,
    "yarn_orig_ctx": 0,
}


def merge_options(options: DecisionOptions | None, overrides: Mapping[str, Any]) -> DecisionOptions:
    """The options of a call: those given, or the defaults, with some replaced by name.

    Raises
    ------
    InputError: there is no such option, or a value is out of range.
    """
    if options is not None and not isinstance(options, DecisionOptions):
        raise InputError(f"options is {options!r:.60}, expected DecisionOptions")
    known = DecisionOptions.__dataclass_fields__
    for name in overrides:
        if name not in known:
            raise InputError(f"there is no option {name!r:.60}, expected one of {', '.join(known)}")
    return replace(options or DecisionOptions(), **overrides)


class Decider:
    """A model's questions. Not for use from several threads at once.

    Parameters
    ----------
    llama: a loaded `llama_cpp.Llama`; when it is closed, so is the context for questions.
    header: its file's.
    tokenizer: its tokenizer.
    temperatures: what its file says about typed questions.
    baked: what its file's logits are already divided by, else 1.
    """

    def __init__(
        self, llama: Any, header: Header, tokenizer: Tokenizer, temperatures: TypedTemperatures, baked: float
    ) -> None:
        if llama.lora_path is not None:
            raise InputError(
                f"{header.path}: was loaded with a lora_path, which typed questions would leave out; merge the adapter "
                "into the model"
            )
        self._header, self._tokenizer, self._temperatures, self._baked = (
            header,
            tokenizer,
            temperatures,
            baked,
        )
        self._promptings: dict[tuple[object, ...], DecisionPrompting] = {}
        self._n_threads = min(MAX_THREADS, max(llama.n_threads, llama.n_threads_batch))
        params = {
            name: value
            for name, default in _POSITIONS.items()
            if (value := getattr(llama.context_params, name)) != default
        }
        self._context = ResidentContext(
            Model.of_handle(llama.model, header.path),
            CaptureSettings(n_threads=self._n_threads),
            n_ctx=context_size(llama),
            params=params,
        )
        llama._stack.callback(self._context.close)  # before the model, whoever closes it

    def decide(self, request: Request, options: DecisionOptions) -> Decisions:
        """Answers a request's questions.

        Raises
        ------
        InputError: a prompt is longer than the context, or a label is not a single token.
        ModelError: llama.cpp failed.
        """
        options = options.for_file(self._temperatures)
        prompting = self._prompting(options)
        state = self._state_tokens(prompting, request.state, request.source)
        self._check_length(len(state), len(state), request.source)  # before all prompts are made
        asked = [
            _Asked(
                question,
                list_orders(question.type, prompting.n_places(question), options.orders or 1),
                request.source,
                key,
            )
            for key, question in request.questions.items()
        ]
        n_rows, waiting = 0, asked
        while waiting:
            n_next = 1 if options.orders == "auto" else None
            runs: list[_Run] = []
            for each in waiting:
                for order in each.take(n_next):
                    prompt = prompting.render(request.state, each.question, order, each.where)
                    make: type[_Run] = _TextsRun if options.readout == "texts" else _LabelsRun
                    runs.append(make(self._tokenizer, self._baked, each, prompt))
            n_rows += self._run(runs, state)
            waiting = [each for each in waiting if not each.is_done(options.order_margin)]
        return Decisions(
            answers={
                key: self._answer(each, prompting, options)
                for key, each in zip(request.questions, asked, strict=True)
            },
            model=request.model or str(self._header.get("general.name") or self._header.path.name),
            input_tokens=sum(each.n_tokens for each in asked),
            tokens_computed=n_rows,
        )

    def state_tokens(self, state: Any, options: DecisionOptions) -> Tokens:
        """The tokens with which every prompt about a state begins."""
        return self._state_tokens(self._prompting(options.for_file(self._temperatures)), state, "")

    def pin(self, state: Tokens) -> None:
        """Keeps a state in memory (see `ResidentContext.pin`)."""
        self._check_length(len(state), len(state), "")
        self._context.pin(state)

    def unpin(self, state: Tokens) -> None:
        """Ends one `pin`."""
        self._context.unpin(state)

    def _state_tokens(self, prompting: DecisionPrompting, state: Any, source: str) -> Tokens:
        first, second = (
            self._tokenizer.prompt_tokens(prompt) for prompt in prompting.probes(state, source or "the state")
        )
        return first[: n_common(first, second)]

    def _prompting(self, options: DecisionOptions) -> DecisionPrompting:
        key = options.readout, options.chat_template
        is_lasting = options.template is None and options.chat_template in (None, "auto", "own")
        if is_lasting and key in self._promptings:
            return self._promptings[key]
        prompting = DecisionPrompting.for_file(options, self._header)
        if is_lasting:  # a file is read at each call
            self._promptings[key] = prompting
        return prompting

    def _run(self, runs: Sequence[_Run], state: Tokens) -> int:
        prompts: list[Tokens] = []
        owners: list[tuple[_Run, int]] = []
        for run in runs:
            for at, prompt in enumerate(run.prompts):
                self._check_length(len(prompt), len(state), run.asked.source, run.asked.key)
                prompts.append(prompt)
                owners.append((run, at))
        if self._n_threads > 1:
            remember_threads()

        def on_logits(index: int, logits: NDArray[np.float32]) -> None:
            run, at = owners[index]
            run.read(at, logits)

        n_rows = self._context.run(prompts, [n_common(state, prompt) for prompt in prompts], on_logits)
        for run in runs:
            run.finish()
        return n_rows

    def _check_length(self, n_tokens: int, n_state: int, source: str, key: str | None = None) -> None:
        n_ctx = self._context.n_ctx
        if n_tokens > n_ctx:
            place: tuple[str, ...] = ("state",)
            what = f"has {n_tokens} tokens"
            if key is not None:
                place, what = (
                    ("questions", key),
                    f"the prompt has {n_tokens} tokens, {n_state} of them the state's",
                )
            flaw = (
                f"{what}, but the context is {n_ctx}; shorten the state, or load the model with a larger n_ctx "
                "(--ctx-size), up to what it was trained for"
            )
            raise RequestError([Problem(("body", *place), flaw, "out_of_range")], source)

    def _answer(self, asked: _Asked, prompting: DecisionPrompting, options: DecisionOptions) -> Decision:
        question = asked.question
        used = self._temperatures.find(question.type, len(question.keys))
        decision = answer_question(
            question,
            np.stack(asked.logits),
            asked.masses,
            asked.rather,
            _doubted(used, self._temperatures, prompting, options),
            min_mass=options.min_mass,
            min_confidence=options.min_confidence,
        )
        if not self._context.is_exact:
            decision = replace(decision, doubts=(*decision.doubts, _NOT_EXACT))
        return decision


def _doubted(
    used: UsedTemperature,
    temperatures: TypedTemperatures,
    prompting: DecisionPrompting,
    options: DecisionOptions,
) -> UsedTemperature:
    """The same, but doubted where the temperatures of types were fitted for questions asked in another way."""
    if not temperatures.typed or used.doubt is not None:
        return used
    ways = (
        ("readout", temperatures.readout, options.readout),
        ("orders", temperatures.orders, str(options.orders)),
        ("template", temperatures.prompt_sha256, prompting.sha256),
    )
    for name, fitted, now in ways:
        if fitted is not None and fitted != now:
            than = "" if name == "template" else f" ({fitted}, not {now})"
            return replace(used, settled=False, doubt=f"the temperature was fitted with other {name}{than}")
    return used


@dataclass
class _Asked:
    """A question, the orders in which it is asked, and what the model's logits say in those that have run."""

    question: Question
    orders: Sequence[tuple[int, ...]]
    source: str
    key: str
    n_taken: int = 0
    n_tokens: int = 0
    logits: list[NDArray[np.float64]] = field(default_factory=list)
    masses: list[float] = field(default_factory=list)
    rather: list[str | None] = field(default_factory=list)

    @property
    def where(self) -> str:
        """The question's place, for messages."""
        name = f"questions.{self.key}" if self.key.isprintable() else f"questions.{self.key!a}"
        return f"{self.source}: {name}" if self.source else name

    def take(self, n: int | None) -> Sequence[tuple[int, ...]]:
        """The next n orders; None: all that are left."""
        taken = self.orders[self.n_taken :][:n]
        self.n_taken += len(taken)
        return taken

    def is_done(self, order_margin: float) -> bool:
        """Whether no order is left that could change the answer."""
        if self.n_taken == len(self.orders):
            return True
        second, first = np.sort(average_orders(np.stack(self.logits)))[-2:]
        return is_decided(float(first - second), self.n_taken, len(self.orders), order_margin)


class _Run(ABC):
    """A question in one order, as one or several prompts, and what is read from their logits."""

    prompts: Sequence[Tokens]

    def __init__(self, tokenizer: Tokenizer, baked: float, asked: _Asked, prompt: DecisionPrompt) -> None:
        self.asked = asked
        self._tokenizer, self._baked, self._order = tokenizer, baked, prompt.order

    @abstractmethod
    def read(self, at: int, logits: NDArray[np.float32]) -> None:
        """Takes what is needed of the logits, float32 [n_vocab], after the prompt `at`."""

    @abstractmethod
    def finish(self) -> None:
        """Called when all prompts have run."""

    def _undo(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """The original model's logits, without what is baked into the file."""
        return logits.astype(np.float64) * self._baked

    def _give(self, by_place: NDArray[np.float64], mass: float, rather: str | None) -> None:
        """Hands the results to the question: original logits of the options at each place."""
        if not np.isfinite(by_place).any():
            raise ModelError(f"{self.asked.where}: the model gives no answer any probability")
        self.asked.logits.append(label_logits(by_place / self._baked, self._order))
        self.asked.masses.append(mass)
        self.asked.rather.append(rather)


class _LabelsRun(_Run):
    """The logits of the labels after one prompt."""

    def __init__(self, tokenizer: Tokenizer, baked: float, asked: _Asked, prompt: DecisionPrompt) -> None:
        super().__init__(tokenizer, baked, asked, prompt)
        self._resolved = tokenizer.resolve(prompt.prompt)
        self.prompts = [self._resolved.tokens]
        asked.n_tokens += len(self._resolved.tokens)

    def read(self, at: int, logits: NDArray[np.float32]) -> None:
        original = self._undo(logits)
        tokens = self._resolved.choice_tokens
        labels = self._resolved.label_logits(original[tokens])
        mass = float(np.exp(log_softmax(original, 1.0)[tokens]).sum())
        self._give(labels, mass, self._tokenizer.likelier_mark(original, float(labels.max())))

    def finish(self) -> None:
        """Nothing is left to do: there is one prompt."""


class _TextsRun(_Run):
    """The mean log-probability of each option's tokens, each of them after the prompt and the option's tokens before
    it."""

    def __init__(self, tokenizer: Tokenizer, baked: float, asked: _Asked, prompt: DecisionPrompt) -> None:
        super().__init__(tokenizer, baked, asked, prompt)
        start = tokenizer.prompt_tokens(prompt.prompt)
        asked.n_tokens += len(start)
        self._texts = tokenizer.text_tokens(prompt.prompt, start, prompt.texts)
        # The tokens wanted after each beginning of an option.
        self._wanted: dict[tuple[int, ...], set[int]] = {}
        for tokens in self._texts:
            for n, token in enumerate(tokens):
                self._wanted.setdefault(tuple(tokens[:n]), set()).add(token)
        self._beginnings = list(self._wanted)
        self.prompts = [np.concatenate([start, np.array(each, np.int32)]) for each in self._beginnings]
        self._log_probs: dict[tuple[int, ...], float] = {}
        self._mass = 0.0
        self._rather: str | None = None

    def read(self, at: int, logits: NDArray[np.float32]) -> None:
        original = self._undo(logits)
        log_probs = log_softmax(original, 1.0)
        beginning = self._beginnings[at]
        wanted = sorted(self._wanted[beginning])
        for token in wanted:
            after = (*beginning, token)
            self._log_probs[after] = float(log_probs[token])
        if not beginning:
            self._mass = float(np.exp(log_probs[wanted]).sum())
            self._rather = self._tokenizer.likelier_mark(original, float(original[wanted].max()))

    def finish(self) -> None:
        means = [
            float(np.mean([self._log_probs[tuple(tokens[: n + 1])] for n in range(len(tokens))]))
            for tokens in self._texts
        ]
        self._give(np.array(means), self._mass, self._rather)


class State:
    """A state that stays in memory, for apps that keep asking about it; a context manager that lets it go.

    `Model.state` makes it. The first question computes it; later ones run their own tokens only. It is made again if
    the model needs the memory.

    Attributes
    ----------
    n_tokens: tokens with which every prompt about it begins, the template's among them.
    """

    def __init__(
        self,
        decider: Decider,
        turn: Callable[[], AbstractContextManager[None]],
        state: Any,
        options: DecisionOptions,
    ) -> None:
        """`turn` holds the model's lock. Called within it."""
        self._decider, self._turn, self._state, self._options = decider, turn, state, options
        self._tokens = decider.state_tokens(state, options)
        decider.pin(self._tokens)
        self.n_tokens = len(self._tokens)
        self._is_open = True

    def decide(self, questions: Mapping[str, Any], **overrides: Any) -> Decisions:
        """Answers questions about the state, as `Model.decide`; overrides replace some of the handle's options."""
        if not self._is_open:
            raise InputError("the state has been closed; make another with model.state(...)")
        options = merge_options(self._options, overrides)
        request = make_request(self._state, questions)
        with self._turn():
            return self._decider.decide(request, options)

    def close(self) -> None:
        """Lets the state go; may be called again."""
        if self._is_open:
            self._is_open = False
            with suppress(InputError), self._turn():  # a closed model has let it go
                self._decider.unpin(self._tokens)

    def __enter__(self) -> State:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def make_request(state: Any, questions: Mapping[str, Any]) -> Request:
    """A request of Python's values.

    Raises
    ------
    RequestError: they break a rule of the format.
    """
    return parse_request({"state": state, "questions": questions})


def check_requests(given: Any) -> list[Request | InputError]:
    """Each request, or the error that it has cost. InputError for what is no list of requests."""
    if not isinstance(given, Sequence) or isinstance(given, (str, bytes)):
        raise InputError(f"the requests are a {type(given).__name__}, expected a list of requests")
    return [_checked(each) for each in given]


def _checked(given: Any) -> Request | InputError:
    if isinstance(given, Request):
        return given
    try:
        return parse_request(given)
    except InputError as error:
        return error


def group_by_state(requests: Sequence[Request | InputError]) -> list[int]:
    """The indices of requests, those about one state after each other, states in the order of their first request."""
    first: dict[str, int] = {}
    places = []
    for index, request in enumerate(requests):
        same = index if isinstance(request, InputError) else first.setdefault(repr(request.state), index)
        places.append((same, index))
    return [index for _, index in sorted(places)]
