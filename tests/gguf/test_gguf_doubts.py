"""What a file says against its own temperature: its keys, and that nothing on the way loses them."""

import math

import pytest
from support.gguf_files import bare_tensor, key, raw_gguf, write_bytes

from edgecal.errors import InputError
from edgecal.gguf.header import read_header
from edgecal.gguf.rewrite import write_edited
from edgecal.gguf.values import Value, ValueType
from edgecal.stamping.changes import calibration_edits, strip_edits
from edgecal.stamping.record import CalibrationRecord, read_calibration, read_doubts

REASONS = ("the bracket is too wide", "labels say that it does harm")


def model(tmp_path, *keys):
    data = raw_gguf(
        [key("general.architecture", Value.string("llama")), *keys], [bare_tensor("w", [2])], bytes(8)
    )
    return write_bytes(tmp_path / "m.gguf", data)


def stamped(tmp_path, **facts):
    header = read_header(model(tmp_path))
    changes, remove = calibration_edits(header, CalibrationRecord(2.0, **facts))
    write_edited(header, tmp_path / "out.gguf", changes=changes, remove=remove)
    return read_header(tmp_path / "out.gguf")


def test_the_keys_their_types_and_back(tmp_path):
    header = stamped(tmp_path, bracket=(1.5, None), settled=False, harmful=True, reasons=REASONS)
    assert header.type_of("edgecal.settled") is header.type_of("edgecal.harmful") is ValueType.BOOL
    assert header.entries["edgecal.bracket"].element_type is ValueType.FLOAT32
    assert header.entries["edgecal.reasons"].element_type is ValueType.STRING
    low, high = header.get("edgecal.bracket")
    assert low == 1.5 and math.isnan(high)
    record = read_calibration(header)
    assert (record.bracket, record.settled, record.harmful) == ((1.5, None), False, True)
    assert record.reasons == record.doubts == REASONS
    doubts = read_doubts(header)
    assert len(doubts) == 2 and all(str(header.path) in doubt and "--unsettled" in doubt for doubt in doubts)


def test_a_settled_file_and_one_from_before_have_no_doubts(tmp_path):
    assert read_doubts(read_header(model(tmp_path))) == []
    assert read_doubts(stamped(tmp_path)) == []
    header = stamped(tmp_path, bracket=(1.5, 2.5), settled=True, harmful=False)
    assert read_doubts(header) == [] and header.get("edgecal.settled") is True
    assert "edgecal.reasons" not in header


def test_a_better_fit_takes_the_doubts_away_and_strip_gives_the_first_bytes(tmp_path):
    header = stamped(tmp_path, bracket=(None, None), settled=False, harmful=True, reasons=REASONS)
    changes, remove = calibration_edits(header, CalibrationRecord(3.0, bracket=(2.5, 3.5), settled=True))
    write_edited(header, tmp_path / "again.gguf", changes=changes, remove=remove)
    again = read_header(tmp_path / "again.gguf")
    assert read_doubts(again) == [] and not {"edgecal.harmful", "edgecal.reasons"} & set(again.keys)
    changes, remove = strip_edits(header)
    write_edited(header, tmp_path / "stripped.gguf", changes=changes, remove=remove)
    assert (tmp_path / "stripped.gguf").read_bytes() == (tmp_path / "m.gguf").read_bytes()


def test_a_mark_without_a_reason_is_a_doubt_too_and_no_reason_breaks_a_line(tmp_path):
    for marks in ({"settled": False}, {"harmful": True}):
        assert len(read_doubts(stamped(tmp_path, **marks))) == 1
    (doubt,) = read_calibration(stamped(tmp_path, settled=False, reasons=("a\nrm -rf\x1b[1m b",))).doubts
    assert doubt == "a rm -rf [1m b"


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("bracket", Value.float32(2.0), "not two FLOAT32"),
        ("bracket", Value.array(ValueType.FLOAT32, [2.0]), "not two FLOAT32"),
        ("bracket", Value.array(ValueType.FLOAT32, [-1.0, 2.0]), "positive finite"),
        ("bracket", Value.array(ValueType.FLOAT32, [1.0, math.inf]), "positive finite"),
        ("settled", Value.string("no"), "expected BOOL"),
        ("harmful", Value.float32(0.0), "expected BOOL"),
        ("reasons", Value.string("why"), "not an array of STRING"),
        ("reasons", Value.array(ValueType.FLOAT32, [1.0]), "not an array of STRING"),
    ],
)
def test_what_edgecal_did_not_write_is_refused(tmp_path, name, value, part):
    path = model(tmp_path, key("edgecal.temperature", Value.float32(2.0)), key(f"edgecal.{name}", value))
    with pytest.raises(InputError, match=part) as caught:
        read_calibration(read_header(path))
    assert f"edgecal.{name}" in str(caught.value)
