"""`edgecal bake` and `edgecal unbake`: a temperature into a model's own weights, and back."""

from __future__ import annotations

import json
from typing import Any

import click

from edgecal.cli.options import ANY_PATH, llama_options

__all__ = ["bake_command", "unbake_command"]


def _check_target(output: str | None, in_place: bool) -> None:
    if (output is None) != in_place:
        raise click.UsageError("give either --output or --in-place")


@click.command("bake", short_help="Divide a model's logits by its temperature, in its own weights.")
@click.argument("file", type=ANY_PATH)
@click.option("--output", "-o", type=ANY_PATH, metavar="FILE", help="The new file.")
@click.option("--in-place", is_flag=True, help="Replace FILE itself.")
@click.option(
    "--temperature",
    type=click.FloatRange(min=0, min_open=True),
    metavar="X",
    help="Divide by X.  [default: the file's edgecal.temperature]",
)
@click.option("--force", is_flag=True, help="Overwrite an existing output.")
@click.option(
    "--check/--no-check",
    default=True,
    show_default=True,
    help="Run both files in llama.cpp and compare their logits before anything is written.",
)
@click.option("--verify", is_flag=True, help="Compare all other tensor data with FILE's, byte by byte.")
@llama_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def bake_command(
    file: str,
    output: str | None,
    in_place: bool,
    temperature: float | None,
    force: bool,
    check: bool,
    verify: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Divide the logits of FILE by its temperature, so that every program that runs it has calibrated ones.

    Nothing is re-quantized: the final norm, a scale or a cap changes. The originals are kept in the new file, and
    edgecal unbake restores FILE byte for byte.
    """
    from pathlib import Path

    from edgecal.baking.bake import bake
    from edgecal.cli.options import gather_settings
    from edgecal.cli.showing import show_warnings
    from edgecal.cli.streams import printing
    from edgecal.gguf.header import read_header
    from edgecal.stamping.record import read_doubts

    _check_target(output, in_place)
    result = bake(
        file,
        output,
        temperature=temperature,
        in_place=in_place,
        force=force,
        check=check,
        verify=verify,
        settings=gather_settings(values),
        timeout_s=values["timeout"],
    )
    show_warnings(read_doubts(read_header(Path(result.output))), quiet=False)
    with printing(f"; {result.output} is complete"):
        if as_json:
            click.echo(json.dumps(result.to_dict(), allow_nan=False))
            return
        from edgecal.cli.streams import printable
        from edgecal.cli.tables import print_plain, two_columns

        table = two_columns()
        table.add_row("temperature", f"{result.temperature:.4g}, divided into the logits of this file")
        table.add_row("changed", printable(", ".join(result.changed)))
        checked = f"not made (head {result.head_type})"
        if result.error is not None:
            checked = f"logits within {result.plain:.2g} rms of the spread, {result.error:.1g} of it not by rounding"
            checked += f" ({result.allowed:.2g} allowed, head {result.head_type})"
        table.add_row("check", checked)
        sampling = result.sampling_temperature
        table.add_row("sampling", "no default" if sampling is None else f"{sampling:.4g}, the author's")
        table.add_row("output", printable(result.output))
        for sibling in result.siblings:
            table.add_row("", f"{printable(sibling['path'])} ({sibling['how']})")
        print_plain(table)


@click.command("unbake", short_help="Restore the file that was baked, byte for byte.")
@click.argument("file", type=ANY_PATH)
@click.option("--output", "-o", type=ANY_PATH, metavar="FILE", help="The restored file.")
@click.option("--in-place", is_flag=True, help="Replace FILE itself.")
@click.option("--force", is_flag=True, help="Overwrite an existing output.")
@click.option(
    "--keep-edits",
    is_flag=True,
    help="FILE was edited after baking: take only the baking back and leave the edits.",
)
@click.option("--verify", is_flag=True, help="Compare all other tensor data with FILE's, byte by byte.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def unbake_command(
    file: str,
    output: str | None,
    in_place: bool,
    force: bool,
    keep_edits: bool,
    verify: bool,
    as_json: bool,
) -> None:
    """Restore the file that FILE was baked from, byte for byte, from what is kept in FILE."""
    from edgecal.baking.bake import unbake
    from edgecal.cli.streams import printing

    _check_target(output, in_place)
    result = unbake(file, output, in_place=in_place, force=force, keep_edits=keep_edits, verify=verify)
    with printing(f"; {result.output} is complete"):
        if as_json:
            click.echo(json.dumps(result.to_dict(), allow_nan=False))
            return
        from edgecal.cli.streams import printable
        from edgecal.cli.tables import print_plain, two_columns

        table = two_columns()
        exact = "byte for byte the original" if result.exact else "not the original: later edits were kept"
        table.add_row("restored", exact)
        table.add_row("output", printable(result.output))
        for sibling in result.siblings:
            table.add_row("", f"{printable(sibling['path'])} ({sibling['how']})")
        print_plain(table)
