"""`edgecal stamp`, `strip`, `set` and `unset`: editing the metadata of a GGUF file.

Options in, edits worked out, written and shown. What an edit may do to a file is decided in `edgecal.gguf`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgecal.cli.options import ANY_PATH
from edgecal.errors import InputError, UnsettledError

if TYPE_CHECKING:
    from edgecal.gguf.output import OutputPlan
    from edgecal.gguf.shards import ShardSet
    from edgecal.gguf.values import Value
    from edgecal.stamping.record import CalibrationRecord

__all__ = ["set_command", "stamp_command", "strip_command", "unset_command"]

Command = TypeVar("Command", bound=Callable[..., Any])

_BAR_BYTES = 1 << 28  # smaller files are written before a progress bar has been drawn


def _editing_options(command: Command) -> Command:
    """Adds what every editing command has: where the result goes, and how it is checked and shown."""
    for option in reversed(
        (
            click.option("--output", "-o", type=ANY_PATH, metavar="FILE", help="Write a new file."),
            click.option("--in-place", is_flag=True, help="Change FILE itself."),
            click.option("--force", is_flag=True, help="Overwrite an existing --output."),
            click.option(
                "--verify",
                is_flag=True,
                help="Also compare the tensor data with what they were, byte by byte.",
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
    "--temperature", type=float, metavar="X", help="What the logits are divided by.  [default: the fit's]"
)
@click.option(
    "--from",
    "source",
    type=ANY_PATH,
    metavar="FILE",
    help="Also say where it comes from: what `edgecal fit --json` printed; - is standard input.",
)
@click.option("--no-sampling-key", is_flag=True, help="Write only edgecal.* keys, not general.sampling.temp.")
@click.option(
    "--force-baked", is_flag=True, help="Also if the temperature of a fit is in FILE's weights already."
)
@click.option(
    "--unsettled",
    is_flag=True,
    help="Also if the result of --from says that its temperature is unsettled or harmful; FILE is marked so.",
)
@_editing_options
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

    Needs --output or --in-place. A sampling temperature that FILE has already is kept and comes back with
    `edgecal strip`. A result that `edgecal fit` refused is refused here too (exit code 4).
    """
    from edgecal.cli.streams import say
    from edgecal.stamping.edits import calibration_edits

    target = _Target.of(options)
    if temperature is None and source is None:
        raise click.UsageError("give --temperature, or a fit's result with --from")
    text = None if source is None else _read_text(source)
    record, warnings = _record(temperature, source, text)
    if record.doubts and not unsettled:
        for doubt in record.doubts:
            say(f"refused: {doubt}")
        raise UnsettledError(
            f"{source}: its temperature {record.temperature:.4g} is refused, since it may make the model less honest "
            "than it is, and nothing was written; --unsettled writes it all the same, marked so"
        )
    warnings += [f"FILE is marked as not to be relied on: {doubt}" for doubt in record.doubts]
    shards = _open(file, target)
    if source is not None and text is not None:
        warnings += _fit_of_another(shards, source, text)
    changes, remove = calibration_edits(shards.header, record, not no_sampling_key, force_baked=force_baked)
    done = target.write(shards, changes, remove, warnings, inputs=[Path(source)] if source else [])
    done["temperature"] = record.temperature
    target.show(done)
    if not (no_sampling_key or target.as_json or target.quiet):
        from edgecal.cli.streams import printing
        from edgecal.cli.tables import sampling_sentence

        with printing():
            click.echo("\n" + sampling_sentence(record.temperature))


@click.command("strip", short_help="Take everything of edgecal's out of a GGUF file.")
@click.argument("file", type=ANY_PATH)
@_editing_options
def strip_command(file: str, **options: Any) -> None:
    """Take every edgecal.* key out of FILE and put its author's sampling temperature back.

    Needs --output or --in-place. The result has the very bytes that the file had before it was stamped.
    """
    from edgecal.stamping.edits import strip_edits

    target = _Target.of(options)
    shards = _open(file, target)
    target.run(shards, *strip_edits(shards.header))


@click.command(
    "set",
    short_help="Set any metadata key of a GGUF file.",
    context_settings={"ignore_unknown_options": True},  # -1 is a value
)
@click.argument("file", type=ANY_PATH)
@click.argument("key")
@click.argument("type_name", metavar="TYPE")
@click.argument("value", required=False)
@click.option("--value-from", type=ANY_PATH, metavar="FILE", help="Take VALUE from this file, as it is.")
@_editing_options
def set_command(
    file: str, key: str, type_name: str, value: str | None, value_from: str | None, **options: Any
) -> None:
    """Set KEY to VALUE in FILE: changed where it stands, or added behind the last key.

    Needs --output or --in-place. TYPE is a GGUF type: uint8 to uint64, int8 to int64, float32, float64, bool,
    string, or an array of one with its items as JSON: 'array[float32]' '[1, 2.5]'.
    """
    from edgecal.gguf.header import FILLER_KEY
    from edgecal.gguf.values import parse_typed
    from edgecal.stamping.edits import edit_cautions

    target = _Target.of(options)
    if (value is None) == (value_from is None):
        raise click.UsageError("give VALUE, or a file that holds it with --value-from (not both)")
    text = _read_text(value_from, keep=True) if value_from is not None else str(value)
    if key == FILLER_KEY:
        raise InputError(
            f"{FILLER_KEY} is edgecal's own and cannot be set; it can be removed with edgecal unset"
        )
    changes = {key: parse_typed(type_name, text)}
    shards = _open(file, target, editing=[key])
    inputs = [Path(value_from)] if value_from is not None else []
    target.run(shards, changes, (), edit_cautions(shards.header, changes, ()), inputs=inputs)


@click.command("unset", short_help="Remove metadata keys from a GGUF file.")
@click.argument("file", type=ANY_PATH)
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@_editing_options
def unset_command(file: str, keys: tuple[str, ...], **options: Any) -> None:
    """Remove KEYs from FILE. Needs --output or --in-place."""
    from edgecal.stamping.edits import edit_cautions

    target = _Target.of(options)
    shards = _open(file, target, editing=keys)
    header = shards.header
    for key in keys:
        if key not in header:
            raise InputError(f"{header.path}: has no key {_named(key, header.keys)}")
    target.run(shards, {}, keys, edit_cautions(header, {}, keys))


@dataclass(frozen=True)
class _Target:
    """Where an edit goes, and how it is checked and shown."""

    output: Path | None
    force: bool
    verify: bool
    as_json: bool
    quiet: bool

    @staticmethod
    def of(options: Mapping[str, Any]) -> _Target:
        """What `_editing_options` gave; UsageError unless it says exactly one place."""
        output, in_place = options["output"], options["in_place"]
        if (output is None) != bool(in_place):
            raise click.UsageError(
                "give --output FILE for a new file, or --in-place to change FILE itself"
                + (" (not both)" if in_place else "")
            )
        if in_place and options["force"]:
            raise click.UsageError("--force is about an existing --output; --in-place needs none")
        return _Target(
            None if output is None else Path(output),
            options["force"],
            options["verify"],
            options["as_json"],
            options["quiet"],
        )

    def run(
        self,
        shards: ShardSet,
        changes: Mapping[str, Value],
        remove: Collection[str],
        warnings: Collection[str] = (),
        inputs: Collection[Path] = (),
    ) -> None:
        """Writes an edit and shows it."""
        self.show(self.write(shards, changes, remove, warnings, inputs))

    def write(
        self,
        shards: ShardSet,
        changes: Mapping[str, Value],
        remove: Collection[str],
        warnings: Collection[str] = (),
        inputs: Collection[Path] = (),
    ) -> dict[str, Any]:
        """Writes an edit; what was done, JSON-ready. Warnings are said before."""
        from edgecal.cli.showing import show_warnings
        from edgecal.gguf.diff import diff_edits
        from edgecal.gguf.output import plan_output
        from edgecal.gguf.placing import write_output
        from edgecal.gguf.rewrite import edited_size

        plan: OutputPlan = plan_output(
            shards,
            self.output,
            in_place=self.output is None,
            force=self.force,
            inputs=inputs,
            room=self.output is not None,
        )
        edited_size(
            shards.header, changes, remove
        )  # raises for an edit that cannot be, before anything is said
        keys = diff_edits(shards.header, changes, remove)
        show_warnings(list(warnings), quiet=self.quiet)
        with _progress(shards.header.file_size, quiet=self.quiet) as progress:
            written = write_output(
                plan, changes=changes, remove=remove, verify=self.verify, progress=progress
            )
        return {
            "file": str(shards.path),
            "output": str(written.path),
            "in_place": plan.in_place,
            "verified": self.verify,
            "keys": [
                {"name": key.name, "change": key.change, "before": key.first, "after": key.second}
                for key in keys
            ],
            "siblings": written.describe_siblings(),
            "warnings": list(warnings),
        }

    def show(self, done: dict[str, Any]) -> None:
        """Prints what was done.

        Raises
        ------
        OutputError: standard output cannot be written.
        """
        from edgecal.cli.diff import change_lines
        from edgecal.cli.streams import printable, printing

        with printing(f"; {done['output']} is complete"):
            if self.as_json:
                click.echo(json.dumps(done, allow_nan=False))
            elif not self.quiet:
                lines = change_lines(done["keys"]) or ["nothing to change"]
                verified = ", tensor data compared" if self.verify else ""
                place = "changed in place" if done["in_place"] else "written"
                lines.append(f"{printable(done['output'])}: {place}{verified}")
                lines += [f"{printable(item['path'])}: {item['how']}" for item in done["siblings"]]
                click.echo("\n".join(lines))


def _open(file: str, target: _Target, editing: Collection[str] = ()) -> ShardSet:
    """The model of FILE, after an interrupted edit of it has been finished or undone.

    Who edits the keys that say how a model is split means this one file, whatever its keys and its name say now:
    else they could never be put right.
    """
    from edgecal.cli.streams import say
    from edgecal.gguf.header import read_header
    from edgecal.gguf.inplace.journal import recover
    from edgecal.gguf.shards import ShardSet, find_shards

    repaired = recover(Path(file))
    if repaired is not None and not target.quiet:
        say(repaired)
    if any(key.startswith("split.") for key in editing):
        return ShardSet((Path(file),), (read_header(file),), None)
    return find_shards(Path(file))


def _fit_of_another(shards: ShardSet, source: str, text: str) -> list[str]:
    """A warning if the result in `text` is a fit of a model of another name."""
    from edgecal.gguf.values import quoted
    from edgecal.stamping.fit_record import name_of_chat

    fitted, here = name_of_chat(text, source), shards.header.get("general.name")
    if not fitted or not isinstance(here, str) or not here or fitted == here:
        return []
    return [f"{source} is a fit of {quoted(fitted)}, {shards.path} is {quoted(here)}; is it the same model?"]


def _record(
    temperature: float | None, source: str | None, text: str | None
) -> tuple[CalibrationRecord, list[str]]:
    """What is to be stamped, and what is odd about it; `text` is what `source` holds."""
    from dataclasses import replace

    from edgecal.stamping.fit_record import record_of_result
    from edgecal.stamping.record import CalibrationRecord

    if source is None or text is None:
        assert temperature is not None
        return CalibrationRecord(temperature), []
    record = record_of_result(text, source)
    if temperature is None or temperature == record.temperature:
        return record, []
    warning = (
        f"--temperature {temperature:g} is not the fit's {record.temperature:g}: its interval is left out, the rest "
        "of where it comes from is written as it stands"
    )
    return replace(record, temperature=temperature, interval=None), [warning]


def _read_text(path: str, *, keep: bool = False) -> str:
    """A small text file, - for standard input; with `keep` bytes that are not UTF-8 survive."""
    from edgecal.stamping.fit_record import MAX_RESULT_BYTES

    try:
        if path == "-" and sys.stdin is None:
            raise InputError("standard input is closed; give a file")
        if path == "-":
            raw = sys.stdin.buffer.read(MAX_RESULT_BYTES + 1)
        else:
            with Path(path).open("rb") as file:
                raw = file.read(MAX_RESULT_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{path}: cannot be read: {reason}") from None
    if len(raw) > MAX_RESULT_BYTES:
        raise InputError(f"{path}: longer than {MAX_RESULT_BYTES} bytes: refused")
    return raw.decode("utf-8", "surrogateescape" if keep else "replace")


def _named(key: str, known: Collection[str]) -> str:
    """A key that is not there, and those that it may have been meant for."""
    from difflib import get_close_matches

    from edgecal.gguf.values import quoted

    close = get_close_matches(key, known, n=3)
    return quoted(key) + (f"; did you mean {' or '.join(map(quoted, close))}?" if close else "")


@contextmanager
def _progress(n_bytes: int, *, quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """Gives what is to be told of bytes written; None where nobody would see it."""
    if quiet or n_bytes < _BAR_BYTES:
        yield None
        return
    from edgecal.api import Progress
    from edgecal.cli.progress import show_progress

    with show_progress(quiet=False) as show:
        assert show is not None
        yield lambda done, total: show(Progress("write", None, done, total))
