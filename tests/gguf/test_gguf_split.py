"""Split models: finding the shards, refusing what does not belong together, and placing siblings."""

import errno
import os

import pytest
from support.gguf_files import bare_tensor, key, raw_gguf, write_bytes
from support.tiny_models import write_tiny_llama

from edgecal.errors import InputError, OutputError
from edgecal.gguf.header import read_header
from edgecal.gguf.output import plan_output
from edgecal.gguf.placing import placed_siblings, write_output
from edgecal.gguf.shards import find_shards, shard_name, split_name
from edgecal.gguf.values import Value, ValueType

ONE = {"edgecal.temperature": Value.float32(2)}


def shard(index, count, *, tensor=None, n_tensors=None, number=None, prefix=()):
    keys = [
        *prefix,
        key("split.no", Value.of(ValueType.UINT16, index if number is None else number)),
        key("split.count", Value.of(ValueType.UINT16, count)),
        key("split.tensors.count", Value.of(ValueType.INT32, count if n_tensors is None else n_tensors)),
    ]
    return raw_gguf(keys, [bare_tensor(tensor or f"w{index}", [4])], bytes([index + 1]) * 16)


def write_split(folder, prefix="m", count=3):
    folder.mkdir(exist_ok=True)
    for index in range(count):
        write_bytes(folder / shard_name(prefix, index, count), shard(index, count))
    return folder / shard_name(prefix, 0, count)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write(plan):
    return write_output(plan, changes=ONE)


def test_names_follow_llama_cpp():
    assert shard_name("a/b", 0, 3) == "a/b-00001-of-00003.gguf"
    assert split_name("m-00002-of-00012.gguf") == ("m", 1, 12)
    assert split_name("m-00001-of-123456.gguf") == ("m", 0, 123456)
    for name in (
        "m.gguf",
        "m-1-of-3.gguf",
        "-00001-of-00003.gguf",
        "m-000001-of-00003.gguf",
        "m-00001-of-00003.GGUF",
    ):
        assert split_name(name) is None


def test_a_single_file_is_a_set_of_one(tmp_path):
    path = write_bytes(tmp_path / "m.gguf", raw_gguf([], [bare_tensor("w", [1])], bytes(4)))
    shards = find_shards(str(path))
    assert (shards.paths, shards.count, shards.prefix, shards.n_tensors) == ((path,), 1, None, 1)
    one = write_bytes(tmp_path / "m-00001-of-00001.gguf", shard(0, 1))
    assert find_shards(one).prefix is None


def test_gguf_py_s_split_files(tmp_path):
    first = write_tiny_llama(tmp_path / "tiny.gguf", seed=3, n_layer=2, split_max_tensors=7)
    whole = read_header(write_tiny_llama(tmp_path / "whole.gguf", seed=3, n_layer=2))
    shards = find_shards(first)
    assert shards.count == len(list(tmp_path.glob("tiny-*.gguf"))) == 3
    assert shards.prefix == "tiny"
    assert shards.n_tensors == len(whole.tensors)
    assert shards.get("llama.block_count") == 2
    for name, info in whole.tensors.items():
        path, found = shards.tensor(name)
        with path.open("rb") as file, whole.path.open("rb") as other:
            file.seek(found.data_offset)
            other.seek(info.data_offset)
            assert file.read(found.n_bytes) == other.read(info.n_bytes)
    assert shards.find_tensor("nothing") is None
    with pytest.raises(InputError, match="no tensor 'nothing'"):
        shards.tensor("nothing")


def refused(path):
    with pytest.raises(InputError) as caught:
        find_shards(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_does_not_belong_together_is_refused(tmp_path):
    first = write_split(tmp_path)
    assert find_shards(first).count == 3
    second, third = (first.with_name(shard_name("m", index, 3)) for index in (1, 2))
    assert f"give the first, {first}" in refused(second)
    renamed = write_bytes(tmp_path / "first.gguf", first.read_bytes())
    assert "must be named <prefix>-00001-of-00003.gguf" in refused(renamed)
    assert "shard 2 of 3" in refused(write_bytes(tmp_path / "second.gguf", second.read_bytes()))
    wrong_count = write_bytes(tmp_path / "m-00001-of-00004.gguf", first.read_bytes())
    assert "must be named" in refused(wrong_count)
    third.write_bytes(shard(1, 3))
    assert "its name says shard 3 of 3, its header shard 2 of 3" in refused(first)
    third.write_bytes(shard(2, 4))
    assert "its header shard 3 of 4" in refused(first)
    third.write_bytes(shard(2, 3, tensor="w0"))
    assert "tensor 'w0' is also in m-00001-of-00003.gguf" in refused(first)
    third.write_bytes(raw_gguf([key("split.no", Value.uint32(2)), key("split.count", Value.uint32(3))]))
    assert "split.tensors.count is 3, the 3 files hold 2 tensors" in refused(first)
    third.write_bytes(b"GGUF")
    assert str(third) in refused(first)
    third.unlink()
    assert "missing beside it: m-00003-of-00003.gguf" in refused(first)
    second.unlink()
    assert "m-00002-of-00003.gguf, m-00003-of-00003.gguf" in refused(first)


def test_absurd_counts_are_refused(tmp_path):
    path = tmp_path / "m-00001-of-00003.gguf"
    for value in (Value.uint32(2**31), Value.of(ValueType.INT32, -3), Value.string("3"), Value.float32(3)):
        write_bytes(path, raw_gguf([key("split.count", value)]))
        refused(path)
    write_bytes(path, raw_gguf([key("split.count", Value.uint32(3)), key("split.no", Value.string("x"))]))
    assert "split.no is not a whole number" in refused(path)
    write_bytes(path, raw_gguf([key("split.count", Value.uint32(4000))]))
    assert len(refused(path)) < 500 + len(str(path))


def test_the_output_is_a_new_first_shard_and_hard_links(tmp_path):
    first = write_split(tmp_path / "in")
    before = {path.name: path.read_bytes() for path in (tmp_path / "in").iterdir()}
    plan = plan_output(find_shards(first), None)
    assert plan.path == tmp_path / "in" / "m.calibrated-00001-of-00003.gguf"
    written = write(plan)
    assert [sibling.how for sibling in written.siblings] == ["hard link"] * 2
    for index, sibling in enumerate(written.siblings, start=1):
        assert sibling.path.name == shard_name("m.calibrated", index, 3)
        assert sibling.path.samefile(first.with_name(shard_name("m", index, 3)))
    result = find_shards(plan.path)
    assert (result.count, result.get("edgecal.temperature")) == (3, 2.0)
    assert {name: (tmp_path / "in" / name).read_bytes() for name in before} == before
    assert len(names(tmp_path / "in")) == 6


def test_again_needs_force_and_leaves_the_links_alone(tmp_path):
    chat = find_shards(write_split(tmp_path))
    write(plan_output(chat, None))
    with pytest.raises(InputError, match="--force"):
        plan_output(chat, None)
    (tmp_path / "m.calibrated-00001-of-00003.gguf").unlink()
    with pytest.raises(InputError, match=r"m\.calibrated-00002-of-00003\.gguf: exists"):
        plan_output(chat, None)
    written = write(plan_output(chat, None, force=True))
    assert [sibling.how for sibling in written.siblings] == ["already there"] * 2
    assert len(names(tmp_path)) == 6


def test_symbolic_links_where_hard_links_are_not_possible(tmp_path, monkeypatch):
    chat = find_shards(write_split(tmp_path / "in"))
    (tmp_path / "out").mkdir()

    def no_links(*_args, **_kwargs):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", no_links)
    beside = write(plan_output(chat, None))
    elsewhere = write(plan_output(chat, tmp_path / "out" / "x-00001-of-00003.gguf"))
    assert {sibling.how for sibling in (*beside.siblings, *elsewhere.siblings)} == {"symbolic link"}
    assert str(beside.siblings[0].path.readlink()) == "m-00002-of-00003.gguf"
    assert elsewhere.siblings[0].path.readlink() == tmp_path / "in" / "m-00002-of-00003.gguf"
    assert find_shards(beside.path).n_tensors == find_shards(elsewhere.path).n_tensors == 3
    again = write(plan_output(chat, None, force=True))
    assert {sibling.how for sibling in again.siblings} == {"symbolic link"}
    assert len(names(tmp_path / "in")) == 6


def test_copies_where_no_links_are_possible(tmp_path, monkeypatch):
    chat = find_shards(write_split(tmp_path))

    def no_links(*_args, **_kwargs):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(os, "symlink", no_links)
    written = write(plan_output(chat, None))
    assert {sibling.how for sibling in written.siblings} == {"copy"}
    for sibling in written.siblings:
        assert sibling.path.read_bytes() == sibling.source.read_bytes()
        assert sibling.path.stat().st_nlink == 1
        assert not sibling.path.is_symlink()
    assert len(names(tmp_path)) == 6


def test_a_link_to_a_store_s_blob_is_made_to_the_blob(tmp_path):
    """The shards of a downloaded model are symbolic links; the new name must not hang on those."""
    blobs, snapshot = tmp_path / "data", tmp_path / "names"
    write_split(blobs)
    snapshot.mkdir()
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(path)
    (tmp_path / "out").mkdir()
    chat = find_shards(snapshot / "m-00001-of-00003.gguf")
    written = write(plan_output(chat, tmp_path / "out" / "x-00001-of-00003.gguf"))
    assert [sibling.how for sibling in written.siblings] == ["hard link"] * 2
    for sibling in written.siblings:
        assert not sibling.path.is_symlink()
        assert sibling.path.samefile(sibling.source)


def test_a_failure_takes_everything_back(tmp_path, monkeypatch):
    chat = find_shards(write_split(tmp_path))
    plan = plan_output(chat, None)
    before = names(tmp_path)
    with pytest.raises(RuntimeError), placed_siblings(list(zip(chat.paths[1:], plan.siblings, strict=True))):
        assert len(names(tmp_path)) == 5
        raise RuntimeError
    assert names(tmp_path) == before

    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for calls in (["link", "symlink", "write"], ["write"], ["fsync"]):
        with monkeypatch.context() as patch:
            for call in calls:
                patch.setattr(os, call, full)
            with pytest.raises(OutputError, match="No space left"):
                write(plan)
        assert names(tmp_path) == before


def test_files_that_were_overwritten_come_back_if_the_end_fails(tmp_path):
    chat = find_shards(write_split(tmp_path))
    old = {
        name: write_bytes(tmp_path / name, b"old")
        for name in ("x-00002-of-00003.gguf", "x-00003-of-00003.gguf")
    }
    plan = plan_output(chat, tmp_path / "x-00001-of-00003.gguf", force=True)
    before = names(tmp_path)
    with (
        pytest.raises(KeyboardInterrupt),
        placed_siblings(list(zip(chat.paths[1:], plan.siblings, strict=True))),
    ):
        assert all(path.read_bytes() != b"old" for path in old.values())
        raise KeyboardInterrupt
    assert names(tmp_path) == before
    assert all(path.read_bytes() == b"old" for path in old.values())
    write(plan)
    assert find_shards(plan.path).count == 3
    assert len(names(tmp_path)) == 6


def test_a_sibling_that_appears_meanwhile_is_not_replaced(tmp_path):
    chat = find_shards(write_split(tmp_path))
    plan = plan_output(chat, None)
    write_bytes(plan.siblings[1], b"somebody else's")
    with pytest.raises(OutputError, match="appeared"):
        write(plan)
    assert plan.siblings[1].read_bytes() == b"somebody else's"
    assert len(names(tmp_path)) == 4


def test_a_given_output_must_be_named_so_that_llama_cpp_finds_the_others(tmp_path):
    chat = find_shards(write_split(tmp_path))
    for name, better in {
        "x.gguf": "x-00001-of-00003.gguf",
        "x": "x-00001-of-00003.gguf",
        "x-00002-of-00003.gguf": "x-00001-of-00003.gguf",
        "x-00001-of-00004.gguf": "x-00001-of-00003.gguf",
    }.items():
        with pytest.raises(InputError) as caught:
            plan_output(chat, tmp_path / name)
        assert f"name the output {tmp_path / better}" in str(caught.value)


def test_no_shard_is_ever_overwritten(tmp_path):
    chat = find_shards(write_split(tmp_path))
    with pytest.raises(InputError, match="is an input"):
        plan_output(chat, tmp_path / "m-00001-of-00003.gguf", force=True)
    base = find_shards(write_split(tmp_path, prefix="base"))
    with pytest.raises(InputError, match="is an input"):
        plan_output(chat, base.path, inputs=base.paths, force=True)
    with pytest.raises(InputError, match=r"base-00002-of-00003\.gguf: is an input"):
        plan_output(chat, base.path, inputs=base.paths[1:], force=True)


def test_in_place_edits_the_first_shard_only(tmp_path):
    chat = find_shards(write_split(tmp_path))
    before = [path.read_bytes() for path in chat.paths]
    written = write(plan_output(chat, None, in_place=True))
    assert (written.path, written.siblings) == (chat.path, ())
    assert [path.read_bytes() for path in chat.paths][1:] == before[1:]
    assert find_shards(chat.path).get("edgecal.temperature") == 2.0
    assert len(names(tmp_path)) == 3
