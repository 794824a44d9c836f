"""`edgecal.capture`: captures both models' choice logits for the same questions; every method can be fitted on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgecal.api.progress import OnProgress, on_observe

if TYPE_CHECKING:
    from edgecal.pair.pair_capture import PairCapture
    from edgecal.pair.run import RunOptions
    from edgecal.prompts import Prompt

__all__ = ["capture"]


def capture(
    base: str | Path,
    chat: str | Path,
    prompts: Sequence[Prompt],
    *,
    chat_prompts: Sequence[Prompt] | None = None,
    layers: bool = True,
    hidden: bool = False,
    run: RunOptions | None = None,
    on_progress: OnProgress | None = None,
) -> PairCapture:
    """Checks a pair and runs both models; every method can then be fitted on `.logits`.

    Parameters
    ----------
    base, chat, run, on_progress: as in `fit`.
    prompts: as `load_prompts` gives them.
    chat_prompts: the chat model's prompts for the same questions; None: the same prompts.
    layers: also capture the layers, which a process loss needs.
    hidden: also return the last block's hidden states (`.base.last_hidden`, `.chat.last_hidden`); needs `layers`.

    Returns
    -------
    A `PairCapture`; the warnings of the pair check are among its `warnings()`.

    Raises
    ------
    InputError: the files do not form a pair, or a prompt does not fit a model.
    ModelError: a model could not be run, or the lens does not fit it.
    """
    from edgecal.gguf.shards import find_shards
    from edgecal.pair.compatibility import check_pair
    from edgecal.pair.pair_capture import capture_pair
    from edgecal.pair.run import RunOptions

    base_shards, chat_shards = find_shards(Path(base)), find_shards(Path(chat))
    pair_warnings = check_pair(base_shards, chat_shards, layers=layers)

    return capture_pair(
        str(base_shards.path),
        str(chat_shards.path),
        prompts,
        chat_prompts=chat_prompts,
        layers=layers,
        hidden=hidden and layers,
        options=run or RunOptions(),
        pair_warnings=pair_warnings,
        on_progress=on_observe(on_progress),
    )
