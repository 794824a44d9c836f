"""Commands are loaded when they are used, and `edgecal --help` says of each what it says of itself."""

import json
import subprocess
import sys

import click
import pytest
from support.tiny_models import tiny_folder, write_tiny_llama

from edgecal.cli.commands import cli

CONTEXT = click.Context(cli, info_name="edgecal")
NAMES = cli.list_commands(CONTEXT)
ALWAYS = {"commands", "interrupt", "stdio"}
CODE = """
import json, sys
from edgecal.cli import main
try:
    main(sys.argv[1:])
except SystemExit as ended:
    loaded = [name.removeprefix("edgecal.cli.") for name in sys.modules if name.startswith("edgecal.cli.")]
    sys.stderr.write(json.dumps([ended.code, loaded]))
"""


def loaded_by(*arguments, code=0):
    """The modules of the command line that a run loads, and what it prints."""
    found = subprocess.run(
        [sys.executable, "-c", CODE, *arguments], capture_output=True, text=True, check=True
    )
    ended, loaded = json.loads(found.stderr.splitlines()[-1])
    assert ended == code, found.stderr
    return set(loaded), found.stdout


@pytest.mark.parametrize("name", NAMES)
def test_a_short_help_is_the_commands_own(name):
    command = cli.get_command(CONTEXT, name)
    assert command.name == name
    assert not command.hidden
    listed = cli.get_help(click.Context(cli, info_name="edgecal", terminal_width=200, max_content_width=200))
    assert f"  {name:<{max(map(len, NAMES))}}  {command.get_short_help_str(200)}\n" in f"{listed}\n"
    assert "..." not in command.get_short_help_str(200)


def test_every_command_is_listed():
    """Those that the modules define, whatever the table says."""
    from importlib import import_module
    from pathlib import Path

    import edgecal.cli as package

    found = set()
    for path in Path(package.__file__).parent.glob("*.py"):
        if path.stem != "__init__":
            values = vars(import_module(f"edgecal.cli.{path.stem}")).values()
            found |= {value.name for value in values if isinstance(value, click.Command) and value is not cli}
    assert sorted(found) == NAMES
    assert len(NAMES) > 10


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--version"]])
def test_help_loads_no_command(arguments):
    loaded, printed = loaded_by(*arguments)
    assert loaded == ALWAYS
    assert printed.startswith("edgecal " if arguments == ["--version"] else "Usage: edgecal ")


def test_a_command_loads_no_other():
    path = write_tiny_llama(tiny_folder() / "startup.gguf", seed=5)
    loaded, printed = loaded_by("show", str(path))
    assert loaded == ALWAYS | {"show"}
    assert printed.startswith("path ")
    loaded, _ = loaded_by("diff", str(path), str(path))
    assert loaded == ALWAYS | {"diff", "progress"}


def test_a_command_that_does_not_exist():
    loaded, printed = loaded_by("shwo", code=2)
    assert loaded == ALWAYS
    assert printed == ""
