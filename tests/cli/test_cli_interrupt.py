"""Ctrl-C while Python cannot deliver it."""

import signal
import subprocess
import sys
import time

SWALLOWS_THE_INTERRUPT = """
import ctypes, time
from edgecal.cli.interrupt import leave_soon_on_interrupt

def callback():
    print("now", flush=True)
    time.sleep(60)

leave_soon_on_interrupt()
ctypes.CFUNCTYPE(None)(callback)()
time.sleep(60)
"""


def test_an_interrupt_that_is_lost_in_native_code():
    """An exception cannot pass through C, where a compiler calls back into Python."""
    process = subprocess.Popen(
        [sys.executable, "-c", SWALLOWS_THE_INTERRUPT], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout.readline() == b"now\n"
    time.sleep(0.1)
    began_s = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, b"edgecal: interrupted\n")
    assert time.monotonic() - began_s < 2
