"""Edited files: equal byte by byte outside what was edited, in the shapes that files come in."""

import errno
import os
import stat
import subprocess
import sys
import textwrap

import gguf
import numpy as np
import pytest
from support.gguf_files import bare_tensor, key, raw_gguf, write_bytes

from edgecal.errors import InputError, OutputError
from edgecal.gguf.header import read_header
from edgecal.gguf.rewrite import edited_size, write_edited
from edgecal.gguf.values import Value, ValueType

NESTED = Value.array(
    ValueType.ARRAY, [Value.array(ValueType.STRING, ["", "é"]), Value.array(ValueType.UINT8, [])]
)
KEYS = [
    key("general.architecture", Value.string("llama")),
    key("", Value.uint32(1))[:0] + key("empty.text", Value.string("")),
    key("general.sampling.temp", Value.float32(0.6)),
    key("nested", NESTED),
    key(b"not \xff utf-8", Value(ValueType.STRING, b"\x01\0\0\0\0\0\0\0\xfe")),
    key("nan", Value.of(ValueType.FLOAT64, float("nan"))),
    key("tokens", Value.array(ValueType.STRING, [f"t{i}" for i in range(3000)])),
]
DATA = bytes(range(1, 200))


def shape(alignment=32, version=3, n_tensors=3, padding=b"\0", tail=b"tail"):
    keys = [*KEYS, key("general.alignment", Value.uint32(alignment))] if alignment != 32 else KEYS
    step = -(-64 // alignment) * alignment
    tensors = [bare_tensor(f"w{i}", [16], offset=i * step) for i in range(n_tensors)]
    data = b"".join((DATA * 40)[i : i + 64].ljust(step, b"\xee") for i in range(n_tensors)) + tail
    return raw_gguf(keys, tensors, data, alignment=alignment, version=version, padding=padding)


SHAPES = {
    "plain": shape(),
    "version 2": shape(version=2),
    "alignment 1": shape(alignment=1),
    "alignment 8": shape(alignment=8),
    "alignment 4096": shape(alignment=4096),
    "no tensors": shape(n_tensors=0, tail=b""),
    "no tensors, padded": shape(n_tensors=0, tail=bytes(21)),
    "one tensor": shape(n_tensors=1),
    "odd padding": shape(padding=b"\xab"),
    "no tail": shape(tail=b""),
}
EDITS = {
    "nothing": ({}, ()),
    "same value": ({"general.sampling.temp": Value.float32(0.6)}, ()),
    "changed": ({"general.sampling.temp": Value.float32(2.5)}, ()),
    "other type": ({"general.sampling.temp": Value.string("long enough to move everything" * 3)}, ()),
    "added": ({"edgecal.temperature": Value.float32(2.5), "edgecal.method": Value.string("daca")}, ()),
    "removed": ({}, ("general.sampling.temp", "is not there")),
    "array changed": ({"tokens": Value.array(ValueType.INT8, [1])}, ("nested",)),
    "all at once": ({"a": Value.uint32(1), "nan": Value.uint32(2), "b": NESTED}, ("tokens", "empty.text")),
}


def take_apart(path):
    """Keys (raw), tensor entries and everything behind the header, found independently of `edit`."""
    header = read_header(path)
    data = path.read_bytes()
    keys = [(name, header.value(name)) for name in header.keys]
    return header, keys, data[header.keys_end : header.header_end], data[header.data_start :]


@pytest.mark.parametrize("shape_name", SHAPES)
@pytest.mark.parametrize("edit", EDITS)
def test_all_else_stays_byte_for_byte(tmp_path, shape_name, edit):
    source_path = write_bytes(tmp_path / "in.gguf", SHAPES[shape_name])
    changes, remove = EDITS[edit]
    source = read_header(source_path)
    output = tmp_path / "out.gguf"
    result = write_edited(source, output, changes=changes, remove=remove)
    assert source_path.read_bytes() == SHAPES[shape_name]
    assert output.stat().st_size == edited_size(source, changes, remove) == result.file_size
    before, keys_before, infos_before, data_before = take_apart(source_path)
    after, keys_after, infos_after, data_after = take_apart(output)
    expected = [(name, changes.get(name, value)) for name, value in keys_before if name not in remove]
    expected += [(name, value) for name, value in changes.items() if name not in before]
    assert keys_after == expected
    assert infos_after == infos_before
    assert data_after == data_before
    assert (after.version, after.alignment) == (before.version, before.alignment)
    padding = output.read_bytes()[after.header_end : after.data_start]
    if edit in ("nothing", "same value"):
        assert output.read_bytes() == SHAPES[shape_name]
    elif after.header_end != before.header_end:
        assert padding == bytes(len(padding))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.gguf", "out.gguf"]


@pytest.mark.parametrize("shape_name", SHAPES)
def test_an_added_key_can_be_taken_out_again(tmp_path, shape_name):
    path = write_bytes(tmp_path / "m.gguf", SHAPES[shape_name])
    write_edited(read_header(path), path, changes={"edgecal.x": Value.string("y" * 100)})
    assert path.read_bytes() != SHAPES[shape_name]
    write_edited(read_header(path), path, changes={}, remove=["edgecal.x"])
    if shape_name == "odd padding":  # other padding than zeros is not kept when the header's size changes
        assert path.read_bytes().replace(b"\xab", b"\0") == SHAPES[shape_name].replace(b"\xab", b"\0")
    else:
        assert path.read_bytes() == SHAPES[shape_name]


def test_gguf_py_reads_the_edited_file_the_same(tmp_path):
    path = tmp_path / "in.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_token_list([f"token {i}" for i in range(2000)])
    writer.add_float32("general.sampling.temp", 0.5)
    weights = {name: np.random.default_rng(1).random((9, 32), np.float32) for name in ("a", "b", "c")}
    for name, data in weights.items():
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    output = tmp_path / "out.gguf"
    changes = {
        "general.sampling.temp": Value.float32(2.25),
        "edgecal.interval": Value.array(ValueType.FLOAT32, [2, 3]),
    }
    write_edited(read_header(path), output, changes=changes)
    before, after = gguf.GGUFReader(path), gguf.GGUFReader(output)
    contents = {name: field.contents() for name, field in after.fields.items()}
    assert contents["general.sampling.temp"] == 2.25
    assert contents["edgecal.interval"] == [2.0, 3.0]
    for name, field in before.fields.items():
        if not name.startswith("GGUF.") and name != "general.sampling.temp":
            assert contents[name] == field.contents()
    for old, new in zip(before.tensors, after.tensors, strict=True):
        assert (old.name, old.tensor_type, list(old.shape)) == (new.name, new.tensor_type, list(new.shape))
        assert np.array_equal(old.data, new.data)


def test_the_source_must_be_the_file_that_was_read(tmp_path):
    path = write_bytes(tmp_path / "m.gguf", SHAPES["plain"])
    header = read_header(path)
    path.write_bytes(SHAPES["plain"] + b"!")
    with pytest.raises(InputError, match="changed since"):
        write_edited(header, tmp_path / "out.gguf", changes={"a": Value.uint32(1)})
    assert [p.name for p in tmp_path.iterdir()] == ["m.gguf"]


def test_impossible_edits_are_refused(tmp_path):
    path = write_bytes(tmp_path / "m.gguf", SHAPES["alignment 8"])
    header, output = read_header(path), tmp_path / "out.gguf"
    one = Value.uint32(1)
    for changes, remove, line in [
        ({"a": one}, ["a"], "both set and removed"),
        ({"": one}, [], "not a valid key name"),
        ({"k" * 70_000: one}, [], "not a valid key name"),
        ({"general.alignment": Value.uint32(16)}, [], "every tensor would have to move"),
        ({}, ["general.alignment"], "every tensor would have to move"),
    ]:
        with pytest.raises(InputError, match=line):
            write_edited(header, output, changes=changes, remove=remove)
    write_edited(header, output, changes={"general.alignment": Value.uint32(8)})
    assert output.read_bytes() == SHAPES["alignment 8"]


def test_without_overwrite_an_existing_file_stays(tmp_path):
    header = read_header(write_bytes(tmp_path / "m.gguf", SHAPES["plain"]))
    output = write_bytes(tmp_path / "out.gguf", b"precious")
    with pytest.raises(OutputError, match="appeared"):
        write_edited(header, output, changes={}, overwrite=False)
    assert output.read_bytes() == b"precious"
    assert len(list(tmp_path.iterdir())) == 2
    output.unlink()
    write_edited(header, output, changes={}, overwrite=False)
    assert output.read_bytes() == SHAPES["plain"]


def test_the_new_file_has_the_mode_that_cp_would_give(tmp_path):
    path = write_bytes(tmp_path / "m.gguf", SHAPES["plain"])
    path.chmod(0o664)
    before = os.umask(0o027)
    try:
        write_edited(read_header(path), tmp_path / "new.gguf", changes={})
        write_edited(read_header(path), path, changes={"a": Value.uint32(1)})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new.gguf").stat().st_mode) == 0o640
    assert stat.S_IMODE(path.stat().st_mode) == 0o664


def test_progress_counts_the_tensor_data(tmp_path):
    path = write_bytes(tmp_path / "m.gguf", SHAPES["plain"])
    header, seen = read_header(path), []
    write_edited(header, tmp_path / "o.gguf", changes={}, progress=lambda *counts: seen.append(counts))
    n_bytes = header.file_size - header.data_start
    assert seen[-1] == (n_bytes, n_bytes)


class TestCopying:
    """Each way of copying, forced by faults in the ways before it."""

    DATA = os.urandom(5_000_000)

    ALIGNED = 4100  # behind "head" the same place in a page

    def copy(self, tmp_path, start=ALIGNED):
        from edgecal.gguf.copying import copy_span

        source = write_bytes(tmp_path / "source", self.DATA)
        with source.open("rb") as file, (tmp_path / "target").open("wb", buffering=0) as target:
            target.write(b"head")
            copy_span(file.fileno(), start, len(self.DATA) - start, target.fileno())
        assert (tmp_path / "target").read_bytes() == b"head" + self.DATA[start:]

    @staticmethod
    def fail(code, after=0):
        def fault(*_args, **_kwargs):
            raise OSError(code, os.strerror(code))

        return fault

    def test_in_the_kernel(self, tmp_path):
        self.copy(tmp_path)

    @pytest.mark.parametrize("code", [errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM])
    def test_by_sendfile(self, tmp_path, monkeypatch, code):
        monkeypatch.setattr(os, "copy_file_range", self.fail(code))
        self.copy(tmp_path)

    def test_by_reads_and_writes(self, tmp_path, monkeypatch):
        monkeypatch.setattr(os, "copy_file_range", self.fail(errno.EXDEV))
        monkeypatch.setattr(os, "sendfile", self.fail(errno.EINVAL))
        self.copy(tmp_path)

    def test_where_the_kernel_offers_neither(self, tmp_path, monkeypatch):
        monkeypatch.delattr(os, "copy_file_range")
        monkeypatch.delattr(os, "sendfile")
        self.copy(tmp_path)

    def test_where_a_way_stops_in_the_middle(self, tmp_path, monkeypatch):
        real, calls = os.copy_file_range, []

        def sometimes(source, target, n_bytes, offset_src):
            calls.append(n_bytes)
            return (
                real(source, target, min(n_bytes, 1_000_000), offset_src=offset_src) if len(calls) < 3 else 0
            )

        monkeypatch.setattr(os, "copy_file_range", sometimes)
        self.copy(tmp_path)
        assert len(calls) == 3

    def test_a_source_that_ends_early_is_an_error(self, tmp_path):
        from edgecal.gguf.copying import copy_span

        source = write_bytes(tmp_path / "source", b"short")
        with (
            source.open("rb") as file,
            (tmp_path / "target").open("wb") as target,
            pytest.raises(OSError) as caught,
        ):
            copy_span(file.fileno(), 0, 100, target.fileno())
        assert caught.value.errno == errno.EIO


def test_memory_does_not_grow_with_the_file(tmp_path):
    """A sparse file of 2 GB is edited by a process that may not have 64 MB more than it starts with."""
    path = tmp_path / "big.gguf"
    n_bytes = 2 << 30
    path.write_bytes(raw_gguf(KEYS, [bare_tensor("w", [n_bytes // 4])]))
    with path.open("r+b") as file:
        file.truncate(file.seek(0, os.SEEK_END) + n_bytes)
    code = textwrap.dedent("""
        import os, resource, sys
        from pathlib import Path
        import edgecal.gguf.rewrite as edit
        from edgecal.gguf.header import read_header
        from edgecal.gguf.rewrite import write_edited
        from edgecal.gguf.values import Value
        def sparse(source, start, n_bytes, target, progress=None):  # the last 256 MB are really copied
            skipped = n_bytes - (256 << 20)
            os.lseek(target, skipped, os.SEEK_CUR)
            real(source, start + skipped, n_bytes - skipped, target, progress)
        real, edit.copy_span = edit.copy_span, sparse
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20),) * 2)
        header = read_header(sys.argv[1])
        print(write_edited(header, Path(sys.argv[2]), changes={"a": Value.uint32(1)}).file_size)
    """)
    output = tmp_path / "out.gguf"
    subprocess.run([sys.executable, "-c", code, str(path), str(output)], check=True, capture_output=True)
    assert output.stat().st_size == edited_size(read_header(path), {"a": Value.uint32(1)})
    assert read_header(output).get("a") == 1
