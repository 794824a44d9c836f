"""Typed values: their bytes, their limits, and that decoding gives back what was encoded."""

import math
import struct

import numpy as np
import pytest

from edgecal.errors import InputError
from edgecal.gguf.values import Value, ValueType, decode_text, encode_text, quoted

SCALARS = [
    (ValueType.UINT8, 255, b"\xff"),
    (ValueType.INT8, -1, b"\xff"),
    (ValueType.UINT16, 0x1234, b"\x34\x12"),
    (ValueType.INT16, -2, b"\xfe\xff"),
    (ValueType.UINT32, 1, b"\x01\0\0\0"),
    (ValueType.INT32, -1, b"\xff" * 4),
    (ValueType.UINT64, 2**64 - 1, b"\xff" * 8),
    (ValueType.INT64, -(2**63), b"\0" * 7 + b"\x80"),
    (ValueType.FLOAT32, 1.5, b"\0\0\xc0\x3f"),
    (ValueType.FLOAT64, 1.5, b"\0\0\0\0\0\0\xf8\x3f"),
    (ValueType.BOOL, True, b"\x01"),
    (ValueType.BOOL, False, b"\0"),
    (ValueType.STRING, "é", b"\x02\0\0\0\0\0\0\0\xc3\xa9"),
    (ValueType.STRING, "", b"\0" * 8),
]


@pytest.mark.parametrize(("type_", "python", "raw"), SCALARS)
def test_scalar_bytes(type_, python, raw):
    value = Value.of(type_, python)
    assert value.raw == raw
    assert value.python() == python
    assert type(value.python()) is type(python)


@pytest.mark.parametrize(("type_", "python", "raw"), SCALARS)
def test_array_bytes(type_, python, raw):
    value = Value.array(type_, [python, python, python])
    assert value.type is ValueType.ARRAY
    assert value.raw == struct.pack("<IQ", type_, 3) + 3 * raw
    assert value.python() == [python] * 3


def test_empty_and_nested_arrays():
    assert Value.array(ValueType.STRING, []).python() == []
    inner = [Value.array(ValueType.UINT8, [1, 2]), Value.array(ValueType.STRING, ["a", ""])]
    assert Value.array(ValueType.ARRAY, inner).python() == [[1, 2], ["a", ""]]


def test_nan_values_are_equal_by_their_bytes():
    assert Value.float32(math.nan) == Value.float32(math.nan)
    assert Value.float32(0.0) != Value.float32(-0.0)


def test_any_bytes_survive_as_text():
    raw = bytes(range(256))
    assert encode_text(decode_text(raw)) == raw


def test_numpy_numbers_are_taken():
    assert Value.uint32(np.int64(7)) == Value.uint32(7)
    assert Value.float32(np.float64(0.5)) == Value.float32(0.5)


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        (ValueType.UINT8, 256),
        (ValueType.UINT32, -1),
        (ValueType.INT64, 2**63),
        (ValueType.UINT32, 1.0),
        (ValueType.FLOAT32, 1e39),
        (ValueType.FLOAT32, "1"),
        (ValueType.BOOL, 1),
        (ValueType.STRING, 1),
        (ValueType.STRING, b"a"),
        (ValueType.ARRAY, [1]),
    ],
)
def test_a_value_that_does_not_fit_is_refused(type_, value):
    with pytest.raises(InputError) as caught:
        Value.of(type_, value)
    assert "\n" not in str(caught.value)


def test_an_array_of_arrays_takes_only_arrays():
    with pytest.raises(InputError):
        Value.array(ValueType.ARRAY, [1])


def test_names_in_messages_are_short_and_on_one_line():
    assert quoted("a.b") == "'a.b'"
    assert "\n" not in quoted("a\nb")
    assert len(quoted("x" * 10_000)) <= 80
    quoted(decode_text(b"\xff")).encode("utf-8")  # can be printed
