"""`edgecal schema`: the JSON Schema of what commands print with --json."""

from __future__ import annotations

import json

import click

__all__ = ["schema_command"]


@click.command("schema", short_help="Print the JSON Schema of what commands print with --json.")
@click.argument("command", required=False)
def schema_command(command: str | None) -> None:
    """Print the JSON Schema (draft 2020-12) of what COMMAND prints with --json; of all commands by default.

    It gives the meaning, type and range of every key. For `edgecal questions` and `edgecal decide` it describes each
    line; for `edgecal export`, the output of --to json, or of --to llama-decision with --json. Later versions may add
    keys, but do not change these.
    """
    from edgecal.cli.stdio import printing
    from edgecal.results.schema import PRINTED, make_schema

    if command is not None and command not in PRINTED:
        raise click.UsageError(f"COMMAND is {command!r}, expected one of {', '.join(PRINTED)}")
    with printing():
        print(json.dumps(make_schema(command), indent=2))
