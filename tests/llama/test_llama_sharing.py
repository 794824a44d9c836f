"""Shared beginnings and decodes against llama.cpp: not one bit of any prompt's numbers may differ from running it
alone, whatever its company, its order, the micro-batches, the number of sequences and of threads."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray
from support.tiny_archs import ARCHS, tiny_arch
from support.tiny_models import tiny_folder, write_gguf
from support.tiny_quantized import tiny_llama
from support.tiny_run import run

from edgecal.architectures import PLAIN_STREAM, ResidualStream, stream_of
from edgecal.gguf.header import read_header
from edgecal.llama import decode_rows, streams
from edgecal.llama.capture import capture, plan_for
from edgecal.llama.context import Context
from edgecal.llama.decode_rows import LEAST_ROWS, ROW_STEP
from edgecal.llama.model import Model
from edgecal.llama.packing import EndStep, SharedStep
from edgecal.llama.settings import CaptureSettings

Array = NDArray[np.float32]
Tokens = NDArray[np.int32]

SHARED = CaptureSettings(n_threads=1)
ALONE = replace(SHARED, share=False)

# Micro-batches that cut the longer prompts, few sequences and many, decodes of several micro-batches and of one.
WAYS = [
    SHARED,
    replace(SHARED, n_ubatch=16, n_batch=16, n_seq_max=2),
    replace(SHARED, n_ubatch=36, n_batch=100, n_seq_max=5),
    replace(SHARED, n_ubatch=64, n_seq_max=40),
]

WEIGHTS = "F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K".split()
# IQ2_S passes too, but ggml takes seconds to prepare its quantizer; its kernel is that of IQ3_S.
WEIGHTS += "IQ4_NL IQ4_XS IQ3_S MXFP4 TQ1_0 TQ2_0".split()


@cache
def family() -> tuple[Tokens, ...]:
    """27 prompts, the longer than any sliding window: beginnings inside beginnings, whole prompts that others go
    on from, two that are equal, and 1 to 9 tokens."""
    rng = np.random.default_rng(23)
    stem = rng.integers(3, 250, 70)
    prompts = [stem[:n] for n in (*range(1, 10), 69, 70)]
    for length in (18, 41):
        branch = np.concatenate([stem, rng.integers(3, 250, length)])
        prompts.extend([branch, branch[:-1], branch])
        for more in (1, 3, 26):
            twig = np.concatenate([branch, rng.integers(3, 250, more)])
            prompts.extend(
                [twig, np.concatenate([twig[:-1], rng.integers(3, 250, 9)])][: 2 if more > 1 else 1]
            )
    return tuple(prompt.astype(np.int32) for prompt in prompts)


@cache
def few_shot() -> tuple[Tokens, ...]:
    """22 prompts on two long beginnings, which several decodes run: short and long ones behind them, that end with
    each other, and some whose length is about that of a cache."""
    rng = np.random.default_rng(29)
    prompts = []
    for n_shared, n_own in (
        (301, (1, 6, 17, 44, 45, 90, 110, 207)),
        (118, (9, 33, 40, 70, 98, 135, 136, 137, 138, 250)),
    ):
        stem = rng.integers(3, 250, n_shared)
        prompts += [np.concatenate([stem, rng.integers(3, 250, n)]) for n in n_own]
    prompts += [np.concatenate([prompts[-1], rng.integers(3, 250, n)]) for n in (4, 30, 142, 143)]
    return tuple(prompt.astype(np.int32) for prompt in prompts)


@cache
def of_one_length() -> tuple[Tokens, ...]:
    """25 prompts that end in fours, threes and pairs: as many rows of each as they have, seldom a multiple of four."""
    rng = np.random.default_rng(31)
    prompts = []
    for n_own, n in ((9, 4), (14, 4), (23, 4), (31, 4), (61, 4), (38, 2), (27, 3)):
        stem = rng.integers(3, 250, 40)
        prompts += [np.concatenate([stem, rng.integers(3, 250, n_own)]) for _ in range(n)]
    return tuple(prompt.astype(np.int32) for prompt in prompts)


@cache
def orders() -> tuple[Tokens, ...]:
    """25 prompts: a question with all orders of four options of a few tokens, and one of its beginnings."""
    rng = np.random.default_rng(37)
    stem, end = rng.integers(3, 250, 30), rng.integers(3, 250, 2)
    options = [rng.integers(3, 250, n) for n in (4, 5, 6, 5)]
    turned = [[options[at] for at in order] for order in itertools.permutations(range(4))]
    prompts = [np.concatenate([stem, *each, end]) for each in turned]
    return tuple(prompt.astype(np.int32) for prompt in [*prompts, prompts[3][:44]])


def run_all(
    model: Model,
    prompts: Sequence[Tokens],
    settings: CaptureSettings,
    *,
    stream: ResidualStream | None = PLAIN_STREAM,
) -> list[tuple[bytes, bytes]]:
    """The bytes of each prompt's logits and hidden states; without a stream those of its logits alone."""
    found: list[tuple[bytes, bytes] | None] = [None] * len(prompts)
    for chunk in capture(model, prompts, settings, hidden=stream is not None, stream=stream or PLAIN_STREAM):
        for row, index in enumerate(chunk.indices.tolist()):
            assert found[index] is None
            states = b"" if chunk.hidden is None else chunk.hidden[row].tobytes()
            found[index] = chunk.logits[row].tobytes(), states
    return [each for each in found if each is not None]


def differing(
    path: Path,
    prompts: Sequence[Tokens],
    ways: Sequence[CaptureSettings],
    *,
    stream: ResidualStream | None = PLAIN_STREAM,
) -> list[str]:
    """The prompts (by length) whose bits depend on how they were run; each way gets another order and company."""
    rng = np.random.default_rng(0)
    wrong = []
    with Model(path) as model:
        expected = run_all(model, prompts, ALONE, stream=stream)
        for number, settings in enumerate(ways):
            taken = rng.permutation(len(prompts))[
                : len(prompts) if number % 2 == 0 else 2 * len(prompts) // 3
            ]
            found = run_all(model, [prompts[index] for index in taken], settings, stream=stream)
            wrong += [
                f"{settings}: {len(prompts[index])} tokens"
                for index, got in zip(taken, found, strict=True)
                if got != expected[index]
            ]
    return wrong


def test_the_family_shares_all_that_can_be_shared() -> None:
    """So that the tests below mean something: states inside states, and prompts that end together."""
    with Model(tiny_llama("F32")) as model:
        plan = plan_for(model, family(), SHARED)
        steps = [step for context in plan.contexts for step in context.steps]
        assert max(step.depth for step in steps if isinstance(step, SharedStep)) >= 1
        ends = [step for step in steps if isinstance(step, EndStep)]
        assert any(len(step.prompts) > 1 and len(set(step.starts)) > 1 for step in ends)
        assert plan.n_rows < 0.5 * plan_for(model, family(), ALONE).n_rows
        plan = plan_for(model, of_one_length(), SHARED)
        ends = [step for context in plan.contexts for step in context.steps if isinstance(step, EndStep)]
        assert {1, 2, 3} <= {step.length % ROW_STEP for step in ends}
        plan = plan_for(model, orders(), SHARED)
        shared = [step for context in plan.contexts for step in context.steps if isinstance(step, SharedStep)]
        assert min(step.stop - step.start for step in shared) < LEAST_ROWS


@pytest.mark.parametrize("weights", WEIGHTS)
def test_weights(weights: str) -> None:
    assert differing(tiny_llama(weights), family(), WAYS) == []


@pytest.mark.parametrize("weights", WEIGHTS)
def test_rows_of_several_prompts_in_a_four(weights: str) -> None:
    ways = [SHARED, replace(SHARED, n_ubatch=36), replace(SHARED, n_ubatch=64, n_threads=2)]
    assert differing(tiny_llama(weights), of_one_length(), ways) == []


@pytest.mark.parametrize("weights", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_K", "IQ4_NL"])
def test_short_beginnings(weights: str) -> None:
    ways = [SHARED, replace(SHARED, n_ubatch=16, n_threads=2), replace(SHARED, n_seq_max=4)]
    assert differing(tiny_llama(weights), orders(), ways) == []


@pytest.mark.parametrize("weights", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_K", "IQ4_NL"])
def test_long_prompts(weights: str) -> None:
    ways = [SHARED, replace(SHARED, n_ubatch=48, n_threads=2), replace(SHARED, n_seq_max=4)]
    assert differing(tiny_llama(weights), few_shot(), ways) == []


@pytest.mark.parametrize("name", ["gemma2", "gpt-oss", "jamba", "mamba", "gpt2", "deepseek2"])
def test_long_prompts_of_other_memories(name: str) -> None:
    prompts = [prompt for prompt in few_shot() if len(prompt) <= 508]
    assert differing(tiny_arch(name, "Q4_0"), prompts, [SHARED]) == []


@pytest.mark.parametrize("name", ARCHS)
def test_architectures(name: str) -> None:
    spec, path = ARCHS[name], tiny_arch(name)
    stream = None if spec.node is None else stream_of(spec.arch, read_header(path).get, path)
    ways = WAYS[:1] if spec.adds_up_by_cuts else WAYS[2:3]
    assert differing(path, family(), ways, stream=stream) == []
    for prompts in (of_one_length(), orders()):
        assert differing(path, prompts, WAYS[:1], stream=stream) == []


@pytest.mark.parametrize(
    "name", ["mixtral", "qwen3moe", "gpt-oss", "granitehybrid", "jamba", "gemma2", "deepseek2"]
)
@pytest.mark.parametrize("weights", ["Q8_0", "Q4_0", "F16"])
def test_quantized_architectures(name: str, weights: str) -> None:
    assert differing(tiny_arch(name, weights), family(), WAYS[1:3]) == []


@pytest.mark.parametrize("weights", ["F32", "Q4_K"])
def test_two_threads(weights: str) -> None:
    assert differing(tiny_llama(weights), family()[::4], [replace(SHARED, n_threads=2, n_ubatch=36)]) == []


def test_a_longer_list_changes_nothing_that_was_there() -> None:
    with Model(tiny_llama("Q4_K")) as model:
        whole = run_all(model, family(), SHARED)
        for n in (1, 2, 12, 25):
            assert run_all(model, family()[:n], SHARED) == whole[:n]


class TestTheRules:
    """Without any one of the rules some bits differ: the tests above can fail, and no rule is idle."""

    def test_rows_are_filled_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(decode_rows, "ROW_STEP", 1)
        monkeypatch.setattr(decode_rows, "LEAST_ROWS", 1)
        assert differing(tiny_llama("F32"), family(), WAYS[:1])

    def test_output_rows_are_filled_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(streams, "OUTPUT_ROWS", 1)
        assert differing(tiny_llama("F32"), family(), WAYS[:1])

    def test_few_rows(self) -> None:
        """What llama.cpp is told for experts it reads once in a process, so this has one of its own."""
        of_experts, of_four_rows = in_child("differing_with_few_rows", GGML_CPU_TILED_MM_FORCE="0")
        assert of_experts and of_four_rows


def differing_with_few_rows() -> list[list[str]]:
    of_experts = differing_experts()
    decode_rows.LEAST_ROWS = 4
    return [of_experts, differing(tiny_llama("Q6_K"), family(), WAYS[:1])]


def differing_experts() -> list[str]:
    names = ("Q6_K", "Q4_K", "Q4_0", "BF16")
    return [
        wrong for name in names for wrong in differing(tiny_llama(name, experts=True), family(), WAYS[:2])
    ]


def test_quantized_experts() -> None:
    """With some weight types llama.cpp would take another kernel where few rows come to an expert."""
    assert in_child("differing_experts") == []


class TestFullContexts:
    """Prompts as long as the model can hold, where there may be no room to fill rows up to four or eight."""

    @pytest.mark.parametrize("n_ctx_train", [5, 11, 61, 64, 511])
    @pytest.mark.parametrize("weights", ["F32", "Q4_K"])
    def test_up_to_the_last_token(self, weights: str, n_ctx_train: int) -> None:
        rng = np.random.default_rng(n_ctx_train)
        stem = rng.integers(3, 250, n_ctx_train).astype(np.int32)
        prompts = [stem[: max(1, n_ctx_train - short)] for short in (0, 1, 2, 3, 4, 5, 9)]
        for prompt in prompts[:5]:
            turned = prompt.copy()
            turned[-1] += 1
            prompts.append(turned)
        path = tiny_llama(weights, n_ctx_train=n_ctx_train)
        assert differing(path, prompts, WAYS) == []
        with Model(path) as model:
            plan = plan_for(model, prompts, SHARED)
            steps = [step for context in plan.contexts for step in context.steps]
            ends = [step for step in steps if isinstance(step, EndStep)]
            assert max(max(step.starts) + step.length for step in ends) == n_ctx_train

    def test_learned_positions(self) -> None:
        """A position that the model has no vector for would end the process: run in one of its own."""
        assert in_child("full_context_of_learned_positions") == []


def full_context_of_learned_positions() -> list[str]:
    wrong = []
    for n_ctx_train in (7, 58, 255):
        source = gguf.GGUFReader(tiny_arch("gpt2"))
        fields = {
            name: field.contents()
            for name, field in source.fields.items()
            if "." in name and "GGUF." not in name
        }
        tensors = {
            tensor.name: np.array(tensor.data)[:n_ctx_train]
            if tensor.name == "position_embd.weight"
            else tensor.data
            for tensor in source.tensors
        }
        path = write_gguf(
            tiny_folder() / f"gpt2-{n_ctx_train}.gguf", "gpt2",
            {**fields, "gpt2.context_length": n_ctx_train, "general.architecture": None}, tensors,
        )  # fmt: skip
        stem = np.random.default_rng(3).integers(3, 250, n_ctx_train).astype(np.int32)
        prompts = [stem[: n_ctx_train - short] for short in range(6)]
        prompts += [np.append(prompt[:-1], np.int32(9)) for prompt in prompts]
        wrong += differing(path, prompts, WAYS)
        with Model(path) as model:
            chunks = list(capture(model, prompts, SHARED, hidden=False))
        expected = run(path, [prompt.tolist() for prompt in prompts]).logits
        for chunk in chunks:
            if np.abs(chunk.logits - expected[chunk.indices]).max() > 0.02 * expected.std():
                wrong.append(f"{path}: not what a plain run gives")
    return wrong


def in_child(function: str, **environment: str) -> Any:
    """What a function of this module returns in a process of its own."""
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    code = (
        f"import sys, json; sys.path[:0] = {folders!r}\n"
        f"import {Path(__file__).stem} as module; print(json.dumps(module.{function}()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


class TestMemory:
    """Attention can forget what is behind a state; a recurrent state has to be copied again."""

    @pytest.mark.parametrize(
        ("name", "rewinds"), [("llama", True), ("gemma2", True), ("mamba", False), ("jamba", False)]
    )
    def test_states_are_gone_back_to_or_copied(
        self, monkeypatch: pytest.MonkeyPatch, name: str, rewinds: bool
    ) -> None:
        calls: Counter[str] = Counter()
        fork, rewind = Context.fork, Context.rewind

        def counted_fork(context: Context, source: int, target: int) -> None:
            calls["fork"] += 1
            fork(context, source, target)

        def counted_rewind(context: Context, sequence: int, n_tokens: int) -> bool:
            done = rewind(context, sequence, n_tokens)
            calls["rewound" if done else "refused"] += 1
            return done

        monkeypatch.setattr(Context, "fork", counted_fork)
        monkeypatch.setattr(Context, "rewind", counted_rewind)
        with Model(tiny_arch(name)) as model:
            run_all(model, family(), SHARED)
        assert calls["fork"] > 0
        assert (calls["rewound"] > 0) is rewinds and (calls["refused"] > 0) is not rewinds
