"""Killed while baking: every file afterwards is the old one or the new one, and the next run tidies up."""

import shutil

import pytest
from support.bake_files import SHAPES, write_split
from support.gguf_files import write_bytes
from support.kill import kill_after_every_call

from edgecal.baking.bake import bake as bake_model
from edgecal.baking.bake import unbake as unbake_model
from edgecal.gguf.shards import find_shards


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("how", ["to a new file", "in place", "over a result"])
def test_killed_after_every_call_of_bake(tmp_path, how):
    folder = tmp_path / "work"
    old = SHAPES["stamped"]
    path, target = folder / "m.gguf", folder / ("m.gguf" if how == "in place" else "b.gguf")
    where = {"in_place": True} if how == "in place" else {"output": target, "force": how == "over a result"}
    before = {"to a new file": None, "in place": old, "over a result": b"an earlier result"}[how]

    def prepare():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        write_bytes(path, old)
        if before is not None:
            write_bytes(target, before)

    def bake():
        bake_model(path, check=False, **where)

    prepare()
    bake()
    new = target.read_bytes()
    seen = []

    def check(when):
        found = target.read_bytes() if target.exists() else None
        assert found in (before, new), when
        assert target == path or path.read_bytes() == old, when
        seen.append(found == new)
        if found == before:
            bake()
        else:  # what is left over goes with the next run
            unbake_model(target, folder / "u.gguf", force=True)
            assert (folder / "u.gguf").read_bytes() == old, when
            (folder / "u.gguf").unlink()
            target.unlink()
            write_bytes(path, old)
            bake()
        assert target.read_bytes() == new and names(folder) == sorted({"m.gguf", target.name}), when

    calls = kill_after_every_call(prepare, bake, check)
    assert len(calls) > 10 and seen[-1] and not seen[0]
    assert seen == sorted(seen)  # from one call on it is the new file


def test_killed_after_every_call_of_unbake_in_place(tmp_path):
    path = write_bytes(tmp_path / "m.gguf", SHAPES["odd padding"])
    bake_model(path, in_place=True, check=False)
    baked = path.read_bytes()
    seen = []

    def check(when):
        found = path.read_bytes()
        assert found in (baked, SHAPES["odd padding"]), when
        seen.append(found != baked)
        if not seen[-1]:
            unbake_model(path, in_place=True)
        assert path.read_bytes() == SHAPES["odd padding"], when
        assert names(tmp_path) == ["m.gguf"], when

    calls = kill_after_every_call(
        lambda: write_bytes(path, baked), lambda: unbake_model(path, in_place=True), check
    )
    assert len(calls) > 10 and seen == sorted(seen) and seen[-1] and not seen[0]


def test_killed_after_every_call_on_a_split_model(tmp_path):
    """The first file comes last, so that no model is found whose shards are not all there."""
    source = tmp_path / "in"
    source.mkdir()
    path = write_split(source)
    shards = find_shards(path)
    before = [one.read_bytes() for one in shards.paths]
    out = tmp_path / "out"
    target = out / f"b-00001-of-{shards.count:05d}.gguf"

    def prepare():
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()

    def bake(force=False):
        bake_model(path, target, check=False, force=force)

    prepare()
    bake()
    new = [one.read_bytes() for one in find_shards(target).paths]

    def check(when):
        if target.exists():
            assert [one.read_bytes() for one in find_shards(target).paths] == new, when
        assert [one.read_bytes() for one in shards.paths] == before, when
        bake(force=True)
        assert len(names(out)) == shards.count, when

    assert len(kill_after_every_call(prepare, bake, check)) > 20
