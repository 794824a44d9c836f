"""The lens on real llama.cpp: the last block, re-projected, against the logits that llama.cpp computed."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from support.lens_checks import check_lens
from support.tiny_archs import ARCHS, N_VOCAB, REFUSED, tiny_arch, write_tiny_arch
from support.tiny_models import normal, write_tiny_llama
from support.tiny_run import random_prompts, run
from support.tiny_vocab import bpe_vocab, letters

from edgecal.architectures import ResidualStream, stream_of, why_no_layers
from edgecal.errors import InputError, ModelError
from edgecal.gguf.header import read_header
from edgecal.gguf.model_checks import check_model
from edgecal.gguf.shards import find_shards
from edgecal.lens import check_token_ids, project, read_head, reproduce
from edgecal.llama.library import dequantize_rows

WITH_LENS = [name for name, spec in ARCHS.items() if spec.lens]
WITHOUT_LENS = [name for name, spec in ARCHS.items() if not spec.lens]
CHOICES = np.array([letters(bpe_vocab())])


def lens_of(path, n_vocab=N_VOCAB):
    return read_head(find_shards(path), check_token_ids(n_vocab, CHOICES), dequantize_rows)


def checked(head, seen):
    """The run-time self-check as it is made in a real run: last block, 8 prompts, at least 64 tokens."""
    ways = reproduce(seen.hidden[:, -1], head)
    spread = seen.logits.astype(np.float64).std(axis=1)
    assert ways[0].shape[0] == 8 and ways[0].shape[1] >= 64
    return check_lens(ways, seen.logits[:, head.token_ids], spread)


@cache
def seen_of(name):
    spec = {**ARCHS, **REFUSED}[name]
    return run(tiny_arch(name), random_prompts(0, 8, spec.n_vocab), **spec.nodes)


@pytest.mark.parametrize("name", WITH_LENS)
def test_float_heads_of_every_architecture(name):
    spec, seen = ARCHS[name], seen_of(name)
    head = lens_of(tiny_arch(name))
    check = checked(head, seen)
    assert check.accepted and check.rms < 1e-5
    assert head.centered == (spec.norm == "layer")
    assert seen.hidden.shape[1] == spec.n_blocks
    n_rows_at_the_end = seen.rows[:, -1]
    assert (n_rows_at_the_end > 1).all() == spec.last_keeps_all_rows


@pytest.mark.parametrize("name", ARCHS)
def test_the_table_finds_the_stream_where_the_graph_has_it(name):
    spec = ARCHS[name]
    header = read_header(tiny_arch(name))
    if spec.node is None:
        assert why_no_layers(spec.arch, header.get)
    else:
        stream = stream_of(spec.arch, header.get, header.path)
        assert stream == ResidualStream(spec.node, spec.n_streams, spec.by_stream)


@pytest.mark.parametrize("name", WITHOUT_LENS)
def test_without_a_lens_the_layers_are_refused(name):
    header = read_header(tiny_arch(name))
    assert why_no_layers(ARCHS[name].arch, header.get)


def test_a_lens_that_is_wrong_is_refused():
    """Kimi K3 with residuals of earlier blocks, which its last block's output lacks."""
    name = "kimi-k3-residuals"
    path = tiny_arch(name)
    head = lens_of(path)
    check = checked(head, seen_of(name))
    assert not check.accepted and check.rms > 0.5
    with pytest.raises(ModelError, match="--method daca"):
        check.raise_if_refused(path, head.architecture)


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_logits(name):
    """What llama.cpp says its logits are is still not what the last block gives: the refusal is no mistake."""
    path, seen = tiny_arch(name), seen_of(name)
    with pytest.raises(InputError, match=f"architecture {REFUSED[name].arch} cannot be used: llama.cpp"):
        check_model(read_header(path))
    assert not checked(lens_of(path, REFUSED[name].n_vocab), seen).accepted


@pytest.mark.parametrize(
    "name", ["llama", "llama-tied", "gemma2", "phi2", "cohere2", "qwen35", "gemma3n", "hy_v4"]
)
@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q5_0", "Q4_0", "IQ4_NL"])
def test_quantized_heads(name, kind):
    path = tiny_arch(name, kind)
    head = lens_of(path)
    check = checked(head, run(path, random_prompts(0, 8, N_VOCAB), **ARCHS[name].nodes))
    assert head.type_name == kind
    assert check.accepted and check.rms < 1e-5


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
    assert checked(head, run(path, random_prompts(0, 8, N_VOCAB))).rms < 1e-5


def test_a_split_model(tmp_path):
    path = write_tiny_llama(tmp_path / "model.gguf", seed=7, quantization="Q8_0", split_max_tensors=2)
    shards = find_shards(path)
    assert len(shards.paths) > 2 and "output.weight" not in shards.header.tensors
    assert checked(lens_of(path), run(path, random_prompts(0, 8, N_VOCAB))).rms < 1e-5


@pytest.mark.parametrize(
    "name, change",
    [
        ("llama", {"norm_weight": "scrambled"}),
        ("llama", {"norm_weight": "ones"}),
        ("llama", {"rows": "scrambled"}),
        ("llama", {"centered": True}),
        ("llama", {"eps": 0.7}),
        ("llama", {"normalized": False}),
        ("nemotron_h", {"eps": 0.7}),
        ("nemotron_h-one-epsilon", {"eps": 0.3}),
        ("qwen2vl", {"eps": 0.3}),
        ("cohere2moe", {"centered": False}),
        ("cohere2moe-rms", {"centered": True}),
        ("gpt2", {"centered": False}),
        ("gpt2", {"norm_bias": "zeros"}),
        ("gptneox", {"eps": 0.3}),
        ("phi2", {"row_bias": "zeros"}),
        ("qwen2", {"row_bias": "zeros"}),
        ("olmo", {"centered": False}),
        ("lfm2moe", {"norm_weight": "ones"}),
        ("command-r", {"logit_scale": 1.0}),
        ("granite", {"logit_scale": 4.0}),
        ("graniteswitch", {"logit_scale": 1.0}),
        ("minicpm-default", {"logit_scale": 1.0}),
        ("minicpm3", {"logit_scale": 1.0}),
        ("grok-default", {"logit_scale": 1.0}),
        ("talkie", {"logit_scale": 1.0}),
        ("gemma2", {"soft_cap": None}),
        ("gemma2-default-cap", {"soft_cap": None}),
        ("gemma3-cap", {"soft_cap": None}),
        ("gemma4", {"soft_cap": None}),
        ("gemma4-moe", {"soft_cap": None}),
        ("grok-cap", {"soft_cap": None}),
        ("muse-glimmer", {"soft_cap": None}),
    ],
)
def test_every_part_matters_and_a_wrong_one_is_refused(name, change):
    head = lens_of(tiny_arch(name))
    ((field, value),) = change.items()
    refuses(name, replace(head, **{field: other(getattr(head, field), value)}))


def other(right, value):
    if value == "scrambled":
        return np.random.default_rng(0).permutation(right)
    return getattr(np, value)(right.shape, np.float32) if value in ("ones", "zeros") else value


def refuses(name, wrong):
    """The lens of a model is accepted, and a wrong one is not."""
    path = tiny_arch(name)
    seen = seen_of(name)
    assert checked(lens_of(path), seen).accepted
    check = checked(wrong, seen)
    assert not check.accepted
    with pytest.raises(ModelError, match=f"architecture {wrong.architecture}"):
        check.raise_if_refused(path, wrong.architecture)


MERGES = {
    "deepseek4": "sigmoid",
    "hy_v4": "sigmoid",
    "glm5-next": "mean",
    "qwen4exp": "gated",
    "gemma3n": "altup",
}


@pytest.mark.parametrize("name, kind", MERGES.items())
def test_every_part_of_a_merge_matters(name, kind):
    head = lens_of(tiny_arch(name))
    merge = head.merge
    assert merge is not None and merge.kind == kind and head.width == merge.n_streams * head.n_embd
    wrong = [] if kind == "mean" else [replace(merge, kind="mean")]
    for at, tensor in enumerate(merge.tensors):
        tensors = list(merge.tensors)
        tensors[at] = (
            -tensor if tensor.size == 1 else other(tensor.ravel(), "scrambled").reshape(tensor.shape)
        )
        wrong.append(replace(merge, tensors=tuple(tensors)))
    if kind == "gated":
        wrong.append(replace(merge, norm_eps=0.7))
        refuses(name, replace(head, normalized=True))
    if kind == "sigmoid":
        wrong.append(replace(merge, mix_eps=0.5))
    for one in wrong:
        refuses(name, replace(head, merge=one))
    with pytest.raises(ValueError, match="hidden has shape"):
        checked(replace(head, merge=None), seen_of(name))


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
    spread = seen.logits.astype(np.float64).std(axis=1)
    check = check_lens(reproduce(seen.hidden[:, -1], head), seen.logits, spread)
    assert check.where == "40 tokens of 3 prompts" and check.rms < 1e-5


def test_the_twin_agrees_on_captured_blocks():
    """Every block, not just the last, against a float64 reference that shares no code."""
    path = tiny_arch("phi2")
    seen = run(path, random_prompts(1, 4, N_VOCAB))
    head = lens_of(path)
    rows = np.arange(8, dtype=np.int32)[None].repeat(4, axis=0)
    h = seen.hidden.astype(np.float64)
    h = (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 0.7)
    weight = 1 + 0.3 * normal(1, "output_norm.weight", 64).astype(np.float64)
    bias = 0.3 * normal(1, "output_norm.bias", 64).astype(np.float64)
    matrix = normal(1, "output.weight", N_VOCAB, 64).astype(np.float64)[head.token_ids[:8]] * 3 / 8
    expected = (h * weight + bias) @ matrix.T + 0.3 * normal(1, "output.bias", N_VOCAB)[head.token_ids[:8]]
    np.testing.assert_allclose(project(seen.hidden, head, rows), expected, atol=2e-6)
