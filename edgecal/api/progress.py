"""How far a long run has got, for a progress display."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgecal.calibration import Look
    from edgecal.pair.model_capture import CaptureProgress

__all__ = ["OnProgress", "Progress", "on_observe"]


@dataclass(frozen=True)
class Progress:
    """How far a run has got.

    Attributes
    ----------
    stage: "load", "run" (prompts through a model), "permute" (prompts with permuted options), "generate"
        (stated confidence), "effects" (other prompts on a sample), "digest" (of a model's files, for the cache),
        "hash", "fit", "project", "look" (a temperature on the way), "judge", "write" or "compare" (of two files).
    model: "base", "chat", "model" or None.
    done, total: prompts for the stages that run a model and for "look", percent for "load", bytes for "digest",
        "hash", "write" and "compare", steps for "judge", else 0.
    n_tokens_done, n_tokens_total: tokens to compute in the stages that run a model (shared beginnings count once), else
        0.
    look: the temperature on the way, for "look".
    """

    stage: str
    model: str | None = None
    done: float = 0
    total: float = 0
    n_tokens_done: int = 0
    n_tokens_total: int = 0
    look: Look | None = None


OnProgress = Callable[[Progress], None]


def on_observe(
    on_progress: OnProgress | None, stage: str = "run"
) -> Callable[[str, CaptureProgress], None] | None:
    """Passes a worker's progress on, with its "run" stage renamed to `stage`."""
    if on_progress is None:
        return None

    def pass_on(role: str, seen: CaptureProgress) -> None:
        name = stage if seen.stage == "run" else seen.stage
        on_progress(Progress(name, role, seen.done, seen.total, seen.n_tokens_done, seen.n_tokens_total))

    return pass_on
