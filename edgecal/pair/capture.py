"""Runs both models of a pair over the same prompts, one after the other, each in a worker process.

Does not know losses or temperatures. Packing, caching and running both at once will grow here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from edgecal.calibration import ChoiceLogits
from edgecal.llama.settings import CaptureSettings
from edgecal.pair.observe import Observation, ObserveProgress, ObserveRequest
from edgecal.prompts.digest import count_repeats
from edgecal.prompts.model import Prompt
from edgecal.worker import run_in_worker
from edgecal.worker.process import DEFAULT_TIMEOUT_S

__all__ = ["PairCapture", "capture_pair"]

_MASS_WARNING = 0.5


@dataclass(frozen=True)
class PairCapture:
    """What both models say about the same prompts.

    Attributes
    ----------
    prompts: the prompts, in the order of every array.
    base, chat: each model's observation.
    logits: both models' choice logits, as the fit wants them.
    settings: how llama.cpp was run.
    pair_warnings: what was odd about the pair before it ran.
    """

    prompts: tuple[Prompt, ...]
    base: Observation
    chat: Observation
    logits: ChoiceLogits
    settings: CaptureSettings
    pair_warnings: tuple[str, ...] = ()

    @property
    def choice_mass(self) -> dict[str, float]:
        """Mean probability that each model puts on the choice tokens, among its whole vocabulary."""
        return {"base": float(self.base.choice_mass.mean()), "chat": float(self.chat.choice_mass.mean())}

    def warnings(self) -> list[str]:
        """What was odd about the pair and the prompts, and which model would rather say something else than a
        choice."""
        found = list(self.pair_warnings)
        if n_repeats := count_repeats(self.prompts):
            found.append(
                f"{n_repeats} of {len(self.prompts)} prompts repeat another; each counts as an example of its own, "
                "so the interval is narrower than it should be"
            )
        for role, seen in (("base", self.base), ("chat", self.chat)):
            mass = float(seen.choice_mass.mean())
            if mass < _MASS_WARNING or 2 * seen.n_outside > len(self.prompts):
                rather = f", most often {seen.outside_token!r}" if seen.outside_token is not None else ""
                found.append(
                    f"the {role} model puts only {mass:.1%} of its probability on the choice tokens and would "
                    f"rather say something else on {seen.n_outside} of {len(self.prompts)} prompts{rather}; "
                    "its confidence among the choices may mean little (try another --template)"
                )
        return found


def capture_pair(
    base_path: str,
    chat_path: str,
    prompts: Sequence[Prompt],
    *,
    layers: bool,
    settings: CaptureSettings,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    pair_warnings: Sequence[str] = (),
    on_progress: Callable[[str, ObserveProgress], None] | None = None,
) -> PairCapture:
    """Runs the base model, then the chat model; the two are never in memory together.

    Parameters
    ----------
    base_path, chat_path: GGUF files, the first shard where a model is split.
    prompts: at least one.
    layers: also capture every block's residual stream and project it onto the choice tokens.
    settings: how llama.cpp is run.
    timeout_s: seconds without a sign of life after which a run counts as hung.
    pair_warnings: what the pair check found, to be kept with the result.
    on_progress: called with "base" or "chat" and the progress.

    Raises
    ------
    InputError: a prompt does not fit a model.
    ModelError: a model could not be run.
    """
    requests = {
        role: ObserveRequest(path, f"the {role} model {path}", tuple(prompts), layers, settings)
        for role, path in (("base", base_path), ("chat", chat_path))
    }

    def run(function: str, role: str) -> Any:
        return run_in_worker(
            f"edgecal.pair.observe:{function}",
            requests[role],
            what=requests[role].name,
            on_progress=None if on_progress is None else partial(on_progress, role),
            timeout_s=timeout_s,
        )

    run("check_prompts", "chat")  # before the base model runs, which can take an hour
    seen: dict[str, Observation] = {role: run("observe_model", role) for role in requests}
    logits = ChoiceLogits(
        base_final=seen["base"].final_logits,
        chat_final=seen["chat"].final_logits,
        base_layers=seen["base"].layer_logits,
        chat_layers=seen["chat"].layer_logits,
        n_choices=np.array([prompt.n_choices for prompt in prompts], dtype=np.int32),
        labels=np.array(
            [-1 if prompt.answer is None else prompt.answer for prompt in prompts], dtype=np.int32
        ),
    )
    return PairCapture(tuple(prompts), seen["base"], seen["chat"], logits, settings, tuple(pair_warnings))
