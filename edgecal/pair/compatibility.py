"""Checks whether two model files are a base model and its chat model, from their headers alone, before anything runs.

Also warns of a model that does not fit into free memory.
"""

from __future__ import annotations

import re
from pathlib import Path

from edgecal.architectures import why_no_layers
from edgecal.errors import InputError
from edgecal.gguf.header import Header
from edgecal.gguf.model_checks import check_model, compare_vocabularies
from edgecal.gguf.shards import ShardSet
from edgecal.llama.machine import available_bytes

__all__ = ["check_not_itself", "check_pair", "count_blocks", "warn_of_memory"]

_CHAT_NAME = re.compile(
    r"(?:^|[-_ .])(?:instruct|chat|it|rlhf|dpo|sft|assistant)(?:$|[-_ .0-9])", re.IGNORECASE
)


def check_not_itself(base: ShardSet, chat: ShardSet) -> None:
    """Raises InputError if two files, or two names of one file, hold the same model."""
    from edgecal.gguf.diff import same_model

    if same_model(base, chat):
        raise InputError(
            f"{base.path} and {chat.path} are the same model, and a model cannot be fitted against itself; give the "
            "base model that the chat model was made from"
        )


def check_pair(base: ShardSet, chat: ShardSet, *, layers: bool) -> list[str]:
    """Checks that two models can be compared.

    Parameters
    ----------
    base, chat: the two models' files.
    layers: the method compares hidden layers. Then both models must have the same depth, and vocabularies that agree
        except for added special tokens; without layers, differences only give warnings.

    Returns
    -------
    Warnings, each one line.

    Raises
    ------
    InputError: a file is not a model that predicts tokens; or `layers`, and the two models do not match or their
        layers cannot be read.
    """
    for shards in (base, chat):
        check_model(shards.header)
        reason = why_no_layers(shards.header.architecture or "", shards.header.get)
        if layers and reason is not None:
            raise InputError(
                f"{shards.path}: the layers of the architecture {shards.header.architecture} cannot be used: {reason}; "
                "use --method daca, which needs only outputs"
            )
    warnings = warn_of_memory(base, chat)
    differences = _differences(base.header, chat.header)
    if differences and layers:
        raise InputError(
            f"{base.path} and {chat.path} do not match: {differences[0]}; process alignment compares the two models "
            "layer by layer, so use the base model that the chat model was made from, or --method daca, which "
            "needs only their outputs"
        )
    if layers and (n_blocks := count_blocks(base.header)) < 2:
        raise InputError(
            f"{base.path} and {chat.path} have {n_blocks} block each: process alignment needs at least 2, to find "
            "where the models diverge; use --method daca"
        )
    warnings.extend(
        f"the models do not match: {difference}; is {base.path.name} the base model of {chat.path.name}?"
        for difference in differences
    )
    if base.path.samefile(chat.path):
        warnings.append("base and chat are the same file, so no overconfidence can be found")
    elif reasons := _chat_signs(base.header, base.path):
        warnings.append(
            f"the base model {base.path.name} looks like a chat model ({' and '.join(reasons)}); "
            "a post-trained reference is overconfident itself"
        )
    return warnings


def warn_of_memory(*models: ShardSet) -> list[str]:
    """Returns one warning for each model that does not fit into free memory."""
    free = available_bytes()
    return [
        f"{shards.path.name} has {shards.n_bytes / 1e9:.1f} GB, but only {free / 1e9:.1f} GB of memory are free: parts "
        "of it will be read from disk repeatedly; free some memory, or use a smaller quantization"
        for shards in models
        if shards.n_bytes > free
    ]


def count_blocks(header: Header) -> int:
    """Counts the blocks that the model runs for a token: `block_count` less those for multi-token prediction, times the
    number of loops over them."""

    def number(name: str, default: int) -> int:
        value = header.get(f"{header.architecture}.{name}", default)
        return value if isinstance(value, int) else default

    loops = number("num_loops", 1) if header.architecture == "nanbeige" else 1
    return loops * (number("block_count", 0) - number("nextn_predict_layers", 0))


def _differences(base: Header, chat: Header) -> list[str]:
    differences = []
    if base.architecture != chat.architecture:
        differences.append(f"architecture {base.architecture} (base) and {chat.architecture} (chat)")
    if (n_base := count_blocks(base)) != (n_chat := count_blocks(chat)):
        differences.append(f"{n_base} blocks (base) and {n_chat} blocks (chat)")
    widths = [header.get(f"{header.architecture}.embedding_length") for header in (base, chat)]
    if widths[0] != widths[1]:
        differences.append(f"embeddings of {widths[0]} (base) and {widths[1]} (chat) numbers")
    match = compare_vocabularies(base, chat)
    if not match.equal:
        differences.append(match.reason)
    return differences


def _chat_signs(header: Header, path: Path) -> list[str]:
    signs = []
    if "tokenizer.chat_template" in header:
        signs.append("it holds a chat template")
    name = header.get("general.name")
    finetune = header.get("general.finetune")
    if isinstance(finetune, str) and _CHAT_NAME.search(finetune):
        signs.append(f"its general.finetune is {finetune!r}")
    elif isinstance(name, str) and _CHAT_NAME.search(name):
        signs.append(f"its name is {name!r}")
    elif _CHAT_NAME.search(path.stem):
        signs.append(f"its file is named {path.name}")
    return signs
