"""What is run in which order: a replay of each plan's memory, and what plans cost."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from edgecal.errors import InputError
from edgecal.llama.decode_rows import LEAST_ROWS, ROW_STEP, decode_cuts, price, rows_each
from edgecal.llama.packing import (
    CACHE_STEP,
    CapturePlan,
    ContextPlan,
    EndStep,
    SharedStep,
    Step,
    cache_size,
    plan_capture,
)
from edgecal.llama.settings import CaptureSettings, count_physical_cores

Tokens = NDArray[np.int32]


def random_prompts(rng: np.random.Generator, n: int, longest: int) -> list[Tokens]:
    """Prompts that go on from anywhere in each other, also from the very end; some equal, some of a few tokens."""
    prompts: list[Tokens] = []
    while len(prompts) < n:
        old = prompts[int(rng.integers(len(prompts)))] if prompts else rng.integers(0, 9, longest // 2)
        kept = old[: int(rng.choice([0, len(old), rng.integers(len(old) + 1)]))]
        more = rng.integers(0, 9, int(rng.choice([0, 1, 2, 3, 4, 5, 8, 9, 30, 100])))
        prompt = np.concatenate([kept, more]).astype(np.int32)[:longest]
        if len(prompt):
            prompts.append(prompt)
    return prompts


def replay(
    plan: CapturePlan,
    prompts: Sequence[Tokens],
    settings: CaptureSettings,
    n_ctx_train: int,
    can_rewind: bool = False,
) -> None:
    """Runs the plan on sequences that are tuples of tokens. Each prompt must come out behind exactly its tokens."""
    said: list[int] = []
    for context in plan.contexts:
        assert context.n_seq_max <= settings.n_seq_max
        kept: dict[int, tuple[int, ...]] = {-1: ()}
        going_on: dict[int, tuple[int, tuple[int, ...]]] = {}
        for step in context.steps:
            if isinstance(step, EndStep):
                said.extend(step.prompts)
                assert 1 <= len(step.prompts) <= context.n_together
                assert len(going_on) == len(step.prompts)
                for place, (index, start) in enumerate(zip(step.prompts, step.starts, strict=True)):
                    own = prompts[index]
                    assert going_on.pop(place) == (index, tuple(own[:start].tolist()))
                    assert start < len(own) <= start + step.length <= min(context.n_ctx_seq, n_ctx_train)
                    room = 3 if can_rewind and len(own) + 3 <= n_ctx_train else 0
                    assert context.n_ctx_seq == cache_size(max(len(own) + room, LEAST_ROWS))
                n_filled = [
                    max(LEAST_ROWS, -(-len(prompts[at]) // ROW_STEP) * ROW_STEP) for at in step.prompts
                ]
                if step.n_rows % ROW_STEP or step.length < LEAST_ROWS or max(n_filled) > n_ctx_train:
                    # The model has no room for more.
                    assert len(step.prompts) == 1 and step.starts == (0,) and n_filled[0] > n_ctx_train
                    assert step.length == len(prompts[step.prompts[0]])
                check_decodes(context, step)
                continue
            check_decodes(context, step)
            state = kept[step.depth - 1 if isinstance(step, SharedStep) else step.depth]
            own = prompts[step.prompt]
            assert len(state) == step.start and (can_rewind or step.start % ROW_STEP == 0)
            assert tuple(own[: step.start].tolist()) == state and step.stop < len(own)
            assert step.n_rows % ROW_STEP == 0
            if isinstance(step, SharedStep):
                assert 0 <= step.depth < context.n_shared
                kept[step.depth] = tuple(own[: step.stop].tolist())
                # What was kept deeper goes on from a state that is gone.
                kept = {depth: tokens for depth, tokens in kept.items() if depth <= step.depth}
                assert step.n_rows >= LEAST_ROWS
                assert step.start + step.n_rows <= min(context.n_ctx_seq, n_ctx_train)
                assert can_rewind or step.n_rows == step.stop - step.start
            else:
                assert step.place not in going_on and 0 <= step.place < context.n_together
                going_on[step.place] = (step.prompt, tuple(own[: step.stop].tolist()))
                assert step.n_rows >= LEAST_ROWS or step.n_rows == 0
        assert not going_on
    assert sorted(said) == list(range(len(prompts)))
    assert plan.n_tokens == sum(map(len, prompts))
    assert plan.n_rows == sum(step.n_rows for context in plan.contexts for step in context.steps)


def check_decodes(context: ContextPlan, step: Step) -> None:
    """Rows in fours, at least 8 of each sequence, not too many of all."""
    n_sequences = len(step.prompts) if isinstance(step, EndStep) else 1
    n_rows = step.n_rows // n_sequences
    edges = [0, *context.cuts(step), n_rows]
    for start, stop in itertools.pairwise(edges):
        assert (stop - start) * n_sequences <= context.width
        if n_rows and not (
            n_sequences == 1 and stop == n_rows
        ):  # a prompt for which the model has no room ends anyhow
            assert (stop - start) * n_sequences % ROW_STEP == 0 and stop - start >= LEAST_ROWS


@pytest.mark.parametrize("seed", range(120))
def test_every_prompt_sees_its_own_tokens(seed: int) -> None:
    rng = np.random.default_rng(seed)
    longest = int(rng.choice([6, 30, 255, 510, 700, 2050]))
    prompts = random_prompts(rng, int(rng.integers(1, 120)), longest)
    n_ubatch = int(rng.choice([16, 20, 36, 64, 512]))
    n_seq_max = int(rng.choice([2, 3, 4, 7, 12, 14, 40]))
    settings = CaptureSettings(n_ubatch=n_ubatch, n_seq_max=n_seq_max, share=bool(rng.random() < 0.8))
    limit = None if rng.random() < 0.5 else int(rng.integers(1, 100_000))
    can_rewind = bool(rng.random() < 0.6)
    plan = plan_capture(
        prompts,
        settings,
        n_ctx_train=longest,
        can_rewind=can_rewind,
        is_wide=bool(rng.random() < 0.3),
        sequence_bytes=1000,
        cache_bytes=limit,
    )
    replay(plan, prompts, settings, longest, can_rewind)
    for context in plan.contexts:
        taken = context.n_seq_max * 1000 * context.n_ctx_seq // CACHE_STEP
        assert limit is None or taken <= limit or context.n_seq_max <= 2
    if not settings.share:
        steps = [step for context in plan.contexts for step in context.steps]
        assert all(
            step.n_rows == 0 or (isinstance(step, EndStep) and len(step.prompts) == 1) for step in steps
        )
        assert all(context.n_seq_max == 1 for context in plan.contexts)


@pytest.mark.parametrize("seed", range(10))
def test_memory_is_used(seed: int) -> None:
    """More memory makes fewer decodes of hardly more rows, and enough of it makes many sequences."""
    prompts = random_prompts(np.random.default_rng([seed, 1]), 100, 200)
    settings = CaptureSettings()

    def cost(cache_bytes: int | None) -> tuple[int, int]:
        plan = plan_capture(prompts, settings, n_ctx_train=2048, sequence_bytes=1000, cache_bytes=cache_bytes)
        (context,) = plan.contexts
        return plan.n_rows + 10 * len(context.steps), context.n_seq_max

    few, some, many, free = (cost(limit) for limit in (2000, 6000, 14_000, None))
    assert few[0] > some[0] > many[0] and free == many
    assert few[1] == 2 and few[1] <= some[1] <= 6 and some[1] <= many[1] <= 14


def few_shot(rng: np.random.Generator, n: int) -> list[Tokens]:
    """An instruction and five worked examples of 60 tokens each, then questions of 60 to 140."""
    worked = rng.integers(0, 999, 320)
    return [np.concatenate([worked, rng.integers(0, 999, int(rng.integers(60, 140)))]) for _ in range(n)]


def permuted(rng: np.random.Generator, n: int) -> list[Tokens]:
    """An instruction of 20 tokens, questions of 30 to 60, each with its four options of 12 in four orders."""
    instruction = rng.integers(0, 999, 20)
    prompts = []
    for _ in range(n // 4):
        question = rng.integers(0, 999, int(rng.integers(30, 60)))
        options = rng.integers(0, 999, (4, 12))
        turns = [np.roll(options, turn, axis=0).ravel() for turn in range(4)]
        prompts.extend(np.concatenate([instruction, question, turned]) for turned in turns)
    return prompts


def plain(rng: np.random.Generator, n: int) -> list[Tokens]:
    """Questions of 60 to 140 tokens after an instruction of 20."""
    instruction = rng.integers(0, 999, 20)
    return [np.concatenate([instruction, rng.integers(0, 999, int(rng.integers(60, 140)))]) for _ in range(n)]


@pytest.mark.parametrize(("kind", "most"), [(few_shot, 1.03), (permuted, 1.06), (plain, 1.03)])
@pytest.mark.parametrize("n", [40, 400])
@pytest.mark.parametrize("can_rewind", [False, True])
def test_hardly_more_rows_than_distinct_tokens(kind, most: float, n: int, can_rewind: bool) -> None:
    prompts = [np.asarray(prompt, dtype=np.int32) for prompt in kind(np.random.default_rng(n), n)]
    plan = plan_capture(prompts, CaptureSettings(), n_ctx_train=2048, can_rewind=can_rewind)
    replay(plan, prompts, CaptureSettings(), 2048, can_rewind)
    print(kind.__name__, n, can_rewind, plan.n_rows / plan.n_distinct)
    assert plan.n_distinct <= plan.n_rows < most * plan.n_distinct
    assert plan.n_rows < 0.95 * plan.n_tokens
    apart = plan_capture(prompts, CaptureSettings(share=False), n_ctx_train=2048)
    assert plan.n_tokens <= apart.n_rows < 1.05 * plan.n_tokens and apart.n_distinct == plan.n_distinct


def test_what_is_run_does_not_depend_on_the_order_given() -> None:
    rng = np.random.default_rng(3)
    prompts = random_prompts(rng, 80, 600)
    turned = [prompts[index] for index in rng.permutation(len(prompts))]
    one, two = (plan_capture(given, CaptureSettings(), n_ctx_train=2048) for given in (prompts, turned))
    assert (one.n_rows, one.n_distinct) == (two.n_rows, two.n_distinct)
    for a, b in zip(one.contexts, two.contexts, strict=True):
        assert (a.n_ctx_seq, a.n_shared, a.n_together) == (b.n_ctx_seq, b.n_shared, b.n_together)
        assert list(map(shape, a.steps)) == list(map(shape, b.steps))


def shape(step: Step) -> tuple[object, ...]:
    """All of a step but which of equal prompts it runs."""
    if isinstance(step, EndStep):
        return type(step), step.length, step.starts
    return type(step), step.depth, step.start, step.stop


def test_thousands_of_prompts_inside_each_other() -> None:
    longest = np.arange(8000, dtype=np.int32)
    prompts = [longest[: 8 * (at + 1)] for at in range(1000)]
    plan = plan_capture(prompts, CaptureSettings(), n_ctx_train=8192)
    replay(plan, prompts, CaptureSettings(), 8192)


def test_a_cache_depends_on_its_own_prompt_only() -> None:
    """Neither company nor what is shared changes the size of the cache that a prompt is run in."""
    prompts = [np.zeros(n, dtype=np.int32) for n in (3, 256, 257, 512, 513, 4000)]
    plan = plan_capture(prompts, CaptureSettings(), n_ctx_train=4096)
    sizes = {
        index: context.n_ctx_seq
        for context in plan.contexts
        for step in context.steps
        if isinstance(step, EndStep)
        for index in step.prompts
    }
    assert sizes == {0: 256, 1: 256, 2: 512, 3: 512, 4: 1024, 5: 4096}


def test_nothing_to_run() -> None:
    plan = plan_capture([], CaptureSettings(), n_ctx_train=512)
    assert (plan.contexts, plan.n_tokens, plan.n_distinct, plan.n_rows) == ((), 0, 0, 0)


def after_stems(*pairs: tuple[int, tuple[int, ...]]) -> list[Tokens]:
    """Prompts of so many tokens of their own after beginnings of so many, none of which shares a token."""
    rng = np.random.default_rng(4)
    return [
        np.concatenate([np.full(n_stem, 1000 + at), [2000 + i], rng.integers(0, 999, n - 1)]).astype(np.int32)
        for at, (n_stem, own) in enumerate(pairs)
        for i, n in enumerate(own)
    ]


def ends_of(prompts: list[Tokens], can_rewind: bool = True) -> tuple[CapturePlan, list[EndStep]]:
    plan = plan_capture(prompts, CaptureSettings(), n_ctx_train=2048, can_rewind=can_rewind)
    replay(plan, prompts, CaptureSettings(), 2048, can_rewind)
    (context,) = plan.contexts
    return plan, [step for step in context.steps if isinstance(step, EndStep)]


def dense(rng: np.random.Generator, n: int) -> list[Tokens]:
    """Questions of 12 tokens after an instruction of 20, each with all orders of its four options of 4."""
    instruction = rng.integers(0, 999, 20)
    prompts = []
    for _ in range(n // 24):
        question = rng.integers(0, 999, 12)
        options = rng.integers(0, 999, (4, 4))
        turns = [options[list(order)].ravel() for order in itertools.permutations(range(4))]
        prompts.extend(np.concatenate([instruction, question, turned, [3, 4]]) for turned in turns)
    return prompts


def test_short_beginnings_are_shared_where_many_go_on() -> None:
    """Beginnings of a few tokens too, although a decode has at least 8 rows; not where that would spare nothing."""
    prompts = [np.asarray(prompt, dtype=np.int32) for prompt in dense(np.random.default_rng(6), 480)]
    plan = plan_capture(prompts, CaptureSettings(), n_ctx_train=2048, can_rewind=True)
    replay(plan, prompts, CaptureSettings(), 2048, can_rewind=True)
    (context,) = plan.contexts
    shared = [step for step in context.steps if isinstance(step, SharedStep)]
    assert min(step.stop - step.start for step in shared) < LEAST_ROWS
    assert plan.n_rows < 1.25 * plan.n_distinct
    plan, _ = ends_of(after_stems(*[(30, (40, 40)), (6, (40, 40))]))
    (context,) = plan.contexts
    assert [step.stop for step in context.steps if isinstance(step, SharedStep)] == [30]


@pytest.mark.parametrize(("kind", "most"), [(few_shot, 1.003), (permuted, 1.008), (plain, 1.003)])
def test_rows_in_sixteens(kind, most: float) -> None:
    """Most decodes have rows in sixteens, which kernels of repacked weights are made for, and few are filled up: of
    many prompts those end together that have as much left."""
    prompts = [np.asarray(prompt, dtype=np.int32) for prompt in kind(np.random.default_rng(8), 400)]
    plan = plan_capture(prompts, CaptureSettings(), n_ctx_train=2048, can_rewind=True)
    assert plan.n_rows < most * plan.n_distinct
    (context,) = plan.contexts
    n_rest = sum(
        (stop - start) * n_sequences % 16
        for step in context.steps
        for n_sequences in [len(step.prompts) if isinstance(step, EndStep) else 1]
        for start, stop in itertools.pairwise([0, *context.cuts(step), step.n_rows // n_sequences])
    )
    n_rows = sum(step.n_rows for step in context.steps)
    print(kind.__name__, n_rest / n_rows)
    assert n_rest < 0.05 * n_rows


@pytest.mark.parametrize("can_rewind", [False, True])
def test_prompts_end_side_by_side_whatever_they_go_on_from(can_rewind: bool) -> None:
    """Hardly any rows are filled up, and few decodes have output rows."""
    plan, ends = ends_of(after_stems(*[(100, (45, 63, 90))] * 8), can_rewind)
    assert len(ends) <= 8 and all(len(set(step.starts)) > 1 for step in ends if len(step.prompts) > 2)
    assert plan.n_rows <= 1.04 * plan.n_distinct


def test_prompts_of_one_length_are_not_filled_up() -> None:
    """Whole, or what is left of each behind rows in sixteens, side by side."""
    plan, ends = ends_of(after_stems((100, (29,) * 4), (120, (63,) * 4)))
    assert [(step.length, len(step.prompts)) for step in ends] == [(29, 4), (15, 4)]
    assert plan.n_rows == plan.n_distinct


def test_no_prompt_is_filled_up_past_its_cache() -> None:
    """Two that end three places before the cache does cannot be filled up by four, as they are elsewhere."""
    _, roomy = ends_of(after_stems((230, (12, 12)), (100, (16, 16))))
    _, full = ends_of(after_stems((241, (12, 12)), (100, (16, 16))))
    assert [step.length for step in roomy] == [16]
    assert all(step.length < 16 or len(set(step.starts)) == 1 for step in full)


def test_models_with_experts_get_wide_decodes() -> None:
    prompts = [np.asarray(prompt, dtype=np.int32) for prompt in plain(np.random.default_rng(5), 40)]

    def n_decodes(is_wide: bool) -> int:
        (context,) = plan_capture(prompts, CaptureSettings(), n_ctx_train=2048, is_wide=is_wide).contexts
        replay(
            plan_capture(prompts, CaptureSettings(), n_ctx_train=2048, is_wide=is_wide),
            prompts,
            CaptureSettings(),
            2048,
        )
        return context.n_decodes

    assert n_decodes(True) < 0.5 * n_decodes(False)


@pytest.mark.parametrize(
    ("width", "n_sequences", "step"),
    [
        *((16, 1, 4), (20, 1, 4), (32, 1, 16), (36, 1, 4), (96, 1, 16), (512, 1, 16)),
        *((96, 2, 8), (96, 3, 16), (96, 4, 4), (40, 2, 4), (512, 3, 4), (512, 4, 4)),
    ],
)
def test_cuts(width: int, n_sequences: int, step: int) -> None:
    """As few and as equal decodes as can be; where the width allows, all rows but the last decode's are in sixteens."""
    each = rows_each(width, n_sequences)
    assert decode_cuts(0, width, n_sequences) == []
    for n_rows in range(1, 1200):
        edges = [0, *decode_cuts(n_rows, width, n_sequences), n_rows]
        sizes = [b - a for a, b in itertools.pairwise(edges)]
        assert max(sizes) <= each and len(sizes) == -(-n_rows // each)
        assert min(sizes) >= LEAST_ROWS or len(sizes) == 1
        assert max(sizes) - min(sizes) <= step
        assert all(edge % step == 0 for edge in edges[:-1])


def test_the_price_is_that_of_the_decodes() -> None:
    """However rows are cut, they cost what their decodes cost."""
    for n_sequences in (1, 2, 3, 4):
        for n_rows in range(8, 400, 4):
            edges = [0, *decode_cuts(n_rows, 96, n_sequences), n_rows]
            alone = [price(b - a, n_sequences, 96) for a, b in itertools.pairwise(edges)]
            assert price(n_rows, n_sequences, 96) == pytest.approx(sum(alone))
    assert price(np.array([0, 8, 400]), 1, 96).tolist() == [price(n, 1, 96) for n in (0, 8, 400)]


def test_settings_are_checked_and_described() -> None:
    for name in ("n_threads", "n_batch", "n_ubatch", "n_seq_max"):
        with pytest.raises(InputError, match=f"{name} must be at least 1"):
            CaptureSettings(**{name: 0})
    with pytest.raises(InputError, match="at most 256"):
        CaptureSettings(n_seq_max=257)
    with pytest.raises(InputError, match="n_seq_max must be at least 2, got 1"):
        CaptureSettings(n_seq_max=1)
    for n_ubatch in (8, 12, 17, 30):
        with pytest.raises(InputError, match=f"multiple of 4 and at least 16, got {n_ubatch}"):
            CaptureSettings(n_ubatch=n_ubatch)
    with pytest.raises(InputError, match="n_ubatch must be at most n_batch"):
        CaptureSettings(n_batch=64, n_ubatch=68)
    described = CaptureSettings(n_threads=3).describe()
    assert described["n_threads"] == 3 and described["kv_unified"] is False and described["share"] is True
    assert CaptureSettings().n_threads == count_physical_cores() >= 1
