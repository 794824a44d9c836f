"""Runs both models of a pair over the same questions, one after the other, each in a worker process.

Does not know losses or temperatures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType

import numpy as np

from edgecal.calibration import ChoiceLogits, doubt_mass
from edgecal.llama.machine import available_bytes
from edgecal.llama.settings import CaptureSettings
from edgecal.pair.choice_mass import mass_remedy, rather_says, warn_of_mass
from edgecal.pair.model_capture import CaptureProgress, ModelCapture
from edgecal.pair.run import RunOptions, capture_model, check
from edgecal.prompts.orders import count_repeats
from edgecal.prompts.records import Prompt
from edgecal.worker import Worker

__all__ = ["PairCapture", "PairRunner", "capture_pair", "warn_of_repeats"]

# What two loaded models take, in sizes of their files, with room for caches.
_LOADED_SHARE = 2.5


@dataclass(frozen=True)
class PairCapture:
    """What both models say about the same prompts.

    Attributes
    ----------
    prompts: what the base model was given, in the order of every array.
    chat_prompts: what the chat model was given for the same questions: the same prompts, or each as a turn of a
        conversation.
    base, chat: each model's observation.
    logits: both models' choice logits, as the fit wants them.
    settings: how llama.cpp was run.
    pair_warnings: what was odd about the pair before it ran.
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
        """Mean probability that each model puts on the choice tokens, among its whole vocabulary."""
        return {"base": float(self.base.choice_mass.mean()), "chat": float(self.chat.choice_mass.mean())}

    @property
    def mass_words(self) -> dict[str, str]:
        """What the base model says instead of a choice, and what would mend that, for `find_doubts`."""
        return {"rather": rather_says(self.base), "remedy": mass_remedy(self.prompts)}

    def warnings(self, *, told: Sequence[str] = (), yardstick: bool = True) -> list[str]:
        """What was odd about the pair and the prompts, and which model would rather say something else than a choice.

        told: doubts that are shown beside these, so that a low choice mass is not said twice. yardstick: whether the
        base model is one for what is done with this.
        """
        found = [*self.pair_warnings, *warn_of_repeats(self.prompts)]
        doubts = doubt_mass(self.choice_mass["base"], **self.mass_words) if yardstick else []
        found.extend(doubts or warn_of_mass("the base model", self.base, self.prompts))
        found.extend(warn_of_mass("the chat model", self.chat, self.prompts))
        found = [text for text in found if text not in told]
        return list(dict.fromkeys([*found, *self.base.warnings, *self.chat.warnings]))


def warn_of_repeats(prompts: Sequence[Prompt]) -> list[str]:
    """One warning if prompts repeat each other, else none."""
    if n_repeats := count_repeats(prompts):
        return [
            f"{n_repeats} of {len(prompts)} prompts repeat another; each counts as an example of its own, "
            "so the interval is narrower than it should be"
        ]
    return []


class PairRunner:
    """Runs a pair's models over prompts, part by part; a context manager.

    Both stay loaded between the parts if memory holds both; else each part loads them again. They never compute at
    the same time: one model takes every core.
    """

    def __init__(
        self,
        base_path: str,
        chat_path: str,
        *,
        layers: bool,
        options: RunOptions,
        model_bytes: int | None = None,
        pair_warnings: Sequence[str] = (),
        on_progress: Callable[[str, CaptureProgress], None] | None = None,
    ) -> None:
        """`model_bytes`: of both models' files, where parts are to come; None: there is one part, and each model is
        gone before the other is loaded. The other parameters are as in `capture_pair`."""
        self._paths = {"base": base_path, "chat": chat_path}
        self._layers = layers
        self._options = options
        self._pair_warnings = tuple(pair_warnings)
        self._on_progress = on_progress
        # Weights are mapped and most of them repacked beside that; caches and arrays come on top.
        keeps = model_bytes is not None and _LOADED_SHARE * model_bytes < available_bytes()
        self._workers = {role: Worker() for role in self._paths} if keeps else {}
        self._seen: dict[str, ModelCapture] = {}

    def check(self, base_prompts: Sequence[Prompt], chat_prompts: Sequence[Prompt]) -> None:
        """Checks that prompts fit both models, before one of them runs, which can take an hour."""
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
        """Runs further prompts, question by question the same for both models."""
        for role, prompts in (("base", base_prompts), ("chat", chat_prompts)):
            seen = capture_model(
                self._paths[role],
                role,
                prompts,
                layers=self._layers,
                options=self._options,
                on_progress=self._on_progress,
                worker=self._workers.get(role),
            )
            self._seen[role] = self._seen[role].then(seen) if role in self._seen else seen

    def captured(
        self,
        base_prompts: Sequence[Prompt],
        chat_prompts: Sequence[Prompt],
        order: Sequence[int],
    ) -> PairCapture:
        """What was seen so far. Prompt i of those given here was prompt order[i] of all that were run."""
        base, chat = (self._seen[role].ordered(order) for role in ("base", "chat"))
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
        """Ends the models' processes; again is harmless."""
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
    options: RunOptions,
    pair_warnings: Sequence[str] = (),
    on_progress: Callable[[str, CaptureProgress], None] | None = None,
) -> PairCapture:
    """Runs the base model, then the chat model; the two are never in memory together.

    Parameters
    ----------
    base_path, chat_path: GGUF files, the first shard where a model is split.
    prompts: at least one.
    chat_prompts: what the chat model is given instead, question by question; None: the same.
    layers: also capture every block's residual stream and project it onto the choice tokens.
    options: how the models are run.
    pair_warnings: what the pair check found, to be kept with the result.
    on_progress: called with "base" or "chat" and the progress.

    Raises
    ------
    InputError: a prompt does not fit a model.
    ModelError: a model could not be run.
    """
    given = prompts if chat_prompts is None else chat_prompts
    with PairRunner(
        base_path,
        chat_path,
        layers=layers,
        options=options,
        pair_warnings=pair_warnings,
        on_progress=on_progress,
    ) as runner:
        runner.check(prompts, given)
        runner.run(prompts, given)
        return runner.captured(prompts, given, range(len(prompts)))
