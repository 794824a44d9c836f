"""`edgecal stamp`, `strip`, `set` and `unset`: `edgecal.stamping` works out and writes an edit, and this shows it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import click

from edgecal.cli.options import ANY_PATH
from edgecal.errors import InputError, UnsettledError

if TYPE_CHECKING:
    from edgecal.stamping.edit import Edit, Place

__all__ = [
    "editing_options",
    "named_place",
    "repair",
    "set_command",
    "stamp_command",
    "strip_command",
    "unset_command",
    "write_edit",
]

Command = TypeVar("Command", bound=Callable[..., Any])


def editing_options(command: Command) -> Command:
    """Adds the options of every editing command: where the result goes, and how it is checked and shown."""
    for option in reversed(
        (
            click.option("--output", "-o", type=ANY_PATH, metavar="FILE", help="Write a new file."),
            click.option("--in-place", is_flag=True, help="Change FILE itself."),
            click.option("--force", is_flag=True, help="Overwrite an existing --output."),
            click.option(
                "--verify",
                is_flag=True,
                help="Also check, byte by byte, that the tensor data are unchanged.",
            ),
            click.option("--json", "as_json", is_flag=True, help="Print what was done as one JSON object."),
            click.option("--quiet", "-q", is_flag=True, help="No progress, no warnings, no table."),
        )
    ):
        command = option(command)
    return command


@click.command("stamp", short_help="Write a temperature into a GGUF file.")
@click.argument("file", type=ANY_PATH)
@click.option(
    "--temperature", type=float, metavar="X", help="The temperature to write.  [default: the fit's]"
)
@click.option(
    "--from",
    "source",
    type=ANY_PATH,
    metavar="FILE",
    help="Also record where it comes from: FILE is what `edgecal fit --json` printed; - is standard input.",
)
@click.option("--no-sampling-key", is_flag=True, help="Write only edgecal.* keys, not general.sampling.temp.")
@click.option(
    "--force-baked", is_flag=True, help="Stamp FILE even if its weights already hold a temperature."
)
@click.option(
    "--unsettled",
    is_flag=True,
    help="Stamp FILE even if the result of --from is unsettled or harmful, and mark it as such.",
)
@editing_options
def stamp_command(
    file: str,
    temperature: float | None,
    source: str | None,
    no_sampling_key: bool,
    force_baked: bool,
    unsettled: bool,
    **options: Any,
) -> None:
    """Write a temperature into FILE (of a split model, the first shard), as `edgecal fit` does.

    Needs --output or --in-place. A sampling temperature already in FILE is kept, and `edgecal strip` restores it. A
    result that `edgecal fit` refused is refused here too (exit code 4).
    """
    from edgecal.cli.stdio import say
    from edgecal.stamping.edit import plan_stamp
    from edgecal.stamping.fit_record import read_result

    place = named_place(options)
    if temperature is None and source is None:
        raise click.UsageError("give --temperature, or a fit's result with --from")
    fit: Any = read_result("-", _stdin()) if source == "-" else source
    repair(file, options)
    try:
        edit = plan_stamp(
            file,
            place,
            temperature=temperature,
            fit=fit,
            sampling_key=not no_sampling_key,
            force_baked=force_baked,
            unsettled=unsettled,
        )
    except UnsettledError as error:
        for reason in error.warnings:
            say(f"refused: {reason}")
        raise
    write_edit(edit, options)
    if edit.temperature is not None and not (no_sampling_key or options["as_json"] or options["quiet"]):
        from edgecal.cli.stdio import printing
        from edgecal.cli.tables import sampling_sentence

        with printing():
            click.echo("\n" + sampling_sentence(edit.temperature))


@click.command("strip", short_help="Remove everything that edgecal wrote from a GGUF file.")
@click.argument("file", type=ANY_PATH)
@editing_options
def strip_command(file: str, **options: Any) -> None:
    """Remove every edgecal.* key from FILE and restore its author's sampling temperature.

    Needs --output or --in-place. The result is byte for byte the file from before it was stamped.
    """
    from edgecal.stamping.edit import plan_strip

    place = named_place(options)
    repair(file, options)
    write_edit(plan_strip(file, place), options)


@click.command(
    "set",
    short_help="Set any metadata key of a GGUF file.",
    context_settings={"ignore_unknown_options": True},  # so that -1 can be a value
)
@click.argument("file", type=ANY_PATH)
@click.argument("key")
@click.argument("type_name", metavar="TYPE")
@click.argument("value", required=False)
@click.option("--value-from", type=ANY_PATH, metavar="FILE", help="Read VALUE from this file, verbatim.")
@editing_options
def set_command(
    file: str, key: str, type_name: str, value: str | None, value_from: str | None, **options: Any
) -> None:
    """Set KEY to VALUE in FILE. An existing key keeps its position; a new one follows the last.

    Needs --output or --in-place. TYPE is a GGUF type: uint8 to uint64, int8 to int64, float32, float64, bool,
    string, or an array of one with its items as JSON: 'array[float32]' '[1, 2.5]'.
    """
    from edgecal.stamping.edit import plan_set
    from edgecal.stamping.fit_record import read_text

    place = named_place(options)
    if (value is None) == (value_from is None):
        raise click.UsageError("give VALUE, or a file that holds it with --value-from (not both)")
    text, inputs = str(value), []
    if value_from is not None:
        text = read_text(value_from, _stdin() if value_from == "-" else None, keep=True)
        inputs = [Path(value_from)]
    repair(file, options)
    write_edit(plan_set(file, place, key, type_name, text, inputs), options)


@click.command("unset", short_help="Remove metadata keys from a GGUF file.")
@click.argument("file", type=ANY_PATH)
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@editing_options
def unset_command(file: str, keys: tuple[str, ...], **options: Any) -> None:
    """Remove KEYs from FILE. Needs --output or --in-place."""
    from edgecal.stamping.edit import plan_unset

    place = named_place(options)
    repair(file, options)
    write_edit(plan_unset(file, place, keys), options)


def named_place(options: Mapping[str, Any]) -> Place:
    """The place that the values of `editing_options` name; UsageError unless it is exactly one."""
    from edgecal.stamping.edit import Place

    output, in_place = options["output"], options["in_place"]
    if (output is None) != bool(in_place):
        raise click.UsageError(
            "give --output FILE for a new file, or --in-place to change FILE itself"
            + (" (not both)" if in_place else "")
        )
    if in_place and options["force"]:
        raise click.UsageError("--force overwrites an existing --output; --in-place does not need it")
    return Place(output, in_place, options["force"], options["verify"])


def repair(file: str, options: Mapping[str, Any]) -> None:
    """Finish or undo an edit of FILE that was interrupted, and say so."""
    from edgecal.cli.stdio import say
    from edgecal.gguf.inplace.journal import recover

    repaired = recover(Path(file))
    if repaired is not None and not options["quiet"]:
        say(repaired)


def _stdin() -> BinaryIO:
    if sys.stdin is None:
        raise InputError("standard input is closed; give a file")
    return sys.stdin.buffer


def write_edit(edit: Edit, options: Mapping[str, Any]) -> None:
    """Says what the edit warns of, writes it, and prints what was done.

    Raises
    ------
    OutputError: the file or standard output cannot be written.
    """
    from edgecal.cli.diff import change_lines
    from edgecal.cli.progress import show_bytes
    from edgecal.cli.result_forms import show_warnings
    from edgecal.cli.stdio import printable, printing

    show_warnings(edit.warnings, quiet=options["quiet"])
    with show_bytes("write", edit.plan.shards.header.file_size, quiet=options["quiet"]) as progress:
        done = edit.write(progress)
    with printing(f"; {done.output} is complete"):
        if options["as_json"]:
            click.echo(json.dumps(done.to_dict(), allow_nan=False))
        elif not options["quiet"]:
            lines = change_lines(done.keys) or ["nothing to change"]
            verified = ", tensor data compared" if done.verified else ""
            place = "changed in place" if done.in_place else "written"
            lines.append(f"{printable(done.output)}: {place}{verified}")
            lines += [f"{printable(item['path'])}: {item['how']}" for item in done.siblings]
            click.echo("\n".join(lines))
