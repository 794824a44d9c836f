"""The check that decides: llama.cpp's logits of the baked model times tau are the original's.

Runs a few random token ids through both files, one after the other, in a worker process. Knows arrays, bounds
and the verdict; does not know what was changed.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecal.errors import ModelError
from edgecal.gguf.split import shard_name
from edgecal.llama.settings import CaptureSettings
from edgecal.worker.process import DEFAULT_TIMEOUT_S, run_in_worker

__all__ = ["BakeCheck", "check_baked", "compare_logits", "compare_models"]

N_PROMPTS = 4
N_TOKENS = 8
MASKED = -1e30  # llama.cpp masks tokens with minus infinity or the least float32


@dataclass(frozen=True)
class BakeCheck:
    """How far the baked logits times tau are from the original's.

    rms, worst: root mean square and maximum of the difference over prompts and tokens, in units of each prompt's
    spread of logits; NaN where anything was not finite.
    """

    rms: float
    worst: float
    n_prompts: int

    def raise_if_refused(
        self, model: object, architecture: str, tau: float, bound: float, head_type: str
    ) -> None:
        """ModelError, with the measured and the allowed error, unless the rms is a number within `bound`."""
        if self.rms <= bound:
            return
        found = f"{self.rms:.3g} rms" if math.isfinite(self.rms) else "no finite numbers"
        raise ModelError(
            f"{model}: llama.cpp's baked logits times {tau:.6g} are not the original's (architecture {architecture}, "
            f"head {head_type}, {self.n_prompts} prompts): expected at most {bound:g} rms of their spread, "
            f"got {found}; nothing was written, let apps divide by edgecal.temperature instead"
        )


@dataclass(frozen=True)
class CompareRequest:
    """Two files to be run (of split models the first), and what the first one's logits are divided by."""

    original: str
    baked: str
    tau: float
    settings: CaptureSettings


def compare_logits(original: NDArray[np.float32], baked: NDArray[np.float32], tau: float) -> BakeCheck:
    """Compare logits, float32 [m, n_vocab] each, in units of each row's spread (of the original).

    Tokens that are masked in both are left out; one that is masked in one of them is no match (NaN), as are a
    row without spread and anything that is not finite.
    """
    shown = original > MASKED
    if not np.array_equal(shown, baked > MASKED):
        return BakeCheck(math.nan, math.nan, len(original))
    off = []
    for row, before, after in zip(shown, original, baked, strict=True):
        left = before[row].astype(np.float64)
        spread = left.std() if left.size else 0.0
        if not spread > 0 or not np.isfinite(after[row]).all():
            return BakeCheck(math.nan, math.nan, len(original))
        off.append((after[row].astype(np.float64) * tau - left) / spread)
    everything = np.concatenate(off) if off else np.full(1, np.nan)
    return BakeCheck(float(np.sqrt(np.mean(everything**2))), float(np.abs(everything).max()), len(original))


def check_baked(
    original: Sequence[Path],
    baked: Sequence[Path],
    tau: float,
    *,
    what: str,
    settings: CaptureSettings | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
) -> BakeCheck:
    """Run both models and compare; each is given as all its files in order, whatever these are called.

    Raises
    ------
    ModelError: llama.cpp cannot run one of them; `what` names the model.
    """
    settings = CaptureSettings() if settings is None else settings
    with tempfile.TemporaryDirectory(prefix="edgecal-") as name:
        folder = Path(name)
        before, after = _linked(folder / "original", original), _linked(folder / "baked", baked)
        request = CompareRequest(str(before), str(after), tau, settings)
        try:
            check: BakeCheck = run_in_worker(
                "edgecal.bake.check:compare_models", request, what=what, timeout_s=timeout_s
            )
        except ModelError as error:  # the names that llama.cpp was given are gone when this is read
            text = str(error).replace(str(before), what).replace(str(after), f"{what}, baked")
            raise ModelError(text) from None
        return check


def compare_models(request: CompareRequest, report: Callable[[Any], None]) -> BakeCheck:
    """The worker's side: load, run and free one model after the other."""
    original, baked = (
        np.concatenate(list(_logits(path, request.settings, report)))
        for path in (request.original, request.baked)
    )
    return compare_logits(original, baked, request.tau)


def _logits(
    path: str, settings: CaptureSettings, report: Callable[[Any], None]
) -> Iterator[NDArray[np.float32]]:
    from edgecal.llama.capture import capture
    from edgecal.llama.model import Model

    with Model(path, on_progress=report) as model:
        rng = np.random.default_rng(0)
        n_tokens = max(1, min(N_TOKENS, model.n_ctx_train))
        prompts = [rng.integers(0, model.n_vocab, n_tokens, dtype=np.int32) for _ in range(N_PROMPTS)]
        for chunk in capture(model, prompts, settings, hidden=False, progress=lambda *done: report(done)):
            yield chunk.logits


def _linked(folder: Path, paths: Sequence[Path]) -> Path:
    """Names that llama.cpp finds the files of a model by; the path of the first."""
    folder.mkdir()
    names = [shard_name("model", index, len(paths)) for index in range(len(paths))]
    if len(paths) == 1:
        names = ["model.gguf"]
    for name, path in zip(names, paths, strict=True):
        (folder / name).symlink_to(path.resolve())
    return folder / names[0]
