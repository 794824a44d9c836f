"""The command line: parses, calls `edgecal`, shows. The only place that knows click, and exit codes in use.

Does no work of its own, and imports nothing heavy before a command runs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from edgecal import __version__
from edgecal.cli.fit import fit_command
from edgecal.cli.interrupt import leave_soon_on_interrupt
from edgecal.cli.show import show_command
from edgecal.errors import EXIT_INTERRUPTED, EdgecalError

__all__ = ["cli", "main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", message="edgecal %(version)s")
def cli() -> None:
    """Honest confidence for local language models, without labels and without a GPU.

    \b
    Exit codes: 0 done, 2 usage or bad input, 3 model or native failure,
    4 temperature not identified, 5 could not write, 130 interrupted.
    """


cli.add_command(fit_command)
cli.add_command(show_command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and exits with the documented code; only a bug leaves a traceback."""
    try:
        leave_soon_on_interrupt()
        code = cli.main(args=arguments, prog_name="edgecal", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _complain("interrupted; nothing was written")
        sys.exit(EXIT_INTERRUPTED)
    except EdgecalError as error:
        _complain(str(error))
        sys.exit(error.exit_code)
    except BrokenPipeError:  # whoever read our output has gone
        sys.stderr.close()
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _complain(message: str) -> None:
    click.echo(f"edgecal: {' '.join(message.splitlines())}", err=True)
