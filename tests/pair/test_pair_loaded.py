"""How a model is loaded: weights repacked unless that makes it slower, with every bit in any company either way."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from support.tiny_models import tiny_folder, write_tiny_llama

from edgecal.gguf import shards
from edgecal.llama import library
from edgecal.llama.capture import capture
from edgecal.llama.library import buffer_bytes, clear_log
from edgecal.llama.model import Model
from edgecal.llama.settings import CaptureSettings
from edgecal.pair.model_capture import CaptureRequest
from edgecal.pair.resident_model import read_shards, wants_repacking
from edgecal.pair.worker_capture import capture_model
from edgecal.prompts import Prompt

ONE_THREAD = CaptureSettings(n_threads=1)


def tiny(weights):
    path = tiny_folder() / f"loaded-{weights}.gguf"
    if not path.exists():
        write_tiny_llama(path, seed=3, n_layer=2, n_embd=256, n_ff=256, quantization=weights)
    return path


@pytest.mark.parametrize(
    ("weights", "expected"), [("Q4_K", False), ("Q4_0", True), ("Q8_0", True), ("F16", True)]
)
def test_only_q4_k_with_vnni_is_not_repacked(weights, expected, monkeypatch):
    monkeypatch.setattr(library, "system_info", lambda: "CPU : AVX512 = 1 | AVX512_VNNI = 1")
    assert wants_repacking(str(tiny(weights))) is expected
    monkeypatch.setattr(library, "system_info", lambda: "CPU : AVX2 = 1")
    assert wants_repacking(str(tiny(weights)))


def observe(path, prompts):
    return capture_model(CaptureRequest(str(path), "the model", prompts, True, ONE_THREAD), lambda _: None)


def test_a_header_is_read_once_and_again_when_the_file_has_changed(tmp_path, monkeypatch):
    path = tmp_path / "model.gguf"
    shutil.copy(tiny("F16"), path)
    n_read = []
    find = shards.find_shards
    monkeypatch.setattr(shards, "find_shards", lambda given: n_read.append(given) or find(given))
    prompts = (Prompt(tokens=(3, 4, 5), choice_tokens=(6, 7), source="one"),)
    assert len(observe(path, prompts).final_logits) == 1 and len(n_read) == 1
    observe(path, prompts)
    assert len(n_read) == 1
    replaced = tmp_path / "other.gguf"
    shutil.copy(tiny("Q8_0"), replaced)
    replaced.replace(path)
    assert read_shards(str(path)).header.tensors["blk.0.ffn_up.weight"].type_name == "Q8_0"
    assert len(n_read) == 2


def run(prompts, settings, repack):
    clear_log()
    with Model(tiny("Q4_K"), repack=repack) as model:
        if not repack:
            assert buffer_bytes("REPACK") == 0
        logits = np.empty((len(prompts), model.n_vocab), np.float32)
        for chunk in capture(model, prompts, settings, hidden=True):
            logits[chunk.indices] = chunk.logits
    return logits


def test_weights_as_they_lie_keep_every_bit_in_company():
    rng = np.random.default_rng(1)
    stem = rng.integers(3, 250, 41)
    prompts = [
        np.concatenate([stem, rng.integers(3, 250, n)]).astype(np.int32) for n in (3, 9, 20, 21, 9, 40, 77)
    ]
    one = CaptureSettings(n_threads=1)
    together = run(prompts, one, False)
    alone = run(prompts, CaptureSettings(n_threads=1, share=False), False)
    others = run(prompts[::-1], CaptureSettings(n_threads=2, n_ubatch=64, n_seq_max=3), False)[::-1]
    assert together.tobytes() == alone.tobytes() == others.tobytes()
    assert np.abs(together - run(prompts, one, True)).max() < 0.2 * together.std()
