"""Writes docs/cli.md from the commands themselves: `python tests/support/cli_reference.py > docs/cli.md`."""

from __future__ import annotations

import click

from edgecal.cli.commands import cli


def cli_reference() -> str:
    """The help text of every command, as one Markdown page."""
    parts = [
        "# Command line reference",
        "",
        "Generated from the commands by `python tests/support/cli_reference.py > docs/cli.md`; a test compares.",
    ]
    settings = {**cli.context_settings, "terminal_width": 100, "max_content_width": 100}
    context = click.Context(cli, info_name="edgecal", **settings)
    pages = [("edgecal", cli, context)]
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        child = click.Context(command, info_name=name, parent=context, **settings)
        pages.append((f"edgecal {name}", command, child))
    for title, command, page in pages:
        parts += ["", f"## `{title}`", "", "```", command.get_help(page), "```"]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    print(cli_reference(), end="")
