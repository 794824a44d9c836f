"""`edgecal diff`: what differs between two GGUF files. Exit code 0 if nothing does, 1 if something does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from edgecal.results.model_files import Difference, FilesCompared

__all__ = ["EXIT_DIFFERENT", "change_lines", "diff_command"]

EXIT_DIFFERENT = 1  # as for diff and cmp

_SIGNS = {"added": "+", "removed": "-", "changed": "~"}


@click.command("diff", short_help="Show the keys and tensors that differ between two GGUF files.")
@click.argument("a", type=click.Path())
@click.argument("b", type=click.Path())
@click.option("--keys-only", is_flag=True, help="Compare only the headers; read no tensor data.")
@click.option("--hashes", is_flag=True, help="Print the SHA-256 of the data of every tensor that differs.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, including these hashes.")
@click.option("--quiet", "-q", is_flag=True, help="Print nothing: the exit code says whether they differ.")
def diff_command(a: str, b: str, keys_only: bool, hashes: bool, as_json: bool, quiet: bool) -> int:
    """Show the keys and tensors that differ between A and B, two GGUF files (for a split model, the first shard).

    \b
    Exit codes, as for diff: 0 nothing differs, 1 something does, 2 a file cannot be read.
    """
    from pathlib import Path

    from edgecal.cli.progress import show_bytes
    from edgecal.cli.stdio import printable, printing, say
    from edgecal.gguf.diff import diff_models
    from edgecal.gguf.inplace.journal import recover
    from edgecal.gguf.shards import find_shards

    if as_json and quiet:
        raise click.UsageError("--json and --quiet exclude each other")
    if hashes and (keys_only or quiet):
        raise click.UsageError(f"--hashes and {'--keys-only' if keys_only else '--quiet'} exclude each other")
    for path in (a, b):
        repaired = recover(Path(path))
        if repaired is not None and not quiet:
            say(repaired)
    first, second = find_shards(Path(a)), find_shards(Path(b))
    n_bytes = 0 if keys_only else first.n_bytes + second.n_bytes
    hashes = (hashes or as_json) and not keys_only
    with show_bytes("compare", n_bytes, quiet=quiet) as progress:
        found = diff_models(first, second, data=not keys_only, hashes=hashes, progress=progress)
    keys, tensors = ([item.to_dict() for item in items] for items in (found.keys, found.tensors))
    with printing():
        if as_json:
            values: FilesCompared = {
                "a": a,
                "b": b,
                "equal": found.equal,
                "data_compared": not keys_only,
                "keys": keys,
                "tensors": tensors,
                "n_same_keys": found.n_same_keys,
                "n_same_tensors": found.n_same_tensors,
                "notes": list(found.notes),
            }
            click.echo(json.dumps(values, allow_nan=False))
        elif not quiet:
            compared = "equal in the headers, data not compared" if keys_only else "equal"
            lines = [*change_lines(keys), *change_lines(tensors)]
            lines += [f"note: {note}" for note in found.notes]
            lines.append(
                f"{found.n_same_keys} keys equal, {len(keys)} differ; "
                f"{found.n_same_tensors} tensors {compared}, {len(tensors)} differ"
            )
            click.echo("\n".join(printable(line) for line in lines))
    return 0 if found.equal else EXIT_DIFFERENT


def change_lines(items: Sequence[Difference]) -> list[str]:
    """One line for each difference: a sign, the name, and what each side has."""
    from edgecal.cli.stdio import printable

    width = min(max((len(printable(item["name"])) for item in items), default=0), 48)
    lines = []
    for item in items:
        said = " -> ".join(text for text in (item["before"], item["after"]) if text is not None)
        if "at_byte" in item:
            said = f"{item['after']}, data differ from byte {item['at_byte']} on"
        lines.append(f"{_SIGNS[item['change']]} {printable(item['name']):{width}}  {printable(said)}")
        hashes = [item.get("sha256_before"), item.get("sha256_after")]
        lines += [f"  {sign} sha256 {digest}" for sign, digest in zip("-+", hashes, strict=True) if digest]
    return lines
