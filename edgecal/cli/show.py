"""`edgecal show`: what a GGUF file says about calibration and sampling."""

from __future__ import annotations

import json
from typing import Any

import click

__all__ = ["show_command"]


@click.command("show", short_help="Print what a GGUF file says about calibration and sampling.")
@click.argument("file", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show_command(file: str, as_json: bool) -> None:
    """Print the calibration (edgecal.*) and the sampling defaults (general.sampling.*) in FILE."""
    from pathlib import Path

    from edgecal.cli.streams import printing
    from edgecal.gguf import read_calibration, read_header

    header = read_header(Path(file))
    read_calibration(header)  # refuses a calibration that makes no sense
    values: dict[str, Any] = {
        "path": str(header.path),
        "name": header.get("general.name"),
        "architecture": header.architecture,
        "calibration": _section(header, "edgecal."),
        "sampling": _section(header, "general.sampling."),
    }
    with printing():
        if as_json:
            click.echo(json.dumps(values))
        else:
            from edgecal.cli.tables import print_show

            print_show(values)


def _section(header: Any, prefix: str) -> dict[str, Any]:
    return {key: header.get(key) for key in header.keys if key.startswith(prefix)}
