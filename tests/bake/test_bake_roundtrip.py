"""Baked and unbaked files: exact bytes, what the keys say in between, and what is refused."""

import os
import stat
from pathlib import Path

import numpy as np
import pytest
from support.bake_files import CALIBRATED, NORM, SHAPES, STAMPED, bakeable
from support.gguf_files import bare_tensor, key, raw_gguf, write_bytes
from support.tiny_models import write_tiny_llama

from edgecal.baking import bake as write
from edgecal.baking.bake import bake as bake_model
from edgecal.baking.bake import unbake as unbake_model
from edgecal.errors import InputError, OutputError
from edgecal.gguf.header import FILLER_KEY, read_header
from edgecal.gguf.rewrite import read_tensor, write_edited
from edgecal.gguf.shards import find_shards
from edgecal.gguf.values import Value, ValueType
from edgecal.stamping.changes import calibration_edits
from edgecal.stamping.record import (
    CalibrationRecord,
    baked_temperature,
    check_not_baked,
    read_calibration,
    read_sampling,
)

N_TOUCHED = 2  # keys that baking changes in the shape "calibrated": the temperature and its interval


def bake(path, output, **options):
    return bake_model(path, output, check=False, **options)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("how", ["output", "in place"])
def test_unbaking_gives_the_original_bytes(tmp_path, shape, how):
    path = write_bytes(tmp_path / "m.gguf", SHAPES[shape])
    before = read_header(path)
    if how == "in place":
        result = bake(path, None, in_place=True, verify=True)
        baked = read_header(path)
        assert unbake_model(path, in_place=True, verify=True).exact
        assert path.read_bytes() == SHAPES[shape]
        assert names(tmp_path) == ["m.gguf"]
        return
    result = bake(path, tmp_path / "b.gguf", verify=True)
    assert path.read_bytes() == SHAPES[shape]
    baked = read_header(result.output)
    tau = np.float32(result.temperature)
    expected = np.frombuffer(NORM, "<f4").astype(np.float64) / np.float64(tau)
    assert read_tensor(baked, "output_norm.weight") == expected.astype("<f4").tobytes()
    for name in before.tensors:
        if name != "output_norm.weight":
            assert read_tensor(baked, name) == read_tensor(before, name)
    tail = before.file_size - before.data_start
    assert baked.file_size - baked.data_start == tail
    assert unbake_model(result.output, tmp_path / "again.gguf", verify=True).exact
    assert (tmp_path / "again.gguf").read_bytes() == SHAPES[shape]
    assert names(tmp_path) == ["again.gguf", "b.gguf", "m.gguf"]


def test_what_a_baked_file_says(tmp_path):
    path = write_bytes(tmp_path / "m.gguf", bakeable(STAMPED))
    result = bake(path, tmp_path / "b.gguf")
    header = read_header(result.output)
    assert header.type_of("edgecal.baked.temperature") is ValueType.FLOAT32
    assert header.get("edgecal.baked.temperature") == 2.5 == baked_temperature(header) == result.temperature
    assert header.is_text("edgecal.baked.version")
    assert header.get("edgecal.baked.changed") == ["output_norm.weight"] == list(result.changed)
    record = read_calibration(header)
    assert (
        record.temperature == 1.0 and record.interval == pytest.approx((0.8, 1.2)) and record.method == "daca"
    )
    assert header.get("general.sampling.temp") == pytest.approx(0.6)
    touched = header.get("edgecal.baked.original.names")
    assert "edgecal.temperature" in touched and "edgecal.method" not in touched  # only what changed is kept
    assert read_sampling(header).authors == pytest.approx(0.6) == result.sampling_temperature
    assert baked_temperature(read_header(path)) is None


@pytest.mark.parametrize(
    "keys, authors",
    [
        (STAMPED[:-1], None),
        ([*CALIBRATED, key("general.sampling.temp", Value.float32(0.7))], 0.7),
        ([*CALIBRATED, key("general.sampling.temp", Value.float32(1.0))], 1.0),
        (CALIBRATED, None),
    ],
)
def test_the_authors_sampling_temperature(tmp_path, keys, authors):
    result = bake(write_bytes(tmp_path / "m.gguf", bakeable(keys)), tmp_path / "b.gguf")
    header = read_header(result.output)
    assert ("general.sampling.temp" in header) == (authors is not None)
    assert read_sampling(header).authors == result.sampling_temperature == pytest.approx(authors)


def test_another_temperature_than_the_files(tmp_path):
    """Then the fit's facts are about another number, and go."""
    path = write_bytes(tmp_path / "m.gguf", SHAPES["calibrated"])
    result = bake(path, tmp_path / "b.gguf", temperature=4.0)
    assert result.temperature == 4.0
    record = read_calibration(read_header(result.output))
    assert record.temperature == 1.0 and record.method is None and record.interval is None
    unbake_model(result.output, tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == SHAPES["calibrated"]


def test_a_temperature_of_no_record(tmp_path):
    path = write_bytes(tmp_path / "m.gguf", bakeable([]))
    with pytest.raises(InputError, match=r"m\.gguf: holds no edgecal\.temperature .*--temperature"):
        bake(path, tmp_path / "b.gguf")
    bake(path, tmp_path / "b.gguf", temperature=3)
    assert read_calibration(read_header(tmp_path / "b.gguf")).temperature == 1.0
    unbake_model(tmp_path / "b.gguf", tmp_path / "again.gguf")
    assert (tmp_path / "again.gguf").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("value", [0.0, -2.0, float("nan"), float("inf"), 1e-60, 1e60, 1.0, 1.00000001])
def test_temperatures_that_cannot_be(tmp_path, value):
    path = write_bytes(tmp_path / "m.gguf", bakeable([]))
    with pytest.raises(InputError, match="temperature"):
        bake(path, tmp_path / "b.gguf", temperature=value)
    assert names(tmp_path) == ["m.gguf"]


def test_a_temperature_that_overflows_a_weight(tmp_path):
    path = write_bytes(tmp_path / "m.gguf", bakeable([]))
    with pytest.raises(InputError, match=r"output_norm\.weight: divided by 0\.5 .*too large"):
        bake(path, tmp_path / "b.gguf", temperature=0.5)


def test_baking_twice(tmp_path):
    path = write_bytes(tmp_path / "m.gguf", SHAPES["stamped"])
    bake(path, tmp_path / "b.gguf")
    for temperature in (None, 2.0):
        with pytest.raises(InputError, match=r"already divided by 2\.5 .*edgecal unbake"):
            bake(tmp_path / "b.gguf", tmp_path / "c.gguf", temperature=temperature)
    check_not_baked(read_header(path), "stamping it")
    with pytest.raises(InputError, match="so stamping it would"):
        check_not_baked(read_header(tmp_path / "b.gguf"), "stamping it")
    assert names(tmp_path) == ["b.gguf", "m.gguf"]


def test_unbaking_what_is_not_baked(tmp_path):
    path = write_bytes(tmp_path / "m.gguf", SHAPES["stamped"])
    with pytest.raises(InputError, match="is not baked"):
        unbake_model(path, tmp_path / "b.gguf")


def test_stamped_by_force_after_baking_and_taken_out_again(tmp_path):
    path = write_bytes(tmp_path / "m.gguf", SHAPES["stamped"])
    baked = bake(path, tmp_path / "b.gguf").output
    header = read_header(baked)
    changes, remove = calibration_edits(header, CalibrationRecord(1.5), force_baked=True)
    write_edited(header, tmp_path / "s.gguf", changes=changes, remove=remove)
    # The stamp added keys that baking never touched.
    with pytest.raises(InputError, match=r"s\.gguf: was edited after it was baked.*--keep-edits"):
        unbake_model(tmp_path / "s.gguf", tmp_path / "again.gguf")
    assert not (tmp_path / "again.gguf").exists()
    result = unbake_model(tmp_path / "s.gguf", tmp_path / "again.gguf", keep_edits=True)
    assert not result.exact and baked_temperature(read_header(result.output)) is None
    assert read_calibration(read_header(result.output)).temperature == 2.5


def test_an_edit_that_is_undone_again(tmp_path):
    path = write_bytes(tmp_path / "m.gguf", SHAPES["odd padding"])
    baked = tmp_path / "b.gguf"
    bake(path, baked)
    before = baked.read_bytes()
    write_edited(read_header(baked), baked, changes={"general.name": Value.string("new")})
    with pytest.raises(InputError, match="was edited after it was baked"):
        unbake_model(baked, in_place=True)
    kept = unbake_model(baked, tmp_path / "kept.gguf", keep_edits=True)
    assert read_header(kept.output).get("general.name") == "new" and not kept.exact
    write_edited(read_header(baked), baked, changes={}, remove=["general.name"])
    assert baked.read_bytes() == before
    assert unbake_model(baked, in_place=True).exact
    assert baked.read_bytes() == SHAPES["odd padding"]


def test_a_tensor_that_something_else_changed(tmp_path):
    path = write_bytes(tmp_path / "m.gguf", SHAPES["calibrated"])
    bake(path, tmp_path / "b.gguf")
    info = read_header(tmp_path / "b.gguf").tensors["output_norm.weight"]
    data = bytearray((tmp_path / "b.gguf").read_bytes())
    data[info.data_offset] ^= 1
    write_bytes(tmp_path / "b.gguf", bytes(data))
    with pytest.raises(InputError, match=r"output_norm\.weight was changed after it was baked"):
        unbake_model(tmp_path / "b.gguf", in_place=True, keep_edits=True)


FILLER = Value.array(ValueType.UINT8, [0] * 77)


@pytest.mark.parametrize("original", ["with a filler", "without"])
@pytest.mark.parametrize("later", ["as it was baked", "edited in place and back"])
def test_fillers(tmp_path, original, later):
    """Editing in place adds and changes `edgecal.filler`: the original's comes back, a later one goes."""
    path = write_bytes(tmp_path / "m.gguf", SHAPES["calibrated"])
    if original == "with a filler":
        write_edited(read_header(path), path, changes={FILLER_KEY: FILLER})
    before = path.read_bytes()
    baked = tmp_path / "b.gguf"
    bake(path, baked)
    assert FILLER_KEY not in read_header(baked)
    if later != "as it was baked":
        write_edited(read_header(baked), baked, changes={FILLER_KEY: Value.array(ValueType.UINT8, [0] * 999)})
    assert unbake_model(baked, tmp_path / "again.gguf").exact
    assert (tmp_path / "again.gguf").read_bytes() == before


def test_a_filler_that_an_earlier_version_left_in_the_baked_file(tmp_path, monkeypatch):
    path = write_bytes(tmp_path / "m.gguf", SHAPES["calibrated"])
    write_edited(read_header(path), path, changes={FILLER_KEY: FILLER})
    baked = tmp_path / "b.gguf"
    with monkeypatch.context() as patched:
        patched.setattr(write, "FILLER_KEY", "edgecal.no.such.key")
        bake(path, baked)
    assert FILLER_KEY in read_header(baked)
    assert unbake_model(baked, tmp_path / "again.gguf").exact
    assert (tmp_path / "again.gguf").read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "changes, remove, message",
    [
        ({}, ["edgecal.baked.temperature"], "is missing"),
        ({"edgecal.baked.temperature": Value.string("2.5")}, [], "not a positive FLOAT32"),
        ({"edgecal.baked.temperature": Value.float32(float("nan"))}, [], "not a positive FLOAT32"),
        ({}, ["edgecal.baked.original.names"], "names is missing"),
        ({}, ["edgecal.baked.original.positions"], "do not fit"),
        ({"edgecal.baked.original.positions": Value.array(ValueType.INT32, [1])}, [], "do not fit"),
        ({}, ["edgecal.baked.original.header_sha256"], "do not fit"),
        (
            {"edgecal.baked.original.names": Value.array(ValueType.STRING, ["a"] * N_TOUCHED)},
            [],
            "do not fit",
        ),
        (
            {
                "edgecal.baked.original.names": Value.array(
                    ValueType.STRING, ["edgecal.baked.x", *"abcdefgh"][:N_TOUCHED]
                )
            },
            [],
            "do not fit",
        ),
        ({}, ["edgecal.baked.original.key.edgecal.temperature"], "edgecal.temperature' is missing"),
        (
            {},
            ["edgecal.baked.original.tensor.output_norm.weight"],
            "the original of 'output_norm.weight' is missing",
        ),
        (
            {"edgecal.baked.original.tensor.output_norm.weight": Value.string("x")},
            [],
            "is not an array of UINT8",
        ),
        (
            {"edgecal.baked.original.tensor.nowhere": Value.array(ValueType.UINT8, [1])},
            [],
            "has no tensor 'nowhere'",
        ),
        (
            {"edgecal.baked.original.tensor.odd": Value.array(ValueType.UINT8, [1] * 20)},
            [],
            "was changed after it was baked",
        ),
        (
            {"edgecal.baked.original.tensor.output_norm.weight": Value.array(ValueType.UINT8, [1] * 15)},
            [],
            "its original of 'output_norm.weight' does not fit",
        ),
        (
            {"edgecal.baked.original.tensor.output_norm.weight": Value.array(ValueType.UINT8, [])},
            [],
            "its original of 'output_norm.weight' does not fit",
        ),
    ],
)
def test_a_damaged_record(tmp_path, changes, remove, message):
    path = write_bytes(tmp_path / "m.gguf", SHAPES["calibrated"])
    baked = tmp_path / "b.gguf"
    bake(path, baked)
    write_edited(read_header(baked), baked, changes=changes, remove=remove)
    with pytest.raises(InputError, match=message) as caught:
        unbake_model(baked, tmp_path / "again.gguf", keep_edits=True)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["b.gguf", "m.gguf"]


def test_a_file_with_leftovers_of_a_baked_one_is_not_baked_again(tmp_path):
    path = write_bytes(
        tmp_path / "m.gguf", bakeable([*CALIBRATED, key("edgecal.baked.version", Value.string("x"))])
    )
    with pytest.raises(
        InputError, match=r"has edgecal\.baked\.\* keys, but edgecal\.baked\.temperature is missing"
    ):
        bake(path, tmp_path / "b.gguf")


def test_tensors_that_share_bytes(tmp_path):
    """A norm that lies inside another tensor cannot be changed without changing that one too."""
    data = raw_gguf(
        [key("general.architecture", Value.string("llama"))],
        [bare_tensor("output_norm.weight", [4]), bare_tensor("output.weight", [4, 3])],
        bytes(48),
    )
    path = write_bytes(tmp_path / "m.gguf", data)
    with pytest.raises(InputError, match=r"'output_norm\.weight' and 'output\.weight' share bytes"):
        bake(path, tmp_path / "b.gguf", temperature=2)
    assert names(tmp_path) == ["m.gguf"]


def test_where_to(tmp_path):
    path = write_bytes(tmp_path / "m.gguf", SHAPES["calibrated"])
    for run in (bake, unbake_model):
        write_bytes(tmp_path / "m.gguf", SHAPES["calibrated"])
        if run is unbake_model:
            bake(path, None, in_place=True)
        with pytest.raises(InputError, match="give --output for a new file, or --in-place"):
            run(path, None)
        with pytest.raises(InputError, match="exclude each other"):
            run(path, tmp_path / "b.gguf", in_place=True)
        with pytest.raises(InputError, match="is an input"):
            run(path, path, force=True)
        write_bytes(tmp_path / "b.gguf", b"mine")
        with pytest.raises(InputError, match="exists; give --force"):
            run(path, tmp_path / "b.gguf")
        assert (tmp_path / "b.gguf").read_bytes() == b"mine"
        run(path, tmp_path / "b.gguf", force=True)
        assert (tmp_path / "b.gguf").read_bytes() != b"mine"
    assert names(tmp_path) == ["b.gguf", "m.gguf"]


@pytest.fixture
def split(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    return write_tiny_llama(
        folder / "m.gguf", seed=7, n_layer=1, split_max_tensors=1, metadata={"edgecal.temperature": 2.5}
    )


def contents(shards):
    return [path.read_bytes() for path in shards.paths]


def test_a_split_model(tmp_path, split):
    shards = find_shards(split)
    holder, _ = shards.tensor("output_norm.weight")
    assert shards.count > 2 and holder != shards.path
    before = contents(shards)
    out = tmp_path / "out"
    out.mkdir()
    target = out / f"b-00001-of-{shards.count:05d}.gguf"
    result = bake_model(split, target)
    assert result.error < 3e-7 and contents(shards) == before
    baked = find_shards(target)
    index = shards.paths.index(holder)
    how = [sibling["how"] for sibling in result.siblings]
    assert (
        how[index - 1] == "written" and how.count("written") == 1 and how.count("hard link") == len(how) - 1
    )
    for i in range(1, shards.count):
        assert (baked.paths[i].read_bytes() == before[i]) == (i != index)
        assert baked.paths[i].samefile(shards.paths[i]) == (i != index)
    again = tmp_path / f"again-00001-of-{shards.count:05d}.gguf"
    assert unbake_model(target, again).exact
    assert contents(find_shards(again)) == before
    with pytest.raises(InputError, match=r"2 of its .* files would change"):
        bake_model(split, in_place=True, check=False)
    with pytest.raises(InputError, match=r"2 of its .* files would change"):
        unbake_model(target, in_place=True)
    with pytest.raises(InputError, match=r"llama\.cpp would not find"):
        bake_model(split, out / "other.gguf", check=False)


def test_a_split_model_that_changes_in_its_first_file_only(tmp_path):
    split = write_tiny_llama(tmp_path / "m.gguf", seed=7, n_layer=1, split_max_tensors=4)
    shards = find_shards(split)
    assert "output_norm.weight" in shards.header.tensors and shards.count > 2
    before = contents(shards)
    assert bake_model(split, in_place=True, temperature=2.0).error < 3e-7
    assert contents(shards)[1:] == before[1:] and contents(shards)[0] != before[0]
    unbake_model(split, in_place=True)
    assert contents(shards) == before


def test_a_split_model_over_an_earlier_result(tmp_path, split):
    """Forced over what is there, and put back as it was where the last step fails."""
    shards = find_shards(split)
    target = tmp_path / f"b-00001-of-{shards.count:05d}.gguf"
    bake_model(split, target, temperature=2.0, check=False)
    old = contents(find_shards(target))
    with pytest.raises(InputError, match="exists"):
        bake_model(split, target, temperature=3.0, check=False)
    here = names(tmp_path)
    real = Path.replace

    def fail_at_the_end(self, other):
        if other == target:
            raise OSError(5, "Input/output error")
        return real(self, other)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(OutputError, match="Input/output error"):
        patch.setattr(Path, "replace", fail_at_the_end)
        bake_model(split, target, temperature=3.0, check=False, force=True)
    assert names(tmp_path) == here and contents(find_shards(target)) == old
    bake_model(split, target, temperature=3.0, check=False, force=True)
    assert names(tmp_path) == here
    assert unbake_model(target, tmp_path / f"again-00001-of-{shards.count:05d}.gguf").exact


def test_a_folder_that_cannot_be_flushed_takes_nothing_back(tmp_path, split):
    """The name is there; only a power cut could still take it away."""
    shards = find_shards(split)
    target = tmp_path / f"b-00001-of-{shards.count:05d}.gguf"
    real = os.fsync

    def fail(descriptor):
        if target.exists() and stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(5, "Input/output error")
        real(descriptor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        bake_model(split, target, temperature=3.0, check=False)
    assert find_shards(target).count == shards.count and baked_temperature(read_header(target)) == 3.0
