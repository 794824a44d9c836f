"""The `edgecal` command. A subcommand's module is imported only when the subcommand is used."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from edgecal.cli.stdio import printing
from edgecal.version import __version__

__all__ = ["cli", "run_command"]

# Each command's module and short help. The help is repeated here so that `edgecal --help` imports no command.
_COMMANDS = {
    "ask": ("ask", "Ask a model one question and see how sure it is."),
    "bake": ("bake", "Divide a model's logits by its temperature, in its own weights."),
    "cache": ("cache", "Show or clear the cache of earlier runs."),
    "compare": ("compare", "Compare all methods on a pair of models, on questions with answers."),
    "decide": ("decide", "Answer typed questions about a state, with probabilities."),
    "diff": ("diff", "Show the keys and tensors that differ between two GGUF files."),
    "doctor": ("doctor", "Show what edgecal can and cannot do with a model file, and why."),
    "eval": ("eval", "Judge a model's confidence on questions with answers."),
    "export": ("export", "Print what another program needs to use a calibrated file."),
    "fit": ("fit", "Fit a chat model's temperature against its base model."),
    "label": ("label", "Label the questions that say most of the temperature."),
    "plot": ("plot", "Draw the pictures of a saved result."),
    "project": ("project", "Fit a map by which a chat model says what its base model thinks."),
    "questions": ("questions", "Show how question files are read, or convert them."),
    "schema": ("schema", "Print the JSON Schema of what commands print with --json."),
    "set": ("edit", "Set any metadata key of a GGUF file."),
    "show": ("show", "Print what a GGUF file says about calibration and sampling."),
    "stamp": ("edit", "Write a temperature into a GGUF file."),
    "strip": ("edit", "Remove everything that edgecal wrote from a GGUF file."),
    "unbake": ("bake", "Restore the file that was baked, byte for byte."),
    "unset": ("edit", "Remove metadata keys from a GGUF file."),
}


class _Commands(click.Group):
    """Finds commands by name in `_COMMANDS`; each is `<name>_command` in its module."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _ = _COMMANDS[cmd_name]
        command: Any = getattr(import_module(f"edgecal.cli.{module}"), f"{cmd_name}_command")
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, _COMMANDS[name][1]) for name in self.list_commands(ctx)])


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, "-V", "--version", message="edgecal %(version)s")
def cli() -> None:
    """Honest confidence for local language models, without labels and without a GPU.

    \b
    Exit codes: 0 done, 2 usage or bad input, 3 model or native failure,
    4 temperature not identified, unsettled or harmful, 5 could not write, 130 interrupted.
    """


def run_command(arguments: Sequence[str] | None) -> int:
    """Runs a command line (None is the process's own) and returns its exit code.

    Raises
    ------
    EdgecalError: as the command did.
    KeyboardInterrupt: on Ctrl-C.
    """
    try:
        code = cli.main(args=arguments, prog_name="edgecal", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        raise KeyboardInterrupt from None
    with printing():
        pass  # flushes what click itself printed, such as a help page
    return code if isinstance(code, int) else 0
