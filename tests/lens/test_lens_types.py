"""Every type that llama.cpp runs, as a head and as a tied embedding: its rows, and the logits they give.

`pytest tests/lens/test_lens_types.py -s` prints how far the logits are off.
"""

import gguf
import numpy as np
import pytest
from support.ggml_types import TYPE_IDS, WEIGHT_TYPES, dequantize, quantize_rows, traits_of
from support.gguf_files import bare_tensor, key, raw_gguf, write_bytes
from support.tiny_models import n_vocab_of, tiny_folder, write_tiny_llama
from support.tiny_run import random_prompts, run

from edgecal.errors import InputError, ModelError
from edgecal.gguf import Value, find_shards, read_header
from edgecal.lens import check_lens, check_token_ids, project, read_head
from edgecal.lens.rows import read_rows
from edgecal.llama.dequantize import dequantize_rows

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
    assert (head.tied, head.type_name, head.n_vocab, head.n_embd) == (tied, kind, N_VOCAB, N_EMBD)
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


def captured(kind, tied):
    """Head, last block's output and llama.cpp's logits at the head's tokens, of 8 prompts; and their spread."""
    path = model_with(kind, tied)
    seen = run(path, random_prompts(0, 8, N_VOCAB))
    head = read_head(find_shards(path), check_token_ids(N_VOCAB, np.zeros(0, int)), dequantize_rows)
    spread = seen.logits.astype(np.float64).std(axis=1)
    return head, seen.hidden[:, -1], seen.logits[:, head.token_ids], spread


@TIED
@EVERY_TYPE
def test_logits_are_llama_cpps(kind, tied):
    head, hidden, logits, spread = captured(kind, tied)
    rows = np.tile(np.arange(len(head.rows), dtype=np.int32), (len(logits), 1))
    check = check_lens(project(hidden[:, None], head, rows)[:, 0], logits, spread)
    print(
        f"{kind} {'tied' if tied else 'head'}: {100 * check.rms:.2g} % rms, {100 * check.worst:.2g} % at most"
    )
    assert check.accepted and check.rms < 0.01


def rounded(x, kind):
    """A head's input, float32 [n, N_EMBD], as llama.cpp rounds it before it multiplies a head of that type by it."""
    if kind == "F32":
        return x
    if kind == "F16":
        return x.astype(np.float16).astype(np.float32)
    if kind == "BF16":
        return dequantize(kind, quantize_rows(x, kind), N_EMBD)
    if traits_of(TYPE_IDS[kind]).block_elements == 256:  # Q8_K, scaled by its largest number, sign and all
        largest = np.take_along_axis(x, np.abs(x).argmax(1)[:, None], 1)
        scale = np.float32(-127) / largest
        return np.minimum(np.rint(scale * x), 127) / scale
    return dequantize("Q8_0", quantize_rows(x, "Q8_0"), N_EMBD)


@EVERY_TYPE
def test_what_is_left_is_the_rounding_of_the_heads_input(kind):
    """Rounded in the same way, the rows give llama.cpp's logits to what float32 holds, so no row is a little wrong."""
    head, hidden, logits, spread = captured(kind, False)
    wide = hidden.astype(np.float64)
    normed = wide / np.sqrt((wide * wide).mean(axis=1, keepdims=True) + head.eps) * head.norm_weight
    x = rounded(normed.astype(np.float32), kind).astype(np.float64)
    check = check_lens((x @ head.rows.T).astype(np.float32), logits, spread)
    print(f"{kind}, input rounded: {100 * check.rms:.2g} % rms")
    assert check.rms < (2e-3 if kind in ("Q4_1", "Q5_1") else 1e-5)  # these round a sum to F16, too


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
