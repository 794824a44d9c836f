"""Stamping in any way and then stripping gives the original bytes again, in every shape that files come in."""

import itertools
import os
import random

import pytest
from support.gguf_files import bare_tensor, key, raw_gguf, write_bytes

from edgecal.errors import InputError
from edgecal.gguf.header import read_header
from edgecal.gguf.inplace.engine import edit_in_place
from edgecal.gguf.output import plan_output
from edgecal.gguf.placing import write_output
from edgecal.gguf.rewrite import padding_edits, write_edited
from edgecal.gguf.shards import find_shards
from edgecal.gguf.values import Value, ValueType
from edgecal.stamping.changes import calibration_edits, strip_edits
from edgecal.stamping.edit import write_calibrated
from edgecal.stamping.record import CalibrationRecord

SAMPLING = "general.sampling.temp"
NESTED = Value.array(
    ValueType.ARRAY,
    [
        Value.array(ValueType.ARRAY, [Value.array(ValueType.STRING, ["", "é"])]),
        Value.array(ValueType.ARRAY, []),
    ],
)
SCALARS = [
    key(f"test.{type_.name}", Value.of(type_, True if type_ is ValueType.BOOL else 1))
    for type_ in ValueType
    if type_ not in (ValueType.STRING, ValueType.ARRAY)
]
KEYS = [
    key("general.architecture", Value.string("llama")),
    key("empty.text", Value.string("")),
    key("empty.array", Value.array(ValueType.STRING, [])),
    key("empty.texts", Value.array(ValueType.STRING, ["", "", ""])),
    key("nested", NESTED),
    key(b"not \xff utf-8", Value(ValueType.STRING, b"\x01\0\0\0\0\0\0\0\xfe")),
    key("a bool that is not 1", Value(ValueType.BOOL, b"\x07")),
    *SCALARS,
]


def shape(keys=KEYS, *, alignment=32, version=3, n_tensors=3, padding=b"\0", tail=b""):
    keys = [*keys, key("general.alignment", Value.uint32(alignment))] if alignment != 32 else keys
    step = -(-64 // alignment) * alignment
    tensors = [bare_tensor(f"w{i}", [16], offset=i * step) for i in range(n_tensors)]
    data = b"".join(bytes(range(i, i + 64)).ljust(step, b"\xee") for i in range(n_tensors)) + tail
    return raw_gguf(keys, tensors, data, alignment=alignment, version=version, padding=padding)


def with_sampling(value, place):
    keys = list(KEYS)
    keys.insert(place, key(SAMPLING, value))
    return keys


SHAPES = {
    "plain": shape(),
    "version 2": shape(version=2),
    "version 2, odd padding": shape(version=2, padding=b"\xab"),
    "alignment 1": shape(alignment=1),
    "alignment 8": shape(alignment=8, padding=b"\x01"),
    "alignment 64": shape(alignment=64),
    "alignment 4096, odd padding": shape(alignment=4096, padding=b"\xcd"),
    "no keys but one": shape([key("x", Value.uint32(1))]),
    "no keys at all": shape([]),
    "no tensors": shape(n_tensors=0),
    "no tensors, something behind": shape(n_tensors=0, tail=b"\x01tail"),
    "no tensors, padded": shape(n_tensors=0, tail=bytes(21)),
    "one tensor": shape(n_tensors=1),
    "seven tensors": shape(n_tensors=7, tail=b"and a tail"),
    "odd padding": shape(padding=b"\xab"),
    "sampling first": shape(with_sampling(Value.float32(0.6), 0)),
    "sampling in the middle, odd padding": shape(with_sampling(Value.float32(0.6), 3), padding=b"\x02"),
    "sampling last": shape(with_sampling(Value.float32(0.6), len(KEYS))),
    "sampling equal to a stamp": shape(with_sampling(Value.float32(2.5), 2)),
    "sampling not a number": shape(with_sampling(Value.float32(float("nan")), 2)),
    "sampling as float64": shape(with_sampling(Value.of(ValueType.FLOAT64, 0.1), 2), padding=b"\xee"),
    "sampling as float64, equal to a stamp": shape(with_sampling(Value.of(ValueType.FLOAT64, 2.5), 2)),
    "sampling as a whole number": shape(with_sampling(Value.of(ValueType.INT8, 1), 1)),
}
STAMPS = [(2.5, True), (2.5, False), (3.0, True), (3.0, False)]  # temperature, with the sampling key?
HISTORIES = [history for n in (1, 2, 3) for history in itertools.product(STAMPS, repeat=n)]


@pytest.fixture
def quick(monkeypatch):
    """No flushes: durability is tested elsewhere."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


def record(temperature):
    interval = (temperature - 0.1, temperature + 0.1) if temperature > 2.7 else None
    return CalibrationRecord(temperature, interval=interval, method="daca", base_name="é")


def edit(path, changes, remove, in_place):
    header = read_header(path)
    if in_place:
        edit_in_place(header, changes, remove)
    else:
        write_edited(header, path, changes=changes, remove=remove)


def stamp(path, temperature, sampling_key, in_place=False):
    edit(path, *calibration_edits(read_header(path), record(temperature), sampling_key), in_place)


def strip(path, in_place=False):
    edit(path, *strip_edits(read_header(path)), in_place)


@pytest.mark.parametrize("name", SHAPES)
def test_any_stamps_and_a_strip_give_the_original_bytes(tmp_path, quick, name):
    original = SHAPES[name]
    path = tmp_path / "m.gguf"
    for history in HISTORIES if name in ("plain", "sampling as float64") else HISTORIES[:20]:
        write_bytes(path, original)
        for temperature, sampling_key in history:
            stamp(path, temperature, sampling_key)
            assert path.read_bytes() != original
        strip(path)
        assert path.read_bytes() == original, history


@pytest.mark.parametrize("name", SHAPES)
def test_also_in_place_and_mixed(tmp_path, name):
    original = SHAPES[name]
    path = tmp_path / "m.gguf"
    chance = random.Random(name)
    for _ in range(4):
        write_bytes(path, original)
        for _ in range(chance.randint(1, 3)):
            stamp(path, *chance.choice(STAMPS), in_place=chance.random() < 0.7)
        strip(path, in_place=chance.random() < 0.7)
        assert path.read_bytes() == original


def test_no_way_of_changing_the_headers_size_misleads(tmp_path, quick):
    """Padding of every length, odd and zero, before a stamp whose own size varies."""
    path = tmp_path / "m.gguf"
    for length, padding in itertools.product(range(64), (b"\0", b"\xab")):
        keys = [key("k", Value.string("x" * length)), key(SAMPLING, Value.uint32(1))]
        original = shape(keys, padding=padding)
        write_bytes(path, original)
        stamp(path, 2.5, True)
        header = read_header(path)
        gap = path.read_bytes()[header.header_end : header.data_start]
        assert gap == bytes(len(gap))
        stamp(path, 3.0, bool(length % 2))
        strip(path)
        assert path.read_bytes() == original


def test_padding_is_kept_only_where_it_says_something(tmp_path):
    for padding, kept in ((b"\0", False), (b"\x01", True)):
        header = read_header(write_bytes(tmp_path / "m.gguf", shape(padding=padding)))
        gap = header.data_start - header.header_end
        assert gap > 0
        assert header.padding() == (padding * gap if kept else b"")
        assert list(padding_edits(header)) == (["edgecal.previous.padding"] if kept else [])
    nothing = read_header(write_bytes(tmp_path / "m.gguf", shape(n_tensors=0, tail=b"\x01")))
    assert nothing.padding() == b""


def test_absurd_padding_is_refused_and_zeros_of_any_length_are_not(tmp_path):
    alignment = 1 << 22
    for padding in (b"\0", b"\x01"):
        path = write_bytes(tmp_path / "m.gguf", shape(alignment=alignment, n_tensors=1, padding=padding))
        header = read_header(path)
        if padding == b"\0":
            assert header.padding() == b""
        else:
            with pytest.raises(InputError, match="at most 1048576"):
                header.padding()


def test_a_padding_that_cannot_be_meant_any_more_is_zeros(tmp_path):
    """Another key was added after the stamp: the kept padding has the wrong length for the stripped file."""
    path = write_bytes(tmp_path / "m.gguf", shape(padding=b"\xab"))
    stamp(path, 2.5, True)
    header = read_header(path)
    write_edited(header, path, changes={"other": Value.string("x" * 3)})
    strip(path)
    header = read_header(path)
    assert header.keys[-1] == "other"
    assert header.padding() == b""
    assert [name for name in header.keys if name.startswith("edgecal.")] == []


def test_everything_of_ours_goes_and_nothing_else(tmp_path):
    path = write_bytes(
        tmp_path / "m.gguf",
        shape([*KEYS, key("edgecal.unheard.of", NESTED), key("edgecal", Value.uint32(1))]),
    )
    strip(path)
    assert path.read_bytes() == shape([*KEYS, key("edgecal", Value.uint32(1))])


def test_a_file_without_anything_of_ours_stays_as_it_is(tmp_path):
    for data in SHAPES.values():
        header = read_header(write_bytes(tmp_path / "m.gguf", data))
        assert strip_edits(header) == ({}, frozenset())


def test_a_temperature_that_somebody_set_after_the_stamp_stays(tmp_path):
    path = write_bytes(tmp_path / "m.gguf", SHAPES["sampling first"])
    stamp(path, 2.5, True)
    write_edited(read_header(path), path, changes={SAMPLING: Value.float32(0.9)})
    strip(path)
    assert path.read_bytes() == shape(with_sampling(Value.float32(0.9), 0))


def test_a_stamp_that_makes_no_sense_can_be_stripped(tmp_path):
    path = write_bytes(tmp_path / "m.gguf", shape([*KEYS, key("edgecal.temperature", Value.string("hot"))]))
    strip(path)
    assert path.read_bytes() == shape()


def test_a_previous_temperature_that_is_no_number_is_refused(tmp_path):
    ours = [
        key("edgecal.temperature", Value.float32(2)),
        key(SAMPLING, Value.float32(2)),
        key("edgecal.previous.sampling.temp", Value.string("warm")),
    ]
    header = read_header(write_bytes(tmp_path / "m.gguf", shape([*KEYS, *ours])))
    with pytest.raises(InputError, match="STRING"):
        strip_edits(header)


BAKED = shape([*KEYS, key("edgecal.baked.temperature", Value.float32(2.5))])


def test_a_baked_file_is_neither_stamped_nor_stripped(tmp_path):
    header = read_header(write_bytes(tmp_path / "m.gguf", BAKED))
    with pytest.raises(InputError, match=r"edgecal unbake.*--force-baked"):
        calibration_edits(header, record(2.5))
    changes, _ = calibration_edits(header, record(2.5), force_baked=True)
    assert changes["edgecal.temperature"] == Value.float32(2.5)
    with pytest.raises(InputError, match="edgecal unbake"):
        strip_edits(header)
    shards = find_shards(tmp_path / "m.gguf")
    with pytest.raises(InputError, match="--force-baked"):
        write_calibrated(shards, plan_output(shards, tmp_path / "o.gguf"), record(2.5))
    write_calibrated(shards, plan_output(shards, tmp_path / "o.gguf"), record(2.5), force_baked=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.gguf", "o.gguf"]


def split(folder, prefix="m"):
    """Three shards; the first holds the metadata and no tensors."""
    common = [key("split.count", Value.of(ValueType.UINT16, 3)), key("split.tensors.count", Value.uint32(2))]
    files = []
    for index in range(3):
        keys = [*(KEYS if index == 0 else []), *common, key("split.no", Value.of(ValueType.UINT16, index))]
        tensors = [bare_tensor(f"w{index}", [16])] if index else []
        data = raw_gguf(keys, tensors, bytes(range(64)) if index else b"", padding=b"\x05")
        files.append(write_bytes(folder / f"{prefix}-{index + 1:05d}-of-00003.gguf", data))
    return files


def test_split_models(tmp_path):
    files = split(tmp_path)
    originals = [file.read_bytes() for file in files]
    shards = find_shards(files[0])
    stamped = tmp_path / "s-00001-of-00003.gguf"
    write_calibrated(shards, plan_output(shards, stamped), record(2.5))
    assert [file.read_bytes() for file in files] == originals
    shards = find_shards(stamped)
    changes, remove = strip_edits(shards.header)
    back = tmp_path / "b-00001-of-00003.gguf"
    written = write_output(plan_output(shards, back), changes=changes, remove=remove, verify=True)
    found = find_shards(back)
    assert [path.read_bytes() for path in found.paths] == originals
    assert len(written.siblings) == 2


def test_a_temperature_of_any_size_of_file(tmp_path, quick):
    """Random files: keys of random kinds and lengths, alignments, padding, tensors."""
    chance = random.Random(4)
    path = tmp_path / "m.gguf"
    for _ in range(60):
        keys = [
            key(
                f"k{i}",
                chance.choice(
                    [
                        NESTED,
                        Value.string("x" * chance.randrange(90)),
                        Value.array(ValueType.BOOL, [True] * chance.randrange(9)),
                        Value.of(ValueType.UINT64, 2**64 - 1),
                    ]
                ),
            )
            for i in range(chance.randrange(6))
        ]
        if chance.random() < 0.5:
            keys.insert(chance.randint(0, len(keys)), key(SAMPLING, Value.float32(chance.random() * 3)))
        original = shape(
            keys,
            alignment=chance.choice([1, 2, 16, 32, 128, 1024]),
            version=chance.choice([2, 3]),
            n_tensors=chance.randrange(6),
            padding=chance.choice([b"\0", b"\x01", b"\xff"]),
            tail=chance.choice([b"", b"tail"]),
        )
        write_bytes(path, original)
        for _ in range(chance.randint(1, 3)):
            stamp(path, *chance.choice(STAMPS), in_place=chance.random() < 0.5)
        strip(path, in_place=chance.random() < 0.5)
        assert path.read_bytes() == original
