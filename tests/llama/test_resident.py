"""Resident states: no bit of a prompt's logits depends on its company, on earlier calls or on what was forgotten, and a
state is computed once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.decision_prompts import random_questions, random_states
from support.tiny_archs import ARCHS, tiny_arch, write_tiny_arch
from support.tiny_models import tiny_folder
from support.tiny_quantized import tiny_llama

from edgecal.errors import InputError, ModelError
from edgecal.llama import resident
from edgecal.llama.capture import capture
from edgecal.llama.context import Context
from edgecal.llama.decode_rows import filled
from edgecal.llama.model import Model
from edgecal.llama.resident import ResidentContext
from edgecal.llama.settings import CaptureSettings

Tokens = NDArray[np.int32]

SETTINGS = CaptureSettings(n_threads=1)
VOCAB = 250
PADDING = 9  # rows for each prompt, and 7 for each state: the module's own words


def alone(model: Model, prompts: Sequence[Tokens]) -> dict[bytes, bytes]:
    """The bits of each prompt's logits by the prompt's tokens, from `capture` of that prompt alone."""
    found = {}
    for prompt in {prompt.tobytes(): prompt for prompt in prompts}.values():
        (chunk,) = capture(model, [prompt], SETTINGS, hidden=False)
        found[prompt.tobytes()] = chunk.logits[0].tobytes()
    return found


def run(
    context: ResidentContext, prompts: Sequence[Tokens], n_kept: Sequence[int]
) -> tuple[list[bytes], int]:
    """The bits of each prompt's logits, and the rows that were run."""
    found: dict[int, bytes] = {}

    def on_logits(index: int, logits: NDArray[np.float32]) -> None:
        assert index not in found
        found[index] = logits.tobytes()

    n_rows = context.run(prompts, n_kept, on_logits)
    return [found[index] for index in range(len(prompts))], n_rows


def joined(state: Tokens, questions: Sequence[Tokens]) -> tuple[list[Tokens], list[int]]:
    """Prompts and `n_kept` of questions about a state."""
    return [np.concatenate([state, question]) for question in questions], [len(state)] * len(questions)


def differing(
    path: Path, n_requests: int, *, seed: int = 0, states: tuple[int, int] = (1, 300), n_ctx: int = 512
) -> list[str]:
    """Asks about random states, some of them again, in random orders, and forgets everything now and then; the
    prompts (by length) whose bits are not those of the prompt alone."""
    rng = np.random.default_rng(seed)
    known = random_states(rng, 1 + n_requests // 4, lengths=states, n_vocab=VOCAB)
    questions = random_questions(rng, 12, lengths=(1, 90), n_vocab=VOCAB)
    wrong = []
    with Model(path) as model, ResidentContext(model, SETTINGS, n_ctx=n_ctx) as context:
        expected: dict[bytes, bytes] = {}
        n_done = 0
        while n_done < n_requests:
            prompts: list[Tokens] = []
            n_kept: list[int] = []
            for _ in range(int(rng.integers(1, 4))):  # requests of one call
                state = known[int(rng.integers(len(known)))]
                chosen = rng.permutation(len(questions))[: int(rng.integers(1, 6))]
                more, kept = joined(state, [questions[at] for at in chosen])
                prompts += more
                n_kept += kept
                n_done += 1
            order = rng.permutation(len(prompts))
            prompts, n_kept = [prompts[at] for at in order], [n_kept[at] for at in order]
            expected |= alone(model, [each for each in prompts if each.tobytes() not in expected])
            found, _ = run(context, prompts, n_kept)
            wrong += [
                f"{len(prompt)} tokens, {kept} kept"
                for prompt, kept, got in zip(prompts, n_kept, found, strict=True)
                if got != expected[prompt.tobytes()]
            ]
            if rng.random() < 0.05:
                context.close()
        assert len(set(expected.values())) > 0.9 * len(expected)  # the model tells prompts apart
    return wrong


def test_200_random_requests_have_the_same_bits_alone_and_in_company() -> None:
    assert differing(tiny_llama("Q4_0"), 200, n_ctx=1024) == []


@pytest.mark.parametrize("weights", ["F32", "F16", "BF16", "Q8_0", "Q4_K", "Q6_K", "IQ4_NL"])
def test_weights(weights: str) -> None:
    assert differing(tiny_llama(weights), 16, seed=1) == []


# Sliding windows, recurrent states, both, experts, latent attention, learned positions, and architectures whose
# prompts must run alone.
@pytest.mark.parametrize(
    "name",
    "gemma2 gemma3 gpt-oss mamba mamba2 jamba granitehybrid qwen3next rwkv7 lfm2 mixtral qwen3moe deepseek2 gpt2 phi3 "
    "kimi-linear minimax-01 plamo2 deepseek4".split(),
)
def test_architectures(name: str) -> None:
    assert differing(tiny_arch(name), 10, seed=2, states=(1, 200)) == []


def test_every_architecture_is_known_here() -> None:
    assert {"mamba", "gemma2", "minimax-01", "mixtral"} <= set(ARCHS)


def test_a_small_prompt_beside_a_long_one() -> None:
    """The cache is as large as the longest prompt needs, and grows; a prompt alone has one of its own size."""
    rng = np.random.default_rng(5)
    prompts = [rng.integers(3, VOCAB, n).astype(np.int32) for n in (30, 255, 700, 1500, 2040)]
    with Model(tiny_llama("Q4_K")) as model, ResidentContext(model, SETTINGS, n_ctx=4096) as context:
        expected = alone(model, prompts)
        for batch in (prompts[:2], prompts[2:4], prompts, prompts[::-1]):
            found, _ = run(context, batch, [len(prompt) // 2 for prompt in batch])
            assert found == [expected[prompt.tobytes()] for prompt in batch]


@pytest.mark.parametrize("n_ctx_train", [11, 61, 64, 511])
def test_up_to_the_models_last_token(n_ctx_train: int) -> None:
    rng = np.random.default_rng(n_ctx_train)
    stem = rng.integers(3, VOCAB, n_ctx_train).astype(np.int32)
    prompts = [stem[: max(1, n_ctx_train - short)] for short in (0, 1, 2, 3, 4, 5, 9)]
    with Model(tiny_llama("Q4_K", n_ctx_train=n_ctx_train)) as model:
        expected = alone(model, prompts)
        with ResidentContext(model, SETTINGS, n_ctx=4096) as context:
            for kept in (0, n_ctx_train // 2, n_ctx_train):
                found, _ = run(context, prompts, [min(kept, len(prompt)) for prompt in prompts])
                assert found == [expected[prompt.tobytes()] for prompt in prompts]


@cache
def long_mamba() -> Path:
    """As `tiny_arch("mamba")`, with a longer context."""
    return write_tiny_arch(
        tiny_folder() / "long-mamba.gguf", "mamba", seed=1, metadata={"mamba.context_length": 2048}
    )


class TestRows:
    """A state is computed once, and the padding is what the module's docstring says."""

    @pytest.mark.parametrize("n_questions", [1, 8, 32])
    @pytest.mark.parametrize("name", ["llama", "mamba"])
    def test_a_thousand_tokens(self, n_questions: int, name: str) -> None:
        rng = np.random.default_rng(n_questions)
        state = rng.integers(3, VOCAB, 1001).astype(np.int32)
        questions = random_questions(rng, n_questions, lengths=(5, 90), n_vocab=VOCAB)
        more = 3 if name == "mamba" else 0
        rest = sum(len(question) + PADDING + more for question in questions)
        path = tiny_llama("Q8_0") if name == "llama" else long_mamba()
        with Model(path) as model, ResidentContext(model, SETTINGS, n_ctx=2048) as context:
            _, first = run(context, *joined(state, questions))
            _, again = run(context, *joined(state, questions))
        n_state = len(state) // 4 * 4 if name == "mamba" else filled(len(state))
        assert first == again + n_state
        assert again <= rest
        assert first <= len(state) + 7 + rest

    def test_states_that_differ_by_a_token(self) -> None:
        """The shorter one is part of the longer one, whatever their order."""
        rng = np.random.default_rng(7)
        stem, question = (rng.integers(3, VOCAB, n).astype(np.int32) for n in (100, 24))
        prompts = [np.concatenate([stem[:n], question]) for n in (99, 100)]
        with Model(tiny_llama("Q8_0")) as model:
            expected = alone(model, prompts)
            for order in ((0, 1), (1, 0)):
                with ResidentContext(model, SETTINGS, n_ctx=512) as context:
                    found, n_rows = run(
                        context, [prompts[at] for at in order], [(99, 100)[at] for at in order]
                    )
                    assert found == [expected[prompts[at].tobytes()] for at in order]
                    assert n_rows <= 100 + 2 * 24 + 4

    def test_orders_of_a_question_share_its_instructions(self) -> None:
        rng = np.random.default_rng(8)
        state, instructions, end = (rng.integers(3, VOCAB, n).astype(np.int32) for n in (120, 60, 4))
        options = [rng.integers(3, VOCAB, 6).astype(np.int32) for _ in range(3)]
        orders = [(0, 1, 2), (1, 2, 0), (2, 0, 1)]
        questions = [np.concatenate([instructions, *(options[at] for at in order), end]) for order in orders]
        with Model(tiny_llama("Q8_0")) as model, ResidentContext(model, SETTINGS, n_ctx=512) as context:
            _, n_rows = run(context, *joined(state, questions))
        assert n_rows <= 120 + 7 + 60 + 7 + 3 * (3 * 6 + 4 + PADDING)

    def test_a_longer_state_computes_only_what_is_new(self) -> None:
        rng = np.random.default_rng(9)
        stem = rng.integers(3, VOCAB, 400).astype(np.int32)
        question = [rng.integers(3, VOCAB, 20).astype(np.int32)]
        with Model(tiny_llama("Q8_0")) as model, ResidentContext(model, SETTINGS, n_ctx=512) as context:
            run(context, *joined(stem[:300], question))
            _, longer = run(context, *joined(stem, question))
            _, shorter = run(context, *joined(stem[:200], question))
            other = np.concatenate([stem[:350], stem[:40]])
            _, branched = run(context, *joined(other, question))
        assert longer <= 100 + 7 + 20 + PADDING
        assert shorter <= 20 + PADDING
        assert branched <= 40 + 7 + 20 + PADDING

    def test_a_recurrent_state_is_continued_but_not_shortened(self) -> None:
        rng = np.random.default_rng(10)
        stem = rng.integers(3, VOCAB, 300).astype(np.int32)
        question = [rng.integers(3, VOCAB, 20).astype(np.int32)]
        with Model(tiny_arch("mamba")) as model, ResidentContext(model, SETTINGS, n_ctx=512) as context:
            run(context, *joined(stem[:260], question))
            _, longer = run(context, *joined(stem, question))
            _, shorter = run(context, *joined(stem[:100], question))
        assert longer <= 40 + 20 + PADDING + 3
        assert shorter > 100

    def test_states_without_questions_of_their_own(self) -> None:
        """Whole prompts as states, no state, and a prompt that is there twice."""
        rng = np.random.default_rng(11)
        prompts = [rng.integers(3, VOCAB, n).astype(np.int32) for n in (1, 7, 8, 40, 41)]
        prompts.append(prompts[-1])
        with Model(tiny_llama("F16")) as model, ResidentContext(model, SETTINGS, n_ctx=512) as context:
            expected = [alone(model, prompts)[prompt.tobytes()] for prompt in prompts]
            for share in (0.0, 0.5, 1.0):
                found, _ = run(context, prompts, [int(share * len(prompt)) for prompt in prompts])
                assert found == expected
            assert run(context, [], []) == ([], 0)


class TestStatesInMemory:
    def test_a_state_of_which_first_less_is_used(self) -> None:
        """A sequence that continued from a part of a state is no copy of all of it."""
        rng = np.random.default_rng(18)
        stem = rng.integers(3, VOCAB, 100).astype(np.int32)
        questions = [rng.integers(3, VOCAB, n).astype(np.int32) for n in (40, 41, 42)]
        prompts = [
            np.concatenate([stem[:n], question])
            for n, question in zip((100, 60, 100), questions, strict=True)
        ]
        with Model(tiny_llama("Q8_0")) as model, ResidentContext(model, SETTINGS, n_ctx=512) as context:
            expected = alone(model, prompts)
            for prompt, n_kept in zip(prompts, (100, 60, 100), strict=True):
                assert run(context, [prompt], [n_kept])[0] == [expected[prompt.tobytes()]]

    def rows_of_turns(
        self, context: ResidentContext, states: Sequence[Tokens], question: Tokens
    ) -> list[int]:
        return [run(context, *joined(state, [question]))[1] for state in states]

    def test_the_one_used_longest_ago_is_forgotten(self) -> None:
        rng = np.random.default_rng(12)
        states = [rng.integers(3, VOCAB, 200).astype(np.int32) for _ in range(resident._MOST_STATES + 1)]
        question = rng.integers(3, VOCAB, 20).astype(np.int32)
        with Model(tiny_llama("Q8_0")) as model, ResidentContext(model, SETTINGS, n_ctx=512) as context:
            first = self.rows_of_turns(context, states, question)
            assert min(first) >= 200
            again = self.rows_of_turns(context, [states[-1], states[1], states[0]], question)
            assert [rows >= 200 for rows in again] == [False, False, True]

    def test_pinned_states_stay(self) -> None:
        rng = np.random.default_rng(13)
        states = [rng.integers(3, VOCAB, 200).astype(np.int32) for _ in range(7)]
        question = rng.integers(3, VOCAB, 20).astype(np.int32)
        for name in ("llama", "mamba"):
            path = tiny_llama("Q8_0") if name == "llama" else tiny_arch(name)
            with Model(path) as model, ResidentContext(model, SETTINGS, n_ctx=512) as context:
                for state in states[:5]:  # more than there are places at first
                    context.pin(state)
                self.rows_of_turns(context, states, question)
                assert max(self.rows_of_turns(context, states[:5], question)) < 200
                for state in states[:5]:
                    context.unpin(state)
                assert not context._pinned
                self.rows_of_turns(context, [states[5], states[6]], question)
                self.rows_of_turns(context, states, question)

    def test_little_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Two sequences at least: one state, and one prompt after the other."""
        rng = np.random.default_rng(14)
        states = random_states(rng, 3, lengths=(100, 200), n_vocab=VOCAB)
        questions = random_questions(rng, 5, lengths=(5, 60), n_vocab=VOCAB)
        with Model(tiny_llama("Q4_0")) as model:
            for n_sequences in (0, 1, 2, 3, 5, 6, 7):
                monkeypatch.setattr(
                    resident, "settle_cache_bytes", lambda n=n_sequences: n * model.cache_bytes(512)
                )
                with ResidentContext(model, SETTINGS, n_ctx=512) as context:
                    for state in (*states, states[0]):
                        prompts, n_kept = joined(state, questions)
                        found, _ = run(context, prompts, n_kept)
                        expected = alone(model, prompts)
                        assert found == [expected[prompt.tobytes()] for prompt in prompts]

    def test_a_second_question_copies_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        calls: Counter[str] = Counter()
        fork = Context.fork

        def counted(context: Context, source: int, target: int) -> None:
            calls["fork"] += 1
            fork(context, source, target)

        monkeypatch.setattr(Context, "fork", counted)
        rng = np.random.default_rng(15)
        state, question = (rng.integers(3, VOCAB, n).astype(np.int32) for n in (100, 20))
        with Model(tiny_llama("Q8_0")) as model, ResidentContext(model, SETTINGS, n_ctx=512) as context:
            run(context, *joined(state, [question]))
            assert calls["fork"] == 1
            run(context, *joined(state, [question[::-1]]))
            assert calls["fork"] == 1


def test_positions_that_depend_on_the_contexts_size() -> None:
    """With long and short rope factors, a long prompt must not change the context that a short one runs in."""
    rng = np.random.default_rng(16)
    prompts = [rng.integers(3, VOCAB, n).astype(np.int32) for n in (60, 300, 100, 400)]
    path = tiny_llama("F32", n_ctx_train=2048, n_ctx_orig=256)
    with Model(path) as model, ResidentContext(model, SETTINGS, n_ctx=2048) as context:
        assert model.n_ctx_orig == 256
        expected = alone(model, prompts)
        found, _ = run(context, prompts, [50] * 4)
        assert found == [expected[prompt.tobytes()] for prompt in prompts]
        for prompt in prompts:
            assert run(context, [prompt], [50])[0] == [expected[prompt.tobytes()]]


class TestErrors:
    def test_prompts_that_cannot_be_run(self) -> None:
        with Model(tiny_llama("Q8_0")) as model, ResidentContext(model, SETTINGS, n_ctx=100) as context:
            for tokens, said in (
                (np.full(101, 5), r"prompt 1 .* has 101 tokens, but the context is 100; .* larger n_ctx"),
                (np.empty(0), "has no tokens"),
                (np.array([5, 256]), "token id 256"),
            ):
                with pytest.raises(InputError, match=said):
                    run(context, [np.array([5], np.int32), tokens.astype(np.int32)], [0, 0])

    def test_an_error_on_the_way_leaves_nothing_wrong_behind(self) -> None:
        rng = np.random.default_rng(17)
        prompts: list[Tokens] = []
        n_kept: list[int] = []
        for _ in range(2):  # the second state is not there yet when the first prompts end
            state = rng.integers(3, VOCAB, 100).astype(np.int32)
            more, kept = joined(state, random_questions(rng, 6, lengths=(5, 60), n_vocab=VOCAB))
            prompts, n_kept = prompts + more, n_kept + kept

        def fail(index: int, logits: NDArray[np.float32]) -> None:
            raise KeyboardInterrupt

        with Model(tiny_llama("Q4_0")) as model, ResidentContext(model, SETTINGS, n_ctx=512) as context:
            expected = alone(model, prompts)
            with pytest.raises(KeyboardInterrupt):
                context.run(prompts, n_kept, fail)
            found, _ = run(context, prompts, n_kept)
            assert found == [expected[prompt.tobytes()] for prompt in prompts]

    def test_damaged_weights(self) -> None:
        with (
            Model(tiny_llama("F32", damaged=True)) as model,
            ResidentContext(model, SETTINGS, n_ctx=512) as context,
            pytest.raises(ModelError, match="not finite"),
        ):
            run(context, [np.arange(3, 20, dtype=np.int32)], [8])


def test_a_model_of_somebody_else_is_not_freed() -> None:
    with Model(tiny_llama("Q8_0")) as owner:
        assert owner.handle is not None
        with Model.of_handle(owner.handle, owner.path) as model:
            assert (model.n_vocab, model.n_ctx_train, model.architecture) == (256, 2048, "llama")
            expected = alone(model, [np.arange(3, 20, dtype=np.int32)])
        assert alone(owner, [np.arange(3, 20, dtype=np.int32)]) == expected


@pytest.mark.parametrize("has_computed", [False, True])
def test_experts_are_exact_if_they_come_first(has_computed: bool) -> None:
    """llama.cpp decides once in a process which kernels experts get, so this has one of its own."""
    code = (
        f"import sys, json; sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1])]!r}\n"
        f"import test_resident as module; print(json.dumps(module.experts({has_computed})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={name: value for name, value in os.environ.items() if name != "GGML_CPU_TILED_MM_FORCE"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    is_exact, wrong = json.loads(done.stdout.splitlines()[-1])
    assert is_exact is not has_computed
    if not has_computed:
        assert wrong == []


def experts(has_computed: bool) -> list[object]:
    """In a child: whether a context of experts says that it is exact, and what differs there."""
    if has_computed:
        with Model(tiny_llama("Q8_0")) as model:
            alone(model, [np.arange(3, 20, dtype=np.int32)])
    path = tiny_llama("Q4_K", experts=True)
    with Model(path) as model, ResidentContext(model, SETTINGS, n_ctx=512) as context:
        is_exact = context.is_exact
    return [is_exact, differing(path, 10)]
