"""Functions that a worker process runs in the tests: each ends in its own way."""

import os
import signal
import time
from pathlib import Path

from edgecal import InputError


def add(argument, report):
    for number in range(3):
        report(number)
    return argument + 1


def refuse(argument, report):
    raise InputError(f"not with {argument}")


def fail(argument, report):
    return {}["missing"]


class PickyError(Exception):
    """Cannot be unpickled: pickle would call it without its second argument."""

    def __init__(self, one, other):
        super().__init__(one)


def fail_oddly(argument, report):
    raise PickyError("one", "other")


def say_oddly(argument, report):
    error = PickyError("one", "other")
    report(error)


def use_all_memory(argument, report):
    raise MemoryError


def abort(argument, report):
    os.write(2, b"some.cpp:12: GGML_ASSERT(x > 0) failed\nand more\n")
    os.abort()


def leave(argument, report):
    os._exit(7)


def hang(argument, report):
    report("started")
    Path(argument).write_text(str(os.getpid()))
    time.sleep(1000)


def be_killed(argument, report):
    os.kill(os.getpid(), signal.SIGKILL)


def print_much(argument, report):
    os.write(1, b"noise" * 100_000)
    print("more noise")
    return b"x" * argument
