"""The command line: parses, calls `edgecal`, shows. The only place that knows click, and exit codes in use.

This module is the entry point: it answers Ctrl-C before anything else is loaded, and turns every way of ending
into an exit code. Does no work of its own; the commands are in `commands`.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from edgecal.cli.streams import open_missing_streams, say
from edgecal.errors import EXIT_INTERRUPTED, EdgecalError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and exits with the documented code; only a bug leaves a traceback."""
    try:
        open_missing_streams()
        from edgecal.cli.interrupt import leave_soon_on_interrupt

        leave_soon_on_interrupt()
        from edgecal.cli.commands import run_command

        code = run_command(arguments)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # an impatient second Ctrl-C changes nothing any more
        say("interrupted")
        sys.exit(EXIT_INTERRUPTED)
    except EdgecalError as error:
        say(str(error))
        sys.exit(error.exit_code)
    sys.exit(code)
