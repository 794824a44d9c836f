"""`edgecal show`: what a GGUF file says about calibration and sampling.

Prints without rich, which takes longer to load than a header of any size takes to read.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edgecal.results import ShowResult

__all__ = ["show_command"]

_SHOWN_ITEMS = 8


@click.command("show", short_help="Print what a GGUF file says about calibration and sampling.")
@click.argument("file", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show_command(file: str, as_json: bool) -> None:
    """Print the calibration (edgecal.*) and the sampling defaults (general.sampling.*) in FILE."""
    from edgecal.cli.stdio import printing, say
    from edgecal.stamping.shown import show

    result = show(file)
    with printing():
        # Not click.echo, which writes UTF-8 even to a stream that wants ASCII.
        print(json.dumps(result.to_dict(), allow_nan=False) if as_json else "\n".join(_lines(result)))
    for warning in result.warnings:
        say(f"warning: {warning}")


def _lines(result: ShowResult) -> list[str]:
    """Two columns; on a terminal the second is folded to the width that is left."""
    from edgecal.cli.stdio import printable

    named = (("path", result.path), ("name", result.name), ("architecture", result.architecture))
    rows = [(name, "not said" if value is None else printable(str(value))) for name, value in named]
    for name, section in (("calibration", result.calibration), ("sampling", result.sampling)):
        if not section:
            rows.append((name, "none in this file"))
        rows += [(printable(key), text) for key, text in _texts(section).items()]
    first = max(len(name) for name, _ in rows) + 2
    fold = max(os.get_terminal_size().columns - first, 20) if sys.stdout.isatty() else None
    lines = []
    for name, text in rows:
        width = fold or max(len(text), 1)
        lines.append(f"{name:{first}}{text[:width]}".rstrip())
        lines += [f"{'':{first}}{text[at : at + width]}" for at in range(width, len(text), width)]
    return lines


def _texts(section: dict[str, Any]) -> dict[str, str]:
    """A text for each key. A temperature of typed questions stands in one line with its interval and bracket."""
    texts = {key: _short(value) for key, value in section.items()}
    for key in [key for key in texts if key.startswith("edgecal.temperature.")]:
        name = key.removeprefix("edgecal.temperature.")
        interval, bracket, settled = (
            section.get(f"edgecal.{what}.{name}") for what in ("interval", "bracket", "settled")
        )
        facts = [
            f"{what} {_short(pair[0])} to {_short(pair[1])}"
            for what, pair in (("95 % interval", interval), ("bracket", bracket))
            if isinstance(pair, list) and len(pair) == 2
        ]
        facts += [] if settled is None else ["settled" if settled else "unsettled"]
        texts[key] += f"  ({'; '.join(facts)})" if facts else ""
        for what in ("interval", "bracket", "settled"):
            texts.pop(f"edgecal.{what}.{name}", None)
    return texts


def _short(value: Any) -> str:
    from edgecal.cli.stdio import printable

    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        listed = ", ".join(_short(item) for item in value[:_SHOWN_ITEMS])
        return listed if len(value) <= _SHOWN_ITEMS else f"{listed}, ... ({len(value):,} in all)"
    return printable(str(value))
