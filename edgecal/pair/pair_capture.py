"""Captures both models of a pair on the same questions, one after the other, each in a worker process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

import numpy as np

from edgecal.calibration import ChoiceLogits, doubt_mass
from edgecal.llama.machine import available_bytes
from edgecal.llama.settings import CaptureSettings
from edgecal.pair.model_capture import CaptureProgress, ModelCapture, mass_remedy, rather_says, warn_of_mass
from edgecal.pair.run import RunOptions, capture_model, check
from edgecal.prompts.orders import count_repeats
from edgecal.prompts.records import Prompt
from edgecal.worker import Worker

__all__ = ["PairCapture", "PairRunner", "capture_pair", "warn_of_repeats"]

# Memory that two loaded models need, as a multiple of their files' size. Weights are mapped, most of them are repacked
# into further memory, and caches and arrays come on top.
_LOADED_SHARE = 2.5


@dataclass(frozen=True)
class PairCapture:
    """The captures of both models for the same questions.

    Attributes
    ----------
    prompts: the base model's prompts, in the order of every array.
    chat_prompts: the chat model's prompts for the same questions: the same prompts, or each as a turn of a
        conversation.
    base, chat: each model's capture.
    logits: both models' choice logits, the input of a fit.
    settings: how llama.cpp was run.
    pair_warnings: the warnings of the pair check.
    """

    prompts: tuple[Prompt, ...]
    chat_prompts: tuple[Prompt, ...]
    base: ModelCapture
    chat: ModelCapture
    logits: ChoiceLogits
    settings: CaptureSettings
    pair_warnings: tuple[str, ...] = ()

    @property
    def choice_mass(self) -> dict[str, float]:
        """Each model's mean probability of all choice tokens together, over its whole vocabulary."""
        return {"base": float(self.base.choice_mass.mean()), "chat": float(self.chat.choice_mass.mean())}

    @property
    def mass_words(self) -> dict[str, str]:
        """The texts for `find_doubts` on what the base model prefers to the choices, and on the remedy."""
        return {"rather": rather_says(self.base), "remedy": mass_remedy(self.prompts)}

    def warnings(self, *, told: Sequence[str] = (), yardstick: bool = True) -> list[str]:
        """Returns the warnings about the pair, the prompts, models with a low choice mass, and both runs.

        told: doubts that the caller shows too, so that a low choice mass is not reported twice. yardstick: whether the
        base model serves as the reference.
        """
        texts = [*self.pair_warnings, *warn_of_repeats(self.prompts)]
        doubts = doubt_mass(self.choice_mass["base"], **self.mass_words) if yardstick else []
        texts.extend(doubts or warn_of_mass("the base model", self.base, self.prompts))
        texts.extend(warn_of_mass("the chat model", self.chat, self.prompts))
        texts = [text for text in texts if text not in told]
        return list(dict.fromkeys([*texts, *self.base.warnings, *self.chat.warnings]))


def warn_of_repeats(prompts: Sequence[Prompt]) -> list[str]:
    """Returns one warning if prompts repeat each other, otherwise none."""
    if n_repeats := count_repeats(prompts):
        return [
            f"{n_repeats} of {len(prompts)} prompts repeat another; each counts as a separate example, "
            "so the interval is narrower than it should be"
        ]
    return []


class PairRunner:
    """Runs a pair's models over the prompts, part by part; a context manager.

    If memory holds both models, they stay loaded between the parts; otherwise each part loads them again. They never
    compute at the same time, because one model uses every core.
    """

    def __init__(
        self,
        base_path: str,
        chat_path: str,
        *,
        layers: bool,
        hidden: bool = False,
        options: RunOptions,
        model_bytes: int | None = None,
        pair_warnings: Sequence[str] = (),
        on_progress: Callable[[str, CaptureProgress], None] | None = None,
    ) -> None:
        """`model_bytes`: size of both models' files, if there will be several parts; None: there is one part, and each
        model is freed before the other is loaded. The other parameters are as in `capture_pair`."""
        self._paths = {"base": base_path, "chat": chat_path}
        self._layers = layers
        self._hidden = hidden
        self._options = options
        self._pair_warnings = tuple(pair_warnings)
        self._on_progress = on_progress
        both_stay_loaded = model_bytes is not None and _LOADED_SHARE * model_bytes < available_bytes()
        self._workers = {role: Worker() for role in self._paths} if both_stay_loaded else {}
        self._captures: dict[str, ModelCapture] = {}

    def check(self, base_prompts: Sequence[Prompt], chat_prompts: Sequence[Prompt]) -> None:
        """Checks that the prompts fit both models before either runs, which can take an hour."""
        for role, prompts in (("chat", chat_prompts), ("base", base_prompts)):
            check(
                self._paths[role],
                role,
                prompts,
                options=self._options,
                on_progress=self._on_progress,
                worker=self._workers.get(role),
            )

    def run(self, base_prompts: Sequence[Prompt], chat_prompts: Sequence[Prompt]) -> None:
        """Runs further prompts; entry i of both lists is the same question."""
        for role, prompts in (("base", base_prompts), ("chat", chat_prompts)):
            capture = capture_model(
                self._paths[role],
                role,
                prompts,
                layers=self._layers,
                hidden=self._hidden,
                options=self._options,
                on_progress=self._on_progress,
                worker=self._workers.get(role),
            )
            self._captures[role] = self._captures[role].then(capture) if role in self._captures else capture

    def captured(
        self,
        base_prompts: Sequence[Prompt],
        chat_prompts: Sequence[Prompt],
        order: Sequence[int],
    ) -> PairCapture:
        """Returns the pair capture so far. Prompt i of the arguments was prompt order[i] of all that were run."""
        base, chat = (self._captures[role].ordered(order) for role in ("base", "chat"))
        logits = ChoiceLogits(
            base_final=base.final_logits,
            chat_final=chat.final_logits,
            base_layers=base.layer_logits,
            chat_layers=chat.layer_logits,
            n_choices=np.array([prompt.n_choices for prompt in base_prompts], dtype=np.int32),
            labels=np.array(
                [-1 if prompt.answer is None else prompt.answer for prompt in base_prompts], dtype=np.int32
            ),
        )
        return PairCapture(
            tuple(base_prompts),
            tuple(chat_prompts),
            base,
            chat,
            logits,
            self._options.settings,
            self._pair_warnings,
        )

    def close(self) -> None:
        """Ends the models' processes; may be called again."""
        for worker in self._workers.values():
            worker.close()

    def __enter__(self) -> PairRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def capture_pair(
    base_path: str,
    chat_path: str,
    prompts: Sequence[Prompt],
    *,
    chat_prompts: Sequence[Prompt] | None = None,
    layers: bool,
    hidden: bool = False,
    options: RunOptions,
    pair_warnings: Sequence[str] = (),
    on_progress: Callable[[str, CaptureProgress], None] | None = None,
) -> PairCapture:
    """Runs the base model, then the chat model; the two are never in memory together.

    Parameters
    ----------
    base_path, chat_path: GGUF files; of a split model, the first shard.
    prompts: at least one.
    chat_prompts: the chat model's prompts for the same questions; None: the same prompts.
    layers: also capture every block's residual stream and project it onto the choice tokens.
    hidden: also return the last block's hidden states (`last_hidden` of both captures); needs `layers`.
    options: how the models are run.
    pair_warnings: the warnings of the pair check, stored in the result.
    on_progress: called with "base" or "chat" and the progress.

    Raises
    ------
    InputError: a prompt does not fit a model.
    ModelError: a model could not be run.
    """
    if chat_prompts is None:
        chat_prompts = prompts
    with PairRunner(
        base_path,
        chat_path,
        layers=layers,
        hidden=hidden,
        options=options,
        pair_warnings=pair_warnings,
        on_progress=on_progress,
    ) as runner:
        runner.check(prompts, chat_prompts)
        runner.run(prompts, chat_prompts)
        return runner.captured(prompts, chat_prompts, range(len(prompts)))
