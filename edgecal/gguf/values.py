"""GGUF values: their types, their bytes (little-endian, the same in versions 2 and 3), and their form as text.

A value is its type and its payload (`Value.raw`), the bytes that follow the type tag in a file, so two
values are equal exactly when a file holds the same bytes for them, NaN included. For an array the payload
starts with the element type and the count.

Text is UTF-8 with `surrogateescape`: bytes that are not UTF-8 survive decoding and encoding unchanged.

In text, types are GGUF's names in any case (`uint32`, `FLOAT32`, `string`), arrays `array[float32]` and, nested,
`array[array[string]]`, with their items as JSON.
"""

from __future__ import annotations

import enum
import json
import operator
import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgecal.errors import InputError

if TYPE_CHECKING:  # loaded only for an array of numbers: importing numpy takes longer than reading a header
    import numpy as np
    import numpy.typing as npt

__all__ = [
    "TYPE_NAMES",
    "Value",
    "ValueType",
    "array_dtype",
    "decode_numbers",
    "decode_strings",
    "decode_text",
    "decode_value",
    "describe_type",
    "encode_text",
    "parse_typed",
    "quoted",
    "scalar_size",
]

PythonValue = Any  # int, float, bool, str, or a (nested) list of one of them


class ValueType(enum.IntEnum):
    """The tag before every value in a GGUF header."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12

    @property
    def is_integer(self) -> bool:
        """True for the eight integer types; BOOL is not a number."""
        return self in _INTEGERS

    @property
    def is_number(self) -> bool:
        """True for integers and floats; BOOL is not a number."""
        return self in _INTEGERS or self in (ValueType.FLOAT32, ValueType.FLOAT64)


_FORMATS: dict[ValueType, struct.Struct] = {
    ValueType.UINT8: struct.Struct("<B"),
    ValueType.INT8: struct.Struct("<b"),
    ValueType.UINT16: struct.Struct("<H"),
    ValueType.INT16: struct.Struct("<h"),
    ValueType.UINT32: struct.Struct("<I"),
    ValueType.INT32: struct.Struct("<i"),
    ValueType.FLOAT32: struct.Struct("<f"),
    ValueType.BOOL: struct.Struct("<B"),
    ValueType.UINT64: struct.Struct("<Q"),
    ValueType.INT64: struct.Struct("<q"),
    ValueType.FLOAT64: struct.Struct("<d"),
}
_INTEGERS = frozenset(
    {
        ValueType.UINT8,
        ValueType.INT8,
        ValueType.UINT16,
        ValueType.INT16,
        ValueType.UINT32,
        ValueType.INT32,
        ValueType.UINT64,
        ValueType.INT64,
    }
)
_BOOL_TYPES = frozenset({"bool", "bool_"})  # Python's, and numpy's under both of its names
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_ARRAY_HEAD = struct.Struct("<IQ")
ARRAY_HEAD_BYTES = _ARRAY_HEAD.size
MAX_ARRAY_DEPTH = 4


def scalar_size(type_: ValueType) -> int | None:
    """The size in bytes of one value of this type; None if it varies (STRING, ARRAY)."""
    format_ = _FORMATS.get(type_)
    return None if format_ is None else format_.size


def array_dtype(type_: ValueType) -> np.dtype[Any]:
    """The little-endian numpy dtype of an array's elements; BOOL is one byte each, non-zero for true."""
    import numpy as np

    if type_ is ValueType.BOOL:
        return np.dtype("<u1")
    return np.dtype(_FORMATS[type_].format)


def quoted(name: str) -> str:
    """A key's or tensor's name for a message: quoted, on one line, at most about 80 characters."""
    text = repr(name)
    return text if len(text) <= 80 else f"{text[:70]}...'"


def encode_text(text: str) -> bytes:
    """Encodes UTF-8; lone surrogates from `decode_text` become the bytes that they came from."""
    return text.encode("utf-8", "surrogateescape")


def decode_text(raw: bytes) -> str:
    """Decodes UTF-8; other bytes become lone surrogates, so that `encode_text` restores them."""
    return raw.decode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class Value:
    """A typed value: `type` and `raw`, the bytes that follow the type tag in a file.

    Make one with `Value.of` or `Value.array`; `python()` decodes it.
    """

    type: ValueType
    raw: bytes

    @staticmethod
    def of(type_: ValueType, value: int | float | bool | str) -> Value:
        """A scalar or a string; InputError if the value does not fit the type."""
        return Value(type_, _encode_element(type_, value))

    @staticmethod
    def array(element_type: ValueType, items: Any) -> Value:
        """An array of scalars or strings; for arrays of arrays, pass `Value` items of type ARRAY."""
        elements = list(items)
        if element_type is ValueType.ARRAY:
            if not all(isinstance(item, Value) and item.type is ValueType.ARRAY for item in elements):
                raise InputError("an array of arrays is made from arrays")
            body = b"".join(item.raw for item in elements)
        else:
            body = b"".join(_encode_element(element_type, item) for item in elements)
        return Value(ValueType.ARRAY, _ARRAY_HEAD.pack(element_type, len(elements)) + body)

    @staticmethod
    def uint32(value: int) -> Value:
        return Value.of(ValueType.UINT32, value)

    @staticmethod
    def float32(value: float) -> Value:
        return Value.of(ValueType.FLOAT32, value)

    @staticmethod
    def string(value: str) -> Value:
        return Value.of(ValueType.STRING, value)

    def python(self) -> PythonValue:
        """int, float, bool, str, or a list of them (nested for an array of arrays)."""
        return decode_value(self.type, self.raw)


def _encode_element(type_: ValueType, value: Any) -> bytes:
    if type_ is ValueType.ARRAY:
        raise InputError("an array is made with Value.array")
    if type_ is ValueType.STRING:
        if not isinstance(value, str):
            raise InputError(f"a STRING must be text, got {value!r}")
        raw = encode_text(value)
        return _U64.pack(len(raw)) + raw
    if type_ is ValueType.BOOL:
        if type(value).__name__ not in _BOOL_TYPES:
            raise InputError(f"a BOOL must be true or false, got {value!r}")
        return b"\x01" if value else b"\x00"
    if type_ in _INTEGERS:
        try:
            value = operator.index(value)
        except TypeError:
            raise InputError(f"{type_.name} must be a whole number, got {value!r}") from None
    try:
        return _FORMATS[type_].pack(value)
    except (struct.error, OverflowError, TypeError):
        raise InputError(f"{value!r} does not fit the type {type_.name}") from None


def decode_value(type_: ValueType, raw: bytes) -> PythonValue:
    """Python value of a well-formed payload, as `Value.raw` defines it."""
    value, _ = _decode_at(type_, raw, 0)
    return value


def _decode_at(type_: ValueType, raw: bytes, position: int) -> tuple[PythonValue, int]:
    if type_ is ValueType.STRING:
        (length,) = _U64.unpack_from(raw, position)
        start = position + 8
        return decode_text(raw[start : start + length]), start + length
    if type_ is ValueType.ARRAY:
        element, count = _ARRAY_HEAD.unpack_from(raw, position)
        element_type = ValueType(element)
        position += _ARRAY_HEAD.size
        if scalar_size(element_type) is not None:
            format_ = struct.Struct(f"<{count}{_FORMATS[element_type].format[-1]}")
            numbers: list[Any] = list(format_.unpack_from(raw, position))
            if element_type is ValueType.BOOL:
                numbers = [number != 0 for number in numbers]
            return numbers, position + format_.size
        items = []
        for _ in range(count):
            item, position = _decode_at(element_type, raw, position)
            items.append(item)
        return items, position
    format_ = _FORMATS[type_]
    (number,) = format_.unpack_from(raw, position)
    return (number != 0 if type_ is ValueType.BOOL else number), position + format_.size


def decode_numbers(type_: ValueType, raw: bytes, position: int, count: int) -> npt.NDArray[Any]:
    """`count` numbers from `position` as a read-only array of their own dtype (bool_ for BOOL)."""
    import numpy as np

    numbers: npt.NDArray[Any] = np.frombuffer(raw, dtype=array_dtype(type_), count=count, offset=position)
    return numbers != 0 if type_ is ValueType.BOOL else numbers


def decode_strings(raw: bytes, position: int, count: int) -> list[bytes]:
    """`count` length-prefixed strings from `position`, undecoded: a token need not be valid UTF-8."""
    strings = []
    unpack_length = _U64.unpack_from
    for _ in range(count):
        start = position + 8
        position = start + unpack_length(raw, position)[0]
        strings.append(raw[start:position])
    return strings


TYPE_NAMES = tuple(type_.name.lower() for type_ in ValueType if type_ is not ValueType.ARRAY)

_INTEGER = re.compile(r"[+-]?[0-9]+|[+-]?0[xX][0-9a-fA-F]+", re.ASCII)
_FLOAT = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(inf|infinity|nan)", re.I)
_MAX_DIGITS = 400  # more digits than the largest float64 has

Types = tuple[ValueType, ...]  # from the outside in: (ARRAY, FLOAT32) is an array of floats


def parse_typed(type_text: str, text: str) -> Value:
    """Parses `text` as a value of the type that `type_text` names.

    Whole numbers are decimal, or hexadecimal after 0x; floats may be `inf` and `nan`; booleans are `true` and
    `false`; a string is taken verbatim. InputError: an unknown type, text that is no such value, a number out of the
    type's range, arrays nested more than 4 deep.
    """
    types = _parse_type(type_text)
    if types[0] is not ValueType.ARRAY:
        return _scalar(types[0], text)
    try:
        items = json.loads(text, parse_float=_JsonFloat)
    except (ValueError, RecursionError) as error:
        reason = f": {error}" if isinstance(error, json.JSONDecodeError) else ""
        raise InputError(f"the items of {type_text} must be a JSON list, such as [1, 2]{reason}") from None
    return _array(types, items, type_text)


class _JsonFloat(float):
    """A number written with a point or an exponent, which is never taken for a whole number."""


def _parse_type(text: str) -> Types:
    rest, types = text.strip().lower(), []
    while (match := re.fullmatch(r"array\[(.*)\]", rest)) is not None:
        types.append(ValueType.ARRAY)
        rest = match[1].strip()
    if len(types) > MAX_ARRAY_DEPTH:
        raise InputError(f"{text} nests arrays {len(types)} deep, at most {MAX_ARRAY_DEPTH} are allowed")
    if rest not in TYPE_NAMES:
        hint = " (say of what: array[float32])" if rest in ("array", "arr") else ""
        raise InputError(
            f"{quoted(text)} is not a type{hint}; known are {', '.join(TYPE_NAMES)} and array[...] of one"
        )
    return (*types, ValueType[rest.upper()])


def _scalar(type_: ValueType, text: str) -> Value:
    if type_ is ValueType.STRING:
        return _string(text)
    plain = text.strip()
    if type_ is ValueType.BOOL:
        if plain.lower() not in ("true", "false"):
            raise InputError(f"{quoted(text)} is not a bool: give true or false")
        return Value.of(type_, plain.lower() == "true")
    name = type_.name.lower()
    if len(plain) > _MAX_DIGITS:
        raise InputError(f"{quoted(text)} is too long for {name}")
    if type_.is_integer:
        if _INTEGER.fullmatch(plain) is None:
            raise InputError(f"{quoted(text)} is not a whole number, which {name} needs")
        return _number(type_, int(plain, 16 if "x" in plain.lower() else 10))
    if _FLOAT.fullmatch(plain) is None:
        raise InputError(f"{quoted(text)} is not a number, which {name} needs")
    number = float(plain)
    if number in (float("inf"), float("-inf")) and "inf" not in plain.lower():
        raise InputError(f"{quoted(text)} is beyond the range of {name}")
    return _number(type_, number)


def _number(type_: ValueType, number: float) -> Value:
    if type_.is_integer:
        bits = int(type_.name.lower().removeprefix("u").removeprefix("int"))
        low, high = (
            (0, 2**bits - 1) if type_.name.startswith("U") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        )
        if not low <= number <= high:
            raise InputError(
                f"{quoted(str(number))} is out of the range of {type_.name.lower()}: {low} to {high}"
            )
    try:
        return Value.of(type_, number)
    except InputError:
        raise InputError(f"{quoted(str(number))} is beyond the range of {type_.name.lower()}") from None


def _string(text: str) -> Value:
    try:
        return Value.string(text)
    except UnicodeEncodeError:
        raise InputError(f"{quoted(text)} holds half a character (a lone surrogate)") from None


def _array(types: Types, items: Any, said: str) -> Value:
    if not isinstance(items, list):
        raise InputError(f"{said} needs a JSON list, got {quoted(json.dumps(items))}")
    inner = types[1]
    if inner is ValueType.ARRAY:
        return Value.array(inner, [_array(types[1:], item, said) for item in items])
    body = [_item(inner, item) for item in items]
    head = Value.array(inner, []).raw[:4]
    return Value(ValueType.ARRAY, head + len(body).to_bytes(8, "little") + b"".join(body))


def _item(type_: ValueType, item: Any) -> bytes:
    wanted = f"an item of {type_.name.lower()}"
    if type_ is ValueType.STRING:
        if not isinstance(item, str) or any("\ud800" <= char <= "\udfff" for char in item):
            raise InputError(f"{quoted(json.dumps(item))} cannot be {wanted}: expected text")
        return _string(item).raw
    if type_ is ValueType.BOOL:
        if not isinstance(item, bool):
            raise InputError(f"{quoted(json.dumps(item))} cannot be {wanted}: expected true or false")
        return Value.of(type_, item).raw
    is_whole = isinstance(item, int) and not isinstance(item, bool)
    if not (is_whole or (isinstance(item, float) and not type_.is_integer)):
        expected = "a whole number" if type_.is_integer else "a number"
        raise InputError(f"{quoted(json.dumps(item))} cannot be {wanted}: expected {expected}")
    if isinstance(item, _JsonFloat) and item in (float("inf"), float("-inf")):
        raise InputError(f"a number in the list is beyond the range of {type_.name.lower()}")
    return _number(type_, item).raw


def describe_type(value: Value) -> str:
    """A value's type in the words that `parse_typed` reads: `uint32`, `array[float32]`, ..."""
    return _describe(value.type, value.raw)


def _describe(type_: ValueType, raw: bytes) -> str:
    if type_ is not ValueType.ARRAY:
        return type_.name.lower()
    inner = ValueType(int.from_bytes(raw[:4], "little"))
    # For arrays in an array, the first shows the type of all.
    nested = inner is ValueType.ARRAY and len(raw) > 12
    return f"array[{_describe(inner, raw[12:]) if nested else inner.name.lower()}]"
