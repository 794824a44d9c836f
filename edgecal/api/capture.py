"""`edgecal.capture`: both models' choice logits for the same questions, for every method to be fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgecal.api.progress import OnProgress, on_observe
from edgecal.errors import InputError

if TYPE_CHECKING:
    from edgecal.llama.settings import CaptureSettings
    from edgecal.pair.capture import PairCapture
    from edgecal.pair.run import RunOptions
    from edgecal.prompts import Prompt

__all__ = ["capture", "settle_run"]


def settle_run(settings: CaptureSettings | None, timeout_s: float | None, cache: bool) -> RunOptions:
    """How models are run, with defaults for None; InputError for a timeout that is not above 0."""
    from edgecal.cache import default_cache_folder
    from edgecal.llama.settings import CaptureSettings
    from edgecal.pair.run import RunOptions
    from edgecal.worker.process import DEFAULT_TIMEOUT_S

    timeout_s = DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s
    if not timeout_s > 0:  # also not a number
        raise InputError(f"the timeout must be above 0 seconds, got {timeout_s}")
    return RunOptions(
        CaptureSettings() if settings is None else settings,
        timeout_s,
        default_cache_folder() if cache else None,
    )


def capture(
    base: str | Path,
    chat: str | Path,
    prompts: Sequence[Prompt],
    *,
    chat_prompts: Sequence[Prompt] | None = None,
    layers: bool = True,
    settings: CaptureSettings | None = None,
    timeout_s: float | None = None,
    cache: bool = True,
    on_progress: OnProgress | None = None,
) -> PairCapture:
    """Checks a pair and runs both models; every method can then be fitted on `.logits`.

    Parameters
    ----------
    base, chat, settings, timeout_s, cache, on_progress: as in `fit`.
    prompts: as `load_prompts` gives them.
    chat_prompts: what the chat model is given instead, question by question; None: the same.
    layers: also capture the layers, which methods with a process loss need.

    Returns
    -------
    A `PairCapture`; the warnings of the pair check are among its `warnings()`.

    Raises
    ------
    InputError: the files are no pair for this, or a prompt does not fit a model.
    ModelError: a model could not be run, or the lens does not fit it.
    """
    from edgecal.gguf import find_shards
    from edgecal.pair.capture import capture_pair
    from edgecal.pair.check import check_pair

    options = settle_run(settings, timeout_s, cache)
    base_shards, chat_shards = find_shards(Path(base)), find_shards(Path(chat))
    pair_warnings = check_pair(base_shards, chat_shards, layers=layers)

    return capture_pair(
        str(base_shards.path),
        str(chat_shards.path),
        prompts,
        chat_prompts=chat_prompts,
        layers=layers,
        options=options,
        pair_warnings=pair_warnings,
        on_progress=on_observe(on_progress),
    )
