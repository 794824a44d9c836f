"""The rows that micro-batches hold, against llama.cpp: every prompt of a decode of many must get the numbers
that a plain run of that prompt alone gives, by a Python callback that shares no code with the package."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from support.tiny_archs import ARCHS, tiny_arch
from support.tiny_run import TinyRun, run

from edgecal.architectures import PLAIN_STREAM, ResidualStream, family_of, stream_of
from edgecal.errors import ModelError
from edgecal.gguf.header import read_header
from edgecal.llama.context import Context, TokenBatch
from edgecal.llama.hook import HiddenCapture, PlannedMicroBatch
from edgecal.llama.library import ggml_addresses
from edgecal.llama.microbatch import Memory
from edgecal.llama.model import Model
from edgecal.llama.settings import CaptureSettings

Array = NDArray[np.float32]

# Lengths that no rule cuts evenly, and one prompt of a single token.
LENGTHS = (5, 9, 13, 1, 9)

# Largest error over the spread of all numbers. Packing moves last bits; another token's row differs by about 1.
TOLERANCE = 0.02

READABLE = [name for name, spec in ARCHS.items() if spec.node is not None]


@cache
def prompts() -> tuple[tuple[int, ...], ...]:
    rng = np.random.default_rng(7)
    return tuple(tuple(int(token) for token in rng.integers(3, 250, length)) for length in LENGTHS)


@cache
def alone(name: str) -> TinyRun:
    return run(tiny_arch(name), [list(prompt) for prompt in prompts()], **ARCHS[name].nodes)


def batch_of(order: list[int], *, interleave: bool = False) -> TokenBatch:
    """All prompts in one batch: sequence k is prompt order[k]."""
    rows = [
        (token, at, sequence, index if at == len(prompts()[index]) - 1 else -1)
        for sequence, index in enumerate(order)
        for at, token in enumerate(prompts()[index])
    ]
    if interleave:
        rows.sort(key=lambda row: (row[1], row[2]))
    tokens, positions, seq_ids, wanted = (
        np.array(column, dtype=np.int32) for column in zip(*rows, strict=True)
    )
    return TokenBatch(tokens, positions, seq_ids, wanted, wanted >= 0)


def first_prompt(n: int = 5) -> TokenBatch:
    """n tokens of one sequence, the last one wanted."""
    tokens = np.resize(np.array(prompts()[0], dtype=np.int32), n)
    wanted = np.full(n, -1, dtype=np.int32)
    wanted[-1] = 0
    return TokenBatch(tokens, np.arange(n, dtype=np.int32), np.zeros(n, dtype=np.int32), wanted, wanted >= 0)


def stream(name: str) -> ResidualStream:
    return stream_of(ARCHS[name].arch, read_header(tiny_arch(name)).get, name)


def decode(
    name: str, settings: CaptureSettings, batch: TokenBatch, where: ResidualStream | None = None
) -> tuple[Array, Array]:
    n = len(LENGTHS)
    where = where or stream(name)
    with Model(tiny_arch(name)) as model:
        assert model.n_layer == ARCHS[name].n_blocks
        hidden = np.full((n, model.n_layer, where.n_streams * model.n_embd), np.nan, dtype=np.float32)
        logits = np.full((n, model.n_vocab), np.nan, dtype=np.float32)
        captured = np.zeros((n, model.n_layer), dtype=np.uint8)
        with Context(
            model, settings, n_ctx_seq=256, n_seq_max=n, n_outputs_max=n, hidden=True, stream=where
        ) as context:
            context.decode(batch, logits, hidden, captured)
        assert captured.all()
    return hidden, logits


def error(got: Array, expected: Array) -> float:
    return float(np.abs(got - expected).max() / expected.std())


# Every kind of memory (one state or cache, sliding windows, mixed), and last blocks of both kinds.
KINDS = ["llama", "mixtral", "gemma2", "gemma3", "gpt-oss", "qwen3next", "qwen35", "mamba", "mamba2", "jamba"]
KINDS += ["granitehybrid", "falcon-h1", "lfm2", "cohere2moe", "nemotron_h", "kimi-linear", "rwkv6", "rwkv7"]
# Several streams, a second cache that says which tokens are looked at, and both.
KINDS += ["gemma3n", "hy_v4", "deepseek32", "dots3note", "minimax-m3", "glm5-next", "qwen4exp-ngrams"]


@pytest.mark.parametrize("kv_unified", [False, True], ids=["streams", "one-cache"])
@pytest.mark.parametrize("name", KINDS)
def test_every_way_of_packing(name: str, kv_unified: bool) -> None:
    for order, n_ubatch, interleave in [
        ([0, 1, 2, 3, 4], 512, False),
        ([4, 2, 0, 3, 1], 16, False),
        ([2, 3, 1, 4, 0], 20, True),
    ]:
        settings = CaptureSettings(n_threads=1, n_ubatch=n_ubatch, kv_unified=kv_unified)
        hidden, logits = decode(name, settings, batch_of(order, interleave=interleave))
        assert error(hidden, alone(name).hidden) < TOLERANCE
        assert error(logits, alone(name).logits) < TOLERANCE


@pytest.mark.parametrize("name", READABLE)
def test_every_architecture(name: str) -> None:
    settings = CaptureSettings(n_threads=1, n_ubatch=16)
    hidden, logits = decode(name, settings, batch_of([2, 4, 1, 0, 3]))
    right = error(hidden, alone(name).hidden) < TOLERANCE and error(logits, alone(name).logits) < TOLERANCE
    assert right is not ARCHS[name].mixes_sequences
    if ARCHS[name].mixes_sequences:
        assert not family_of(ARCHS[name].arch).may_share


def test_blocks_of_several_rows_for_a_token_are_refused() -> None:
    message = r"block 0 \(l_out-0\).*: 5 rows .* expected, got 20 rows .*--method daca"
    settings = CaptureSettings(n_threads=1, n_ubatch=16)
    with pytest.raises(ModelError, match=message):
        decode("gemma3n", settings, batch_of([2, 4, 1, 0, 3]), PLAIN_STREAM)


def test_blocks_without_a_name_are_refused() -> None:
    with pytest.raises(ModelError, match=r"block 0 \(l_out-0\), .*: not captured; .*--method daca"):
        decode("step35", CaptureSettings(n_threads=1), batch_of([2, 4, 1, 0, 3]))


def test_sequences_that_cannot_share_a_micro_batch_out_evenly() -> None:
    """llama.cpp would abort the process."""
    settings = CaptureSettings(n_threads=1, n_ubatch=1028, n_batch=1028)
    with (
        Model(tiny_arch("kimi-linear")) as model,
        pytest.raises(ModelError, match="needs the 1028 tokens of a micro-batch to divide evenly"),
    ):
        Context(model, settings, n_ctx_seq=512, n_seq_max=5, n_outputs_max=5, hidden=False)


def test_a_wrong_row_would_be_seen() -> None:
    """The tolerance tells a token's row from its neighbour's."""
    expected = alone("llama").hidden
    assert error(np.roll(expected, 1, axis=0), expected) > 20 * TOLERANCE


def test_memories_are_told_apart() -> None:
    expected = {
        "llama": Memory.ATTENTION,
        "gemma2": Memory.SLIDING,
        "mamba": Memory.RECURRENT,
        "jamba": Memory.HYBRID,
    }
    for name, memory in expected.items():
        with Model(tiny_arch(name)) as model:
            assert model.memory is memory


class TestErrorsOfTheHook:
    """What the hook finds wrong, provoked by wrong plans for a real model."""

    def fail(
        self, plan: list[PlannedMicroBatch], n_layer: int = 3, n_embd: int = 64, name: str = "llama"
    ) -> str:
        """The message after decoding 5 tokens, the last one wanted, with a hook that was told this."""
        with Model(tiny_arch(name)) as model:
            assert (model.n_layer, model.n_embd) == (3, 64)
            told = HiddenCapture(n_layer, n_embd, ggml_addresses())
            settings = CaptureSettings(n_threads=1)
            with Context(
                model, settings, n_ctx_seq=256, n_seq_max=1, n_outputs_max=1, hidden=True
            ) as context:
                # Another capture object in the place of the context's own.
                params = context._params(settings, 256, 1)
                params.cb_eval_user_data = told.user
                library = context._library
                handle = library.llama_init_from_model(model.handle, params)
                own, context._handle = context._handle, handle
                hidden = np.full((1, n_layer, n_embd), np.nan, dtype=np.float32)
                captured = np.zeros((1, n_layer), dtype=np.uint8)
                told.plan(hidden, captured, plan)
                status = context._decode(first_prompt())
                assert status == 0, "an error in the hook must not stop llama.cpp"
                context._handle = own
                library.llama_free(handle)
            with told, pytest.raises(ModelError) as caught:
                told.finish()
        return str(caught.value)

    def test_rows(self) -> None:
        message = self.fail([(6, 1, [(5, 0, 0)])])
        assert (
            "block 0 (l_out-0), micro-batch 1 of 1: 6 rows (or 1 in the last block) of 256 bytes" in message
        )
        assert "got 5 rows and 1280 bytes" in message and "--method daca" in message

    def test_rows_of_the_last_block(self) -> None:
        message = self.fail([(5, 2, [(4, 0, 0)])])
        assert "block 2 (l_out-2), micro-batch 1 of 1: 5 rows (or 2 in the last block)" in message
        assert "got 1 rows and 256 bytes" in message

    def test_row_size(self) -> None:
        message = self.fail([(5, 1, [(4, 0, 0)])], n_embd=32)
        assert "block 0" in message and "rows of 128 bytes expected, got 5 rows and 1280 bytes" in message

    def test_missing_block(self) -> None:
        # A model whose last block holds every row, so that nothing looks wrong before the end.
        message = self.fail([(5, 1, [(4, 0, 0)])], n_layer=4, name="gpt-oss")
        assert "block 3 (l_out-3), micro-batch 1 of 1: not captured" in message
        assert "5 rows (or 1 in the last block) of 256 bytes expected" in message

    def test_missing_micro_batch(self) -> None:
        message = self.fail([(5, 1, [(4, 0, 0)]), (1, 1, [(0, 0, 0)])])
        assert "block 0 (l_out-0), micro-batch 2 of 2: not captured" in message

    def test_too_many_blocks(self) -> None:
        message = self.fail([(5, 1, [(4, 0, 0)])], n_layer=2)
        assert "block 2 (l_out-2)" in message and "fewer blocks, got 1 rows and 256 bytes" in message

    def test_too_many_micro_batches(self) -> None:
        with Model(tiny_arch("llama")) as model:
            settings = CaptureSettings(n_threads=1, n_ubatch=16)
            with Context(
                model, settings, n_ctx_seq=256, n_seq_max=1, n_outputs_max=1, hidden=True
            ) as context:
                context.n_ubatch = 20  # what the plan believes
                hidden = np.full((1, 3, 64), np.nan, dtype=np.float32)
                captured = np.zeros((1, 3), dtype=np.uint8)
                logits = np.empty((1, model.n_vocab), dtype=np.float32)
                with pytest.raises(ModelError, match=r"block 0 .*20 rows .* expected, got 16 rows"):
                    context.decode(first_prompt(20), logits, hidden, captured)

    def test_a_decode_that_llama_cpp_would_abort_on(self) -> None:
        with (
            Model(tiny_arch("llama")) as model,
            Context(
                model, CaptureSettings(n_threads=1), n_ctx_seq=256, n_seq_max=1, n_outputs_max=2, hidden=False
            ) as context,
        ):
            logits = np.empty((1, model.n_vocab), dtype=np.float32)
            many = first_prompt(3)
            for batch, told in [
                (first_prompt(300), "300 tokens, 1 of them outputs"),
                (replace(many, outputs=np.ones(3, dtype=np.bool_)), "3 tokens, 3 of them outputs"),
            ]:
                with pytest.raises(ModelError, match=rf"decode of {told}, .* 256 tokens and 2 outputs"):
                    context.decode(batch, logits, None, None)

    def test_more_sequences_than_outputs(self) -> None:
        """llama.cpp aborts on a context with less room for logits than one row for each sequence."""
        with (
            Model(tiny_arch("llama")) as model,
            Context(
                model, CaptureSettings(n_threads=1), n_ctx_seq=256, n_seq_max=9, n_outputs_max=1, hidden=False
            ) as context,
        ):
            logits = np.full((1, model.n_vocab), np.nan, dtype=np.float32)
            context.decode(first_prompt(), logits, None, None)
            assert error(logits, alone("llama").logits[:1]) < TOLERANCE

    def test_unsound_plan(self) -> None:
        hook = HiddenCapture(3, 64, ggml_addresses())
        hidden = np.empty((1, 3, 64), dtype=np.float32)
        captured = np.zeros((1, 3), dtype=np.uint8)
        with hook, pytest.raises(ModelError, match="was refused"):
            hook.plan(hidden, captured, [(5, 1, [(5, 0, 0)])])
        with hook, pytest.raises(ModelError, match="must be contiguous float32"):
            hook.plan(hidden[:, :2], captured, [(5, 1, [(4, 0, 0)])])
