"""The lens at every layer against transformers on the same weights, which shares no code with llama.cpp or edgecal.

All in float32, but llama.cpp keeps keys and values in half precision. What that and the order of sums cost, as rms over
prompts and tokens in units of each prompt's spread of logits: 8e-5 to 4e-4 after the first block, 1.5e-4 to 5.2e-4
after the third and last (measured with torch 2.13.0 and transformers 5.18.0). Any part left out costs 0.048 to 3.
"""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from support.tiny_archs import N_VOCAB
from support.tiny_run import random_prompts
from support.transformers_models import load_twin, read_layers
from support.twins import TWINS, twin_path

from edgecal.gguf.shards import find_shards
from edgecal.lens import project, read_head
from edgecal.llama.capture import capture
from edgecal.llama.library import dequantize_rows
from edgecal.llama.model import Model
from edgecal.llama.settings import CaptureSettings

BOUND = 1e-3
LEFT_OUT = 0.04
PROMPTS = random_prompts(0, 8, N_VOCAB, n_tokens=24)  # longer than the sliding windows of 8
EVERY_TOKEN = np.arange(N_VOCAB, dtype=np.int32)

LENS_PARTS = {
    **{name: {"norm_weight"} for name in TWINS},
    "qwen2": {"norm_weight", "row_bias"},
    "gemma2": {"norm_weight", "soft_cap"},
    "gemma3": {"norm_weight", "soft_cap"},
    "phi2": {"centered", "norm_weight", "norm_bias", "row_bias"},
    "gpt2": {"centered", "norm_weight", "norm_bias"},
    "stablelm": {"centered", "norm_weight", "norm_bias"},
    "command-r": {"centered", "norm_weight", "logit_scale"},
    "cohere2": {"centered", "norm_weight", "logit_scale"},
    "granite": {"norm_weight", "logit_scale"},
}


@pytest.fixture(autouse=True, scope="module")
def _reference():
    for module in ("torch", "transformers"):
        pytest.importorskip(module, reason=f"{module} is missing: install the extra `reference`")


@cache
def captured(name):
    """What edgecal reads out of llama.cpp: hidden [n, n_layer, n_embd], logits [n, n_vocab]."""
    prompts = [np.array(prompt, np.int32) for prompt in PROMPTS]
    with Model(twin_path(name)) as model:
        chunks = list(capture(model, prompts, CaptureSettings(n_threads=1), hidden=True))
    order = np.argsort(np.concatenate([chunk.indices for chunk in chunks]))
    return tuple(
        np.concatenate([getattr(chunk, part) for chunk in chunks])[order] for part in ("hidden", "logits")
    )


@cache
def reference(name):
    """The same of transformers: hidden [n, n_layer - 1, n_embd], logits [n, n_layer, n_vocab]."""
    return read_layers(load_twin(name), PROMPTS)


def lens_of(name):
    return read_head(find_shards(twin_path(name)), EVERY_TOKEN, dequantize_rows)


def seen_through(head, name):
    """The lens on every block: [n, n_layer, n_vocab]."""
    return project(captured(name)[0], head, np.tile(EVERY_TOKEN, (len(PROMPTS), 1)))


def deviation(found, expected):
    """By layer [n_layer]: rms difference in units of the spread of each prompt's numbers."""
    spread = expected.astype(np.float64).std(axis=-1, keepdims=True)
    return np.sqrt((((found - expected) / spread) ** 2).mean(axis=(0, 2)))


@pytest.mark.parametrize("name", TWINS)
def test_every_layer(name):
    hidden, logits = captured(name)
    expected_hidden, expected = reference(name)
    assert expected.shape == (len(PROMPTS), TWINS[name].spec.n_layer, N_VOCAB)
    off = deviation(seen_through(lens_of(name), name), expected)
    assert (off < BOUND).all(), off
    off = deviation(hidden[:, :-1], expected_hidden)
    assert (off < BOUND).all(), off
    assert deviation(logits[:, None], expected[:, -1:]) < BOUND


@pytest.mark.parametrize("name, part", [(name, part) for name in TWINS for part in sorted(LENS_PARTS[name])])
def test_every_part_of_the_lens_matters_at_every_layer(name, part):
    head = lens_of(name)
    neutral = {
        "centered": False,
        "norm_weight": np.ones_like(head.norm_weight),
        "norm_bias": np.zeros_like(head.norm_bias),
        "row_bias": np.zeros_like(head.row_bias),
        "logit_scale": 1.0,
        "soft_cap": None,
    }
    parts = {key for key, value in neutral.items() if not np.array_equal(value, getattr(head, key))}
    assert parts == LENS_PARTS[name]
    off = deviation(seen_through(replace(head, **{part: neutral[part]}), name), reference(name)[1])
    assert (off > LEFT_OUT).all(), off


@pytest.mark.parametrize(
    "name, change",
    [
        ("llama", {"settings": {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}}),
        ("llama", {"left_out": r"attn_norm"}),
        ("mixtral", {"settings": {"num_experts_per_tok": 1}}),
        ("qwen2", {"left_out": r"attn_[qk]\.bias"}),
        ("qwen2", {"left_out": r"attn_v\.bias"}),
        ("qwen3", {"left_out": r"attn_q_norm"}),
        ("qwen3moe", {"settings": {"norm_topk_prob": False}}),
        ("gemma2", {"settings": {"attn_logit_softcapping": None}}),
        ("gemma2", {"settings": {"sliding_window": 512}}),
        ("gemma2", {"left_out": r"post_ffw_norm"}),
        ("gemma3", {"settings": {"sliding_window": 512}}),
        ("gemma3", {"settings": {"rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 1e6} for kind in ("full_attention", "sliding_attention")
        }}}),
        ("gemma3", {"left_out": r"attn_k_norm"}),
        ("phi2", {"settings": {"rope_parameters": {
            "rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0
        }}}),
        ("phi2", {"left_out": r"attn_output\.bias"}),
        ("phi2", {"left_out": r"ffn_down\.bias"}),
        ("gpt2", {"left_out": r"attn_qkv\.bias"}),
        ("stablelm", {"left_out": r"attn_norm\.bias"}),
        ("cohere2", {"settings": {"sliding_window": 512}}),
        ("granite", {"settings": {"residual_multiplier": 1.0}}),
        ("granite", {"settings": {"embedding_multiplier": 1.0}}),
        ("granite", {"settings": {"attention_multiplier": 0.25}}),
        ("olmo2", {"left_out": r"attn_q_norm"}),
    ],
)  # fmt: skip
def test_parts_inside_of_blocks_matter_after_every_block(name, change):
    """The models are such that a llama.cpp or a capture that lacked one of these would be found out."""
    hidden, logits = read_layers(load_twin(name, **change), PROMPTS[:2])
    expected_hidden, expected = reference(name)
    assert (deviation(hidden, expected_hidden[:2]) > LEFT_OUT).all()
    assert (deviation(logits, expected[:2]) > LEFT_OUT).all()
