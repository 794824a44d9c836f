"""Capturing prompts: right numbers, the same numbers in any company, and clear refusals."""

from __future__ import annotations

import struct
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.tiny_archs import tiny_arch
from support.tiny_models import tiny_folder, write_tiny_llama
from support.tiny_run import run

from edgecal.errors import InputError, ModelError
from edgecal.llama import capture as capture_module
from edgecal.llama.capture import capture, plan_for
from edgecal.llama.hook import ENVIRONMENT_VARIABLE
from edgecal.llama.model import Model
from edgecal.llama.settings import CaptureSettings

Array = NDArray[np.float32]
Tokens = NDArray[np.int32]

ONE_THREAD = CaptureSettings(n_threads=1)
WEIGHTS = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_K", "Q6_K"]
ARCHITECTURES = ["llama", "qwen2", "gemma2", "phi2", "mixtral", "qwen3next", "mamba2", "granitehybrid"]
LENGTHS = (37, 20, 37, 2, 64, 33, 20, 1, 37, 100)


@cache
def tiny_llama(quantization: str) -> Path:
    path = tiny_folder() / f"capture-{quantization}.gguf"
    return write_tiny_llama(
        path, seed=5, n_layer=3, n_embd=256, n_head=4, n_head_kv=2, n_ff=256, quantization=quantization
    )


def random_prompts(lengths: tuple[int, ...] = LENGTHS, seed: int = 11) -> list[Tokens]:
    rng = np.random.default_rng(seed)
    return [rng.integers(3, 250, length).astype(np.int32) for length in lengths]


def run_all(
    path: Path, prompts: list[Tokens], settings: CaptureSettings = ONE_THREAD, *, hidden: bool = True
) -> tuple[Array, Array]:
    with Model(path) as model:
        all_hidden = np.full((len(prompts), model.n_layer, model.n_embd), np.nan, dtype=np.float32)
        all_logits = np.full((len(prompts), model.n_vocab), np.nan, dtype=np.float32)
        seen: list[int] = []
        for chunk in capture(model, prompts, settings, hidden=hidden):
            assert chunk.logits.shape == (len(chunk.indices), model.n_vocab)
            all_logits[chunk.indices] = chunk.logits
            if hidden:
                assert chunk.hidden is not None
                all_hidden[chunk.indices] = chunk.hidden
            else:
                assert chunk.hidden is None
            seen.extend(chunk.indices.tolist())
        assert sorted(seen) == list(range(len(prompts)))
    return all_hidden, all_logits


def same_bits(a: tuple[Array, Array], b: tuple[Array, Array]) -> bool:
    return all(x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))


class TestSameInputSameBytes:
    @pytest.mark.parametrize("weights", WEIGHTS)
    def test_company_order_threads_and_cuts(self, weights: str) -> None:
        path, prompts = tiny_llama(weights), random_prompts()
        together = run_all(path, prompts)
        assert np.isfinite(together[0]).all() and np.isfinite(together[1]).all()
        for index in (0, 3, 4, 7):
            single = run_all(path, [prompts[index]])
            assert same_bits(single, (together[0][[index]], together[1][[index]]))
        order = np.random.default_rng(0).permutation(len(prompts))
        shuffled = run_all(path, [prompts[index] for index in order])
        assert same_bits(shuffled, (together[0][order], together[1][order]))
        few = [4, 5]
        two_threads = run_all(path, [prompts[index] for index in few], replace(ONE_THREAD, n_threads=2))
        assert same_bits(two_threads, (together[0][few], together[1][few]))
        for n_ubatch, n_batch in [(32, 64), (16, 16), (36, 100)]:
            cut = replace(ONE_THREAD, n_ubatch=n_ubatch, n_batch=n_batch)
            assert same_bits(run_all(path, prompts, cut), together)

    @pytest.mark.parametrize("name", ARCHITECTURES)
    def test_architectures(self, name: str) -> None:
        path, prompts = tiny_arch(name), random_prompts()
        together = run_all(path, prompts)
        backwards = run_all(path, prompts[::-1])
        assert same_bits((backwards[0][::-1], backwards[1][::-1]), together)
        single = run_all(path, [prompts[4]])
        assert same_bits(single, (together[0][[4]], together[1][[4]]))

    def test_again(self) -> None:
        assert same_bits(
            run_all(tiny_llama("Q4_K"), random_prompts()), run_all(tiny_llama("Q4_K"), random_prompts())
        )

    @pytest.mark.parametrize("weights", ["F32", "Q4_0"])
    def test_the_hook_changes_no_logit(self, weights: str) -> None:
        path, prompts = tiny_llama(weights), random_prompts()
        with_hook = run_all(path, prompts)[1]
        assert run_all(path, prompts, hidden=False)[1].tobytes() == with_hook.tobytes()


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt-oss", "mamba", "jamba", "qwen35"])
@pytest.mark.parametrize("share", [False, True])
def test_equals_an_independent_run(name: str, share: bool) -> None:
    prompts = random_prompts((9, 9, 5, 17, 1, 9))
    prompts += [np.concatenate([prompts[3], more]) for more in random_prompts((5, 1, 12), seed=12)]
    expected = run(tiny_arch(name), [prompt.tolist() for prompt in prompts])
    hidden, logits = run_all(tiny_arch(name), prompts, replace(ONE_THREAD, share=share, n_ubatch=16))
    # The other run uses fused attention, which rounds to 16 bits in other places.
    assert np.abs(hidden - expected.hidden).max() < 0.02 * expected.hidden.std()
    assert np.abs(logits - expected.logits).max() < 0.02 * expected.logits.std()


@pytest.mark.parametrize("weights", ["F32", "BF16", "Q8_0", "Q4_K", "Q6_K"])
def test_a_prompt_longer_than_every_batch(weights: str) -> None:
    prompts = random_prompts((700, 3, 257))
    whole = run_all(tiny_llama(weights), prompts, replace(ONE_THREAD, n_ubatch=1024))
    for n_batch, n_ubatch in [(64, 32), (512, 256)]:
        pieces = run_all(
            tiny_llama(weights), prompts, replace(ONE_THREAD, n_batch=n_batch, n_ubatch=n_ubatch)
        )
        assert same_bits(pieces, whole)


def test_two_models_at_once() -> None:
    prompts = random_prompts((9, 20, 9))
    expected = [run_all(tiny_llama(weights), prompts) for weights in ("F32", "Q8_0")]
    with Model(tiny_llama("F32")) as first, Model(tiny_llama("Q8_0")) as second:
        chunks = zip(
            capture(first, prompts, replace(ONE_THREAD, n_batch=32, n_ubatch=16), hidden=True),
            capture(second, prompts, ONE_THREAD, hidden=True),
            strict=True,
        )
        for pair in chunks:
            for chunk, (hidden, logits) in zip(pair, expected, strict=True):
                assert chunk.hidden is not None
                assert chunk.hidden.tobytes() == hidden[chunk.indices].tobytes()
                assert chunk.logits.tobytes() == logits[chunk.indices].tobytes()


def test_no_hook_without_hidden(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path / "none.so"))
    prompts = random_prompts((5, 9))
    assert np.isfinite(run_all(tiny_arch("llama"), prompts, hidden=False)[1]).all()
    with pytest.raises(ModelError, match="native library is missing"):
        run_all(tiny_arch("llama"), prompts)


def test_progress_counts_everything() -> None:
    prompts = random_prompts((700, 3, 129))
    settings = replace(ONE_THREAD, n_batch=256, n_ubatch=256)
    calls: list[tuple[int, int]] = []
    with Model(tiny_llama("Q8_0")) as model:
        plan = plan_for(model, prompts, settings)
        for _ in capture(
            model,
            prompts,
            settings,
            hidden=False,
            plan=plan,
            progress=lambda n_prompts, n_tokens: calls.append((n_prompts, n_tokens)),
        ):
            pass
    # In rows, which are filled up: 124 of the 132 alone, then 8 and 8 together, and 700 alone.
    assert calls == [
        (0, 64),
        (0, 124),
        (2, 140),
        *((2, 140 + 16 * n) for n in (5, 11, 16, 22, 27, 33, 38)),
        (3, 840),
    ]
    assert sum(context.n_decodes for context in plan.contexts) == len(calls) and plan.n_rows == 840


def test_chunks_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = random_prompts((5,) * 9)
    with Model(tiny_arch("llama")) as model:
        bytes_each = 4 * (model.n_vocab + model.n_layer * model.n_embd)
        monkeypatch.setattr(capture_module, "_CHUNK_BYTES", 4 * bytes_each + 1)

        def sizes(n_seq_max: int) -> list[int]:
            settings = replace(ONE_THREAD, n_seq_max=n_seq_max)
            return [len(chunk.indices) for chunk in capture(model, prompts, settings, hidden=True)]

        assert sizes(4) == [4, 4, 1]  # decodes of two prompts
        assert sizes(14) == [4, 4, 1]  # of four
        monkeypatch.setattr(capture_module, "_CHUNK_BYTES", 1)  # a decode is not cut
        assert sizes(14) == [4, 4, 1]
        assert sizes(4) == [2, 2, 2, 2, 1]
        assert sizes(2) == [1] * 9


def test_no_prompts() -> None:
    with Model(tiny_arch("llama")) as model:
        assert list(capture(model, [], ONE_THREAD, hidden=True)) == []


class TestRefusals:
    @pytest.mark.parametrize(
        ("prompt", "message"),
        [
            ([], r"prompt 1 \(from 0\) has no tokens"),
            ([-1], r"prompt 1 \(from 0\) has the token id -1, but .* has 544 tokens"),
            ([3, 544], r"prompt 1 \(from 0\) has the token id 544"),
            ([5] * 3000, r"prompt 1 \(from 0\) has 3000 tokens, but the context of .* is \d+"),
        ],
    )
    def test_prompts(self, prompt: list[int], message: str) -> None:
        with Model(tiny_arch("llama")) as model:
            assert model.n_ctx_train < 3000
            prompts = [np.array([4], dtype=np.int32), np.array(prompt, dtype=np.int32)]
            with pytest.raises(InputError, match=message):
                capture(model, prompts, ONE_THREAD, hidden=True)

    @pytest.mark.parametrize("weight", [np.nan, 3e38])
    def test_weights_that_make_no_finite_numbers(self, tmp_path: Path, weight: float) -> None:
        path = tmp_path / "broken.gguf"
        data = bytearray(tiny_llama("F32").read_bytes())
        data[-4096:] = np.full(1024, weight, dtype=np.float32).tobytes()
        path.write_bytes(data)
        with pytest.raises(ModelError, match=r"prompt 0 \(from 0\).* not finite"):
            run_all(path, random_prompts((5,)))


class TestModel:
    def test_facts(self) -> None:
        with Model(tiny_llama("F32")) as model:
            assert (model.architecture, model.n_layer, model.n_embd) == ("llama", 3, 256)
            assert model.n_ctx_train == 2048 and model.vocab and model.handle
        assert model.handle is None
        model.close()

    def test_progress(self) -> None:
        shares: list[float] = []
        with Model(tiny_llama("F32"), on_progress=shares.append):
            pass
        assert shares == sorted(shares) and shares[-1] == 1.0

    def test_an_error_in_the_progress_callback_comes_out(self) -> None:
        def stop(_share: float) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            Model(tiny_llama("F32"), on_progress=stop)

    def test_no_such_file(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no such model file"):
            Model(tmp_path / "none.gguf")

    def test_a_file_that_llama_cpp_cannot_load(self, tmp_path: Path) -> None:
        path = tmp_path / "short.gguf"
        path.write_bytes(tiny_llama("F32").read_bytes()[:-5000])
        with pytest.raises(ModelError, match=r"short\.gguf: llama.cpp cannot load the model \(\S.*\)"):
            Model(path)

    def test_llama_cpps_own_reason_is_quoted(self, tmp_path: Path) -> None:
        path = tmp_path / "odd.gguf"
        write_tiny_llama(path, seed=5, metadata={"tokenizer.ggml.model": "weird"})
        with pytest.raises(ModelError, match="unknown tokenizer: 'weird'"):
            Model(path)

    def test_the_cause_is_quoted_not_what_followed_from_it(self, tmp_path: Path) -> None:
        path = tmp_path / "unknown-type.gguf"
        data = tiny_llama("F32").read_bytes()
        name = b"output.weight" + struct.pack("<I", 2)
        at = data.index(name) + len(name) + 16
        path.write_bytes(data[:at] + struct.pack("<I", 99) + data[at + 4 :])
        with pytest.raises(ModelError, match=r"'output\.weight' has invalid ggml type 99\."):
            Model(path)

    def test_no_causal_language_model(self, tmp_path: Path) -> None:
        path = tmp_path / "unknown.gguf"
        path.write_bytes(tiny_llama("F32").read_bytes().replace(b"llama", b"hlama"))
        with pytest.raises(ModelError, match="cannot load the model"):
            Model(path)


def test_importing_the_settings_loads_no_llama_cpp() -> None:
    code = "import sys, edgecal.llama.settings, edgecal.llama.packing; assert 'llama_cpp' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_versions_are_named() -> None:
    from edgecal.llama.library import describe_llama_cpp, system_info

    assert describe_llama_cpp().startswith("llama-cpp-python 0.3.")
    assert "ggml 0." in describe_llama_cpp() and "unknown" not in describe_llama_cpp()
    assert system_info().startswith("CPU :")
