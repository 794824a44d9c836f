"""A loaded model whose probabilities are calibrated by what its file says.

Renders questions as `edgecal fit` does, finds labels' tokens by the same rules, and divides logits once. Does not
know how the temperature was found, nor how models are loaded (`load`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from edgecal.errors import InputError
from edgecal.runtime.answer import Answer, Finish, GeneratedToken, Generation
from edgecal.runtime.arguments import check_generation, check_share, holds_half_a_character, listed
from edgecal.runtime.forks import check_not_forked
from edgecal.runtime.logits import check_causal, context_size, extend, log_softmax, start

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgecal.gguf.header import Header
    from edgecal.prompts import Prompt, PromptTemplate
    from edgecal.stamping.record import FileCalibration

__all__ = ["Model"]


class Model:
    """A language model that says how sure it is; made by `edgecal.load`. A context manager that frees it.

    Threads: a model answers one question at a time. Its methods may be called from any thread and wait for each
    other; nothing gets faster by more threads. An app that uses `llama` directly beside them holds `lock` while
    it does. For answers at the same time load the model once in each process: after a fork, since a model that was
    loaded before it raises InputError in the child, and cannot be pickled.

    The same model, prompt and options give the same numbers, whatever ran before. That needs every prompt to be
    run whole: nothing is kept from one question to the next.

    Attributes
    ----------
    path: the file (of a split model the first shard).
    calibration: what the file says about its calibration, with `.kind` ("stamped", "baked" or "none") and
        `.sentence` for people.
    temperature: what this object divides the file's logits by: the file's temperature; 1.0 where it is baked
        into the weights, and where there is none.
    llama: the plain `llama_cpp.Llama`, for everything else. What it returns is not calibrated (unless the file is
        baked), and it samples at its own temperatures.
    lock: re-entrant; held by the methods.
    """

    def __init__(self, llama: Any, header: Header, calibration: FileCalibration) -> None:
        """Takes over a loaded `llama_cpp.Llama` of the file with this header, and closes it in the end.

        Raises
        ------
        ModelError: it is no causal language model; it is closed then.
        """
        from edgecal.llama.library import load_library
        from edgecal.llama.tokenizer import Tokenizer

        self.path: Path = header.path
        self._llama = llama
        self._process = os.getpid()
        self.calibration: FileCalibration = calibration
        self.temperature: float = calibration.divisor
        # Dividing a baked file's logits by this gives those of the original.
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

        The question is rendered as `edgecal fit` and `edgecal eval` render it, the choices lettered A, B, ... in
        the order given. The confidence is as honest as the fit: for questions like those it was fitted on, put
        in the same way.

        Parameters
        ----------
        question: the text. In it, the choices and the subject nothing becomes a special token, whatever they spell.
        choices: 2 to 26 distinct texts.
        template: a built-in template's name, Jinja text, the path of a Jinja file, or a `PromptTemplate`; None:
            "default". See `edgecal.prompts.resolve_template`. A file is read at each call.
        subject: for templates that name one.
        chat_template: "own" (the template in the model's file) or the path of a Jinja file: ask in a turn of a
            conversation; None: plain text. Ask as the temperature was fitted.
        min_confidence: 0 to 1; with a lower confidence the answer is marked `abstained`. `threshold_for` finds
            one for a wanted accuracy.

        Raises
        ------
        InputError: the question, a template or an option is wrong, a label is no single token, or the prompt is
            longer than the context.
        ModelError: llama.cpp failed.
        """
        from edgecal.prompts import Prompting, Question, parse_record, resolve_chat_template

        check_share(min_confidence)
        record = parse_record(
            {"question": question, "choices": listed(choices), "subject": subject}, "the question"
        )
        assert isinstance(record, Question)
        prompting = Prompting(template, chat_template=resolve_chat_template(chat_template, self._header))
        return self._answer(prompting.render_question(record).chat, record.choices, min_confidence)

    def confidence(
        self, prompt: str, labels: Sequence[str], *, min_confidence: float | None = None
    ) -> Answer:
        """Which of some continuations comes next, with calibrated probabilities.

        Parameters
        ----------
        prompt: taken verbatim; special tokens that it spells become those tokens, and BOS is added where the
            model wants one.
        labels: 2 to 26 texts, each that of one token as it follows the prompt, such as " yes" and " no".
        min_confidence: as in `choose`.

        Raises
        ------
        InputError, ModelError: as in `choose`.
        """
        from edgecal.prompts import Prompt, parse_record

        check_share(min_confidence)
        record = parse_record({"prompt": prompt, "labels": listed(labels)}, "the prompt")
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
        """Goes on from a prompt, with the calibrated log-probability of each token.

        At each step the log-probabilities are the log of the softmax, over the whole vocabulary, of the file's
        logits divided by the calibration's temperature. What was calibrated: the temperature was fitted on the
        letters of multiple-choice answers. What was not: free text. There the numbers are on the same scale and
        comparable with each other, but nobody has measured that a token of 0.8 is right in 8 of 10 cases.

        Parameters
        ----------
        prompt: verbatim, as in `confidence`; with a chat template, what the user says, in which nothing becomes a
            special token. So what an app's users write is to be asked with a chat template.
        max_tokens: at least 1.
        sampling: 0 takes the most probable token (a tie: the lowest id). 1 draws from the calibrated
            distribution, s from the softmax of its log-probabilities divided by s. Nothing is cut off; a calibration
            of 2 to 4 makes prose drawn at 1 wild, and 1 / `temperature` draws as the undivided logits would.
        seed: of the draws, 0 to 2^64 - 1.
        stop: texts that end the text where they come.
        n_top: so many of the most probable tokens are given at each place.
        chat_template: as in `choose`.

        Raises
        ------
        InputError: an option is wrong, or the prompt and one more token do not fit the context.
        ModelError: llama.cpp failed.
        """
        check_generation(max_tokens, sampling, seed, stop, n_top)
        asked = self._verbatim(prompt, chat_template)
        with self._turn():
            tokens = self._tokenizer.prompt_tokens(asked)
            return self._go_on(tokens, max_tokens, sampling, seed, tuple(stop), n_top)

    def _go_on(
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
            logits = start(self.llama, resolved.tokens, prompt.source)
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
        )

    def _verbatim(self, text: str, chat_template: str | Path | None) -> Prompt:
        from edgecal.prompts import Prompt, Prompting, resolve_chat_template

        if not isinstance(text, str) or not text:
            raise InputError("the prompt must be a text that is not empty")
        if holds_half_a_character(text):
            raise InputError("the prompt holds half a character (a lone surrogate), which is no text")
        prompt = Prompt(text=text, labels=(), source="the prompt")
        prompting = Prompting(chat_template=resolve_chat_template(chat_template, self._header))
        return prompting.render_prompt(prompt).chat

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """The model for oneself, if it can be used here. (In a forked process the lock may be held by nobody.)"""
        check_not_forked(self._process, self.path)
        with self.lock:
            if self._closed or not self._llama.ctx:
                raise InputError(f"{self.path}: the model has been closed; load it again")
            yield

    def close(self) -> None:
        """Frees the model, after the question that is being answered; again is harmless, and so is a forked process,
        whose copy goes with it."""
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
            f"{self.path}: a loaded model can be neither pickled nor copied; hand over its path, and load it "
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
