"""Reading headers: literal bytes, gguf-py's files, and every value type against gguf-py's own reader."""

import subprocess
import sys
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
import pytest
from support.ggml_types import WEIGHT_TYPES, traits_of
from support.gguf_files import bare_tensor, key, raw_gguf, write_bytes
from support.tiny_models import write_tiny_llama

from edgecal.errors import InputError
from edgecal.gguf.header import read_header
from edgecal.gguf.tensors import GGML_TYPES, TensorInfo, why_not_run
from edgecal.gguf.values import Value, ValueType

# A whole file as literal bytes: one key of four types each, one F32 tensor of two numbers.
GOLDEN = bytes.fromhex(
    "47475546" "03000000" "0100000000000000" "0400000000000000"
    # general.architecture STRING "x"
    "1400000000000000" "67656e6572616c2e617263686974656374757265" "08000000" "0100000000000000" "78"
    # x.block_count UINT32 2
    "0d00000000000000" "782e626c6f636b5f636f756e74" "04000000" "02000000"
    # t FLOAT32 0.75
    "0100000000000000" "74" "06000000" "0000403f"
    # a ARRAY of INT16 [1, -1]
    "0100000000000000" "61" "09000000" "03000000" "0200000000000000" "0100ffff"
    # tensor "w", 1 dimension of 2, F32, offset 0
    "0100000000000000" "77" "01000000" "0200000000000000" "00000000" "0000000000000000"
    # padding to 192, then 1.0 and -2.0
    "00000000000000000000000000000000000000"
    "0000803f" "000000c0"
)  # fmt: skip


def test_golden_bytes(tmp_path):
    header = read_header(write_bytes(tmp_path / "golden.gguf", GOLDEN))
    assert header.version == 3
    assert header.keys == ("general.architecture", "x.block_count", "t", "a")
    assert [header.get(name) for name in header.keys] == ["x", 2, 0.75, [1, -1]]
    assert header.type_of("t") is ValueType.FLOAT32
    assert header.architecture == "x"
    assert header.alignment == 32
    assert header.data_start == 192
    assert header.file_size == len(GOLDEN) == 200
    info = header.tensors["w"]
    assert (info.ne, info.type_id, info.type_name) == ((2,), 0, "F32")
    assert (info.offset, info.data_offset, info.n_bytes) == (0, 192, 8)
    numbers = header.array("a")
    assert numbers.dtype == np.int16
    assert numbers.tolist() == [1, -1]
    assert header.array_bytes("a") == bytes.fromhex("0300000002000000000000000100ffff")
    assert header.get("nothing") is None
    assert header.get("nothing", 5) == 5
    assert "t" in header
    assert "nothing" not in header


def test_version_2_and_its_file_without_tensors(tmp_path):
    path = write_bytes(tmp_path / "v2.gguf", raw_gguf([key("a", Value.string("b"))], version=2))
    header = read_header(path)
    assert (header.version, header.keys, header.has_tensors) == (2, ("a",), False)
    assert header.data_start == header.header_end == path.stat().st_size
    assert header.architecture is None


def _read_by_gguf_py(path):
    reader = gguf.GGUFReader(path)
    keys = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    tensors = {
        t.name: (tuple(int(n) for n in t.shape), int(t.tensor_type), int(t.data_offset), int(t.n_bytes))
        for t in reader.tensors
    }
    return keys, tensors


@pytest.mark.parametrize("alignment", [8, 32, 64, 4096])
def test_the_same_as_gguf_py(tmp_path, alignment):
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "test")
    writer.add_custom_alignment(alignment)
    for index, name in enumerate(["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"]):
        getattr(writer, f"add_{name}")(f"test.{name}", index + 1)
    writer.add_float32("test.float32", 0.25)
    writer.add_float64("test.float64", 0.1)
    writer.add_bool("test.bool", True)
    writer.add_string("test.text", "naïve \U0001f600")
    writer.add_array("test.numbers", [3, 1, 2])
    writer.add_array("test.floats", [0.5, 1.5])
    writer.add_array("test.texts", ["a", "", "ccc"])
    writer.add_array("test.flags", [True, False])
    writer.add_token_list([f"token {i}" for i in range(5000)])
    rng = np.random.default_rng(0)
    for name, shape in {"a.weight": (3, 5), "b": (7,), "c": (2, 3, 4, 5), "d": (1,)}.items():
        writer.add_tensor(name, rng.random(shape, np.float32))
    writer.add_tensor("half", np.ones((2, 3), np.float16))
    quantized = gguf.quants.quantize(rng.random((4, 64), np.float32), gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("quantized", quantized, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = read_header(path)
    keys, tensors = _read_by_gguf_py(path)
    assert header.alignment == alignment
    assert list(header.keys) == list(keys)
    assert {name: header.get(name) for name in header.keys} == keys
    assert {t.name: (t.ne, t.type_id, t.data_offset, t.n_bytes) for t in header.tensors.values()} == tensors
    assert header.array_strings("tokenizer.ggml.tokens")[4999] == b"token 4999"
    assert header.array("tokenizer.ggml.tokens")[4999] == "token 4999"
    assert header.array_length("tokenizer.ggml.tokens") == 5000
    assert header.array("test.flags").tolist() == [True, False]


@pytest.mark.parametrize("quantization", ["F32", "BF16", "Q4_0", "Q5_1", "Q8_0", "Q4_K", "Q6_K"])
def test_the_same_tensors_as_gguf_py_in_every_quantization(tmp_path, quantization):
    path = write_tiny_llama(tmp_path / "m.gguf", seed=1, n_layer=1, n_embd=256, quantization=quantization)
    header = read_header(path)
    _, tensors = _read_by_gguf_py(path)
    assert {t.name: (t.ne, t.type_id, t.data_offset, t.n_bytes) for t in header.tensors.values()} == tensors


def test_block_sizes_are_those_of_gguf_py():
    for type_, (elements, n_bytes) in gguf.constants.GGML_QUANT_SIZES.items():
        if type_.name == "Q8_1":
            continue  # gguf-py counts 40 bytes, ggml's C code 36; files never hold it
        known = GGML_TYPES[int(type_)]
        assert (known.name, known.block_elements, known.block_bytes) == (type_.name, elements, n_bytes)


def test_every_type_that_ggml_lists_is_known():
    for type_id in range(llama_cpp.GGML_TYPE_COUNT):
        traits = traits_of(type_id)
        if traits.block_elements:
            known = GGML_TYPES[type_id]
            assert (known.block_elements, known.block_bytes) == (traits.block_elements, traits.block_bytes)
            assert known.name.lower() == traits.type_name.decode().lower()
        else:
            assert type_id not in GGML_TYPES
            info = TensorInfo("w", (1,), type_id, 0, 0, None)
            assert not info.type_name.startswith("type ")
            assert "llama.cpp no longer reads" in str(why_not_run(info, weights=False))
            if type_id > 5:  # the oldest two have lost their names
                assert f"TYPE_{info.type_name} REMOVED" in traits.type_name.decode()
    assert set(GGML_TYPES) <= set(range(llama_cpp.GGML_TYPE_COUNT))


def test_which_types_are_no_weights():
    """ggml can write them out as floats, or llama.cpp does not run a head of them."""
    for type_id, known in GGML_TYPES.items():
        info = TensorInfo("w", (1,), type_id, 0, 0, 4)
        assert why_not_run(info, weights=False) is None
        assert (why_not_run(info, weights=True) is None) == (known.name in WEIGHT_TYPES)


def test_nested_arrays_and_text_that_is_not_utf8(tmp_path):
    nested = Value.array(
        ValueType.ARRAY, [Value.array(ValueType.STRING, ["a", "bc"]), Value.array(ValueType.INT8, [1])]
    )
    raw_text = b"\x02\0\0\0\0\0\0\0\xff\xfe"
    path = write_bytes(
        tmp_path / "n.gguf",
        raw_gguf(
            [key("n", nested), key(b"\xff", Value(ValueType.STRING, raw_text)), key("z", Value.uint32(1))]
        ),
    )
    header = read_header(path)
    assert header.get("n") == [["a", "bc"], [1]]
    name = header.keys[1]
    assert header.value(name).raw == raw_text
    assert header.get("z") == 1
    with pytest.raises(InputError, match="array of arrays"):
        header.array("n")


def test_an_unknown_tensor_type_is_readable(tmp_path):
    data = raw_gguf([key("a", Value.uint32(1))], [bare_tensor("w", [3], type_id=99)], b"abc")
    info = read_header(write_bytes(tmp_path / "u.gguf", data)).tensors["w"]
    assert (info.n_bytes, info.type_name) == (None, "type 99")


def test_large_values_are_read_on_request_and_only_from_the_same_file(tmp_path):
    tokens = Value.array(ValueType.STRING, [f"token {i}" for i in range(1000)])
    path = write_bytes(tmp_path / "big.gguf", raw_gguf([key("t", tokens), key("u", Value.uint32(1))]))
    header = read_header(path)
    assert header.value("t") == tokens
    path.write_bytes(raw_gguf([key("t", tokens), key("u", Value.uint32(12))]) + b"more")
    with pytest.raises(InputError, match="changed since"):
        header.get("t")
    assert header.get("u") == 1


def test_strings_across_the_edges_of_the_reading_window(tmp_path):
    rng = np.random.default_rng(5)
    texts = ["x" * int(n) for n in rng.integers(0, 300_000, 30)] + ["" for _ in range(200_000)] + ["end"]
    value = Value.array(ValueType.STRING, texts)
    path = write_bytes(tmp_path / "w.gguf", raw_gguf([key("t", value), key("u", Value.string("after"))]))
    header = read_header(path)
    assert header.get("u") == "after"
    assert header.array("t") == texts


def test_asking_for_the_wrong_kind_of_key_is_an_input_error(tmp_path):
    header = read_header(write_bytes(tmp_path / "golden.gguf", GOLDEN))
    for ask in (header.array, header.array_bytes, header.array_strings, header.value, header.type_of):
        with pytest.raises(InputError):
            ask("missing")
    for ask in (header.array, header.array_bytes, header.array_strings, header.array_length):
        with pytest.raises(InputError, match="'t' is FLOAT32"):
            ask("t")
    with pytest.raises(InputError, match="INT16"):
        header.array_strings("a")


def test_reading_holds_no_descriptor(tmp_path):
    path = write_bytes(tmp_path / "golden.gguf", GOLDEN)
    before = len(list(Path("/proc/self/fd").iterdir()))
    headers = [read_header(path) for _ in range(5)]
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert len(headers) == 5


def test_import_is_light():
    code = (
        "import sys, edgecal.gguf; heavy = {'numba', 'llama_cpp', 'gguf', 'click', 'jinja2', 'matplotlib'}; "
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
