"""Reading heads from real files: their parts, sizes, and files that cannot be read."""

import gguf
import numpy as np
import pytest
from support.tiny_archs import N_VOCAB, tiny_arch
from support.tiny_models import normal, write_gguf, write_tiny_llama

from edgecal.errors import ModelError
from edgecal.gguf.header import read_header
from edgecal.lens import read_head
from edgecal.lens.weight_rows import read_rows
from edgecal.llama.library import dequantize_rows

IDS = np.array([300, 0, 543, 300, 7, 8, 9], np.int32)


def test_a_whole_tensor_and_no_rows(tmp_path):
    path = write_tiny_llama(tmp_path / "model.gguf", seed=1, n_layer=1, quantization="Q5_0")
    info = read_header(path).tensors["output.weight"]
    (tensor,) = (tensor for tensor in gguf.GGUFReader(path).tensors if tensor.name == info.name)
    expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    np.testing.assert_array_equal(read_rows(path, info, np.arange(544), dequantize_rows), expected)
    assert read_rows(path, info, np.zeros(0, np.int64), dequantize_rows).shape == (0, 64)


def test_the_parts_of_a_layer_norm_head():
    head = read_head(read_header(tiny_arch("phi2")), IDS, dequantize_rows)
    assert head.centered and head.eps == pytest.approx(0.7)
    np.testing.assert_allclose(head.norm_weight, 1 + 0.3 * normal(1, "output_norm.weight", 64), rtol=1e-6)
    np.testing.assert_allclose(head.norm_bias, 0.3 * normal(1, "output_norm.bias", 64), rtol=1e-6)
    np.testing.assert_allclose(head.row_bias, 0.3 * normal(1, "output.bias", N_VOCAB)[IDS], rtol=1e-6)


def test_parts_that_are_missing_change_nothing():
    head = read_head(read_header(tiny_arch("olmo")), IDS, dequantize_rows)
    assert (head.norm_weight == 1).all() and not head.norm_bias.any() and not head.row_bias.any()


def test_the_norm_that_lfm2_calls_embedding_norm_and_the_one_that_bloom_does():
    lfm2 = read_head(read_header(tiny_arch("lfm2")), IDS, dequantize_rows)
    np.testing.assert_allclose(lfm2.norm_weight, 1 + 0.3 * normal(1, "token_embd_norm.weight", 64), rtol=1e-6)
    bloom = read_head(read_header(tiny_arch("bloom")), IDS, dequantize_rows)
    np.testing.assert_allclose(bloom.norm_weight, 1 + 0.3 * normal(1, "output_norm.weight", 64), rtol=1e-6)


@pytest.mark.parametrize("token", [-1, 544, 10**6])
def test_a_token_outside_the_head(token):
    with pytest.raises(ModelError, match=f"output.weight has 544 rows and none for token {token}"):
        read_head(read_header(tiny_arch("llama")), np.array([3, token]), dequantize_rows)


MINIMAL = {"llama.attention.layer_norm_rms_epsilon": 1e-5}
ROWS = {"output.weight": np.ones((8, 4), np.float32)}


@pytest.mark.parametrize(
    "metadata, tensors, message",
    [
        (MINIMAL, {"other.weight": np.ones(4, np.float32)}, "neither output.weight nor token_embd.weight"),
        ({}, ROWS, "expected llama.attention.layer_norm_rms_epsilon or llama.attention.layer_norm_epsilon"),
        ({"llama.attention.layer_norm_rms_epsilon": "x"}, ROWS, "is 'x', expected a number"),
        ({"llama.attention.layer_norm_rms_epsilon": -1.0}, ROWS, "is -1.0, expected a number"),
        ({"llama.attention.layer_norm_rms_epsilon": float("nan")}, ROWS, "is nan, expected a number"),
        (MINIMAL, {**ROWS, "output_norm.weight": np.ones(5, np.float32)}, r"has sizes \[5\], expected \[4\]"),
        (
            MINIMAL,
            {**ROWS, "output.bias": np.ones((2, 8), np.float32)},
            r"has sizes \[8, 2\], expected \[8\]",
        ),
    ],
)
def test_files_that_are_not_a_model(metadata, tensors, message, tmp_path):
    path = write_gguf(tmp_path / "model.gguf", "llama", metadata, tensors)
    with pytest.raises(ModelError, match=message) as caught:
        read_head(read_header(path), np.array([0, 1]), dequantize_rows)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_without_architecture(tmp_path):
    path = write_gguf(tmp_path / "model.gguf", "llama", {"filler": 1}, ROWS)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"general.architecture", b"general.architectura"))
    with pytest.raises(ModelError, match=r"general\.architecture is missing"):
        read_head(read_header(path), np.array([0]), dequantize_rows)


def test_a_file_that_is_cut_after_its_header_was_read(tmp_path):
    path = write_tiny_llama(tmp_path / "model.gguf", seed=1, n_layer=1)
    header = read_header(path)
    with path.open("r+b") as file:
        file.truncate(header.tensors["output.weight"].data_offset + 100)
    with pytest.raises(ModelError, match="was truncated while it was being read"):
        read_head(header, IDS, dequantize_rows)
    path.unlink()
    with pytest.raises(ModelError, match=r"cannot be read: No such file"):
        read_head(header, IDS, dequantize_rows)


def test_only_the_wanted_rows_are_read(tmp_path):
    """A sparse file of 4 GB would take long to read and longer to dequantize."""
    path = tmp_path / "model.gguf"
    write_gguf(path, "llama", MINIMAL, {"output.weight": np.ones((8, 4), np.float32)})
    data = bytearray(path.read_bytes())
    at = data.index(b"output.weight") + len("output.weight") + 4
    data[at : at + 16] = np.array([2048, 1 << 19], "<u8").tobytes()
    path.write_bytes(data)
    with path.open("r+b") as file:
        file.truncate(len(data) + (1 << 32))
    head = read_head(read_header(path), np.array([0, 1000, (1 << 19) - 1]), dequantize_rows)
    assert head.rows.shape == (3, 2048) and not head.rows[1:].any()
