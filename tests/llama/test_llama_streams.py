"""Two contexts side by side while other programs want the processors: not one bit, nor the order of results, may depend
on which of them ran what."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.tiny_archs import tiny_arch

from edgecal.errors import ModelError
from edgecal.llama import capture as capture_module
from edgecal.llama import streams
from edgecal.llama.capture import CaptureChunk, capture, plan_for
from edgecal.llama.context import Context
from edgecal.llama.model import Model
from edgecal.llama.packing import LeadStep, SharedStep, cut_into_spans
from edgecal.llama.settings import CaptureSettings

TWO = CaptureSettings(n_threads=2, n_ubatch=48, n_seq_max=6)
NAME = "edgecal-stream"


def prompts_of(seed: int, n_stems: int = 3, n_each: int = 9) -> list[NDArray[np.int32]]:
    """Prompts on stems of their own, some of whose branches are shared as well, in a random order."""
    rng = np.random.default_rng(seed)
    prompts = []
    for _ in range(n_stems):
        stem = rng.integers(3, 250, int(rng.integers(40, 120)))
        branch = np.concatenate([stem, rng.integers(3, 250, 30)])
        tails = [rng.integers(3, 250, 5 + 3 * at) for at in range(n_each)]
        prompts += [np.concatenate([branch if at % 2 else stem, tail]) for at, tail in enumerate(tails)]
    return [prompts[at].astype(np.int32) for at in rng.permutation(len(prompts))]


class Watch:
    """Counts decodes by thread; the main thread's first ones wait for as many of the second stream, so that both get
    some however the machine schedules them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, n_together: int = 0) -> None:
        self.n_decodes: Counter[str] = Counter()
        self.n_threads: Counter[tuple[str, int | None]] = Counter()
        self.last_n_threads: int | None = 0  # of the main thread
        self.n_together = n_together
        decoded = threading.Condition()
        decode = Context.decode

        def held(context: Context, *arguments: Any) -> None:
            name = threading.current_thread().name
            if name == "MainThread":
                with decoded:
                    wanted = min(self.n_decodes[name], self.n_together)
                    assert decoded.wait_for(lambda: self.n_decodes[NAME] >= wanted, timeout=60)
                self.last_n_threads = context.n_threads_at_most
            self.n_threads[name, context.n_threads_at_most] += 1
            try:
                decode(context, *arguments)
            finally:
                with decoded:
                    self.n_decodes[name] += 1
                    decoded.notify_all()

        monkeypatch.setattr(Context, "decode", held)


def run(
    model: Model,
    prompts: list[NDArray[np.int32]],
    monkeypatch: pytest.MonkeyPatch,
    is_crowded: Callable[[int], bool],
    settings: CaptureSettings = TWO,
    **more: Any,
) -> list[tuple[list[int], bytes, bytes]]:
    monkeypatch.setattr(streams, "is_crowded", is_crowded)
    return [bits(chunk) for chunk in capture(model, prompts, settings, **{"hidden": True} | more)]


def n_decodes(model: Model, prompts: list[NDArray[np.int32]]) -> int:
    return sum(part.n_decodes for part in plan_for(model, prompts, TWO).contexts)


def bits(chunk: CaptureChunk) -> tuple[list[int], bytes, bytes]:
    return (
        chunk.indices.tolist(),
        chunk.logits.tobytes(),
        b"" if chunk.hidden is None else chunk.hidden.tobytes(),
    )


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture_module, "_CHUNK_PROMPTS", 6)


@pytest.fixture(autouse=True)
def nobody_is_left() -> Iterator[None]:
    yield
    assert NAME not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("name", ["llama", "gemma2", "mamba", "jamba", "gpt-oss", "deepseek2"])
def test_bits_and_order(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = prompts_of(1)
    with Model(tiny_arch(name, "Q4_0")) as model:
        watch = Watch(monkeypatch)
        alone = run(model, prompts, monkeypatch, lambda _: False)
        assert sum(len(indices) for indices, *_ in alone) == len(prompts) and len(alone) > 3
        assert watch.n_decodes == {"MainThread": n_decodes(model, prompts)}  # nothing is run twice
        watch.n_decodes.clear()
        watch.n_together = 3
        assert run(model, prompts, monkeypatch, lambda _: True) == alone
        assert min(watch.n_decodes["MainThread"], watch.n_decodes[NAME]) > 0
        assert {n for thread, n in watch.n_threads if thread == NAME} == {1}
        assert watch.n_threads["MainThread", 1] > 0
        watch.n_together = 0
        for seed in range(4):
            coming_and_going = random.Random(seed)
            assert run(model, prompts, monkeypatch, lambda _, r=coming_and_going: r.random() < 0.5) == alone


def test_without_hidden_states(monkeypatch: pytest.MonkeyPatch) -> None:
    with Model(tiny_arch("llama")) as model:
        alone = run(model, prompts_of(2), monkeypatch, lambda _: False, hidden=False)
        watch = Watch(monkeypatch, n_together=1)
        assert run(model, prompts_of(2), monkeypatch, lambda _: True, hidden=False) == alone
        assert watch.n_decodes[NAME]


def test_all_threads_are_the_first_streams_while_the_second_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(monkeypatch, n_together=1)
    # The main thread asks once and makes the second stream, which then takes two spans.
    answers = iter([True] * 3)
    with Model(tiny_arch("llama")) as model:
        run(model, prompts_of(3, 8), monkeypatch, lambda _: next(answers, False))
    assert watch.n_decodes[NAME] > 0
    assert watch.last_n_threads is None


@pytest.mark.parametrize(
    "settings",
    [
        replace(TWO, n_threads=1),
        replace(TWO, n_threads=3),
        replace(TWO, flash_attn=True),
        replace(TWO, kv_unified=True),
    ],
)
def test_where_one_context_has_to_do(settings: CaptureSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(monkeypatch)
    with Model(tiny_arch("llama")) as model:
        run(model, prompts_of(4), monkeypatch, lambda _: True, settings)
    assert set(watch.n_decodes) == {"MainThread"}


def test_no_second_context_without_memory_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = prompts_of(5)
    watch = Watch(monkeypatch)
    with Model(tiny_arch("llama")) as model:
        part = plan_for(model, prompts, TWO).contexts[0]
        needed = part.n_seq_max * model.cache_bytes(part.n_ctx_seq)
        for available, is_helped in ((needed, True), (needed - 1, False)):
            plan = plan_for(model, prompts, TWO)
            with monkeypatch.context() as patch:
                patch.setattr(capture_module, "settle_cache_bytes", lambda available=available: available)
                watch.n_decodes.clear()
                watch.n_together = int(is_helped)
                run(model, prompts, patch, lambda _: True, plan=plan)
            assert (watch.n_decodes[NAME] > 0) == is_helped


def test_a_second_context_that_cannot_be_made_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Context.__init__

    def once(context: Context, *arguments: Any, **more: Any) -> None:
        if threading.current_thread().name == NAME:
            raise ModelError("no memory")
        made(context, *arguments, **more)

    with Model(tiny_arch("llama")) as model:
        alone = run(model, prompts_of(6), monkeypatch, lambda _: False)
        monkeypatch.setattr(Context, "__init__", once)
        assert run(model, prompts_of(6), monkeypatch, lambda _: True) == alone


@pytest.mark.parametrize("thread", [NAME, "MainThread"])
def test_an_error_of_either_is_raised(thread: str, monkeypatch: pytest.MonkeyPatch) -> None:
    n_decodes: Counter[str] = Counter()
    decode = Context.decode

    def fail(context: Context, *arguments: Any) -> None:
        name = threading.current_thread().name
        n_decodes[name] += 1
        if name == thread and n_decodes[name] == 2:
            raise ModelError("out of order")
        decode(context, *arguments)

    with Model(tiny_arch("llama")) as model:
        monkeypatch.setattr(Context, "decode", fail)
        Watch(monkeypatch, n_together=2)
        with pytest.raises(ModelError, match="out of order"):
            run(model, prompts_of(7), monkeypatch, lambda _: True)


def test_who_takes_no_more_stops_both(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(monkeypatch)
    monkeypatch.setattr(streams, "is_crowded", lambda _: True)
    with Model(tiny_arch("llama")) as model:
        prompts = prompts_of(8, 12)
        chunks = capture(model, prompts, TWO, hidden=True)
        next(chunks)
        chunks.close()
        assert NAME not in {thread.name for thread in threading.enumerate()}
        assert sum(watch.n_decodes.values()) < n_decodes(model, prompts) / 2


def test_results_that_wait_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is slow to take results is not buried under them."""
    made: list[int] = []
    slots = capture_module._Slots.__init__

    def count(self: Any, model: Model, indices: list[int], width: int) -> None:
        made.append(len(indices))
        slots(self, model, indices, width)

    monkeypatch.setattr(capture_module._Slots, "__init__", count)
    monkeypatch.setattr(streams, "is_crowded", lambda _: True)
    with Model(tiny_arch("llama")) as model:
        for n_taken, _ in enumerate(capture(model, prompts_of(9), TWO, hidden=True), 1):
            time.sleep(0.05)
            assert len(made) <= n_taken + 2
    assert sum(made) == len(prompts_of(9))


@pytest.mark.parametrize("is_crowded", [False, True])
def test_progress(is_crowded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts, said = prompts_of(10), []

    def progress(n_prompts: int, n_rows: int) -> None:
        assert threading.current_thread() is threading.main_thread()
        said.append((n_prompts, n_rows))

    Watch(monkeypatch)
    with Model(tiny_arch("llama")) as model:
        plan = plan_for(model, prompts, TWO)
        run(model, prompts, monkeypatch, lambda _: is_crowded, progress=progress)
    assert said == sorted(said) and len(set(said)) == len(said)
    assert said[-1] == (len(prompts), plan.n_rows)


@pytest.mark.parametrize("n_seq_max", [2, 4, 6, 14])
def test_a_span_names_the_states_that_it_goes_on_from(n_seq_max: int) -> None:
    n_with_states = 0
    with Model(tiny_arch("llama")) as model:
        for seed in range(8):
            plan = plan_for(model, prompts_of(seed, 4, 7), replace(TWO, n_seq_max=n_seq_max))
            for part in plan.contexts:
                spans = cut_into_spans(part.steps)
                assert [step for span in spans for step in span.steps] == list(part.steps)
                run_by_one: list[SharedStep] = []  # what one context holds
                for span in spans:
                    held, needed = list(span.states), 0
                    assert held == run_by_one[: len(held)]
                    for step in span.steps:
                        if isinstance(step, LeadStep | SharedStep):
                            depth = step.depth + isinstance(step, LeadStep)
                            assert depth <= len(held)
                            if all(
                                one is state for one, state in zip(held[:depth], span.states, strict=False)
                            ):
                                needed = max(needed, min(depth, len(span.states)))
                        if isinstance(step, SharedStep):
                            held[step.depth :] = [step]
                            run_by_one[step.depth :] = [step]
                    assert needed == len(span.states)  # none in vain
                    n_with_states += needed > 0
    assert n_with_states
