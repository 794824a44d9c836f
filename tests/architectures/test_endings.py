"""The table of what architectures do to their norms and logits, with the oddities of real files."""

import pytest

from edgecal.architectures import Norm, Transform, family_of, norm_of, transform_of
from edgecal.errors import ModelError

RMS, LAYER = "attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"


def keys(architecture, **values):
    return {f"{architecture}.{name}": value for name, value in values.items()}.get


@pytest.mark.parametrize(
    "architecture, rms, layer, expected",
    [
        ("llama", 1e-6, None, Norm(False, 1e-6)),
        ("gpt2", None, 1e-5, Norm(True, 1e-5)),
        ("unheard-of", 1e-6, None, Norm(False, 1e-6)),
        ("unheard-of", None, 1e-5, Norm(True, 1e-5)),
        ("unheard-of", 1e-6, 1e-5, Norm(False, 1e-6)),
        ("gpt2", 0.0, 1e-5, Norm(True, 1e-5)),  # as llama.cpp's own writer saves it
        ("llama", 1e-6, 0.0, Norm(False, 1e-6)),
        ("qwen2vl", 1e-6, None, Norm(False, 0.0)),  # llama.cpp forgets to read it
        ("rwkv7", 1e-6, 1e-5, Norm(True, 1e-5)),
        ("arwkv7", 1e-6, 1e-5, Norm(False, 1e-6)),
        ("nemotron_h", None, 1e-5, Norm(False, 1e-5)),
        ("nemotron_h", 1e-6, 1e-5, Norm(False, 1e-6)),
        ("cohere2moe", None, 1e-5, Norm(True, 1e-5)),
        ("cohere2moe", 0.0, 1e-5, Norm(True, 1e-5)),
        ("cohere2moe", 1e-6, 1e-5, Norm(False, 1e-6)),
    ],
)
def test_norms(architecture, rms, layer, expected):
    found = {f"{architecture}.{RMS}": rms, f"{architecture}.{LAYER}": layer}
    assert norm_of(architecture, found.get, "model.gguf") == expected


def test_a_norm_without_epsilon():
    with pytest.raises(ModelError, match=r"model\.gguf: expected .* found neither.*--method daca"):
        norm_of("llama", {}.get, "model.gguf")


@pytest.mark.parametrize(
    "architecture, values, expected",
    [
        ("llama", {"logit_scale": 3.0, "final_logit_softcapping": 9.0}, Transform()),
        ("command-r", {"logit_scale": 0.0625}, Transform(0.0625)),
        ("command-r", {"logit_scale": 0.0}, Transform()),
        ("command-r", {}, Transform()),
        ("cohere2", {"logit_scale": 0.25}, Transform(0.25)),
        ("granite", {"logit_scale": 8.0}, Transform(0.125)),
        ("granitehybrid", {}, Transform()),
        ("minicpm", {"logit_scale": 2.0}, Transform(0.5)),
        ("minicpm", {}, Transform(8.0)),
        ("minicpm3", {}, Transform(0.125)),
        ("gemma2", {}, Transform(1.0, 30.0)),
        ("gemma2", {"final_logit_softcapping": 20.0}, Transform(1.0, 20.0)),
        ("gemma3", {}, Transform()),
        ("gemma3", {"final_logit_softcapping": 20.0}, Transform(1.0, 20.0)),
        ("gemma4", {}, Transform(1.0, 30.0)),
        ("gemma4", {"final_logit_softcapping": 0.0}, Transform()),
        ("gemma3n", {"final_logit_softcapping": 20.0}, Transform(1.0, 30.0)),
        ("grok", {}, Transform(0.5773502691896257)),
        ("grok", {"logit_scale": 0.5, "final_logit_softcapping": 30.0}, Transform(0.5, 30.0)),
        ("muse-glimmer", {"logit_scale": 2.0}, Transform(2.0, 30.0)),
        ("talkie", {"logit_scale": 2.0}, Transform(2.0)),
    ],
)
def test_transforms(architecture, values, expected):
    assert transform_of(architecture, 2048, keys(architecture, **values), "model.gguf") == expected


@pytest.mark.parametrize("value", ["8", True, float("nan"), float("inf"), [1.0]])
def test_a_scale_that_is_not_a_number(value):
    with pytest.raises(ModelError, match=r"model\.gguf: granite\.logit_scale is .* expected a number"):
        transform_of("granite", 64, keys("granite", logit_scale=value), "model.gguf")


def test_head_scales():
    assert family_of("llama").head_scale and family_of("unheard-of").head_scale
    assert not family_of("talkie").head_scale and not family_of("deepseek2").head_scale


def test_head_biases():
    assert family_of("qwen2").head_bias and family_of("unheard-of").head_bias
    assert not family_of("qwen2vl").head_bias
