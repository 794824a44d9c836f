"""`edgecal export`: prints what another program needs to use a calibrated file, or writes it into the file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from edgecal.cli.options import ANY_PATH

__all__ = ["export_command"]

_TARGETS = ("ollama", "llama-server", "llama-cli", "llama-cpp-python", "lmstudio", "json")
_DECISION = "llama-decision"


@click.command("export", short_help="Print what another program needs to use a calibrated file.")
@click.argument("file", type=ANY_PATH)
@click.option(
    "--to",
    "target",
    type=click.Choice((*_TARGETS, _DECISION)),
    required=True,
    help="A Modelfile, a command line, a Python snippet, a preset, or a sidecar for apps of your own. llama-decision "
    "writes a GGUF file with the keys of llama.cpp's decision mode.",
)
@click.option(
    "--sampling/--no-sampling",
    default=None,
    help="Make the program sample with the temperature.  [default: if general.sampling.temp in FILE is edgecal's]",
)
@click.option(
    "--output",
    "-o",
    type=ANY_PATH,
    metavar="OUT",
    help="Write to OUT instead of standard output, or a new file.",
)
@click.option("--force", is_flag=True, help="Overwrite an existing OUT.")
@click.option("--in-place", is_flag=True, help="llama-decision: change FILE itself.")
@click.option(
    "--unsettled",
    is_flag=True,
    help="llama-decision: write it even if something speaks against its temperatures.",
)
@click.option(
    "--verify",
    is_flag=True,
    help="llama-decision: also check that the tensor data are unchanged, byte by byte.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="llama-decision: print what was done as one JSON object."
)
@click.option("--quiet", "-q", is_flag=True, help="llama-decision: no progress, no warnings, no table.")
def export_command(
    file: str, target: str, sampling: bool | None, output: str | None, force: bool, **options: Any
) -> None:
    """Print a Modelfile, command line, snippet, preset or sidecar for the calibrated model FILE.

    One sentence says what that program will and will not calibrate: as a comment where the format has comments, else on
    stderr. A baked file needs no temperature, and none is set.

    --to llama-decision makes a GGUF file that llama.cpp's server answers typed questions with (POST /v1/systemone): it
    needs --output or --in-place. The file holds edgecal's temperatures and a template by which llama.cpp asks with the
    very tokens of edgecal decide. Anything that speaks against that is refused (exit code 4, or 2 where llama.cpp could
    not use it). edgecal strip takes it out again.
    """
    if target == _DECISION:
        if sampling is not None:
            raise click.UsageError("--sampling and --no-sampling are not for llama-decision")
        _export_decision(file, {**options, "output": output, "force": force})
        return
    for name, given in options.items():
        if given:
            option = "json" if name == "as_json" else name.replace("_", "-")
            raise click.UsageError(f"--{option} is for --to llama-decision only")
    _print_artefact(file, target, sampling, output, force)


def _export_decision(file: str, options: dict[str, Any]) -> None:
    from edgecal.cli.edit import named_place, repair, write_edit
    from edgecal.cli.stdio import say
    from edgecal.errors import UnsettledError
    from edgecal.runtime.llama_decision import plan_llama_decision

    place = named_place(options)
    repair(file, options)
    try:
        edit = plan_llama_decision(file, place, unsettled=options["unsettled"])
    except UnsettledError as error:
        for reason in error.warnings:
            say(f"refused: {reason}")
        raise
    write_edit(edit, options)


def _print_artefact(file: str, target: str, sampling: bool | None, output: str | None, force: bool) -> None:
    from edgecal.cli.stdio import printing, say
    from edgecal.errors import InputError
    from edgecal.runtime.export_targets import export

    if force and output is None:
        raise click.UsageError("--force needs --output")
    artefact = export(file, target, sampling=sampling)
    if output is None:
        with printing():
            click.echo(artefact.text, nl=False)
    else:
        from edgecal.atomic_write import write_whole

        path = Path(output)
        if os.path.lexists(path) and not force:
            raise InputError(f"{path}: exists already; give another --output, or --force to overwrite it")
        if _is_model(path):
            raise InputError(f"{path}: is a model and would be overwritten; choose another output")
        write_whole(path, artefact.text.encode("utf-8"))
    if not artefact.has_sentence:
        say(artefact.sentence)


def _is_model(path: Path) -> bool:
    """Whether the path leads to a GGUF file, through any link; one that cannot be read fails later, when it is
    written."""
    try:
        if path.is_file():
            with path.open("rb") as file:
                return file.read(4) == b"GGUF"
    except (OSError, ValueError):
        pass
    return False
