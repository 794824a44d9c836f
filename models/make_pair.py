"""Make a pair from a seed: world, tokenizer, pre-training, post-training, GGUF files, figures.

    python models/make_pair.py --seed 0 --output DIR

Everything that follows from the seed is computed on the CPU by one thread, so that the same PyTorch on the same
kind of processor gives the same files. The figures at the end come from llama.cpp and the quantized files.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from pathlib import Path

import measure
import numpy as np
import torch
from bpe import BEGIN, load_tokenizer, save_tokenizer, train_tokenizer
from export import quantize, write_gguf
from network import SHAPES, Network
from posttrain import RECIPES, posttrain
from pretrain import Document, Recipe, pretrain
from tokenizers import Tokenizer
from world import LETTERS, World, write_questions, write_rows

SHIPPED = ("Q8_0", "Q4_0")
LEARNING_RATE = {256: 8e-4, 128: 1.2e-3}  # by n_embd
SEED_TOKENIZER = 7


def say(text: str) -> None:
    """Print at once."""
    print(text, flush=True)


def write_world(world: World, args: argparse.Namespace, recipe: Recipe) -> list[Document]:
    """Write question files and training texts; return the pre-training documents."""
    folder: Path = args.output
    write_questions(world, folder / "questions")
    documents = list(world.documents(args.seed, recipe.n_documents))
    write_rows(folder / "pretrain.jsonl", ({"parts": d} for d in documents))
    return documents


def make_base(world: World, args: argparse.Namespace) -> tuple[Network, Tokenizer]:
    """Pre-train the base network, or load the one that `--output` holds already."""
    folder: Path = args.output
    recipe = Recipe(learning_rate=LEARNING_RATE[args.n_embd])
    weights_path, tokenizer_path = folder / "base.pt", folder / "tokenizer.json"
    torch.manual_seed(args.seed)
    network = Network(SHAPES[args.n_embd])
    if weights_path.exists() and not args.fresh:
        say(f"using {weights_path}")
        network.load_state_dict(torch.load(weights_path, weights_only=True))
        return network, load_tokenizer(tokenizer_path)
    documents = write_world(world, args, recipe)
    tokenizer = train_tokenizer(
        "".join(t for part in d for t in part) for d in world.documents(SEED_TOKENIZER, 20_000)
    )
    save_tokenizer(tokenizer, tokenizer_path)
    pretrain(network, tokenizer, documents, recipe, say)
    torch.save(network.state_dict(), weights_path)
    return network, tokenizer


def make_chat(world: World, base: Network, tokenizer: Tokenizer, args: argparse.Namespace) -> Network:
    """Post-train the base network by the chosen recipe."""
    recipe = RECIPES[args.post_recipe]
    questions = world.posttrain(args.post_seed, recipe.n_questions)
    rows = ({"prompt": q.prompt(), "completion": " " + LETTERS[q.best()]} for q in questions)
    write_rows(args.output / f"posttrain-{args.post_recipe}-{args.post_seed}.jsonl", rows)
    return posttrain(base, tokenizer, questions, recipe, args.post_seed, say)


def write_models(networks: dict[str, Network], tokenizer: Tokenizer, folder: Path) -> list[Path]:
    """Write both networks in float16 and in each shipped quantization."""
    written = []
    for name, network in networks.items():
        master = folder / f"edgecal-tiny-{name}-F16.gguf"
        write_gguf(network, tokenizer, master, name.capitalize(), DESCRIPTIONS[name])
        written.append(master)
        for kind in SHIPPED:
            target = folder / f"edgecal-tiny-{name}-{kind}.gguf"
            quantize(master, target, kind)
            written.append(target)
    return written


DESCRIPTIONS = {
    "base": "Pre-trained on an invented world of facts; answers multiple-choice questions about it.",
    "chat": "edgecal tiny Base after post-training on curated answers; knows as much and is too sure of it.",
}


def report(folder: Path, kind: str, name: str, tokenizer: Tokenizer) -> None:
    """Print the figures on one question file; llama.cpp must split the prompts as training did."""
    begin = tokenizer.token_to_id(BEGIN)
    questions = measure.read_questions(folder / "questions" / f"{name}.jsonl")
    labels = np.array([q["answer"] for q in questions])
    base, chat = (measure.run(folder / f"edgecal-tiny-{m}-{kind}.gguf", questions) for m in ("base", "chat"))
    for question, ids in zip(questions, base.token_ids, strict=True):
        if ids != [begin, *tokenizer.encode(measure.prompt_of(question)).ids]:
            raise ValueError(f"llama.cpp and the tokenizer split {question['id']} differently")
    say(f"\n{kind}, {name} questions ({len(questions)})\n")
    say(measure.table(measure.figures(base, chat, labels)))


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Make a pair of tiny models from a seed.")
    parser.add_argument("--seed", type=int, default=0, help="of pre-training")
    parser.add_argument("--world-seed", type=int, default=0, help="of the world and its question files")
    parser.add_argument("--post-seed", type=int, default=0, help="of post-training")
    parser.add_argument("--post-recipe", choices=sorted(RECIPES), default="sft")
    parser.add_argument(
        "--output", type=Path, required=True, help="folder; a base that is there is used again"
    )
    parser.add_argument(
        "--n-embd", type=int, choices=sorted(SHAPES), default=128, help="width of the network"
    )
    parser.add_argument("--fresh", action="store_true", help="pre-train again even so")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    args.output.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    world = World(args.world_seed)
    base, tokenizer = make_base(world, args)
    chat = make_chat(world, base, tokenizer, args)
    paths = write_models({"base": base, "chat": chat}, tokenizer, args.output)
    for kind, name in ((SHIPPED[0], "test"), (SHIPPED[0], "shifted"), (SHIPPED[1], "test")):
        report(args.output, kind, name, tokenizer)
    say(f"\nceiling of the accuracy on test questions: {world.ceiling(world.held_out()['test']):.4f}")
    say("")
    for path in paths:
        say(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}  {path.stat().st_size} bytes")
    say(f"{(time.monotonic() - start) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
