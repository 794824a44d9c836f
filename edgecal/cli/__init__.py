"""The command line: parses arguments, calls `edgecal`, shows results. Only this package imports click.

This module is the entry point. It handles Ctrl-C before anything else is imported, and turns every way of ending into
an exit code. The commands are in `commands`.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from edgecal.cli.stdio import open_missing_streams, say
from edgecal.errors import EXIT_INTERRUPTED, EdgecalError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and exits with the documented code. Only a bug leaves a traceback."""
    try:
        open_missing_streams()
        from edgecal.cli.interrupt import leave_soon_on_interrupt

        leave_soon_on_interrupt()
        from edgecal.cli.commands import run_command

        code = run_command(arguments)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second, impatient Ctrl-C changes nothing
        say("interrupted")
        sys.exit(EXIT_INTERRUPTED)
    except EdgecalError as error:
        say(str(error))
        sys.exit(error.exit_code)
    sys.exit(code)
