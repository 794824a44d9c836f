"""What differs between two files, found without reading more than is needed."""

import hashlib
import os
import subprocess
import sys
import textwrap

import pytest
from support.gguf_files import bare_tensor, key, raw_gguf, write_bytes

from edgecal.errors import InputError
from edgecal.gguf.diff import Difference, diff_edits, diff_models, short_value
from edgecal.gguf.header import read_header
from edgecal.gguf.inplace.engine import edit_in_place
from edgecal.gguf.rewrite import write_edited
from edgecal.gguf.shards import find_shards
from edgecal.gguf.values import Value, ValueType

KEYS = {
    "general.architecture": Value.string("llama"),
    "number": Value.uint32(7),
    "float": Value.float32(0.1),
    "flag": Value.of(ValueType.BOOL, True),
    "tokens": Value.array(ValueType.STRING, [f"token {i}" for i in range(3000)]),
    "few": Value.array(ValueType.INT16, [1, -1]),
    "nested": Value.array(ValueType.ARRAY, [Value.array(ValueType.FLOAT32, [1.0])]),
}
DATA = bytes(range(128))


def write(path, keys=KEYS, tensors=None, data=DATA, **options):
    tensors = {"a": [16], "b": [16]} if tensors is None else tensors
    infos = [bare_tensor(name, ne, offset=64 * index) for index, (name, ne) in enumerate(tensors.items())]
    write_bytes(path, raw_gguf([key(name, value) for name, value in keys.items()], infos, data, **options))
    return path


def diff(first, second, **options):
    return diff_models(find_shards(first), find_shards(second), **options)


def test_equal_files(tmp_path):
    a, b = write(tmp_path / "a.gguf"), write(tmp_path / "b.gguf")
    found = diff(a, b)
    assert found.equal
    assert (found.keys, found.tensors, found.notes) == ((), (), ())
    assert (found.n_same_keys, found.n_same_tensors, found.compared_bytes) == (7, 2, 128)


def test_a_file_and_itself_or_its_link_are_not_read(tmp_path):
    a = write(tmp_path / "a.gguf")
    os.link(a, tmp_path / "b.gguf")
    (tmp_path / "c.gguf").symlink_to(a)
    for other in (a, tmp_path / "b.gguf", tmp_path / "c.gguf"):
        found = diff(a, other)
        assert found.equal
        assert found.compared_bytes == 0


def test_keys(tmp_path):
    a = write(tmp_path / "a.gguf")
    changes = {
        "number": Value.uint32(8),
        "flag": Value.uint32(1),
        "tokens": Value.array(ValueType.STRING, [f"token {i}" for i in range(2999)] + ["token 2998"]),
        "new": Value.string("x" * 5000),
    }
    write_edited(read_header(a), tmp_path / "b.gguf", changes=changes, remove=["few"])
    found = diff(a, tmp_path / "b.gguf")
    assert [(item.name, item.change, item.first, item.second) for item in found.keys] == [
        ("number", "changed", "uint32 7", "uint32 8"),
        ("flag", "changed", "bool true", "uint32 1"),
        ("tokens", "changed", "array[string] of 3000", "array[string] of 3000"),
        ("few", "removed", "array[int16] [1, -1]", None),
        ("new", "added", None, f"string of 5000 bytes '{'x' * 56}..."),
    ]
    assert not found.equal
    assert found.n_same_keys == 3
    assert not found.tensors
    back = diff(tmp_path / "b.gguf", a)
    assert {item.change for item in back.keys if item.name == "new"} == {"removed"}
    edits = diff_edits(read_header(a), {**changes, "float": KEYS["float"]}, ["few", "nothing"])
    assert sorted(edits, key=str) == sorted(found.keys, key=str)


def test_a_float_that_looks_equal_is_not(tmp_path):
    nan = Value(ValueType.FLOAT32, b"\x01\x00\xc0\x7f")
    a = write(tmp_path / "a.gguf", {"x": Value.float32(float("nan"))})
    assert diff(a, write(tmp_path / "b.gguf", {"x": Value.float32(float("nan"))})).equal
    assert not diff(a, write(tmp_path / "b.gguf", {"x": nan})).equal


def test_tensors(tmp_path):
    a = write(tmp_path / "a.gguf")
    b = write(tmp_path / "b.gguf", data=DATA[:100] + b"\0" + DATA[101:])
    assert diff(a, b).tensors == (Difference("b", "changed", "F32 [16]", "F32 [16]", 36),)
    assert diff(a, b, data=False).equal
    b = write(tmp_path / "b.gguf", tensors={"a": [16], "c": [16]})
    found = diff(a, b)
    assert [(item.name, item.change) for item in found.tensors] == [("b", "removed"), ("c", "added")]
    assert (found.n_same_tensors, found.compared_bytes) == (1, 64)
    b = write(tmp_path / "b.gguf", tensors={"a": [4, 4], "b": [16]})
    found = diff(a, b)
    assert [(item.first, item.second, item.at_byte) for item in found.tensors] == [
        ("F32 [16]", "F32 [4, 4]", None)
    ]
    assert found.compared_bytes == 64  # of a only the header was looked at


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def test_hashes_only_of_what_differs(tmp_path):
    a = write(tmp_path / "a.gguf", tensors={"a": [16], "b": [16], "gone": [8]}, data=DATA + bytes(32))
    other = DATA[:100] + b"\0" + DATA[101:]
    b = write(tmp_path / "b.gguf", tensors={"a": [16], "b": [16], "new": [4]}, data=other + bytes(16))
    seen = []
    found = diff(a, b, hashes=True, progress=lambda *counts: seen.append(counts))
    assert {item.name: item.sha256 for item in found.tensors} == {
        "b": (sha256(DATA[64:]), sha256(other[64:])),
        "gone": (sha256(bytes(32)), None),
        "new": (None, sha256(bytes(16))),
    }
    assert found.compared_bytes == 128
    assert seen[-1] == (128 + 64 + 64 + 32 + 16,) * 2  # compared, then hashed
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert all(done <= total for done, total in seen)
    assert all(item.sha256 is None for item in diff(a, b).tensors)
    assert diff(a, a, hashes=True).equal


def test_hashes_of_another_shape_or_type(tmp_path):
    a = write(tmp_path / "a.gguf")
    b = write(tmp_path / "b.gguf", tensors={"a": [4, 4], "b": [16]})
    (only,) = diff(a, b, hashes=True).tensors
    assert (only.first, only.second, only.at_byte) == ("F32 [16]", "F32 [4, 4]", None)
    assert only.sha256 == (sha256(DATA[:64]),) * 2
    half = raw_gguf([key(*item) for item in KEYS.items()], [bare_tensor("a", [16], type_id=1)], DATA[:32])
    found = diff(a, write_bytes(tmp_path / "c.gguf", half), hashes=True)
    assert [(item.name, item.second, item.sha256) for item in found.tensors] == [
        ("a", "F16 [16]", (sha256(DATA[:64]), sha256(DATA[:32]))),
        ("b", None, (sha256(DATA[64:]), None)),
    ]


def test_other_alignment_order_and_offsets(tmp_path):
    """The same tensors elsewhere are equal; one that differs is found where it is."""
    a = write(tmp_path / "a.gguf")
    infos = [bare_tensor("b", [16]), bare_tensor("a", [16], offset=8192)]
    keys = [key(*item) for item in {**KEYS, "general.alignment": Value.uint32(4096)}.items()]
    spread = DATA[64:] + bytes(8128) + DATA[:64]
    b = write_bytes(tmp_path / "b.gguf", raw_gguf(keys, infos, spread, alignment=4096))
    found = diff(a, b)
    assert found.tensors == ()
    assert [item.name for item in found.keys] == ["general.alignment"]
    assert found.notes == ("alignment 32 and 4096", "the tensors are in another order")
    wrong = spread[:-1] + b"\0"
    b = write_bytes(tmp_path / "b.gguf", raw_gguf(keys, infos, wrong, alignment=4096))
    (only,) = diff(a, b, hashes=True).tensors
    assert (only.name, only.at_byte) == ("a", 63)
    assert only.sha256 == (sha256(DATA[:64]), sha256(DATA[:63] + b"\0"))


def test_a_split_model_against_the_same_in_one_file(tmp_path):
    whole = write(tmp_path / "whole.gguf")
    split = {"split.count": Value.uint32(2), "split.tensors.count": Value.uint32(2)}
    for index, name in enumerate("ba"):
        keys = {**(KEYS if index == 0 else {}), **split, "split.no": Value.uint32(index)}
        data = DATA[64:] if name == "b" else DATA[:64]
        write(tmp_path / f"m-{index + 1:05d}-of-00002.gguf", keys, {name: [16]}, data)
    first = tmp_path / "m-00001-of-00002.gguf"
    found = diff(whole, first)
    assert found.tensors == ()
    assert [(item.name, item.change) for item in found.keys] == [
        (name, "added") for name in ("split.count", "split.tensors.count", "split.no")
    ]
    assert found.notes == ("1 and 2 files", "the tensors are in another order")
    assert (found.n_same_keys, found.n_same_tensors, found.compared_bytes) == (7, 2, 128)
    other = write(tmp_path / "other.gguf", data=b"\xff" + DATA[1:])
    (only,) = diff(first, other, hashes=True).tensors
    assert (only.name, only.at_byte) == ("a", 0)
    assert only.sha256 == (sha256(DATA[:64]), sha256(b"\xff" + DATA[1:64]))


def test_hashing_takes_little_memory(tmp_path):
    """Sparse tensors of 200 MB, which differ in the last byte, in an address space that does not hold them."""
    n_bytes = 200 << 20
    paths = [tmp_path / "a.gguf", tmp_path / "b.gguf"]
    for path, last in zip(paths, (b"\1", b"\2"), strict=True):
        head = raw_gguf([], [bare_tensor("w", [n_bytes // 4])])
        with path.open("wb") as file:
            file.write(head)
            file.seek(len(head) + n_bytes - 1)
            file.write(last)
    code = textwrap.dedent("""
        import resource, sys
        import hashlib
        from edgecal.gguf.shards import find_shards
        from edgecal.gguf.diff import diff_models
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), used + (64 << 20)))
        first, second = map(find_shards, sys.argv[1:])
        steps = []
        (only,) = diff_models(first, second, hashes=True, progress=lambda *counts: steps.append(counts)).tensors
        print(only.at_byte, len(steps), *only.sha256)
    """)
    found = subprocess.run([sys.executable, "-c", code, *paths], check=True, capture_output=True, text=True)
    at_byte, n_steps, *hashes = found.stdout.split()
    assert int(at_byte) == n_bytes - 1
    assert int(n_steps) > 300
    assert len(set(hashes)) == 2


def test_the_last_byte_of_many_blocks_counts(tmp_path):
    n_bytes = (3 << 20) + 64
    data = bytearray(n_bytes)
    a = write(tmp_path / "a.gguf", tensors={"a": [n_bytes // 4]}, data=bytes(data))
    data[-1] = 1
    b = write(tmp_path / "b.gguf", tensors={"a": [n_bytes // 4]}, data=bytes(data))
    seen = []
    found = diff(a, b, progress=lambda *counts: seen.append(counts))
    assert [item.at_byte for item in found.tensors] == [n_bytes - 1]
    assert seen == [(n_bytes, n_bytes)]


def test_form_is_a_note_and_no_difference(tmp_path):
    a = write(tmp_path / "a.gguf")
    b = write(
        tmp_path / "b.gguf",
        dict(reversed(KEYS.items())),
        {"b": [16], "a": [16]},
        DATA[64:] + DATA[:64],
        version=2,
    )
    found = diff(a, b)
    assert found.equal
    assert found.notes == (
        "GGUF version 3 and 2",
        "the keys are in another order",
        "the tensors are in another order",
    )


def test_room_for_edits_in_place_is_a_note(tmp_path):
    a = write(tmp_path / "a.gguf")
    b = write(tmp_path / "b.gguf", {**KEYS, "edgecal.filler": Value.array(ValueType.UINT8, [0] * 99)})
    found = diff(a, b)
    assert found.equal
    assert found.notes == (f"only {b} has edgecal.filler, room for edits in place",)
    assert found.n_same_keys == diff(b, a).n_same_keys == 7


def test_an_unknown_type_is_compared_to_the_next_tensor(tmp_path):
    infos = [bare_tensor("w", [3], type_id=99), bare_tensor("v", [1], offset=32)]
    paths = [tmp_path / "a.gguf", tmp_path / "b.gguf"]
    for path, byte in zip(paths, (b"\x01", b"\x02"), strict=True):
        write_bytes(path, raw_gguf([], infos, byte.rjust(32, b"x") + bytes(4)))
    (only,) = diff(*paths).tensors
    assert (only.name, only.first, only.at_byte) == ("w", "type 99 [3]", 31)


def test_split_models(tmp_path):
    for prefix, byte in (("a", b"\x01"), ("b", b"\x02")):
        for index in range(2):
            keys = [
                key("split.count", Value.uint32(2)),
                key("split.no", Value.uint32(index)),
                key("split.tensors.count", Value.uint32(1)),
            ]
            data = raw_gguf(keys, [bare_tensor("w", [1])] if index else [], byte * 4 if index else b"")
            write_bytes(tmp_path / f"{prefix}-{index + 1:05d}-of-00002.gguf", data)
    first = tmp_path / "a-00001-of-00002.gguf"
    assert diff(first, first).equal
    (only,) = diff(first, tmp_path / "b-00001-of-00002.gguf").tensors
    assert (only.name, only.at_byte) == ("w", 0)


def test_a_file_that_changes_meanwhile_is_an_error(tmp_path):
    a, b = (find_shards(write(tmp_path / name)) for name in ("a.gguf", "b.gguf"))
    edit_in_place(b.header, {"number": Value.uint32(9)}, ())
    with pytest.raises(InputError, match="changed since"):
        diff_models(a, b)


def test_values_in_a_few_words(tmp_path):
    header = read_header(write(tmp_path / "a.gguf"))
    assert {name: short_value(header, name) for name in header.keys} == {
        "general.architecture": "string 'llama'",
        "number": "uint32 7",
        "float": "float32 0.100000001",
        "flag": "bool true",
        "tokens": "array[string] of 3000",
        "few": "array[int16] [1, -1]",
        "nested": "array[array[float32]] [[1.0]]",
    }
