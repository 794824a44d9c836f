"""A loaded model whose probabilities are calibrated by what its file says.

It renders questions as `edgecal fit` does, finds the labels' tokens by the same rules, and divides the logits once.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, SupportsIndex

from edgecal.errors import InputError
from edgecal.runtime.abstention import check_min_confidence, is_real
from edgecal.runtime.answer import Answer, Finish, GeneratedToken, Generation
from edgecal.runtime.last_hidden import start_hooked
from edgecal.runtime.llama_logits import (
    check_causal,
    check_not_forked,
    context_size,
    extend,
    log_softmax,
    start,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgecal.decisions import DecisionOptions, Decisions, Request
    from edgecal.gguf.header import Header
    from edgecal.llama.hook import HiddenCapture
    from edgecal.prompts import Prompt, PromptTemplate
    from edgecal.runtime.decide import Decider, State
    from edgecal.stamping.projection import Projection
    from edgecal.stamping.record import FileCalibration

__all__ = ["Model"]


class Model:
    """A language model that says how sure it is. `edgecal.load` makes it; as a context manager it frees itself.

    A model answers one question at a time. Its methods may be called from any thread and wait for each other, so
    calling from several threads makes nothing faster. An app that uses `llama` directly must hold `lock` meanwhile. For
    answers in parallel, load the model once in each process, and after a fork: a model that was loaded before it raises
    InputError in the child. A model cannot be pickled.

    The same model, prompt and options give the same numbers, whatever ran before. Therefore every prompt of `choose`,
    `confidence` and `generate` is run as a whole, and nothing is reused from one question to the next; `decide` reuses
    states where this changes no bit.

    Attributes
    ----------
    path: the file (of a split model the first shard).
    calibration: what the file says about its calibration, with `.kind` ("stamped", "baked" or "none") and `.sentence`
        for people.
    temperature: the divisor of the file's logits: the file's temperature, or 1.0 if it is baked into the weights or
        there is none.
    basecal: the BaseCal map that was loaded with it, or None.
    llama: the plain `llama_cpp.Llama`, for everything else. What it returns is not calibrated (unless the file is
        baked), and it samples at temperatures of its own.
    lock: the re-entrant lock that the methods hold.
    """

    def __init__(
        self,
        llama: Any,
        header: Header,
        calibration: FileCalibration,
        basecal: Projection | None = None,
        hook: HiddenCapture | None = None,
    ) -> None:
        """Takes over a loaded `llama_cpp.Llama` of the file with this header, which `close` frees. A map needs the hook
        of its context, which it frees.

        Raises
        ------
        ModelError: it is not a causal language model; it has been closed.
        """
        from edgecal.llama.library import load_library
        from edgecal.llama.tokenizer import Tokenizer

        self.path: Path = header.path
        self._llama = llama
        self._process = os.getpid()
        self.calibration: FileCalibration = calibration
        self.temperature: float = calibration.divisor
        self.basecal: Projection | None = basecal
        self._hook = hook
        # Dividing a baked file's logits by this restores those of the original.
        self._undivided = 1.0 / (calibration.temperature or 1.0) if calibration.kind == "baked" else 1.0
        self.lock = threading.RLock()
        self._header = header
        self._closed = False
        try:
            check_causal(llama)
        except BaseException:
            self.close()
            raise
        vocab = load_library().llama_model_get_vocab(llama.model)
        self._tokenizer = Tokenizer(vocab, llama.n_vocab(), str(header.path))

    @property
    def llama(self) -> Any:
        """The plain `llama_cpp.Llama`; InputError in a process that was forked since."""
        check_not_forked(self._process, self.path)
        return self._llama

    def choose(
        self,
        question: str,
        choices: Sequence[str],
        *,
        template: str | Path | PromptTemplate | None = None,
        subject: str | None = None,
        chat_template: str | Path | None = None,
        min_confidence: float | None = None,
    ) -> Answer:
        """Answers a multiple-choice question, with the confidence that the file was calibrated for.

        The question is rendered as `edgecal fit` and `edgecal eval` render it, with the choices lettered A, B, ... in
        the order given. The confidence is as good as the fit: it holds for questions like those of the fit, asked in
        the same way.

        Parameters
        ----------
        question: the text. Nothing in it, the choices or the subject becomes a special token, whatever it spells.
        choices: 2 to 26 distinct texts.
        template: a built-in template's name, Jinja text, the path of a Jinja file, or a `PromptTemplate`; None is
            "default". See `edgecal.prompts.resolve_template`. A file is read at each call.
        subject: for templates that name one.
        chat_template: to ask in a turn of a conversation, "own" (the template in the model's file) or the path of a
            Jinja file; None asks in plain text. Ask in the way in which the temperature was fitted.
        min_confidence: 0 to 1; an answer with a lower confidence is marked `abstained`. `threshold_for` finds one for
            a wanted accuracy.

        Raises
        ------
        InputError: the question, a template or an argument is wrong, a label is not a single token, or the prompt is
            longer than the context.
        ModelError: llama.cpp failed.
        """
        from edgecal.prompts import Prompting, Question, parse_record, resolve_chat_template

        check_min_confidence(min_confidence)
        record = parse_record(
            {"question": question, "choices": _as_list(choices), "subject": subject}, "the question"
        )
        assert isinstance(record, Question)
        prompting = Prompting(template, chat_template=resolve_chat_template(chat_template, self._header))
        return self._answer(prompting.render_question(record).chat, record.choices, min_confidence)

    def confidence(
        self, prompt: str, labels: Sequence[str], *, min_confidence: float | None = None
    ) -> Answer:
        """Which of several continuations comes next, with calibrated probabilities.

        Parameters
        ----------
        prompt: taken verbatim. Special tokens that it spells become those tokens, and BOS is added if the model
            wants one.
        labels: 2 to 26 texts of a single token each after this prompt, such as " yes" and " no".
        min_confidence: as in `choose`.

        Raises
        ------
        InputError, ModelError: as in `choose`.
        """
        from edgecal.prompts import Prompt, parse_record

        check_min_confidence(min_confidence)
        record = parse_record({"prompt": prompt, "labels": _as_list(labels)}, "the prompt")
        assert isinstance(record, Prompt)
        return self._answer(record, record.labels or (), min_confidence)

    def generate(
        self,
        prompt: str,
        *,
        max_tokens: int = 128,
        sampling: float = 0.0,
        seed: int = 0,
        stop: Sequence[str] = (),
        n_top: int = 0,
        chat_template: str | Path | None = None,
    ) -> Generation:
        """Continues a prompt, with the calibrated log-probability of each token.

        The log-probabilities are those of the softmax, over the whole vocabulary, of the file's logits divided by the
        temperature. The temperature was fitted on the letters of multiple-choice answers, not on free text. There the
        numbers are on the same scale and comparable with each other, but nobody has measured that a token with
        probability 0.8 is right in 8 of 10 cases.

        Parameters
        ----------
        prompt: verbatim, as in `confidence`; with a chat template, the user's turn, in which nothing becomes a special
            token. So use a chat template for what an app's users write.
        max_tokens: at least 1.
        sampling: 0 takes the most probable token (of equal ones the lowest id). 1 draws from the calibrated
            distribution, and s from the softmax of its log-probabilities divided by s. No token is cut off. With a
            temperature of 2 to 4, prose drawn at 1 is wild; 1 / `temperature` draws as the undivided logits would.
        seed: seed of the draws, 0 to 2^64 - 1.
        stop: texts at which the generated text ends.
        n_top: how many of the most probable tokens to return at each place.
        chat_template: as in `choose`.

        Raises
        ------
        InputError: an argument is wrong, or the prompt and one more token do not fit into the context.
        ModelError: llama.cpp failed.
        """
        _check_generation(max_tokens, sampling, seed, stop, n_top)
        asked = self._verbatim(prompt, chat_template)
        with self._turn():
            tokens = self._tokenizer.prompt_tokens(asked)
            return self._continue(tokens, max_tokens, sampling, seed, tuple(stop), n_top)

    def decide(
        self,
        state: Any,
        questions: Mapping[str, Any],
        *,
        options: DecisionOptions | None = None,
        **overrides: Any,
    ) -> Decisions:
        """Answers typed questions about a state, each with calibrated probabilities.

            model.decide(ticket, {"angry": Noul("Is the customer angry?"), "team": Choice("Whose is it?", ["A", "B"])})

        The state is computed once for all questions, and remembered for the next call (see `edgecal.runtime.decide`).
        An answer is the same bits whatever other questions are asked, in which order, and under which ids. Texts of the
        state and the questions never become control tokens.

        Parameters
        ----------
        state: a text, or what JSON can hold: an object or a list.
        questions: by id: `Noul`, `Choice` or `Score`, or objects of the format `POST /v1/systemone`. The model does not
            see the ids.
        options: how they are asked and which answers are marked; None is `DecisionOptions()`.
        overrides: options by name, such as `orders=1`, `min_confidence=0.8`.

        Raises
        ------
        InputError: a question, the state or an option is wrong, a prompt is longer than the context (`n_ctx` of `load`
            is the limit), or a label is not a single token.
        ModelError: llama.cpp failed.
        """
        from edgecal.runtime.decide import make_request, merge_options

        request, merged = make_request(state, questions), merge_options(options, overrides)
        with self._turn():
            return self._decider.decide(request, merged)

    def decide_many(
        self,
        requests: Sequence[Request | Mapping[str, Any]],
        *,
        options: DecisionOptions | None = None,
        **overrides: Any,
    ) -> Iterator[tuple[int, Decisions | InputError]]:
        """Answers many requests, those about one state one after the other, so that it is computed once.

        Parameters
        ----------
        requests: bodies of the format `POST /v1/systemone`, or what `edgecal.decisions.parse_request` made of them.
        options, overrides: as in `decide`.

        Yields
        ------
        Each request's index with its answers, or with the error that it has cost; in the order of computation.

        Raises
        ------
        InputError: an option is wrong, or the requests are no list.
        ModelError: llama.cpp failed.
        """
        from edgecal.runtime.decide import check_requests, group_by_state, merge_options

        merged, checked = merge_options(options, overrides), check_requests(requests)
        with self._turn():
            decider = self._decider
        for index in group_by_state(checked):
            request = checked[index]
            result: Decisions | InputError
            try:
                if isinstance(request, InputError):
                    raise request
                with self._turn():
                    result = decider.decide(request, merged)
            except InputError as error:
                result = error
            yield index, result

    def state(self, state: Any, *, options: DecisionOptions | None = None, **overrides: Any) -> State:
        """A state that stays in memory, for apps that keep asking: `with model.state(text) as s: s.decide(questions)`.

        Parameters, errors: as `decide`.
        """
        from edgecal.decisions import check_state
        from edgecal.runtime.decide import State, merge_options

        check_state(state)
        merged = merge_options(options, overrides)
        with self._turn():
            return State(self._decider, self._turn, state, merged)

    @cached_property
    def _decider(self) -> Decider:
        from edgecal.runtime.decide import Decider
        from edgecal.stamping.decision_record import read_temperatures

        temperatures = read_temperatures(self._header)
        return Decider(self._llama, self._header, self._tokenizer, temperatures, 1.0 / self._undivided)

    def _continue(
        self,
        prompt: npt.NDArray[np.int32],
        max_tokens: int,
        sampling: float,
        seed: int,
        stop: tuple[str, ...],
        n_top: int,
    ) -> Generation:
        import numpy as np

        random = np.random.default_rng(seed)
        logits = start(self.llama, prompt, "the prompt", n_more=1)
        n_left = min(max_tokens, context_size(self.llama) - len(prompt))
        said: list[GeneratedToken] = []
        text = b""
        finish: Finish = "length"
        while True:
            log_probs = log_softmax(logits, self.temperature)
            token = _draw(log_probs, sampling, random)
            if self._tokenizer.ends_generation(token):
                finish = "end"
                break
            text += self._tokenizer.piece_bytes(token)
            said.append(
                GeneratedToken(
                    token, self._tokenizer.piece(token), float(log_probs[token]), self._top(log_probs, n_top)
                )
            )
            cuts = [at for at in (text.find(each.encode("utf-8")) for each in stop) if at >= 0]
            if cuts:
                finish, text = "stop", text[: min(cuts)]
                break
            if len(said) == n_left:
                break
            logits = extend(self.llama, [token])
        return Generation(
            text=text.decode("utf-8", "replace"),
            tokens=tuple(said),
            finish=finish,
            log_prob=float(sum(token.log_prob for token in said)),
            temperature=self.temperature,
        )

    def _top(self, log_probs: npt.NDArray[np.float64], n: int) -> tuple[tuple[str, float], ...]:
        order = (-log_probs).argsort(kind="stable")[:n].tolist() if n else []
        return tuple((self._tokenizer.piece(token), float(log_probs[token])) for token in order)

    def _answer(self, prompt: Prompt, texts: Sequence[str], min_confidence: float | None) -> Answer:
        import numpy as np

        from edgecal.metrics import softmax_probs

        with self._turn():
            resolved = self._tokenizer.resolve(prompt)
            of_base = None
            if self.basecal is None or self._hook is None:
                logits = start(self.llama, resolved.tokens, prompt.source)
            else:
                rows = self.basecal.rows(resolved.choice_tokens, prompt.source)
                logits, state = start_hooked(self.llama, self._hook, resolved.tokens, prompt.source)
                of_base = softmax_probs(self.basecal.logits(state, rows)[None, :], [len(texts)])[0]
        of_labels = logits[resolved.choice_tokens]
        probs = softmax_probs(of_labels[None, :], [len(texts)], self.temperature)[0]
        choice = int(of_labels.argmax())
        sure = float(probs[choice])
        return Answer(
            choice=choice,
            label=(prompt.labels or ())[choice],
            text=texts[choice],
            confidence=sure,
            probs=tuple(probs.tolist()),
            abstained=min_confidence is not None and sure < min_confidence,
            min_confidence=min_confidence,
            label_mass=float(np.exp(log_softmax(logits, self._undivided)[resolved.choice_tokens]).sum()),
            temperature=self.temperature,
            n_tokens=len(resolved.tokens),
            base_confidence=None if of_base is None else float(of_base[choice]),
        )

    def _verbatim(self, text: str, chat_template: str | Path | None) -> Prompt:
        from edgecal.prompts import Prompt, Prompting, resolve_chat_template

        if not isinstance(text, str) or not text:
            raise InputError("the prompt must be non-empty text")
        if _holds_lone_surrogate(text):
            raise InputError("the prompt holds half a character (a lone surrogate), which is not valid text")
        prompt = Prompt(text=text, labels=(), source="the prompt")
        prompting = Prompting(chat_template=resolve_chat_template(chat_template, self._header))
        return prompting.render_prompt(prompt).chat

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Holds the model's lock. Checks for a fork first, since a forked process may wait for a lock that no thread is
        left to release."""
        check_not_forked(self._process, self.path)
        with self.lock:
            if self._closed or not self._llama.ctx:
                raise InputError(f"{self.path}: the model has been closed; load it again")
            yield

    def close(self) -> None:
        """Frees the model once the current question is answered. A second call does nothing; nor does a call in a
        forked process, whose copy ends with the process."""
        if os.getpid() != self._process:
            return
        with self.lock:
            if not self._closed:
                self._closed = True
                self._llama.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise InputError(
            f"{self.path}: a loaded model can be neither pickled nor copied; pass on its path, and load it "
            "where it is used"
        )

    def __repr__(self) -> str:
        return f"<edgecal model {str(self.path)!r}: {self.calibration.sentence}>"


def _draw(log_probs: npt.NDArray[np.float64], sampling: float, random: np.random.Generator) -> int:
    if sampling == 0.0:
        return int(log_probs.argmax())
    import numpy as np

    upto = np.cumsum(np.exp((log_probs - log_probs.max()) / sampling))
    return int(np.searchsorted(upto, random.random() * upto[-1], side="right"))


def _as_list(texts: Sequence[str]) -> object:
    """Any sequence as a list; a single text, which is a mistake, stays one and is refused later."""
    return texts if isinstance(texts, str) or not isinstance(texts, Sequence) else list(texts)


def _is_whole(value: Any) -> bool:
    return isinstance(value, SupportsIndex) and not isinstance(value, bool)


def _check_generation(max_tokens: int, sampling: float, seed: int, stop: Sequence[str], n_top: int) -> None:
    """InputError for arguments of `Model.generate` that make no sense."""
    if not _is_whole(max_tokens) or max_tokens < 1:
        raise InputError(f"max_tokens is {max_tokens!r:.60}, expected a whole number of at least 1")
    if not (is_real(sampling) and math.isfinite(sampling) and sampling >= 0):
        raise InputError(f"sampling is {sampling!r:.60}, expected a finite number of at least 0")
    if not _is_whole(seed) or not 0 <= seed < 2**64:
        raise InputError(f"the seed is {seed!r:.60}, expected a whole number from 0 to 2^64 - 1")
    if not isinstance(stop, Sequence) or isinstance(stop, str) or not all(map(_is_stop, stop)):
        raise InputError("stop must be a list of non-empty texts")
    if not _is_whole(n_top) or n_top < 0:
        raise InputError(f"n_top is {n_top!r:.60}, expected a whole number of at least 0")


def _is_stop(text: Any) -> bool:
    """Whether a generated text can contain it."""
    return isinstance(text, str) and text != "" and not _holds_lone_surrogate(text)


def _holds_lone_surrogate(text: str) -> bool:
    """Whether the text holds half of a surrogate pair, which no encoding can express."""
    return any("\ud800" <= char <= "\udfff" for char in text)
