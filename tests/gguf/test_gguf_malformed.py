"""Every way that a file can be wrong has its own clear line; nothing else than InputError ever comes out."""

import os
import random
import struct
import subprocess
import sys
import textwrap
import time

import pytest
from support.gguf_files import bare_key, bare_tensor, key, raw_gguf, string, write_bytes

from edgecal.errors import InputError
from edgecal.gguf.bounded_reader import MAX_STRINGS
from edgecal.gguf.header import MAX_KEYS, MAX_TENSORS, read_header
from edgecal.gguf.model_checks import check_model
from edgecal.gguf.values import MAX_ARRAY_DEPTH, Value, ValueType

ARCH = key("general.architecture", Value.string("llama"))
ONE_TENSOR = [bare_tensor("w", [2])]
EIGHT = bytes(8)


def arrays_in_arrays(depth):
    body = struct.pack("<IQ", ValueType.UINT8, 0)
    for _ in range(depth - 1):
        body = struct.pack("<IQ", ValueType.ARRAY, 1) + body
    return body


WRONG = {
    "empty": (b"", "is empty"),
    "short magic": (b"GG", "truncated after 2 bytes"),
    "not gguf": (b"\x01\x02\x03\x04\xff\xfe" * 20, "not a GGUF file"),
    "safetensors": (struct.pack("<Q", 30) + b'{"a":{"dtype":"F32"}}' + bytes(30), "safetensors"),
    "zip": (b"PK\x03\x04" + bytes(60), "PyTorch"),
    "web page": (b"\n<!DOCTYPE html><html></html>", "web page"),
    "git-lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git lfs pull"),
    "gzip": (b"\x1f\x8b" + bytes(60), "gzip"),
    "zeros": (bytes(100), "zero bytes"),
    "text": (b"hello, this is no model at all, sorry", "text file"),
    "json": (b'{"model": 1}', "JSON"),
    "ggml": (b"tjgg" + bytes(60), "before GGUF"),
    "only magic": (b"GGUF", "truncated or damaged GGUF header: the version"),
    "version 0": (raw_gguf([ARCH], version=0), "version 0"),
    "version 1": (raw_gguf([ARCH], version=1), "version 1"),
    "version 4": (raw_gguf([ARCH], version=4), "version 4"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "absurd keys": (raw_gguf([ARCH], n_keys=2**60), "claims 1152921504606846976 keys"),
    "absurd tensors": (raw_gguf([ARCH], n_tensors=2**63), "claims 9223372036854775808 tensors"),
    "too many keys": (raw_gguf([ARCH], data=bytes(2_000_000), n_keys=MAX_KEYS + 1), f"more than {MAX_KEYS}"),
    "too many tensors": (
        raw_gguf([ARCH], data=bytes(4_000_000), n_tensors=MAX_TENSORS + 1),
        f"more than {MAX_TENSORS}",
    ),
    "one key too many": (raw_gguf([ARCH], n_keys=2), "truncated or damaged"),
    "endless name": (raw_gguf([struct.pack("<Q", 2**64 - 1) + bytes(60)]), "the name of key 0"),
    "long name": (raw_gguf([bare_key(b"k" * 65537, 0, b"\0")]), "65537 bytes long"),
    "empty name": (raw_gguf([bare_key("", 4, EIGHT)]), "empty name"),
    "twice": (raw_gguf([ARCH, ARCH]), "appears twice"),
    "unknown type": (raw_gguf([bare_key("k", 13, bytes(8))]), "value type 13"),
    "unknown element": (raw_gguf([bare_key("k", 9, struct.pack("<IQ", 77, 0))]), "value type 77"),
    "endless text": (raw_gguf([bare_key("k", 8, struct.pack("<Q", 2**63))]), "key 'k'"),
    "endless numbers": (raw_gguf([bare_key("k", 9, struct.pack("<IQ", 12, 2**61))]), "key 'k'"),
    "endless texts": (raw_gguf([bare_key("k", 9, struct.pack("<IQ", 8, 2**61) + EIGHT)]), "claims"),
    "endless text in an array": (
        raw_gguf([bare_key("k", 9, struct.pack("<IQQQ", 8, 2, 2**64 - 9, 0))]),
        "key 'k'",
    ),
    "deep arrays": (raw_gguf([bare_key("k", 9, arrays_in_arrays(MAX_ARRAY_DEPTH + 1))]), "deep"),
    "alignment's type": (raw_gguf([key("general.alignment", Value.of(ValueType.UINT64, 32))]), "UINT64"),
    "alignment 0": (raw_gguf([key("general.alignment", Value.uint32(0))]), "power of two"),
    "alignment 48": (raw_gguf([key("general.alignment", Value.uint32(48))]), "power of two"),
    "alignment beyond the file": (
        raw_gguf([key("general.alignment", Value.uint32(2**31))], ONE_TENSOR, EIGHT),
        "truncated",
    ),
    "tensor twice": (raw_gguf([ARCH], ONE_TENSOR * 2, EIGHT), "'w' appears twice"),
    "tensor's name": (raw_gguf([ARCH], [bare_tensor("w" * 64, [2])], EIGHT), "64 bytes long"),
    "five dimensions": (raw_gguf([ARCH], [bare_tensor("w", [1] * 5)], EIGHT), "5 dimensions"),
    "2**31 dimensions": (raw_gguf([ARCH], [string("w") + struct.pack("<I", 2**31)], EIGHT * 9), "dimensions"),
    "absurd dimensions": (raw_gguf([ARCH], [bare_tensor("w", [2**40, 2**40])], EIGHT), "absurd dimensions"),
    "huge tensor": (raw_gguf([ARCH], [bare_tensor("w", [2**40])], EIGHT), "ends at byte"),
    "ragged rows": (
        raw_gguf([ARCH], [bare_tensor("w", [33, 1], type_id=8)], bytes(99)),
        "multiple of Q8_0's 32",
    ),
    "unaligned tensor": (
        raw_gguf([ARCH], [bare_tensor("w", [1], offset=4)], bytes(99)),
        "multiple of the alignment",
    ),
    "tensor beyond the end": (raw_gguf([ARCH], [bare_tensor("w", [1], offset=2**63)], EIGHT), "truncated"),
    "truncated data": (raw_gguf([ARCH], ONE_TENSOR, bytes(7)), "truncated"),
    "no data at all": (raw_gguf([ARCH], ONE_TENSOR), "truncated"),
    "unknown type beyond the end": (raw_gguf([ARCH], [bare_tensor("w", [1], 99, 2**20)], EIGHT), "truncated"),
}


def refused(path):
    with pytest.raises(InputError) as caught:
        read_header(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    assert len(line) < 300 + len(str(path))
    return line


@pytest.mark.parametrize("name", WRONG)
def test_each_wrong_file_has_its_line(tmp_path, name):
    data, expected = WRONG[name]
    assert expected in refused(write_bytes(tmp_path / "wrong.gguf", data))


def test_the_lines_are_all_different(tmp_path):
    path = tmp_path / "wrong.gguf"
    lines = {name: refused(write_bytes(path, data)) for name, (data, _) in WRONG.items()}
    same = [name for name, line in lines.items() if list(lines.values()).count(line) > 1]
    assert len(lines) > 40
    assert not same


def test_paths_that_are_no_files(tmp_path):
    assert "no such file" in refused(tmp_path / "missing.gguf")
    assert "a directory" in refused(tmp_path)
    (tmp_path / "dangling").symlink_to("nowhere")
    assert "symbolic link to a file that does not exist" in refused(tmp_path / "dangling")
    (tmp_path / "loop").symlink_to("loop")
    assert "cannot be opened" in refused(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in refused(tmp_path / "pipe")
    assert "cannot be opened" in refused(tmp_path / ("x" * 300))
    with pytest.raises(InputError, match="null byte"):
        read_header("a\0b")


MODEL = {
    "nothing": ([], "general.architecture is missing"),
    "architecture not text": (
        [key("general.architecture", Value.uint32(1))],
        "general.architecture is missing",
    ),
    "no block count": ([ARCH], "llama.block_count is missing"),
    "zero blocks": ([ARCH, key("llama.block_count", Value.uint32(0))], "is 0, expected 1 to 512"),
    "600 blocks": ([ARCH, key("llama.block_count", Value.uint32(600))], "is 600, expected 1 to 512"),
    "negative blocks": ([ARCH, key("llama.block_count", Value.of(ValueType.INT32, -1))], "is -1"),
    "blocks as text": ([ARCH, key("llama.block_count", Value.string("2"))], "is STRING"),
    "blocks as a float": ([ARCH, key("llama.block_count", Value.float32(2))], "is FLOAT32"),
    "adapter": ([ARCH, key("general.type", Value.string("adapter"))], "'adapter'"),
    "WordPiece": (
        [ARCH, key("llama.block_count", Value.uint32(2)), key("tokenizer.ggml.model", Value.string("bert"))],
        "architecture llama that reads text in both directions",
    ),
    "not causal": (
        [
            ARCH,
            key("llama.block_count", Value.uint32(2)),
            key("tokenizer.ggml.model", Value.string("t5")),
            key("llama.attention.causal", Value.of(ValueType.BOOL, False)),
        ],
        "edgecal needs a causal language model",
    ),
}


@pytest.mark.parametrize("name", MODEL)
def test_what_cannot_be_a_model_is_refused(tmp_path, name):
    keys, expected = MODEL[name]
    header = read_header(write_bytes(tmp_path / "m.gguf", raw_gguf(keys, ONE_TENSOR, EIGHT)))
    with pytest.raises(InputError) as caught:
        check_model(header)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_needs_tensors_in_some_shard(tmp_path):
    keys = [ARCH, key("llama.block_count", Value.uint32(2))]
    header = read_header(write_bytes(tmp_path / "vocab.gguf", raw_gguf(keys)))
    with pytest.raises(InputError, match="holds no tensors"):
        check_model(header)
    keys += [
        key("split.count", Value.of(ValueType.UINT16, 2)),
        key("split.tensors.count", Value.of(ValueType.INT32, 9)),
    ]
    with pytest.raises(InputError, match=r"tokenizer\.ggml\.model is missing"):
        check_model(read_header(write_bytes(tmp_path / "mute.gguf", raw_gguf(keys))))
    keys.append(key("tokenizer.ggml.model", Value.string("no_vocab")))
    keys.append(key("llama.attention.causal", Value.of(ValueType.BOOL, True)))
    check_model(read_header(write_bytes(tmp_path / "first.gguf", raw_gguf(keys))))


@pytest.mark.parametrize(
    "name, type_id, expected",
    [
        (
            "blk.0.ffn_up.weight",
            31,
            "'blk.0.ffn_up.weight' is stored as Q4_0_4_4, which llama.cpp no longer reads",
        ),
        ("output.weight", 4, "'output.weight' is stored as Q4_2, which llama.cpp no longer reads"),
        ("output.weight", 15, "'output.weight' is stored as Q8_K, which llama.cpp does not multiply by"),
        (
            "token_embd.weight",
            26,
            "'token_embd.weight' is stored as I32, which llama.cpp does not multiply by",
        ),
        ("rope.tokens", 26, None),
        ("output.weight", 99, None),
    ],
)
def test_types_that_llama_cpp_does_not_run(tmp_path, name, type_id, expected):
    keys = [
        ARCH,
        key("llama.block_count", Value.uint32(1)),
        key("tokenizer.ggml.model", Value.string("no_vocab")),
    ]
    tensors = [bare_tensor(name, [256], type_id)]
    header = read_header(write_bytes(tmp_path / "m.gguf", raw_gguf(keys, tensors, bytes(1024))))
    if expected is None:
        check_model(header)
        return
    with pytest.raises(InputError) as caught:
        check_model(header)
    assert expected in str(caught.value) and "\n" not in str(caught.value)


# A header with every kind of entry, short enough to be broken at every byte.
SMALL = raw_gguf(
    [
        ARCH,
        key("f", Value.float32(1)),
        key("b", Value.of(ValueType.BOOL, True)),
        key("n", Value.array(ValueType.INT32, [1, 2, 3])),
        key("t", Value.array(ValueType.STRING, ["a", "", "ccc"])),
        key(
            "d",
            Value.array(
                ValueType.ARRAY, [Value.array(ValueType.UINT8, [1]), Value.array(ValueType.STRING, [""])]
            ),
        ),
    ],
    [bare_tensor("w", [2, 2]), bare_tensor("q", [32], type_id=8, offset=32)],
    bytes(32 + 34),
)


def survey(path):
    """Read everything there is; True if the file was readable."""
    try:
        header = read_header(path)
        for name in header.keys:
            header.get(name)
        check_model(header)
    except InputError as error:
        assert "\n" not in str(error)
        return False
    return True


def test_truncated_at_every_byte(tmp_path):
    path = tmp_path / "t.gguf"
    read_header(write_bytes(path, SMALL))
    for n_bytes in range(len(SMALL)):
        with pytest.raises(InputError):
            read_header(write_bytes(path, SMALL[:n_bytes]))


def test_every_byte_changed(tmp_path):
    path = tmp_path / "t.gguf"
    started = time.monotonic()
    for position in range(len(SMALL)):
        for value in (0x00, 0xFF):
            survey(write_bytes(path, SMALL[:position] + bytes([value]) + SMALL[position + 1 :]))
    assert time.monotonic() - started < 30


def test_random_damage(tmp_path):
    path = tmp_path / "t.gguf"
    chance = random.Random(7)
    for _ in range(600):
        data = bytearray(SMALL)
        for _ in range(chance.randint(1, 8)):
            where = chance.randrange(4, len(data))
            kind = chance.randrange(3)
            if kind == 0:
                data[where] = chance.randrange(256)
            elif kind == 1:
                del data[where : where + chance.randint(1, 9)]
            else:
                data[where:where] = bytes(chance.choices((0, 1, 255, 9, 8), k=chance.randint(1, 9)))
        survey(write_bytes(path, bytes(data)))


def test_a_hostile_header_stays_within_bounds(tmp_path):
    """Sparse files that really are as large as they claim: the answer is quick, in little memory."""
    million = 1 << 20
    hostile = {
        "strings.gguf": (bare_key("k", 9, struct.pack("<IQ", 8, MAX_STRINGS + 1)), 8 * (MAX_STRINGS + 2)),
        "arrays.gguf": (bare_key("k", 9, struct.pack("<IQ", 9, MAX_STRINGS + 1)), 12 * (MAX_STRINGS + 2)),
        "text.gguf": (bare_key("k", 8, struct.pack("<Q", 3 << 30)), 4 << 30),
        "numbers.gguf": (bare_key("k", 9, struct.pack("<IQ", 0, 3 << 30)), 4 << 30),
    }
    for name, (entry, size) in hostile.items():
        with (tmp_path / name).open("wb") as file:
            file.write(raw_gguf([entry]))
            file.truncate(size + 4096)
    code = textwrap.dedent("""
        import resource, sys
        from edgecal.errors import InputError
        from edgecal.gguf.header import read_header
        bytes_ = int(sys.argv[1])
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + bytes_, used + bytes_))
        for path in sys.argv[2:]:
            try:
                read_header(path).get("k")
            except InputError as error:
                print(error)
    """)
    paths = [str(tmp_path / name) for name in hostile]
    started = time.monotonic()
    found = subprocess.run(
        [sys.executable, "-c", code, str(64 * million), *paths], check=True, capture_output=True, text=True
    )
    assert time.monotonic() - started < 30
    assert found.stdout.count("refused") == len(hostile)


def test_an_array_of_absurd_length_does_not_become_python_objects(tmp_path):
    n = (1 << 22) + 1
    long = Value(ValueType.ARRAY, struct.pack("<IQ", ValueType.UINT8, n) + bytes(n))
    texts = Value(ValueType.ARRAY, struct.pack("<IQ", ValueType.STRING, n) + bytes(8 * n))
    wide = Value.array(ValueType.ARRAY, [long, long])
    path = write_bytes(tmp_path / "m.gguf", raw_gguf([key("n", long), key("t", texts), key("w", wide)]))
    header = read_header(path)
    assert len(header.array("n")) == n
    for ask in (header.get, header.array_strings):
        with pytest.raises(InputError, match=f"has {n} elements"):
            ask("t")
    for name in ("n", "w"):
        with pytest.raises(InputError, match="refused"):
            header.get(name)
