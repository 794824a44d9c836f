"""Baked models of every architecture, run by llama.cpp: their logits times tau against the original's."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from support.ggml_types import WEIGHT_TYPES
from support.tiny_archs import ARCHS, tiny_arch, write_tiny_arch
from support.tiny_models import write_tiny_llama

from edgecal.baking.bake import bake as bake_model
from edgecal.baking.bake import unbake as unbake_model
from edgecal.baking.logit_check import ALLOWED, CompareRequest, compare_models
from edgecal.baking.originals import read_originals
from edgecal.baking.recipe import find_recipe, is_known
from edgecal.errors import InputError
from edgecal.gguf.header import read_header
from edgecal.gguf.rewrite import rewritten_draft, write_edited
from edgecal.gguf.shards import find_shards
from edgecal.llama.settings import CaptureSettings

REFUSED = {
    "gemma3n": "soft cap of 30 is fixed",
    "hrm_text": "its final norm has no weight",
    "nanbeige-loops": "its final norm is also applied between its loops",
    "olmo": "its final norm has no weight",
    "qwen4exp": "no weight divides all logits",
    "qwen4exp-ngrams": "no weight divides all logits",
}
BAKED = sorted(set(ARCHS) - set(REFUSED))
BY_SCALE = {
    "cohere2", "cohere2moe", "cohere2moe-rms", "command-r", "granite", "granite-moe", "granite_swa",
    "granitehybrid", "granitehybrid-moe", "granitemoe", "graniteswitch", "grok", "grok-cap", "minicpm",
    "minicpm-moe", "muse-glimmer", "talkie",
}  # fmt: skip
CAPPED = {
    "gemma2", "gemma2-default-cap", "gemma3-cap", "gemma4", "gemma4-moe", "grok-cap", "muse-glimmer",
}  # fmt: skip
HEAD_BIAS = {"phi2", "phimoe", "qwen2"}
NORM_BIAS = {
    "bloom", "codeshell", "falcon", "gpt2", "gptneox", "gptneox-sequential", "jais", "jais2", "mpt",
    "nemotron", "orion", "phi2", "phimoe", "rwkv6", "rwkv6-rescaled", "rwkv6qwen2", "rwkv7", "stablelm",
    "starcoder", "starcoder2",
}  # fmt: skip
TAU = 1.7
SETTINGS = CaptureSettings(n_threads=1)


def checked(original, baked, tau):
    """The check as it is made in a worker process."""
    by_norm = bool(find_recipe(find_shards(original), tau).tensors)
    return compare_models(
        CompareRequest(str(original), str(baked), tau, by_norm, SETTINGS), lambda done: None
    )


@pytest.mark.parametrize("name", BAKED)
def test_every_architecture(name, tmp_path):
    path = tiny_arch(name)
    result = bake_model(path, tmp_path / "baked.gguf", temperature=TAU, check=False)
    norm = "token_embd_norm" if name in ("lfm2", "lfm2moe") else "output_norm"
    architecture = ARCHS[name].arch
    expected = {f"{architecture}.logit_scale"} if name in BY_SCALE else {f"{norm}.weight"}
    expected |= {f"{norm}.bias"} if name in NORM_BIAS else set()
    expected |= {"output.bias"} if name in HEAD_BIAS else set()
    expected |= {f"{architecture}.final_logit_softcapping"} if name in CAPPED else set()
    assert set(result.changed) == expected and is_known(architecture)
    found = checked(path, result.output, result.temperature)
    assert found.allowed == ALLOWED and found.error < 3e-6 and found.plain < 3e-6
    unbake_model(result.output, tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "name",
    [
        "bloom",
        "gemma2",
        "gemma2-default-cap",
        "gemma3-cap",
        "grok-cap",
        "muse-glimmer",
        "phi2",
        "phimoe",
        "qwen2",
    ],
)
def test_every_part_matters(name, tmp_path):
    """With the original of one part put back, the logits are wrong, and the bound finds it."""
    path = tiny_arch(name)
    result = bake_model(path, tmp_path / "baked.gguf", temperature=TAU, check=False)
    header = read_header(result.output)
    originals = read_originals(header)
    assert len(result.changed) > 1
    for part in result.changed:
        partly = tmp_path / "partly.gguf"
        if part in originals.tensors:
            data = {part: originals.tensors[part]}
            with rewritten_draft(
                header, partly, keys=[(key, None) for key in header.keys], tensors=data
            ) as draft:
                draft.publish(overwrite=True)
        else:
            source = read_header(path)
            changes = {part: source.value(part)} if part in source else {}
            write_edited(header, partly, changes=changes, remove=() if changes else [part])
        assert checked(path, partly, result.temperature).error > 1e-2


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0"])
@pytest.mark.parametrize(
    "name", ["llama", "llama-tied", "gemma2", "phi2", "qwen2", "cohere2", "granite", "lfm2", "mamba"]
)
def test_heads_of_other_types(name, kind, tmp_path):
    path = tiny_arch(name, kind)
    result = bake_model(path, tmp_path / "baked.gguf", temperature=TAU, check=False)
    assert result.head_type == kind and result.allowed is result.error is None
    found = checked(path, result.output, result.temperature)
    assert found.allowed == ALLOWED and found.error < 3e-6
    assert found.plain < 3e-6 or name not in BY_SCALE


@pytest.mark.parametrize("tau", [0.6, 3.843])
@pytest.mark.parametrize("kind", WEIGHT_TYPES)
def test_heads_of_every_type(kind, tau, tmp_path):
    path = write_tiny_llama(
        tmp_path / "m.gguf",
        seed=3,
        n_embd=256,
        n_layer=1,
        n_ff=256,
        head_quantization=kind,
        tied=kind == "Q6_K",
    )
    result = bake_model(path, tmp_path / "baked.gguf", temperature=tau, check=False)
    found = checked(path, result.output, result.temperature)
    assert result.head_type == kind and found.allowed == ALLOWED and found.error < 3e-6
    for factors in (np.float32(1.005), 1 + np.float32(0.005) * (-1.0) ** np.arange(256)) if tau < 1 else ():
        assert checked(path, wrong_norm(result.output, factors), result.temperature).error > 0.004


def wrong_norm(baked, factors):
    """A copy of a baked file whose norm has other numbers."""
    path = shutil.copy(baked, Path(baked).with_name("wrong.gguf"))
    info = read_header(path).tensors["output_norm.weight"]
    stored = np.memmap(path, "<f4", "r+", info.data_offset, info.ne)
    stored *= np.asarray(factors, np.float32)
    stored.flush()
    return path


def test_a_tied_embedding_does_not_change(tmp_path):
    path = tiny_arch("llama-tied", "Q8_0")
    result = bake_model(path, tmp_path / "baked.gguf", temperature=TAU, check=False, verify=True)
    assert result.changed == ("output_norm.weight",)


def test_a_bias_that_llama_cpp_does_not_add_stays(tmp_path):
    path = tiny_arch("qwen2vl")
    assert "output.bias" in read_header(path).tensors
    assert "output.bias" not in bake_model(path, tmp_path / "b.gguf", temperature=TAU, check=False).changed


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused_by_name(name, tmp_path):
    with pytest.raises(InputError, match=f"{ARCHS[name].arch} cannot be baked: .*{REFUSED[name]}"):
        bake_model(tiny_arch(name), tmp_path / "baked.gguf", temperature=TAU)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name, metadata, changed",
    [
        ("granitehybrid", {"granitehybrid.logit_scale": None}, {"output_norm.weight"}),
        ("command-r", {"command-r.logit_scale": 0.0}, {"output_norm.weight"}),
        (
            "gemma2",
            {"gemma2.final_logit_softcapping": 9.0},
            {"output_norm.weight", "gemma2.final_logit_softcapping"},
        ),
        ("gemma3", {"gemma3.final_logit_softcapping": 0.0}, {"output_norm.weight"}),
        ("muse-glimmer", {"muse-glimmer.final_logit_softcapping": 0.0}, {"muse-glimmer.logit_scale"}),
    ],
)
def test_keys_that_are_missing_or_zero(name, metadata, changed, tmp_path):
    path = write_tiny_arch(tmp_path / "m.gguf", name, seed=1, metadata=metadata)
    result = bake_model(path, tmp_path / "baked.gguf", temperature=TAU, check=False)
    assert set(result.changed) == changed
    assert checked(path, result.output, result.temperature).error < 3e-6
