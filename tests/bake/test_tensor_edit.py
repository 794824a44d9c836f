"""Rewriting a file with other keys and other tensor bytes: exact, read back, and refused where it cannot be."""

import os

import pytest
from support.bake_files import NORM, SHAPES, bakeable
from support.gguf_files import bare_tensor, raw_gguf, write_bytes

from edgecal.errors import InputError, OutputError
from edgecal.gguf.header import read_header
from edgecal.gguf.rewrite import header_bytes, read_tensor, rewritten_draft
from edgecal.gguf.values import Value

NEW = NORM[::-1]


@pytest.fixture
def source(tmp_path):
    return read_header(write_bytes(tmp_path / "m.gguf", bakeable(tail=b"tail")))


def own(header):
    return [(name, None) for name in header.keys]


def rewrite(source, output, **options):
    with rewritten_draft(source, output, **{"keys": own(source), **options}) as draft:
        draft.publish(overwrite=False)
    return output


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_changed_is_a_copy(tmp_path, shape):
    source = read_header(write_bytes(tmp_path / "m.gguf", SHAPES[shape]))
    assert rewrite(source, tmp_path / "o.gguf", verify=True).read_bytes() == SHAPES[shape]
    assert b"".join(header_bytes(source)) == SHAPES[shape][: source.data_start]
    assert (
        b"".join(header_bytes(source, source.header_end))
        == SHAPES[shape][source.header_end : source.data_start]
    )


def test_a_tensor_and_nothing_else(tmp_path, source):
    before = source.path.read_bytes()
    after = rewrite(
        source, tmp_path / "o.gguf", tensors={"output_norm.weight": NEW}, verify=True
    ).read_bytes()
    start = source.tensors["output_norm.weight"].data_offset
    assert after == before[:start] + NEW + before[start + 16 :]
    assert read_tensor(read_header(tmp_path / "o.gguf"), "output_norm.weight") == NEW
    assert read_tensor(source, "output_norm.weight") == NORM


def test_keys_in_any_order(tmp_path, source):
    keys = [("added", Value.string("x" * 99)), *reversed(own(source)[1:])]
    found = read_header(rewrite(source, tmp_path / "o.gguf", keys=keys, tensors={"odd": bytes(20)}))
    assert found.keys == tuple(name for name, _ in keys)
    for name, value in keys:
        assert found.value(name) == (source.value(name) if value is None else value)
    for name in source.tensors:
        assert read_tensor(found, name) == (bytes(20) if name == "odd" else read_tensor(source, name))
    assert (tmp_path / "o.gguf").read_bytes().endswith(b"tail")


def test_padding(tmp_path, source):
    gap = source.data_start - source.header_end
    assert gap > 1
    for padding, expected in (
        (b"\xcc" * gap, b"\xcc" * gap),
        (b"\xcc" * (gap - 1), bytes(gap)),
        (None, bytes(gap)),
    ):
        path = rewrite(source, tmp_path / "o.gguf", padding=padding)
        assert path.read_bytes()[source.header_end : source.data_start] == expected
        path.unlink()


def test_progress(tmp_path, source):
    seen = []
    rewrite(source, tmp_path / "o.gguf", progress=lambda done, total: seen.append((done, total)))
    n_bytes = source.file_size - source.data_start
    assert seen[-1] == (n_bytes, n_bytes)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"keys": [("last", None), ("last", None)]}, "a key twice"),
        ({"keys": [("nowhere", None)]}, "has no key 'nowhere'"),
        ({"keys": [("general.alignment", Value.uint32(64))]}, "every tensor would have to move"),
        ({"tensors": {"nowhere": b""}}, "has no tensor 'nowhere'"),
        ({"tensors": {"odd": bytes(19)}}, "'odd' has 20 bytes, 19 were given"),
    ],
)
def test_what_cannot_be(tmp_path, source, options, message):
    with pytest.raises(InputError, match=message):
        rewrite(source, tmp_path / "o.gguf", **options)
    assert names(tmp_path) == ["m.gguf"]


def test_the_alignment_stays(tmp_path):
    source = read_header(write_bytes(tmp_path / "m.gguf", SHAPES["alignment 8"]))
    without = [(name, None) for name in source.keys if name != "general.alignment"]
    for keys in (without, [*without, ("general.alignment", Value.uint32(16))]):
        with pytest.raises(InputError, match="every tensor would have to move"):
            rewrite(source, tmp_path / "o.gguf", keys=keys)
    rewrite(source, tmp_path / "o.gguf", keys=[("general.alignment", Value.uint32(8)), *without])


@pytest.mark.parametrize(
    "infos, message",
    [
        ([bare_tensor("a", [4]), bare_tensor("b", [4], offset=0)], "'a' and 'b' share bytes"),
        ([bare_tensor("a", [16]), bare_tensor("b", [4], offset=32)], "'a' and 'b' share bytes"),
        ([bare_tensor("b", [16]), bare_tensor("a", [4], offset=32)], "'a' and 'b' share bytes"),
        ([bare_tensor("a", [4], 99)], r"has an unknown type \(type 99\) for tensor 'a'"),
        ([bare_tensor("a", [4]), bare_tensor("b", [4], 99)], "'a' and 'b' share bytes"),
    ],
)
def test_tensors_that_cannot_be_changed_alone(tmp_path, infos, message):
    source = read_header(write_bytes(tmp_path / "m.gguf", raw_gguf([], infos, bytes(128))))
    n_bytes = source.tensors["a"].n_bytes or 16
    with pytest.raises(InputError, match=message):
        rewrite(source, tmp_path / "o.gguf", tensors={"a": b"x" * n_bytes})
    assert names(tmp_path) == ["m.gguf"]


def test_a_neighbour_is_no_overlap(tmp_path):
    infos = [bare_tensor("a", [8]), bare_tensor("b", [8], offset=32), bare_tensor("none", [0, 4], offset=64)]
    source = read_header(write_bytes(tmp_path / "m.gguf", raw_gguf([], infos, bytes(64))))
    found = read_header(rewrite(source, tmp_path / "o.gguf", tensors={"a": b"a" * 32, "b": b"b" * 32}))
    assert (read_tensor(found, "a"), read_tensor(found, "b")) == (b"a" * 32, b"b" * 32)


def test_a_source_that_changed(tmp_path, source):
    write_bytes(source.path, bakeable(tail=b"tail and more"))
    for call in (
        lambda: rewrite(source, tmp_path / "o.gguf"),
        lambda: read_tensor(source, "odd"),
        lambda: list(header_bytes(source)),
    ):
        with pytest.raises(InputError, match="changed since it was first read"):
            call()
    source.path.unlink()
    with pytest.raises(InputError, match="no such file"):
        rewrite(source, tmp_path / "o.gguf")


def test_a_source_that_changes_while_it_is_copied(tmp_path, source):
    def append(_done, _total):
        with source.path.open("ab") as file:
            file.write(b"more")

    with pytest.raises(OutputError, match="changed while it was copied; nothing was written"):
        rewrite(source, tmp_path / "o.gguf", progress=append)
    assert names(tmp_path) == ["m.gguf"]


@pytest.mark.parametrize("where", ["keys", "norm", "other tensor", "tail", "length"])
def test_what_the_disk_made_of_it_is_found_out(tmp_path, source, monkeypatch, where):
    """Another program spoils the draft at the moment that it is flushed."""
    info = source.tensors["output_norm.weight"]
    place = {
        "keys": 40,
        "norm": info.data_offset + 3,
        "other tensor": source.tensors["odd"].data_offset,
        "tail": source.file_size - 1,
        "length": source.file_size,
    }[where]
    real = os.fsync

    def spoil(descriptor):
        os.lseek(descriptor, place, os.SEEK_SET)
        os.write(descriptor, b"\xa5")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", spoil)
    with pytest.raises(OutputError, match=r"differ|not sound"):
        rewrite(source, tmp_path / "o.gguf", tensors={"output_norm.weight": NEW}, verify=True)
    assert names(tmp_path) == ["m.gguf"]


def test_a_full_disk(tmp_path, source, monkeypatch):
    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OutputError, match=r"No space left on device: \d+ bytes are needed"):
        rewrite(source, tmp_path / "o.gguf")
    monkeypatch.undo()
    assert names(tmp_path) == ["m.gguf"]


def test_a_draft_that_is_not_published_goes(tmp_path, source):
    with rewritten_draft(source, tmp_path / "o.gguf", keys=[("a", Value.uint32(1))]) as draft:
        assert read_header(draft.path).keys == ("a",)
    assert names(tmp_path) == ["m.gguf"]
