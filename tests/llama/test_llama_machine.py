"""Sharing processors with other programs: who is there is seen in time; threads and waiting change, but no number."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from support.tiny_models import tiny_folder, write_tiny_llama

from edgecal.llama.machine import Neighbours


class Machine:
    """A machine with as many other programs as we say."""

    def __init__(self, n_others: int) -> None:
        self.n_others = n_others
        self.is_asleep = False

    def count(self) -> int:
        return self.n_others

    def put_to_sleep(self) -> Callable[[], None]:
        assert not self.is_asleep
        self.is_asleep = True
        return self.wake

    def wake(self) -> None:
        assert self.is_asleep
        self.is_asleep = False

    def becomes(self, is_asleep: bool) -> bool:
        ends = time.monotonic() + 20
        while self.is_asleep != is_asleep and time.monotonic() < ends:
            time.sleep(0.01)
        return self.is_asleep == is_asleep


@pytest.mark.parametrize(
    ("n_processors", "n_threads", "n_others", "n_chosen", "is_asleep"),
    [
        (2, 2, 0, 2, False),
        (2, 2, 1, 1, True),
        (2, 2, 2, 2, True),
        (2, 2, 9, 2, True),
        (12, 8, 4, 8, False),  # room for all
        (12, 8, 5, 7, True),
        (12, 8, 6, 6, True),
        (12, 8, 7, 8, True),  # alone on 5 processors would be slower
        (4, 4, -1, 4, False),  # counted a moment too late
        (1, 2, 0, 1, True),  # more threads than processors
    ],
)
def test_threads_and_waiting(
    n_processors: int, n_threads: int, n_others: int, n_chosen: int, is_asleep: bool
) -> None:
    machine = Machine(n_others)
    with Neighbours(n_processors, machine.count, machine.put_to_sleep).beside(n_threads) as n:
        assert (n, machine.is_asleep) == (n_chosen, is_asleep)


@pytest.mark.parametrize(("n_others", "n_chosen"), [(0, 2), (1, 1), (2, 1), (9, 1)])
def test_threads_that_cannot_sleep_are_no_more_than_free_processors(n_others: int, n_chosen: int) -> None:
    with Neighbours(2, lambda: n_others, None).beside(2) as n:
        assert n == n_chosen


@pytest.mark.parametrize(
    ("n_processors", "n_others", "are_too_many"), [(2, 0, False), (2, 1, True), (4, 2, False)]
)
def test_whether_processors_are_short_is_seen_before_a_decode(
    n_processors: int, n_others: int, are_too_many: bool
) -> None:
    machine = Machine(n_others)
    neighbours = Neighbours(n_processors, machine.count, machine.put_to_sleep)
    assert neighbours.are_too_many_beside(2) == are_too_many
    machine.n_others = 5
    assert neighbours.are_too_many_beside(2) == are_too_many  # a look serves for a moment
    time.sleep(0.4)
    assert neighbours.are_too_many_beside(2)


def test_who_comes_and_goes_in_the_middle_of_a_decode_is_seen() -> None:
    machine = Machine(0)
    neighbours = Neighbours(2, machine.count, machine.put_to_sleep)
    with neighbours.beside(2):
        for n_others in (2, 0, 1, 0):
            machine.n_others = n_others
            assert machine.becomes(is_asleep=n_others > 0)
    machine.n_others = 2
    time.sleep(0.3)
    assert not machine.is_asleep  # nobody computes, nobody looks


def test_a_short_visit_changes_nothing() -> None:
    counts = iter([1, 0, 1, 0, 0, 1, 0, 0, 0])  # the first three are one look
    machine = Machine(0)
    neighbours = Neighbours(2, lambda: next(counts, 0), machine.put_to_sleep)
    with neighbours.beside(2):
        time.sleep(0.5)
        assert not machine.is_asleep


def test_decodes_at_the_same_time_count_together() -> None:
    machine = Machine(0)
    neighbours = Neighbours(3, machine.count, machine.put_to_sleep)
    with neighbours.beside(2):
        assert not machine.is_asleep
        with neighbours.beside(2):
            assert machine.becomes(is_asleep=True)
        assert machine.becomes(is_asleep=False)


RUN = """
import ctypes, json, os, resource, sys
if sys.argv[2] == "before":
    ctypes.CDLL("libgomp.so.1")
import numpy as np
from edgecal.llama import machine
from edgecal.llama.capture import capture
from edgecal.llama.model import Model
from edgecal.llama.settings import CaptureSettings

n_others = int(sys.argv[3])
if n_others >= 0:
    machine._count_others = lambda: n_others
    os.sched_getaffinity = lambda _: {0, 1}
prompts = [np.arange(3, 100, dtype=np.int32)] * 8

def run(n_threads, **more):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
    settings = CaptureSettings(n_threads=n_threads, share=False, **more)
    chunks = list(capture(model, prompts, settings, hidden=True))
    slept = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before
    return slept, b"".join(chunk.logits.tobytes() + chunk.hidden.tobytes() for chunk in chunks)

with Model(sys.argv[1]) as model:
    _, alone = run(1)
    run(2)
    slept, beside = run(2)
    one_slept, in_one = run(2, kv_unified=True)  # which keeps to one context
    flash_slept, _ = run(2, flash_attn=True)
threads = len(os.listdir("/proc/self/task"))
print(json.dumps({"slept": slept, "threads": threads, "same": alone == beside == in_one,
                  "one_slept": one_slept, "flash_slept": flash_slept}))
"""


def run(when: str, n_others: int, **variables: str) -> dict[str, int]:
    path = tiny_folder() / "neighbours.gguf"
    if not path.exists():
        write_tiny_llama(
            path, seed=5, n_layer=8, n_embd=256, n_head=4, n_head_kv=2, n_ff=512, quantization="Q8_0"
        )
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    environment = {key: value for key, value in os.environ.items() if key not in names} | variables
    command = [sys.executable, "-c", RUN, str(path), when, str(n_others)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    said: dict[str, int] = json.loads(done.stdout)
    assert said["same"]
    return said


@pytest.mark.parametrize("when", ["before", "after"])
def test_threads_sleep_while_others_want_their_processors(when: str) -> None:
    """Whether OpenMP was loaded before us or not."""
    alone, one, two = (run(when, n_others) for n_others in (0, 1, 2))
    # On a busy machine a run that should not sleep has been seen to sleep 404 times, one that should 3,150 times.
    assert two["one_slept"] > max(1000, 4 * one["one_slept"])
    assert one["flash_slept"] > 1000  # its bits depend on the number of threads
    assert two["one_slept"] > 3 * alone["one_slept"]
    assert two["one_slept"] > 4 * max(
        one["slept"], two["slept"]
    )  # contexts of one thread each wait for nobody
    assert two["threads"] > alone["threads"] + (os.cpu_count() or 1)


def test_who_has_said_how_threads_wait_is_obeyed() -> None:
    chosen = run("after", 2, GOMP_SPINCOUNT="30000000")
    assert chosen["one_slept"] < 1000
    assert chosen["threads"] == run("after", 2, OMP_WAIT_POLICY="passive")["threads"]
