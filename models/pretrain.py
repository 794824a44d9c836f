"""Pre-training: next-token prediction on the world's text, from random weights, on a CPU.

Documents are packed into rows of equal length, each row starting with the begin token and each document ending
with the end token. Every document is seen once. The loss is the mean over tokens of the negative log-likelihood,
weighted by what a token is: answers count most, the words of a question and its options least.
It does not know how the text came about, nor what is done with the network afterwards.
A run that keeps a checkpoint can be stopped at any moment: it goes on from there and ends in the same weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from bpe import BEGIN, END
from network import Network
from tokenizers import Tokenizer

WEIGHT_ANSWER, WEIGHT_STATEMENT, WEIGHT_PROMPT = 8.0, 1.0, 0.2


@dataclass(frozen=True)
class Recipe:
    """How to pre-train. A step is one batch of `n_rows` rows of `n_tokens` tokens.

    The learning rate rises over `warmup` steps, stays for 30 % of the training and falls linearly to
    `final_rate` of itself.
    """

    n_documents: int = 150_000
    n_rows: int = 24
    n_tokens: int = 96
    learning_rate: float = 1.2e-3
    warmup: int = 100
    final_rate: float = 0.05
    weight_decay: float = 0.02


Document = list[list[str]]
Encoded = tuple[list[int], list[float]]


def encode(tokenizer: Tokenizer, documents: Iterable[Document]) -> Iterator[Encoded]:
    """Token ids and loss weights of each document, with the end token."""
    end = tokenizer.token_to_id(END)
    for document in documents:
        ids: list[int] = []
        weights: list[float] = []
        for text, answer in document:
            asked = tokenizer.encode(text).ids
            said = tokenizer.encode(answer).ids
            ids += asked + said
            weights += [WEIGHT_PROMPT if answer else WEIGHT_STATEMENT] * len(asked) + [WEIGHT_ANSWER] * len(
                said
            )
        yield [*ids, end], [*weights, WEIGHT_PROMPT]


def pack(encoded: Iterable[Encoded], n_tokens: int, begin: int, look_ahead: int = 256) -> Iterator[Encoded]:
    """Rows of n_tokens + 1 ids, filled from a short queue of documents, and padded with weight 0.

    A row starts with the oldest document that waits; then it takes the longest that still fits. Documents that
    do not fit a row alone are left out.
    """
    source = (e for e in encoded if len(e[0]) <= n_tokens)
    queue: list[Encoded] = []
    while True:
        for item in source:
            queue.append(item)
            if len(queue) >= look_ahead:
                break
        if not queue:
            return
        ids, weights = [begin], [0.0]
        item = queue.pop(0)
        while True:
            ids += item[0]
            weights += item[1]
            room = n_tokens + 1 - len(ids)
            fitting = [(len(e[0]), -i) for i, e in enumerate(queue) if len(e[0]) <= room]
            if not fitting:
                break
            item = queue.pop(-max(fitting)[1])
        padding = n_tokens + 1 - len(ids)
        yield ids + [begin] * padding, weights + [0.0] * padding


def batches(rows: Iterable[Encoded], n_rows: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Ids [n_rows, n_tokens + 1] and weights of the same shape; an incomplete last batch is dropped."""
    chunk: list[Encoded] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == n_rows:
            yield torch.tensor([r[0] for r in chunk]), torch.tensor([r[1] for r in chunk])
            chunk = []


def weighted_loss(network: Network, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted mean of the next-token loss in nats, the products computed in bfloat16."""
    wanted = weights[:, 1:] > 0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network.head(network(ids[:, :-1])[wanted])
    loss = F.cross_entropy(logits.float(), ids[:, 1:][wanted], reduction="none")
    w = weights[:, 1:][wanted]
    return (loss * w).sum() / w.sum()


def save_whole(value: object, path: Path) -> None:
    """`torch.save`, but a file that is there under its name is always complete."""
    partial = path.with_name(path.name + ".partial")
    torch.save(value, partial)
    partial.replace(path)


@dataclass(frozen=True)
class Keep:
    """What a run keeps on disk: a checkpoint every `every_s` seconds, and its weights on the way.

    `snapshots` names a file for each share of the steps (1.0 is the end) after which the weights are saved.
    """

    checkpoint: Path
    snapshots: Mapping[float, Path]
    every_s: float


def pretrain(
    network: Network,
    tokenizer: Tokenizer,
    documents: Sequence[Document],
    recipe: Recipe,
    report: Callable[[str], None] = print,
    keep: Keep | None = None,
) -> None:
    """Train `network` in place on `documents`, in their order."""
    begin = tokenizer.token_to_id(BEGIN)
    rows = list(pack(encode(tokenizer, documents), recipe.n_tokens, begin))
    n_steps = len(rows) // recipe.n_rows
    report(f"{len(documents)} documents, {len(rows)} rows, {n_steps} steps")
    optimizer = _optimizer(network, recipe)
    first = _resume(network, optimizer, keep)
    if first:
        report(f"going on after step {first}")
    snapshots = {round(share * n_steps): path for share, path in keep.snapshots.items()} if keep else {}
    recent: list[float] = []
    start = saved = time.monotonic()
    left = rows[first * recipe.n_rows :]
    for step, (ids, weights) in enumerate(batches(left, recipe.n_rows), start=first):
        decay = 1 - (1 - recipe.final_rate) * max(0.0, (step / n_steps - 0.3) / 0.7)
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * min(1.0, (step + 1) / recipe.warmup) * decay
        optimizer.zero_grad(set_to_none=True)
        loss = weighted_loss(network, ids, weights)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        recent.append(loss.item())
        if (step + 1) % 100 == 0:
            seconds = time.monotonic() - start
            report(f"step {step + 1}/{n_steps}  loss {np.mean(recent):.4f}  {seconds:.0f} s")
            recent = []
        if step + 1 in snapshots:
            save_whole(network.state_dict(), snapshots[step + 1])
        if keep and time.monotonic() - saved > keep.every_s:
            state = {"step": step + 1, "network": network.state_dict(), "optimizer": optimizer.state_dict()}
            save_whole(state, keep.checkpoint)
            saved = time.monotonic()


def _optimizer(network: Network, recipe: Recipe) -> torch.optim.Optimizer:
    blocks = [p for n, p in network.named_parameters() if p.dim() == 2 and n.startswith("blocks")]
    others = [p for n, p in network.named_parameters() if not (p.dim() == 2 and n.startswith("blocks"))]
    groups: list[dict[str, Any]] = [
        {"params": blocks, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98))


def _resume(network: Network, optimizer: torch.optim.Optimizer, keep: Keep | None) -> int:
    """Steps that the checkpoint has behind it, its state put back; 0 if there is none."""
    if keep is None or not keep.checkpoint.exists():
        return 0
    state = torch.load(keep.checkpoint, weights_only=True)
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])
