"""`edgecal bake` divides a temperature into a model's weights; `edgecal unbake` takes it out again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from edgecal.cli.options import ANY_PATH, llama_options

if TYPE_CHECKING:
    from edgecal.results import BakeResult, UnbakeResult

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
    """Divide the logits of FILE by its temperature, so that every program that runs it gets calibrated logits.

    Nothing is re-quantized: only the final norm, a scale or a cap changes. The originals are kept in the new file, and
    edgecal unbake restores FILE byte for byte.
    """
    from edgecal.baking.bake import bake
    from edgecal.cli.options import gather_settings
    from edgecal.cli.result_forms import show_warnings
    from edgecal.gguf.shards import find_shards
    from edgecal.stamping.decision_export import warn_of_export
    from edgecal.stamping.shown import show

    _check_target(output, in_place)
    show_warnings(warn_of_export(find_shards(file).header), quiet=False)
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
    show_warnings(show(result.output).warnings, quiet=False)
    sampling = result.sampling_temperature
    rows = [
        ("temperature", f"{result.temperature:.4g}, divided into the logits of this file"),
        ("changed", ", ".join(result.changed)),
        ("check", _describe_check(result)),
        ("sampling", "no default" if sampling is None else f"{sampling:.4g}, the author's"),
    ]
    _show(result, rows, as_json)


def _describe_check(result: BakeResult) -> str:
    if result.error is None:
        return f"not made (head {result.head_type})"
    return (
        f"logits within {result.plain:.2g} rms of the spread, {result.error:.1g} of it not by rounding "
        f"({result.allowed:.2g} allowed, head {result.head_type})"
    )


@click.command("unbake", short_help="Restore the file that was baked, byte for byte.")
@click.argument("file", type=ANY_PATH)
@click.option("--output", "-o", type=ANY_PATH, metavar="FILE", help="The restored file.")
@click.option("--in-place", is_flag=True, help="Replace FILE itself.")
@click.option("--force", is_flag=True, help="Overwrite an existing output.")
@click.option(
    "--keep-edits",
    is_flag=True,
    help="Undo only the baking, and keep later edits of FILE.",
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
    """Restore, byte for byte, the file that FILE was baked from. FILE itself holds what this needs."""
    from edgecal.baking.bake import unbake

    _check_target(output, in_place)
    result = unbake(file, output, in_place=in_place, force=force, keep_edits=keep_edits, verify=verify)
    exact = "byte for byte the original" if result.exact else "not the original: later edits were kept"
    _show(result, [("restored", exact)], as_json)


def _show(result: BakeResult | UnbakeResult, rows: Sequence[tuple[str, str]], as_json: bool) -> None:
    """Prints a result as JSON, or `rows` and where it was written."""
    from edgecal.cli.stdio import printable, printing
    from edgecal.cli.tables import print_plain, two_columns

    with printing(f"; {result.output} is complete"):
        if as_json:
            click.echo(json.dumps(result.to_dict(), allow_nan=False))
            return
        table = two_columns()
        for name, said in (*rows, ("output", result.output)):
            table.add_row(name, printable(said))
        for sibling in result.siblings:
            table.add_row("", f"{printable(sibling['path'])} ({sibling['how']})")
        print_plain(table)
