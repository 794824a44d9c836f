"""The lens on real llama.cpp: the last block, re-projected, against the logits that llama.cpp computed."""

from dataclasses import replace

import numpy as np
import pytest
from support.tiny_archs import ARCHS, N_VOCAB, tiny_arch, write_tiny_arch
from support.tiny_models import normal, write_tiny_llama
from support.tiny_run import random_prompts, run
from support.tiny_vocab import bpe_vocab, letters

from edgecal.errors import ModelError
from edgecal.gguf import find_shards, read_header
from edgecal.lens import check_lens, check_token_ids, project, read_head
from edgecal.llama.dequantize import dequantize_rows

NO_LENS = {"gemma3n"}
CHOICES = np.array([letters(bpe_vocab())])


def lens_of(path, n_vocab=N_VOCAB):
    return read_head(find_shards(path), check_token_ids(n_vocab, CHOICES), dequantize_rows)


def checked(head, seen):
    """The run-time self-check as it is made in a real run: last block, 8 prompts, at least 64 tokens."""
    rows = np.tile(np.arange(len(head.rows), dtype=np.int32), (len(seen.logits), 1))
    projected = project(seen.hidden[:, -1:], head, rows)[:, 0]
    spread = seen.logits.astype(np.float64).std(axis=1)
    assert projected.shape[0] == 8 and projected.shape[1] >= 64
    return check_lens(projected, seen.logits[:, head.token_ids], spread)


@pytest.mark.parametrize("name", sorted(set(ARCHS) - NO_LENS))
def test_float_heads_of_every_architecture(name):
    path = tiny_arch(name)
    seen = run(path, random_prompts(0, 8, N_VOCAB))
    check = checked(lens_of(path), seen)
    assert check.accepted and check.rms < 1e-5 and check.worst < 1e-4
    n_rows_at_the_end = seen.rows[:, -1]
    assert (n_rows_at_the_end > 1).all() == ARCHS[name].last_keeps_all_rows


@pytest.mark.parametrize("name", sorted(NO_LENS))
def test_where_the_lens_is_wrong_it_is_refused(name):
    path = tiny_arch(name)
    head = lens_of(path)
    check = checked(head, run(path, random_prompts(0, 8, N_VOCAB)))
    assert not check.accepted and check.rms > 0.5
    with pytest.raises(ModelError, match="--method daca"):
        check.raise_if_refused(path, head.architecture)


@pytest.mark.parametrize("name", ["llama", "llama-tied", "gemma2", "phi2", "cohere2", "qwen35"])
@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q5_0", "Q4_0", "IQ4_NL"])
def test_quantized_heads(name, kind):
    path = tiny_arch(name, kind)
    head = lens_of(path)
    check = checked(head, run(path, random_prompts(0, 8, N_VOCAB)))
    assert head.type_name == kind
    assert check.accepted
    assert check.rms < {"F16": 1e-3, "BF16": 5e-3}.get(kind, 1e-2)


@pytest.mark.parametrize("name", ["llama", "phi2", "granite", "grok-cap", "deepseek2", "talkie"])
def test_nvfp4_heads_have_a_scale_of_their_own_which_some_architectures_ignore(name, tmp_path):
    path = write_tiny_arch(
        tmp_path / "model.gguf",
        name,
        seed=5,
        head_quantization="NVFP4",
        tensors={"output.scale": np.array([1.7], np.float32)},
    )
    head = lens_of(path)
    assert head.type_name == "NVFP4"
    assert checked(head, run(path, random_prompts(0, 8, N_VOCAB))).rms < 0.01


def test_a_split_model(tmp_path):
    path = write_tiny_llama(tmp_path / "model.gguf", seed=7, quantization="Q8_0", split_max_tensors=2)
    shards = find_shards(path)
    assert len(shards.paths) > 2 and "output.weight" not in shards.header.tensors
    assert checked(lens_of(path), run(path, random_prompts(0, 8, N_VOCAB))).rms < 0.01


@pytest.mark.parametrize(
    "name, change",
    [
        ("llama", {"norm_weight": "scrambled"}),
        ("llama", {"norm_weight": "ones"}),
        ("llama", {"rows": "scrambled"}),
        ("llama", {"centered": True}),
        ("gpt2", {"centered": False}),
        ("gpt2", {"norm_bias": "zeros"}),
        ("phi2", {"row_bias": "zeros"}),
        ("qwen2", {"row_bias": "zeros"}),
        ("olmo", {"centered": False}),
        ("command-r", {"logit_scale": 1.0}),
        ("granite", {"logit_scale": 4.0}),
        ("minicpm-default", {"logit_scale": 1.0}),
        ("minicpm3", {"logit_scale": 1.0}),
        ("grok-default", {"logit_scale": 1.0}),
        ("talkie", {"logit_scale": 1.0}),
        ("gemma2", {"soft_cap": None}),
        ("gemma2-default-cap", {"soft_cap": None}),
        ("gemma3-cap", {"soft_cap": None}),
        ("grok-cap", {"soft_cap": None}),
        ("muse-glimmer", {"soft_cap": None}),
    ],
)
def test_every_part_matters_and_a_wrong_one_is_refused(name, change):
    path = tiny_arch(name)
    head = lens_of(path)
    ((field, value),) = change.items()
    right = getattr(head, field)
    if value == "scrambled":
        value = np.random.default_rng(0).permutation(right)
    elif value in ("ones", "zeros"):
        value = getattr(np, value)(right.shape, np.float32)
    seen = run(path, random_prompts(0, 8, N_VOCAB))
    assert checked(head, seen).accepted
    check = checked(replace(head, **{field: value}), seen)
    assert not check.accepted
    with pytest.raises(ModelError, match=f"architecture {head.architecture}"):
        check.raise_if_refused(path, head.architecture)


def test_a_bias_that_llama_cpp_does_not_add_is_not_added():
    path = tiny_arch("qwen2vl")
    assert "output.bias" in read_header(path).tensors
    assert not lens_of(path).row_bias.any()


def test_the_head_of_another_model_is_refused(tmp_path):
    path = tiny_arch("llama")
    other = write_tiny_arch(tmp_path / "other.gguf", "llama", seed=2)
    assert not checked(lens_of(other), run(path, random_prompts(0, 8, N_VOCAB))).accepted


def test_fewer_tokens_than_the_check_wants(tmp_path):
    path = write_tiny_llama(tmp_path / "model.gguf", seed=4, vocab="none", n_vocab=40)
    ids = check_token_ids(40, np.array([[1, 2]]))
    seen = run(path, random_prompts(0, 3, 40))
    head = read_head(read_header(path), ids, dequantize_rows)
    rows = np.tile(np.arange(40, dtype=np.int32), (3, 1))
    spread = seen.logits.astype(np.float64).std(axis=1)
    check = check_lens(project(seen.hidden[:, -1:], head, rows)[:, 0], seen.logits, spread)
    assert (check.n_prompts, check.n_tokens) == (3, 40) and check.rms < 1e-5


def test_the_twin_agrees_on_captured_blocks():
    """Every block, not just the last, against a float64 reference that shares no code."""
    path = tiny_arch("phi2")
    seen = run(path, random_prompts(1, 4, N_VOCAB))
    head = lens_of(path)
    rows = np.arange(8, dtype=np.int32)[None].repeat(4, axis=0)
    h = seen.hidden.astype(np.float64)
    h = (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-5)
    weight = 1 + 0.3 * normal(1, "output_norm.weight", 64).astype(np.float64)
    bias = 0.3 * normal(1, "output_norm.bias", 64).astype(np.float64)
    matrix = normal(1, "output.weight", N_VOCAB, 64).astype(np.float64)[head.token_ids[:8]] * 3 / 8
    expected = (h * weight + bias) @ matrix.T + 0.3 * normal(1, "output.bias", N_VOCAB)[head.token_ids[:8]]
    np.testing.assert_allclose(project(seen.hidden, head, rows), expected, atol=2e-6)
