"""Values typed by people: every type at its limits, and a clear refusal for everything else."""

import json
import math

import pytest

from edgecal.errors import InputError
from edgecal.gguf.values import TYPE_NAMES, Value, ValueType, describe_type, parse_typed

LIMITS = {
    "uint8": (0, 2**8 - 1),
    "int8": (-(2**7), 2**7 - 1),
    "uint16": (0, 2**16 - 1),
    "int16": (-(2**15), 2**15 - 1),
    "uint32": (0, 2**32 - 1),
    "int32": (-(2**31), 2**31 - 1),
    "uint64": (0, 2**64 - 1),
    "int64": (-(2**63), 2**63 - 1),
}


@pytest.mark.parametrize("name", LIMITS)
def test_whole_numbers_up_to_their_limits(name):
    type_ = ValueType[name.upper()]
    for limit, beyond in zip(LIMITS[name], (-1, 1), strict=True):
        assert parse_typed(name, str(limit)) == Value.of(type_, limit)
        assert parse_typed(f"array[{name}]", f"[{limit}]") == Value.array(type_, [limit])
        for text in (str(limit + beyond), hex(limit + beyond)):
            with pytest.raises(InputError, match=f"out of the range of {name}: {LIMITS[name][0]} to"):
                parse_typed(name, text)
        with pytest.raises(InputError, match="out of the range"):
            parse_typed(f"array[{name}]", f"[{limit + beyond}]")


def test_names_in_any_case_and_all_of_them():
    assert set(TYPE_NAMES) == {type_.name.lower() for type_ in ValueType} - {"array"}
    for name in ("float32", "FLOAT32", " Float32 "):
        assert parse_typed(name, " 0.5 ") == Value.float32(0.5)
    assert parse_typed("Array[ FLOAT32 ]", "[0.5]") == Value.array(ValueType.FLOAT32, [0.5])


@pytest.mark.parametrize(
    ("type_", "text", "value"),
    [
        ("uint8", "0x1F", 31),
        ("int8", "-0x80", -128),
        ("int32", "+7", 7),
        ("float32", "-1e-3", pytest.approx(-1e-3, rel=1e-7)),
        ("float32", "3.4028234e38", pytest.approx(3.4028234e38, rel=1e-7)),
        ("float64", ".5", 0.5),
        ("float64", "2", 2.0),
        ("float32", "-inf", -math.inf),
        ("float64", "Infinity", math.inf),
        ("bool", "true", True),
        ("BOOL", "False", False),
        ("string", "", ""),
        ("string", " spaces stay ", " spaces stay "),
        ("string", "@file", "@file"),
        ("string", "not utf-8 \udcff", "not utf-8 \udcff"),
        ("array[float32]", "[1, 2.5, -0.5]", [1.0, 2.5, -0.5]),
        ("array[bool]", "[true, false]", [True, False]),
        ("array[string]", '["", "\\u00e9", "\\ud83d\\ude00"]', ["", "é", "\U0001f600"]),
        ("array[uint64]", "[18446744073709551615]", [2**64 - 1]),
        ("array[int8]", "[]", []),
        ("array[array[string]]", '[["a"], []]', [["a"], []]),
        ("array[array[array[array[uint8]]]]", "[[[[1]]]]", [[[[1]]]]),
    ],
)
def test_what_is_typed_is_what_is_stored(type_, text, value):
    found = parse_typed(type_, text)
    assert found.python() == value
    assert describe_type(found) == type_.lower() or not found.python()


def test_not_a_number_is_one():
    assert math.isnan(parse_typed("float32", "nan").python())
    assert math.isnan(parse_typed("array[float64]", "[NaN]").python()[0])


@pytest.mark.parametrize(
    ("type_", "text", "part"),
    [
        ("uint8", "", "not a whole number"),
        ("uint8", "1.0", "not a whole number"),
        ("uint8", "1_0", "not a whole number"),
        ("uint8", "٣", "not a whole number"),
        ("uint8", "0b1", "not a whole number"),
        ("uint8", "9" * 5000, "too long"),
        ("float32", "1e39", "beyond the range of float32"),
        ("float64", "1e309", "beyond the range of float64"),
        ("float32", "1,5", "not a number"),
        ("float32", "1_0", "not a number"),
        ("float32", "٣", "not a number"),
        ("float32", ".", "not a number"),
        ("bool", "1", "give true or false"),
        ("bool", "yes", "give true or false"),
        ("string", "\ud800", "half a character"),
        ("int", "1", "known are uint8"),
        ("", "1", "known are uint8"),
        ("array", "[1]", r"array\[float32\]"),
        ("array[]", "[1]", "known are"),
        ("array[array]", "[[1]]", "say of what"),
        ("array[uint8", "[1]", "known are"),
        ("array[array[array[array[array[int8]]]]]", "[]", "at most 4"),
        ("array[uint8]", "1", "needs a JSON list"),
        ("array[uint8]", '{"a": 1}', "needs a JSON list"),
        ("array[uint8]", "[1", "must be a JSON list"),
        ("array[uint8]", "[" * 100_000, "must be a JSON list"),
        ("array[uint8]", "[1.0]", "expected a whole number"),
        ("array[uint8]", "[true]", "expected a whole number"),
        ("array[uint8]", "[null]", "expected a whole number"),
        ("array[float32]", "[true]", "expected a number"),
        ("array[float32]", '["1"]', "expected a number"),
        ("array[float32]", "[1e400]", "beyond the range"),
        ("array[float32]", "[1e39]", "beyond the range of float32"),
        ("array[float64]", f"[{'9' * 400}]", "beyond the range of float64"),
        ("array[bool]", "[1]", "expected true or false"),
        ("array[string]", "[1]", "expected text"),
        ("array[string]", '["\\ud800"]', "expected text"),
        ("array[string]", '["\\udc80"]', "expected text"),
        ("array[array[uint8]]", "[1]", "needs a JSON list"),
    ],
)
def test_what_cannot_be_stored_is_refused_in_one_line(type_, text, part):
    with pytest.raises(InputError, match=part) as caught:
        parse_typed(type_, text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_float_is_written_as_the_nearest_there_is():
    for text in ("0.1", "2.31", "1e-45", "16777217"):
        assert parse_typed("float32", text) == Value.float32(float(text))
        assert parse_typed("array[float64]", f"[{text}]") == Value.array(
            ValueType.FLOAT64, [json.loads(text)]
        )
