"""Every type that llama.cpp runs, as a head and as a tied embedding: its rows, and the logits they give.

`pytest tests/lens/test_lens_types.py -s` prints how far the logits are off.
"""

from dataclasses import replace

import gguf
import numpy as np
import pytest
from support.ggml_types import TYPE_IDS, WEIGHT_TYPES, dequantize
from support.gguf_files import bare_tensor, key, raw_gguf, write_bytes
from support.lens_checks import check_lens
from support.tiny_models import n_vocab_of, tiny_folder, write_tiny_llama
from support.tiny_run import random_prompts, run

from edgecal.architectures import PLAIN_STREAM
from edgecal.errors import InputError, ModelError
from edgecal.gguf.header import read_header
from edgecal.gguf.shards import find_shards
from edgecal.gguf.values import Value
from edgecal.lens import check_token_ids, project, read_head, reproduce
from edgecal.lens.reproduce import apply_head, head_input
from edgecal.lens.weight_rows import read_rows
from edgecal.llama.capture import capture
from edgecal.llama.library import dequantize_rows
from edgecal.llama.model import Model
from edgecal.llama.settings import CaptureSettings
from edgecal.pair.lens_judge import LensJudge

N_EMBD = 256
N_VOCAB = n_vocab_of("bpe")
IDS = np.array([300, 0, 543, 300, 7, 8, 9], np.int32)
UNKNOWN_TO_GGUF_PY = {"Q1_0", "Q2_0"}  # release 0.19 cannot dequantize the one and does not list the other
EVERY_TYPE = pytest.mark.parametrize("kind", WEIGHT_TYPES)
TIED = pytest.mark.parametrize("tied", [False, True], ids=["head", "tied"])


def model_with(kind, tied):
    path = tiny_folder() / f"{kind}-{'tied' if tied else 'head'}.gguf"
    if path.exists():
        return path
    return write_tiny_llama(
        path, seed=3, n_embd=N_EMBD, n_layer=1, n_ff=N_EMBD, head_quantization=kind, tied=tied
    )


def stored_rows(path, name):
    """The tensor's bytes, uint8 [n_rows, bytes of a row]."""
    info = read_header(path).tensors[name]
    data = path.read_bytes()[info.data_offset : info.data_offset + info.n_bytes]
    return np.frombuffer(data, np.uint8).reshape(info.ne[1], -1)


@TIED
@EVERY_TYPE
def test_rows_are_ggmls_bit_for_bit(kind, tied):
    path = model_with(kind, tied)
    head = read_head(find_shards(path), IDS, dequantize_rows)
    assert (head.type_name, head.n_vocab, head.n_embd) == (kind, N_VOCAB, N_EMBD)
    assert head.rows.dtype == head.norm_weight.dtype == np.float32
    np.testing.assert_array_equal(head.token_ids, IDS)
    raw = stored_rows(path, "token_embd.weight" if tied else "output.weight")
    expected = dequantize(kind, raw, N_EMBD)
    np.testing.assert_array_equal(head.rows.view(np.uint32), expected[IDS].view(np.uint32))
    assert 0.5 < expected.std() / (3 / np.sqrt(N_EMBD)) < 1.5


@pytest.mark.parametrize("kind", [kind for kind in WEIGHT_TYPES if kind not in UNKNOWN_TO_GGUF_PY])
def test_rows_are_those_of_gguf_py(kind):
    path = model_with(kind, False)
    tensor = next(tensor for tensor in gguf.GGUFReader(path).tensors if tensor.name == "output.weight")
    rows = read_rows(path, read_header(path).tensors[tensor.name], np.arange(N_VOCAB), dequantize_rows)
    np.testing.assert_array_equal(rows, gguf.quants.dequantize(tensor.data, tensor.tensor_type))


def changed(kind, what, name, factors):
    """A model of two blocks with a head of that type and one F32 tensor's numbers multiplied."""
    path = tiny_folder() / f"{kind}-{what}.gguf"
    if not path.exists():
        write_tiny_llama(path, seed=3, n_embd=N_EMBD, n_layer=2, n_ff=N_EMBD, head_quantization=kind)
        info = read_header(path).tensors[name]
        stored = np.memmap(path, "<f4", "r+", info.data_offset, tuple(reversed(info.ne)))
        stored *= factors
        stored.flush()
    return path


def head_of(path):
    return read_head(find_shards(path), check_token_ids(N_VOCAB, np.zeros(0, int)), dequantize_rows)


def captured(path):
    """Head, last block's output and llama.cpp's logits at the head's tokens, of 8 prompts; and their spread."""
    seen = run(path, random_prompts(0, 8, N_VOCAB))
    head = head_of(path)
    spread = seen.logits.astype(np.float64).std(axis=1)
    return head, seen.hidden[:, -1], seen.logits[:, head.token_ids], spread


@TIED
@EVERY_TYPE
def test_logits_are_llama_cpps(kind, tied):
    """To what float32 holds, so no row is a little wrong and no rounding of the head's input is another one."""
    head, hidden, logits, spread = captured(model_with(kind, tied))
    check = check_lens(reproduce(hidden, head), logits, spread)
    print(f"{kind} {'tied' if tied else 'head'}: {100 * check.rms:.2g} % rms")
    assert check.accepted and check.rms < 1e-5


@EVERY_TYPE
def test_a_build_that_multiplies_in_float_is_as_right(kind):
    head, hidden, logits, spread = captured(model_with(kind, False))
    check = check_lens(
        reproduce(hidden, head), apply_head(head_input(hidden, head), head, rounds=False), spread
    )
    assert check.rms < 1e-6
    lens = project(
        hidden[:, None], head, np.tile(np.arange(len(head.rows), dtype=np.int32), (len(hidden), 1))
    )
    assert check_lens([lens[:, 0]], logits, spread).rms < 0.01


@EVERY_TYPE
def test_an_input_with_outliers(kind):
    """Two of 256 weights of the norm ten times as large, which leaves few codes for all others."""
    factors = np.ones(N_EMBD, np.float32)
    factors[[17, 200]] = 10
    head, hidden, logits, spread = captured(changed(kind, "outliers", "output_norm.weight", factors))
    assert check_lens(reproduce(hidden, head), logits, spread).rms < 1e-5


WRONG = {
    "epsilon x10": lambda head: replace(head, eps=10 * head.eps),
    "norm up by 3 %": lambda head: replace(head, norm_weight=head.norm_weight * np.float32(1.03)),
    "norm down by 3 %": lambda head: replace(head, norm_weight=head.norm_weight * np.float32(0.97)),
    "norm off by 3 % here and there": lambda head: replace(
        head,
        norm_weight=head.norm_weight
        * np.where(np.arange(N_EMBD) % 3 == 1, np.float32(1.03), np.float32(0.97)),
    ),
    "a scale": lambda head: replace(head, logit_scale=1.01),
    "a cap": lambda head: replace(head, soft_cap=30.0),
    "a layer norm": lambda head: replace(head, centered=True),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("kind", ["F32", "BF16", "Q8_0", "Q4_1", "Q6_K", "IQ2_XXS"])
def test_a_lens_that_is_a_little_wrong_is_refused(kind, wrong):
    """By the judge of all runs, with a model whose hidden states are as large as those of real ones."""
    path = changed(kind, "large", "token_embd.weight", np.float32(1000))
    settings = CaptureSettings(n_threads=1)
    with Model(path) as model:
        for change in (lambda head: head, WRONG[wrong]):
            judge = LensJudge("m.gguf", change(head_of(path)))
            judge.watch_epsilon(model, settings, PLAIN_STREAM)
            for chunk in capture(
                model, [np.array(p, np.int32) for p in random_prompts(0, 8, N_VOCAB)], settings, hidden=True
            ):
                for hidden, logits in zip(chunk.hidden, chunk.logits, strict=True):
                    judge.add(hidden[-1], logits, np.zeros(0, np.int32))
            if change is WRONG[wrong]:
                assert judge.rms > 0.006
                with pytest.raises(ModelError, match=r"m\.gguf: .* at most 0\.3 % rms"):
                    judge.judge()
            else:
                assert judge.rms < 1e-5
                judge.judge()


def head_of_type(path, type_id):
    """The smallest file with a head of 256 numbers per row of that type."""
    keys = [
        key("general.architecture", Value.string("llama")),
        key("llama.attention.layer_norm_rms_epsilon", Value.float32(1e-5)),
    ]
    tensors = [bare_tensor("output.weight", [256, 2], type_id)]
    return read_header(write_bytes(path, raw_gguf(keys, tensors, bytes(4096))))


@pytest.mark.parametrize("kind", sorted(set(TYPE_IDS) - set(WEIGHT_TYPES)))
def test_a_head_that_llama_cpp_does_not_multiply_by_is_refused_by_name(kind, tmp_path):
    header = head_of_type(tmp_path / "m.gguf", TYPE_IDS[kind])
    with pytest.raises(
        ModelError, match=rf"m\.gguf: 'output\.weight' is stored as {kind}, which llama\.cpp does not"
    ):
        read_head(header, np.zeros(1, int), dequantize_rows)


@pytest.mark.parametrize("type_id, name", [(5, "Q4_3"), (31, "Q4_0_4_4"), (38, "IQ4_NL_8_8")])
def test_a_type_that_llama_cpp_has_removed_is_refused_by_name(type_id, name, tmp_path):
    header = head_of_type(tmp_path / "m.gguf", type_id)
    with pytest.raises(
        ModelError, match=rf"m\.gguf: 'output\.weight' is stored as {name}, which .* no longer reads"
    ):
        read_head(header, np.zeros(1, int), dequantize_rows)


def test_an_unknown_type_is_refused_by_number(tmp_path):
    header = head_of_type(tmp_path / "m.gguf", 99)
    with pytest.raises(
        ModelError, match=r"stored as type 99, which edgecal does not know; use --method daca"
    ):
        read_head(header, np.zeros(1, int), dequantize_rows)


def test_a_type_that_this_ggml_cannot_write_out_is_refused_by_name(tmp_path):
    def nothing(type_name, raw, n_per_row):
        return dequantize_rows("Q9_9", raw, n_per_row)

    header = head_of_type(tmp_path / "m.gguf", TYPE_IDS["Q4_K"])
    with pytest.raises(ModelError, match=r"m\.gguf: output\.weight cannot be read: Q9_9: .*--method daca"):
        read_head(header, np.zeros(1, int), nothing)


def test_rows_that_blocks_do_not_divide_are_refused(tmp_path):
    data = raw_gguf([], [bare_tensor("output.weight", [128, 2], TYPE_IDS["Q4_K"])], bytes(4096))
    with pytest.raises(
        InputError, match=r"'output\.weight' has rows of 128 elements, not a multiple of Q4_K's 256"
    ):
        read_header(write_bytes(tmp_path / "m.gguf", data))
