"""`edgecal plot`: draws the pictures of a saved result to files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from edgecal.errors import InputError

__all__ = ["plot_command"]

_LARGEST_BYTES = 1 << 28


@click.command("plot", short_help="Draw the pictures of a saved result.")
@click.argument("result", metavar="RESULT.json", type=click.Path())
@click.option(
    "--output",
    "-o",
    type=click.Path(),
    metavar="FOLDER",
    help="Folder for the pictures, created if missing.  [default: the result's folder; with -, the current one]",
)
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["png", "svg", "both"]),
    default="svg",
    show_default=True,
    help="Format of the pictures.",
)
@click.option(
    "--picture",
    "pictures",
    multiple=True,
    metavar="NAME",
    help="Draw only this picture, one of reliability, loss, layers, risk-coverage, methods, learning, lambda, "
    "prompts; repeatable.  [default: every picture that the result has numbers for]",
)
@click.option("--dark", is_flag=True, help="Draw light lines on a dark background.")
@click.option("--force", is_flag=True, help="Overwrite existing files.")
def plot_command(
    result: str, output: str | None, file_format: str, pictures: tuple[str, ...], dark: bool, force: bool
) -> None:
    """Draw the pictures of RESULT.json, which `edgecal eval --json` or `edgecal compare --json` printed.

    RESULT.json may be -, standard input. The pictures are those of the HTML report, named reliability.svg,
    loss.svg and so on; their paths are printed. If one of the files exists already, nothing is drawn unless
    --force is given.
    """
    from edgecal.atomic_write import check_target, make_folder, write_whole
    from edgecal.cli.stdio import printing
    from edgecal.errors import OutputError
    from edgecal.report import available_pictures, check_result, draw

    name = "standard input" if result == "-" else result
    checked = check_result(_read_json(result, name), name)
    wanted = tuple(dict.fromkeys(pictures)) or available_pictures(checked)
    formats = ("png", "svg") if file_format == "both" else (file_format,)
    folder = Path(output) if output is not None else Path() if result == "-" else Path(result).parent
    # Finds every mistake before the first file is written.
    drawn = {
        folder / f"{picture}.{extension}": draw(checked, picture, extension, dark)
        for picture in wanted
        for extension in formats
    }
    make_folder(folder)
    for path in drawn:
        check_target(path)
        if not force and path.exists():
            raise OutputError(f"{path}: exists; give --force to overwrite it, or another --output")
    for path, content in drawn.items():
        write_whole(path, content)
    with printing("; the pictures are complete"):
        for path in drawn:
            click.echo(str(path))


def _read_json(path: str, name: str) -> Any:
    try:
        if path == "-":
            content = sys.stdin.buffer.read(_LARGEST_BYTES + 1)
        else:
            with Path(path).open("rb") as file:
                content = file.read(_LARGEST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise InputError(f"{name}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    if len(content) > _LARGEST_BYTES:
        raise InputError(f"{name}: is larger than {_LARGEST_BYTES >> 20} MiB, which no result is")
    try:
        return json.loads(content.decode("utf-8-sig"), parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise InputError(f"{name}: is not UTF-8 text; give what `edgecal eval --json` printed") from None
    except (ValueError, RecursionError) as error:
        at = f"line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise InputError(f"{name}: not valid JSON ({at}); give what `edgecal eval --json` printed") from None


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")
