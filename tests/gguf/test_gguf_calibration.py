"""The calibration keys, and that the author's sampling temperature survives every history of stamping."""

import itertools
import math
import os

import pytest
from support.gguf_files import bare_tensor, key, raw_gguf, write_bytes

import edgecal
from edgecal.errors import InputError
from edgecal.gguf.header import read_header
from edgecal.gguf.rewrite import write_edited
from edgecal.gguf.values import Value, ValueType
from edgecal.stamping.changes import calibration_edits
from edgecal.stamping.record import CalibrationRecord, read_calibration, read_sampling

RECORD = CalibrationRecord(
    temperature=2.31,
    interval=(2.2, 2.43),
    method="dual-align",
    variant="ise=mixture",
    prompts_count=500,
    prompts_sha256="ab" * 32,
    agreement_rate=0.81,
    base_name="Base",
    base_sha256="cd" * 32,
    llama_cpp="b1234",
)
TYPES = {
    "edgecal.version": ValueType.STRING,
    "edgecal.temperature": ValueType.FLOAT32,
    "edgecal.interval": ValueType.ARRAY,
    "edgecal.method": ValueType.STRING,
    "edgecal.variant": ValueType.STRING,
    "edgecal.target": ValueType.STRING,
    "edgecal.prompts.count": ValueType.UINT32,
    "edgecal.prompts.sha256": ValueType.STRING,
    "edgecal.agreement_rate": ValueType.FLOAT32,
    "edgecal.base.name": ValueType.STRING,
    "edgecal.base.sha256": ValueType.STRING,
    "edgecal.llama_cpp": ValueType.STRING,
}
SAMPLING = "general.sampling.temp"
PREVIOUS = "edgecal.previous.sampling.temp"
ORIGINAL = "edgecal.previous.sampling.original"


def model(tmp_path, *keys):
    data = raw_gguf(
        [key("general.architecture", Value.string("llama")), *keys], [bare_tensor("w", [2])], bytes(8)
    )
    return write_bytes(tmp_path / "m.gguf", data)


def stamp(path, temperature, sampling_key=True):
    header = read_header(path)
    changes, remove = calibration_edits(header, CalibrationRecord(temperature), sampling_key)
    write_edited(header, path, changes=changes, remove=remove)


def test_the_keys_and_their_types(tmp_path):
    path = model(tmp_path)
    header = read_header(path)
    changes, remove = calibration_edits(header, RECORD)
    after = write_edited(header, path, changes=changes, remove=remove)
    assert after.keys == ("general.architecture", *TYPES, SAMPLING)
    assert {name: after.type_of(name) for name in TYPES} == TYPES
    assert after.entries["edgecal.interval"].element_type is ValueType.FLOAT32
    assert after.value(SAMPLING) == after.value("edgecal.temperature") == Value.float32(2.31)
    assert after.get("edgecal.target") == "choices"
    assert after.get("edgecal.version") == edgecal.__version__
    found = read_calibration(after)
    assert found is not None
    for name, value in vars(RECORD).items():
        assert getattr(found, name) == (
            pytest.approx(value, rel=1e-7) if isinstance(value, (float, tuple)) else value
        )
    assert read_calibration(header) is None


def test_the_same_record_gives_the_same_bytes_and_a_second_stamp_changes_nothing(tmp_path):
    path = model(tmp_path, key(SAMPLING, Value.float32(0.7)))
    for round_ in range(3):
        header = read_header(path)
        changes, remove = calibration_edits(header, RECORD)
        write_edited(header, path, changes=changes, remove=remove)
        if round_ == 0:
            first = path.read_bytes()
        assert path.read_bytes() == first


def test_a_new_record_replaces_the_old_one_as_a_whole(tmp_path):
    path = model(tmp_path)
    header = read_header(path)
    changes, remove = calibration_edits(header, RECORD)
    write_edited(header, path, changes=changes, remove=remove)
    stamp(path, 1.5)
    assert read_calibration(read_header(path)) == CalibrationRecord(1.5)


AUTHORS = {
    "none": None,
    "0.6": Value.float32(0.6),
    "the very value of a fit": Value.float32(2.0),
    "float64": Value.of(ValueType.FLOAT64, 0.7),
    "float64 equal to a fit": Value.of(ValueType.FLOAT64, 2.0),
    "integer": Value.uint32(1),
    "not finite": Value.float32(math.nan),
}
FITS = [2.0, 3.0]


DEPTH = 3


@pytest.mark.parametrize("author", AUTHORS)
def test_no_history_loses_the_authors_temperature(tmp_path, monkeypatch, author):
    """Every sequence of up to three stamps (each value, with and without the sampling key)."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)  # durability is tested elsewhere
    authors = AUTHORS[author]
    path = model(tmp_path, *([] if authors is None else [key(SAMPLING, authors)]))

    def go_on(depth):
        here = path.read_bytes()
        for fit, sampling_key in itertools.product(FITS, (True, False)):
            path.write_bytes(here)
            stamp(path, fit, sampling_key)
            check_history(read_header(path), authors, fit, sampling_key)
            if depth > 1:
                go_on(depth - 1)

    go_on(DEPTH)


def check_history(header, authors, fit, sampling_key):
    number = None if authors is None else pytest.approx(float(authors.python()), rel=1e-7, nan_ok=True)
    record, sampling = read_calibration(header), read_sampling(header)
    assert record is not None
    assert record.temperature == fit
    assert sampling.authors == number
    if sampling_key:
        assert header.value(SAMPLING) == Value.float32(fit)
        assert sampling.ours
    else:  # the file samples as its author wanted
        assert (header.value(SAMPLING) if SAMPLING in header else None) == authors
    if PREVIOUS in header:  # nobody's value is ever called the previous one but the author's
        assert authors is not None
        assert header.type_of(PREVIOUS) is ValueType.FLOAT32
        assert header.get(PREVIOUS) == number
    kept = [header.value(name) for name in (SAMPLING, PREVIOUS, ORIGINAL) if name in header]
    assert authors is None or authors in kept
    others = [name for name in header.keys if not name.startswith("edgecal.") and name != SAMPLING]
    assert others == ["general.architecture"]


def test_the_sampling_key_alone_is_never_a_calibration(tmp_path):
    header = read_header(model(tmp_path, key(SAMPLING, Value.float32(2.3))))
    assert read_calibration(header) is None
    sampling = read_sampling(header)
    assert (sampling.ours, sampling.current) == (False, pytest.approx(2.3))
    assert read_sampling(read_header(model(tmp_path))).current is None


def test_without_the_sampling_key_only_ours_are_written(tmp_path):
    header = read_header(model(tmp_path, key(SAMPLING, Value.string("hot"))))
    changes, remove = calibration_edits(header, RECORD, sampling_key=False)
    assert set(changes) == set(TYPES)
    assert not remove


def test_an_authors_text_is_refused_with_a_way_out(tmp_path):
    for value in (Value.string("0.7"), Value.of(ValueType.BOOL, True), Value.array(ValueType.FLOAT32, [1])):
        header = read_header(model(tmp_path, key(SAMPLING, value)))
        with pytest.raises(InputError, match="--no-sampling-key"):
            calibration_edits(header, RECORD)


def set_by_hand(path, value):
    changes, remove = ({SAMPLING: value}, ()) if value is not None else ({}, (SAMPLING,))
    write_edited(read_header(path), path, changes=changes, remove=remove)


def test_a_value_set_by_other_means_after_a_stamp_takes_the_authors_place(tmp_path):
    path = model(tmp_path, key(SAMPLING, Value.float32(0.6)))
    stamp(path, 2.0)
    set_by_hand(path, Value.float32(0.9))
    assert read_sampling(read_header(path)).authors == pytest.approx(0.9)
    stamp(path, 3.0)
    assert read_header(path).value(PREVIOUS) == Value.float32(0.9)
    stamp(path, 3.0, sampling_key=False)
    assert read_header(path).value(SAMPLING) == Value.float32(0.9)


def test_a_sampling_key_removed_by_other_means_stays_away_without_it(tmp_path):
    path = model(tmp_path, key(SAMPLING, Value.float32(0.6)))
    stamp(path, 2.0)
    set_by_hand(path, None)
    stamp(path, 3.0, sampling_key=False)
    assert SAMPLING not in read_header(path)
    stamp(path, 3.0)
    assert read_sampling(read_header(path)).authors == pytest.approx(0.6)


WRONG = {
    "zero": {"edgecal.temperature": Value.float32(0)},
    "negative": {"edgecal.temperature": Value.float32(-1)},
    "nan": {"edgecal.temperature": Value.float32(math.nan)},
    "infinite": {"edgecal.temperature": Value.float32(math.inf)},
    "text": {"edgecal.temperature": Value.string("2")},
    "float64": {"edgecal.temperature": Value.of(ValueType.FLOAT64, 2)},
    "array": {"edgecal.temperature": Value.array(ValueType.FLOAT32, [2])},
    "interval of one": {"edgecal.interval": Value.array(ValueType.FLOAT32, [2])},
    "interval of texts": {"edgecal.interval": Value.array(ValueType.STRING, ["1", "2"])},
    "interval no array": {"edgecal.interval": Value.float32(2)},
    "interval reversed": {"edgecal.interval": Value.array(ValueType.FLOAT32, [3, 2])},
    "interval nan": {"edgecal.interval": Value.array(ValueType.FLOAT32, [math.nan, 2])},
    "method a number": {"edgecal.method": Value.uint32(1)},
    "count a text": {"edgecal.prompts.count": Value.string("500")},
    "rate above one": {"edgecal.agreement_rate": Value.float32(1.5)},
}


@pytest.mark.parametrize("name", WRONG)
def test_a_calibration_that_makes_no_sense_is_refused(tmp_path, name):
    values = {"edgecal.temperature": Value.float32(2), **WRONG[name]}
    header = read_header(model(tmp_path, *(key(key_, value) for key_, value in values.items())))
    (wrong,) = WRONG[name]
    for ask in (read_calibration, lambda header: calibration_edits(header, RECORD)):
        with pytest.raises(InputError) as caught:
            ask(header)
        assert wrong in str(caught.value)
        assert str(header.path) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf, 1e-60, 1e60])
def test_no_nonsense_is_written(tmp_path, temperature):
    with pytest.raises(InputError, match="positive finite"):
        calibration_edits(read_header(model(tmp_path)), CalibrationRecord(temperature))
