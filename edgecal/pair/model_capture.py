"""One model's capture and the request for it, as plain values that are sent between processes, and what a low choice
mass in it means: what the model would rather say than a choice, and what may help.

Whether a fit is refused for that reason is decided in `calibration`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecal.llama.settings import CaptureSettings
from edgecal.prompts import Prompt, holds_worked_examples

__all__ = [
    "CaptureProgress",
    "CaptureRequest",
    "ModelCapture",
    "mass_remedy",
    "rather_says",
    "warn_of_mass",
    "widen",
]


@dataclass(frozen=True)
class CaptureRequest:
    """A request to capture one model on some prompts.

    Attributes
    ----------
    path: the file, the first shard of a split model.
    name: how messages name the model.
    prompts: at least one.
    layers: capture the layers too.
    settings: how llama.cpp is run.
    cache_folder: the folder of cached captures; None: no cache.
    hidden: return the last block's hidden states too; needs `layers`.
    """

    path: str
    name: str
    prompts: tuple[Prompt, ...]
    layers: bool
    settings: CaptureSettings
    cache_folder: Path | None = None
    hidden: bool = False


@dataclass(frozen=True)
class CaptureProgress:
    """The progress of a run.

    Attributes
    ----------
    stage: "digest" (hashing the model's files, in bytes), "load" (in percent) or "run" (in prompts).
    done, total: in the stage's unit.
    n_tokens_done, n_tokens_total: tokens computed in the stage "run"; shared prefixes count once.
    """

    stage: str
    done: float
    total: float
    n_tokens_done: int = 0
    n_tokens_total: int = 0


@dataclass(frozen=True)
class ModelCapture:
    """One model's capture: its logits of the choices for n prompts with at most k_max choices.

    Attributes
    ----------
    final_logits: float32 [n, k_max], llama.cpp's own logits of the choice tokens, padded with -inf.
    layer_logits: float32 [n, n_layer, k_max] by the logit lens, or None if not requested.
    choice_mass: float64 [n], the probability of all choice tokens together, over the whole vocabulary.
    outside: for each prompt, the text of the most probable token if that is not a choice ("" where the model has no
        tokenizer), otherwise None.
    lens_errors: float64 [n], mean square error of the re-projected last block over the logits' spread; None without
        layers.
    n_tokens: tokens of all prompts.
    llama_cpp, system_info: versions and processor features in use.
    peak_memory_bytes: largest resident size of the process, the mapped file included.
    warnings: problems of the run that do not stop it (such as an unusable cache), one line each.
    last_hidden: float32 [n, n_embd], the last block's hidden states, several streams merged; None if not requested.
    token_counts: int64 [n, 2], each prompt's tokens, and those after what it has in common with the prompt before it.
    """

    final_logits: NDArray[np.float32]
    layer_logits: NDArray[np.float32] | None
    choice_mass: NDArray[np.float64]
    outside: tuple[str | None, ...]
    lens_errors: NDArray[np.float64] | None
    n_tokens: int
    llama_cpp: str
    system_info: str
    peak_memory_bytes: int
    warnings: tuple[str, ...] = ()
    last_hidden: NDArray[np.float32] | None = None
    token_counts: NDArray[np.int64] | None = None

    @property
    def n_outside(self) -> int:
        """Number of prompts whose most probable token is not a choice."""
        return sum(text is not None for text in self.outside)

    @property
    def outside_token(self) -> str | None:
        """The most frequent of those tokens, on a tie the first; None if there is none, or no tokenizer."""
        counts = Counter(text for text in self.outside if text)
        return counts.most_common(1)[0][0] if counts else None

    @property
    def lens_error(self) -> float | None:
        """Rms error of the re-projected last block, as a share of the logits' spread; None without layers."""
        return None if self.lens_errors is None else float(np.sqrt(self.lens_errors.mean()))

    def then(self, other: ModelCapture) -> ModelCapture:
        """Appends the same model's capture of further prompts."""
        k_max = max(self.final_logits.shape[1], other.final_logits.shape[1])
        layers = lens = hidden = counts = None
        if self.layer_logits is not None and other.layer_logits is not None:
            layers = np.concatenate([widen(self.layer_logits, k_max), widen(other.layer_logits, k_max)])
        if self.lens_errors is not None and other.lens_errors is not None:
            lens = np.concatenate([self.lens_errors, other.lens_errors])
        if self.last_hidden is not None and other.last_hidden is not None:
            hidden = np.concatenate([self.last_hidden, other.last_hidden])
        if self.token_counts is not None and other.token_counts is not None:
            counts = np.concatenate([self.token_counts, other.token_counts])
        return replace(
            self,
            final_logits=np.concatenate([widen(self.final_logits, k_max), widen(other.final_logits, k_max)]),
            layer_logits=layers,
            choice_mass=np.concatenate([self.choice_mass, other.choice_mass]),
            outside=self.outside + other.outside,
            lens_errors=lens,
            n_tokens=self.n_tokens + other.n_tokens,
            peak_memory_bytes=max(self.peak_memory_bytes, other.peak_memory_bytes),
            warnings=tuple(dict.fromkeys((*self.warnings, *other.warnings))),
            last_hidden=hidden,
            token_counts=counts,
        )

    def ordered(self, order: Sequence[int]) -> ModelCapture:
        """Returns the capture with its prompts in another order: entry i is the former entry order[i]."""
        indices = np.asarray(order, dtype=np.int64)
        return replace(
            self,
            final_logits=self.final_logits[indices],
            layer_logits=None if self.layer_logits is None else self.layer_logits[indices],
            choice_mass=self.choice_mass[indices],
            outside=tuple(self.outside[index] for index in order),
            lens_errors=None if self.lens_errors is None else self.lens_errors[indices],
            last_hidden=None if self.last_hidden is None else self.last_hidden[indices],
            token_counts=None if self.token_counts is None else self.token_counts[indices],
        )


def widen(logits: NDArray[np.float32], k_max: int) -> NDArray[np.float32]:
    """Pads the last axis of logits to k_max choices with minus infinity."""
    missing = k_max - logits.shape[-1]
    widths = [(0, 0)] * (logits.ndim - 1) + [(0, missing)]
    return np.pad(logits, widths, constant_values=-np.inf) if missing else logits


_LEAST = 0.5


def rather_says(capture: ModelCapture) -> str:
    """Returns a clause, to be appended, on how often a model prefers a token that is none of the choices; empty if
    never."""
    if not capture.n_outside:
        return ""
    often = f", most often {capture.outside_token!r}" if capture.outside_token is not None else ""
    n_prompts = len(capture.choice_mass)
    return f" and would rather say something else on {capture.n_outside} of {n_prompts} prompts{often}"


def mass_remedy(prompts: Sequence[Prompt]) -> str:
    """Returns advice that makes a base model put more probability on the choices. Worked examples are advised only if
    these prompts do not have them yet."""
    are_rendered = _are_rendered(prompts)
    if 2 * sum(map(holds_worked_examples, prompts)) > len(prompts):
        other = (
            "try more of them (--shots) or another --template"
            if are_rendered
            else "try labels that the model tends to answer with"
        )
        return (
            f"the prompts already have worked examples, so {other}, fit on gold answers (--anchor), or take "
            "another base model"
        )
    where = "before each question (--shots 5)" if are_rendered else "in the prompts"
    return f"worked examples {where} usually help"


def warn_of_mass(
    name: str, capture: ModelCapture, prompts: Sequence[Prompt], *, divided: bool = False
) -> list[str]:
    """Returns one warning if a model puts little probability on the choices or mostly prefers another token.

    `divided`: the weights contain a temperature, which spreads probability over the whole vocabulary. Then only the
    most probable token counts.
    """
    mass = float(capture.choice_mass.mean())
    if (divided or mass >= _LEAST) and 2 * capture.n_outside <= len(capture.choice_mass):
        return []
    hint = "another --template" if _are_rendered(prompts) else "other labels, or prompts that ask for them"
    return [
        f"{name} puts only {mass:.1%} of its probability on the choice tokens{rather_says(capture)}; its confidence "
        f"among the choices may mean little (try {hint})"
    ]


def _are_rendered(prompts: Sequence[Prompt]) -> bool:
    """Whether most prompts were rendered with a template. Options such as --shots and --template do not apply to
    ready-made prompts."""
    return 2 * sum(not prompt.labels_verbatim for prompt in prompts) > len(prompts)
