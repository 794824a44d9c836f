"""The check that decides whether a baked file is written, as numbers and on real models."""

from dataclasses import replace

import numpy as np
import pytest
from support.tiny_archs import tiny_arch
from support.tiny_models import llama_tensors, write_gguf, write_tiny_llama

from edgecal.architectures import table
from edgecal.bake.check import BakeCheck, check_baked, compare_logits
from edgecal.bake.write import bake_model
from edgecal.errors import InputError, ModelError
from edgecal.gguf import read_header, write_edited

LOGITS = np.random.default_rng(0).normal(size=(3, 50)).astype(np.float32) * 4


def test_equal_logits_are_equal():
    check = compare_logits(LOGITS, LOGITS, 1.0)
    assert check == BakeCheck(0.0, 0.0, 3)
    assert compare_logits(LOGITS, LOGITS / np.float32(4), 4.0).rms == 0


@pytest.mark.parametrize("tau", [0.5, 3.0])
def test_the_error_is_in_units_of_each_prompts_spread(tau):
    spread = LOGITS.astype(np.float64).std(axis=1, keepdims=True)
    off = (LOGITS + 0.01 * spread * np.where(np.arange(50) % 2, 1, -1)).astype(np.float64) / tau
    check = compare_logits(LOGITS, off.astype(np.float32), tau)
    assert check.rms == pytest.approx(0.01, rel=1e-3) and check.worst == pytest.approx(0.01, rel=1e-3)
    # Measured so, the size of the logits does not matter.
    assert compare_logits(LOGITS * 8, off.astype(np.float32) * 8, tau).rms == pytest.approx(
        check.rms, rel=1e-6
    )


def test_logits_that_were_not_divided():
    assert compare_logits(LOGITS, LOGITS, 1.7).rms > 0.5


@pytest.mark.parametrize("mask", [-np.inf, np.finfo(np.float32).min])
def test_masked_tokens(mask):
    original, baked = LOGITS.copy(), LOGITS / np.float32(2)
    original[:, 5:9] = baked[:, 5:9] = mask
    assert compare_logits(original, baked, 2.0).rms == 0
    baked[0, 5] = 1.0
    assert np.isnan(compare_logits(original, baked, 2.0).rms)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_no_finite_numbers(bad):
    baked = LOGITS.copy()
    baked[1, 3] = bad
    check = compare_logits(LOGITS, baked, 1.0)
    assert np.isnan(check.rms)
    with pytest.raises(ModelError, match="got no finite numbers"):
        check.raise_if_refused("m.gguf", "llama", 2.0, 1e-3, "F16")


def test_no_spread():
    flat = np.ones((2, 4), np.float32)
    assert np.isnan(compare_logits(flat, flat, 1.0).rms)
    assert np.isnan(compare_logits(flat[:, :0], flat[:, :0], 1.0).rms)


def test_the_verdict():
    BakeCheck(1e-3, 1.0, 4).raise_if_refused("m.gguf", "llama", 2.0, 1e-3, "F16")
    with pytest.raises(
        ModelError,
        match=r"m\.gguf: .*architecture llama, head \w+, 4 prompts.* at most 0\.001 .* got 0\.0011 rms",
    ):
        BakeCheck(1.1e-3, 1.0, 4).raise_if_refused("m.gguf", "llama", 2.0, 1e-3, "F16")


def test_real_models_in_a_worker(tmp_path):
    path = tiny_arch("llama")
    same = check_baked([path], [path], 1.0, what="m")
    assert same.rms == 0 and same.n_prompts == 4
    assert check_baked([path], [path], 2.0, what="m").rms > 0.5
    with pytest.raises(ModelError, match=r"^m, baked: llama\.cpp cannot load"):
        check_baked([path], [write_gguf(tmp_path / "m.gguf", "llama", {}, {})], 2.0, what="m")


def test_a_model_that_fails_the_check_is_not_written(tmp_path):
    """A head whose rows have a large part in common: rounding its input moves all logits by more than they differ."""
    tensors = llama_tensors(
        5, n_layer=1, n_embd=64, n_head=4, n_head_kv=4, n_ff=128, n_vocab=512, tied=False, logit_spread=3.0
    )
    tensors["output.weight"] += np.float32(15) * tensors["output.weight"].std()
    source = read_header(write_tiny_llama(tmp_path / "s.gguf", seed=5, n_layer=1, vocab="none", n_vocab=512))
    keys = {key: source.get(key) for key in source.keys if key.startswith(("llama.", "tokenizer."))}
    path = write_gguf(tmp_path / "m.gguf", "llama", keys, tensors, types={"output.weight": "Q8_0"})
    source.path.unlink()
    before = path.read_bytes()
    with pytest.raises(
        ModelError, match=r"architecture llama, head \w+, 4 prompts.*expected at most 0\.001 rms .*, got 0\.0"
    ):
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


@pytest.mark.parametrize("kind", ["Q4_1", "Q5_1"])
def test_heads_whose_rounding_is_on_the_bound(tmp_path, kind):
    """Baked where the check finds it right, refused by the head's type where not, and never unchecked."""
    path = write_tiny_llama(
        tmp_path / "m.gguf", seed=100, n_embd=256, n_layer=1, n_ff=256, head_quantization=kind
    )
    with pytest.raises(InputError, match=rf"its head is stored as {kind}, .* leave out --no-check"):
        bake_model(path, tmp_path / "baked.gguf", temperature=3.843, check=False)
    with pytest.raises(ModelError, match=rf"head {kind}, .* at most 0\.001 rms .* got 0\.001[5-9]\d* rms"):
        bake_model(path, tmp_path / "baked.gguf", temperature=0.6)
    assert [one.name for one in tmp_path.iterdir()] == ["m.gguf"]
    assert 5e-4 < bake_model(path, tmp_path / "baked.gguf", temperature=3.843).error < 1e-3
    # A scale key carries the temperature whatever the head is.
    granite = tiny_arch("granite", kind)
    assert bake_model(granite, tmp_path / "g.gguf", temperature=0.6, check=False).head_type == kind


def test_an_architecture_that_the_table_does_not_know(tmp_path, monkeypatch):
    """Here one is taken out of the table: it is baked, but never unchecked."""
    monkeypatch.delitem(table.FAMILIES, "llama")
    path = tiny_arch("llama")
    with pytest.raises(InputError, match=r"does not know the architecture llama, .* leave out --no-check"):
        bake_model(path, tmp_path / "b.gguf", temperature=1.7, check=False)
    assert not list(tmp_path.iterdir())
    assert bake_model(path, tmp_path / "b.gguf", temperature=1.7).error < 3e-7


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
