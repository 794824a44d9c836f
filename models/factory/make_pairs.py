"""Make the pairs of the benchmark: base and chat models by many recipes, and what both say on the same questions.

    python models/factory/make_pairs.py                    # all that are not stored yet, into bench/pairs
    python models/factory/make_pairs.py --list
    python models/factory/make_pairs.py --only NAME,NAME --output DIR

A pair that is stored with a recipe's settings is not made again, and a run that was stopped goes on where it was: base
models are trained once and from checkpoints, and a file that is there under its name is complete. A recipe whose models
or data are not on this machine is left out, with the reason.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from factory import real, small
from factory.recipe import NotHereError, PairRecipe, Say
from factory.store import check_file, is_stored, store_pair

ROOT = Path(__file__).resolve().parents[2]
RECIPES: tuple[PairRecipe, ...] = (*small.RECIPES, *real.RECIPES)


def choose(recipes: Sequence[PairRecipe], only: str | None) -> list[PairRecipe]:
    """The recipes that `--only` names, in its order; all without it."""
    if only is None:
        return list(recipes)
    known = {recipe.name: recipe for recipe in recipes}
    names = [name.strip() for name in only.split(",") if name.strip()]
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"no recipe is called {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    return [known[name] for name in names]


def make_pairs(recipes: Sequence[PairRecipe], work: Path, output: Path, say: Say) -> list[PairRecipe]:
    """Make and store what `output` does not hold yet; returns the recipes that were left out."""
    left_out = []
    for recipe in recipes:
        target = output / f"{recipe.name}.npz"
        if is_stored(target, recipe):
            say(f"{recipe.name}: stored already")
            continue
        say(f"{recipe.name}: {recipe.base}; {recipe.words}")
        start = time.monotonic()
        try:
            made = recipe.make(work, say)
        except NotHereError as reason:
            say(f"{recipe.name}: left out, {reason}")
            left_out.append(recipe)
            continue
        store_pair(target, recipe, made)
        check_file(target)
        say(f"{recipe.name}: {target.stat().st_size // 1000} kB, {time.monotonic() - start:.0f} s")
    return left_out


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Make the pairs of the benchmark.")
    parser.add_argument("--only", metavar="NAME,...", help="these pairs, in this order")
    parser.add_argument("--list", action="store_true", help="say what the recipes are, and make nothing")
    parser.add_argument(
        "--output", type=Path, default=ROOT / "bench/pairs", help="folder of the stored pairs"
    )
    parser.add_argument(
        "--work", type=Path, default=ROOT / "models/build/factory", help="folder of models and checkpoints"
    )
    args = parser.parse_args(arguments)
    try:
        recipes = choose(RECIPES, args.only)
    except ValueError as error:
        parser.error(str(error))
    if args.list:
        for recipe in recipes:
            stored = "stored" if is_stored(args.output / f"{recipe.name}.npz", recipe) else "not stored"
            print(f"{recipe.name}  ({recipe.kind}, {stored})\n    {recipe.base}; {recipe.words}")
        return 0
    left_out = make_pairs(recipes, args.work, args.output, lambda text: print(text, flush=True))
    return 1 if left_out and args.only else 0


if __name__ == "__main__":
    sys.exit(main())
