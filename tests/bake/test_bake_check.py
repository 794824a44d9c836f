"""The check that decides whether a baked file is written, as numbers and on real models."""

from dataclasses import replace

import numpy as np
import pytest
from support.tiny_archs import tiny_arch
from support.tiny_models import llama_tensors, write_gguf, write_tiny_llama

from edgecal.architectures import table
from edgecal.baking import bake as write
from edgecal.baking import recipe
from edgecal.baking.bake import bake as bake_model
from edgecal.baking.logit_check import ALLOWED, BakeCheck, Seen, check_baked, compare_seen, furthest_tokens
from edgecal.errors import InputError, ModelError
from edgecal.gguf.header import read_header
from edgecal.gguf.rewrite import write_edited
from edgecal.lens import Head
from edgecal.lens.reproduce import apply_head

N_EMBD, N_VOCAB = 64, 200
RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(8, N_EMBD)).astype(np.float32)
HEAD = Head(
    architecture="qwen2",
    centered=False,
    eps=1e-5,
    norm_weight=np.ones(N_EMBD, np.float32),
    norm_bias=np.zeros(N_EMBD, np.float32),
    token_ids=np.arange(N_VOCAB, dtype=np.int32),
    rows=RNG.normal(size=(N_VOCAB, N_EMBD)).astype(np.float32),
    row_bias=RNG.normal(size=N_VOCAB).astype(np.float32),
    logit_scale=1.0,
    soft_cap=20.0,
    n_vocab=N_VOCAB,
    type_name="Q8_0",
    block_elements=32,
)
TAU = 1.7


def said(inputs, head=HEAD, *, rounds=True):
    return Seen(inputs, apply_head(inputs, head, rounds=rounds).astype(np.float32), 8)


def divided(tau=TAU, **left):
    """The head of a right bake, or of one where something was left as it was."""
    right = {"row_bias": HEAD.row_bias / np.float32(tau), "soft_cap": 20.0 / tau}
    return replace(HEAD, **{**right, **left})


def compare(original, baked, tau=TAU, *, head=HEAD, divides_input=True):
    return compare_seen(original, baked, tau, divides_input=divides_input, head=head, head_type="Q8_0")


@pytest.mark.parametrize("rounds", [True, False], ids=["rounded", "in float"])
@pytest.mark.parametrize("tau", [0.05, 0.8, 1.7, 6.95, 50.0])
def test_a_right_bake_is_right_to_what_float32_holds(tau, rounds):
    baked = said(INPUTS / np.float32(tau), divided(tau), rounds=rounds)
    found = compare(said(INPUTS, rounds=rounds), baked, tau)
    assert found.error < 1e-6 and found.allowed == ALLOWED
    assert found.plain > 1e-4 or not rounds


def test_what_lies_behind_the_head_may_carry_it_alone():
    head, carried = replace(HEAD, logit_scale=0.5), divided(row_bias=HEAD.row_bias, logit_scale=0.5 / TAU)
    found = compare(said(INPUTS, head), said(INPUTS, carried), head=head, divides_input=False)
    assert found.error < 1e-6 and found.plain < 1e-6
    twice = said(INPUTS / np.float32(TAU), carried)
    assert compare(said(INPUTS, head), twice, head=head, divides_input=False).error > 0.1


NUDGED = np.ones(N_EMBD, np.float32)
NUDGED[5] = 1.005
WRONG = {
    "norm up by 0.5 %": (np.float32(1.005), {}),
    "norm down by 0.5 %": (np.float32(0.995), {}),
    "norm off by 0.5 % here and there": (
        1 + np.float32(0.005) * (-1) ** np.arange(N_EMBD, dtype=np.float32),
        {},
    ),
    "one of the norm's numbers": (NUDGED, {}),
    "not divided": (np.float32(TAU), {}),
    "bias forgotten": (np.float32(1), {"row_bias": HEAD.row_bias}),
    "a small bias forgotten": (np.float32(1), {"row_bias": HEAD.row_bias * np.float32(1 + 0.002)}),
    "cap undivided": (np.float32(1), {"soft_cap": 20.0}),
    "cap divided twice": (np.float32(1), {"soft_cap": 20.0 / TAU**2}),
}


@pytest.mark.parametrize("rounds", [True, False], ids=["rounded", "in float"])
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_bake_is_refused(wrong, rounds):
    factor, left = WRONG[wrong]
    baked = said((INPUTS / np.float32(TAU) * factor).astype(np.float32), divided(**left), rounds=rounds)
    found = compare(said(INPUTS, rounds=rounds), baked)
    assert found.error > 2 * found.allowed
    with pytest.raises(ModelError, match="nothing was written"):
        found.raise_if_refused("m.gguf", "qwen2", TAU, "Q8_0")


def test_the_bias_of_a_single_token_is_found():
    ids = np.sort(RNG.permutation(N_VOCAB)[:20])
    lonely = np.setdiff1d(np.arange(N_VOCAB), ids)[3]
    bias = HEAD.row_bias / np.float32(TAU)
    bias[lonely] += np.float32(0.2)
    original, baked = said(INPUTS), said(INPUTS / np.float32(TAU), divided(row_bias=bias))
    checked = furthest_tokens(original, baked, TAU)
    assert lonely in checked and len(checked) == 64 and (np.diff(checked) > 0).all()
    few = replace(HEAD, token_ids=checked, rows=HEAD.rows[checked], row_bias=HEAD.row_bias[checked])
    assert compare(original, baked, head=few).error > 0.002


def test_where_the_roundings_cannot_be_reproduced():
    """A scale that the table does not know: the bound is then what such a head rounds, and the norm is as strict."""
    unknown = replace(HEAD, logit_scale=0.25, soft_cap=None, row_bias=np.zeros(N_VOCAB, np.float32))
    known = replace(unknown, logit_scale=1.0)
    original = said(INPUTS, unknown)
    found = compare(original, said(INPUTS / np.float32(TAU), unknown), head=known)
    assert 2e-4 < found.error < found.allowed < 0.02
    for head in (known, None):
        assert compare(original, said(INPUTS / np.float32(TAU), unknown), head=head).error < found.allowed
        nudged = said(INPUTS / np.float32(TAU) * np.float32(1.005), unknown)
        wrong = compare(original, nudged, head=head)
        assert wrong.error > wrong.allowed


@pytest.mark.parametrize("mask", [-np.inf, np.finfo(np.float32).min])
def test_masked_tokens(mask):
    original, baked = said(INPUTS), said(INPUTS / np.float32(TAU), divided())
    original.logits[:, 5:9] = baked.logits[:, 5:9] = mask
    assert compare(original, baked).error < 1e-6
    assert compare(original, baked, head=None).error < 0.01
    baked.logits[0, 5] = 1.0
    assert np.isnan(compare(original, baked).error)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["inputs", "logits"])
def test_no_finite_numbers(bad, where):
    baked = said(INPUTS / np.float32(TAU), divided())
    baked = Seen(baked.inputs.copy(), baked.logits, 8)
    getattr(baked, where)[1, 3] = bad
    check = compare(said(INPUTS), baked)
    assert not check.error <= check.allowed
    with pytest.raises(ModelError, match="got no finite numbers"):
        check.raise_if_refused("m.gguf", "llama", 2.0, "F16")


def test_no_spread():
    flat = Seen(INPUTS[:2], np.ones((2, 4), np.float32), 2)
    assert np.isnan(compare(flat, flat).error)
    nothing = Seen(INPUTS[:2], flat.logits[:, :0], 2)
    assert np.isnan(compare(nothing, nothing).error)


def test_the_verdict():
    BakeCheck(1e-4, 1.0, 1e-4, 4).raise_if_refused("m.gguf", "llama", 2.0, "F16")
    with pytest.raises(
        ModelError,
        match=r"m\.gguf: .*architecture llama, head F16, 4 prompts.* at most 0\.0001 .* got 0\.0011 rms",
    ):
        BakeCheck(1.1e-3, 1.0, 1e-4, 4).raise_if_refused("m.gguf", "llama", 2.0, "F16")


def test_real_models_in_a_worker(tmp_path):
    path = tiny_arch("llama")
    same = check_baked([path], [path], 1.0, what="m")
    assert same.error == same.plain == 0 and same.n_prompts == 4
    assert check_baked([path], [path], 2.0, what="m").error > 0.5
    with pytest.raises(ModelError, match=r"^m, baked: llama\.cpp cannot load"):
        check_baked([path], [write_gguf(tmp_path / "m.gguf", "llama", {}, {})], 2.0, what="m")


def test_a_head_whose_rounding_moves_all_logits_is_baked(tmp_path):
    """Its rows have a large part in common: rounding its input moves all logits by more than they differ."""
    tensors = llama_tensors(
        5, n_layer=1, n_embd=64, n_head=4, n_head_kv=4, n_ff=128, n_vocab=512, tied=False, logit_spread=3.0
    )
    tensors["output.weight"] += np.float32(15) * tensors["output.weight"].std()
    source = read_header(write_tiny_llama(tmp_path / "s.gguf", seed=5, n_layer=1, vocab="none", n_vocab=512))
    keys = {key: source.get(key) for key in source.keys if key.startswith(("llama.", "tokenizer."))}
    path = write_gguf(tmp_path / "m.gguf", "llama", keys, tensors, types={"output.weight": "Q8_0"})
    result = bake_model(path, tmp_path / "baked.gguf", temperature=1.7)
    assert result.plain > 1e-3 and result.error < 1e-5 and result.allowed == ALLOWED


def test_a_model_that_fails_the_check_is_not_written(tmp_path, monkeypatch):
    path = write_tiny_llama(tmp_path / "m.gguf", seed=5, n_layer=1, head_quantization="Q8_0")
    before = path.read_bytes()
    monkeypatch.setattr(write, "divided", lambda data, tau, where: recipe.divided(data, tau * 1.005, where))
    refusal = (
        r"architecture llama, head Q8_0, 4 prompts.*expected at most 0\.0001 rms .*, got 0\.00[45]\d* rms"
    )
    with pytest.raises(ModelError, match=refusal):
        bake_model(path, tmp_path / "baked.gguf", temperature=1.7)
    with pytest.raises(ModelError, match="nothing was written"):
        bake_model(path, in_place=True, temperature=1.7)
    assert [one.name for one in tmp_path.iterdir()] == ["m.gguf"] and path.read_bytes() == before


def test_a_model_that_llama_cpp_cannot_run(tmp_path):
    path = tmp_path / "m.gguf"
    source = read_header(tiny_arch("llama"))
    write_edited(source, path, changes={}, remove=["llama.context_length"])
    with pytest.raises(ModelError, match=r"context_length"):
        bake_model(path, tmp_path / "baked.gguf", temperature=1.7)
    assert [one.name for one in tmp_path.iterdir()] == ["m.gguf"]


def test_an_architecture_that_the_table_does_not_know(tmp_path, monkeypatch):
    """Here one is taken out of the table: it is baked, but never unchecked."""
    monkeypatch.delitem(table.FAMILIES, "llama")
    path = tiny_arch("llama")
    with pytest.raises(InputError, match=r"does not know the architecture llama, .* leave out --no-check"):
        bake_model(path, tmp_path / "b.gguf", temperature=1.7, check=False)
    assert not list(tmp_path.iterdir())
    assert bake_model(path, tmp_path / "b.gguf", temperature=1.7).error < 3e-6


def with_a_wrong_row(monkeypatch, name, **wrong):
    monkeypatch.setitem(table.FAMILIES, name, replace(table.FAMILIES[name], **wrong))


def test_where_the_table_is_wrong_the_check_finds_it(tmp_path, monkeypatch):
    with_a_wrong_row(monkeypatch, "muse-glimmer", soft_cap=None)
    with pytest.raises(ModelError, match="architecture muse-glimmer"):
        bake_model(tiny_arch("muse-glimmer"), tmp_path / "b.gguf", temperature=1.7)
    assert not list(tmp_path.iterdir())


def test_a_scale_that_the_table_does_not_know(tmp_path, monkeypatch):
    """Without its scale Granite is baked by its norm, which is as right, but less exact on a BF16 head."""
    with_a_wrong_row(monkeypatch, "granite", scale=None)
    result = bake_model(tiny_arch("granite"), tmp_path / "b.gguf", temperature=1.7)
    assert result.changed == ("output_norm.weight",)
