"""`edgecal export`: prints what another program needs to use a calibrated file."""

from __future__ import annotations

import os
from pathlib import Path

import click

from edgecal.cli.options import ANY_PATH

__all__ = ["export_command"]

_TARGETS = ("ollama", "llama-server", "llama-cli", "llama-cpp-python", "lmstudio", "json")


@click.command("export", short_help="Print what another program needs to use a calibrated file.")
@click.argument("file", type=ANY_PATH)
@click.option(
    "--to",
    "target",
    type=click.Choice(_TARGETS),
    required=True,
    help="A Modelfile, a command line, a Python snippet, a preset, or a sidecar for apps of your own.",
)
@click.option(
    "--sampling/--no-sampling",
    default=None,
    help="Make the program sample with the temperature.  [default: if general.sampling.temp in FILE is edgecal's]",
)
@click.option("--output", "-o", type=ANY_PATH, metavar="OUT", help="Write to OUT instead of standard output.")
@click.option("--force", is_flag=True, help="Overwrite an existing OUT.")
def export_command(file: str, target: str, sampling: bool | None, output: str | None, force: bool) -> None:
    """Print a Modelfile, command line, snippet, preset or sidecar for the calibrated model FILE.

    One sentence says what that program will and will not calibrate: as a comment where the format has comments, else on
    stderr. A baked file needs no temperature, and none is set.
    """
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
