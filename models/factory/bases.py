"""Base models of the small pairs: pre-training runs, each with the weights that it had on the way.

A run is made from its seeds by one thread and can be stopped at any moment: it goes on from a checkpoint that is at
most half a minute old. It does not know what is done with the weights afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from bpe import load_tokenizer, save_tokenizer, train_tokenizer
from network import Network, Shape
from pretrain import Keep, Recipe, pretrain
from tokenizers import Tokenizer
from world import World

SEED_TOKENIZER = 7
N_TOKENIZER_DOCUMENTS = 20_000
EVERY_S = 30.0  # between checkpoints


@dataclass(frozen=True)
class BaseRun:
    """One pre-training. `stops` are the shares of its steps after which its weights are kept; 1.0 is the end."""

    name: str
    world_seed: int
    seed: int
    shape: Shape
    recipe: Recipe
    stops: tuple[float, ...] = (0.6, 0.75, 1.0)


def weights_path(folder: Path, run: BaseRun, stop: float) -> Path:
    """Where the weights after `stop` of the steps lie."""
    return folder / run.name / f"base-{round(100 * stop):03d}.pt"


def make_base(
    folder: Path, run: BaseRun, stop: float, say: Callable[[str], None] = print
) -> tuple[Network, Tokenizer]:
    """The network after `stop` of the run's steps, trained as far as it is not on disk yet, and its tokenizer."""
    if stop not in run.stops:
        raise ValueError(f"{run.name} is kept after {run.stops} of its steps, not after {stop}")
    home = folder / run.name
    home.mkdir(parents=True, exist_ok=True)
    network = Network(run.shape)
    path, tokenizer_path = weights_path(folder, run, stop), home / "tokenizer.json"
    if not path.exists():
        _train(folder, run, say)
    network.load_state_dict(torch.load(path, weights_only=True))
    return network, load_tokenizer(tokenizer_path)


def _train(folder: Path, run: BaseRun, say: Callable[[str], None]) -> None:
    """Every snapshot of the run."""
    home = folder / run.name
    world = World(run.world_seed)
    texts = (
        "".join(t for part in d for t in part) for d in world.documents(SEED_TOKENIZER, N_TOKENIZER_DOCUMENTS)
    )
    tokenizer = train_tokenizer(texts, run.shape.n_vocab)
    save_tokenizer(tokenizer, home / "tokenizer.json")
    torch.manual_seed(run.seed)
    network = Network(run.shape)
    stops = {stop: weights_path(folder, run, stop) for stop in run.stops}
    keep = Keep(home / "checkpoint.pt", stops, EVERY_S)
    documents = list(world.documents(run.seed, run.recipe.n_documents))
    pretrain(network, tokenizer, documents, run.recipe, lambda text: say(f"{run.name}: {text}"), keep)
    keep.checkpoint.unlink(missing_ok=True)
