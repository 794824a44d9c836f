"""The originals of everything that baking changes: kept in the baked file, so that they can be put back.

A baked file holds, besides its temperature and version:

- `edgecal.baked.original.header_sha256`: hash of the original's bytes before its tensor data;
- `edgecal.baked.original.names`, `.positions`: the keys that were changed, removed or added, and each one's place
  among the original's keys (-1: it was not there);
- `edgecal.baked.original.key.<name>`: the original value, in its own type;
- `edgecal.baked.original.tensor.<name>`: the original bytes, UINT8;
- `edgecal.baked.original.padding`: the bytes between header and tensor data, only if they were not all zero.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from edgecal.errors import InputError
from edgecal.gguf.header import Header
from edgecal.gguf.rewrite import KeyList, header_bytes
from edgecal.gguf.values import Value, ValueType, quoted
from edgecal.stamping.record import (
    BAKED_PREFIX,
    BAKED_TEMPERATURE_KEY,
    BAKED_VERSION_KEY,
    CHANGED_KEY,
    baked_temperature,
)
from edgecal.version import __version__

__all__ = ["Originals", "keys_of_baked", "read_originals", "sha256_of_blocks"]

_ORIGINAL = f"{BAKED_PREFIX}original."
_SHA256_KEY = f"{_ORIGINAL}header_sha256"
_NAMES_KEY = f"{_ORIGINAL}names"
_POSITIONS_KEY = f"{_ORIGINAL}positions"
_KEY_PREFIX = f"{_ORIGINAL}key."
_TENSOR_PREFIX = f"{_ORIGINAL}tensor."
_PADDING_KEY = f"{_ORIGINAL}padding"


@dataclass(frozen=True)
class Originals:
    """What a baked file keeps of its original.

    Attributes
    ----------
    temperature: what the logits were divided by.
    keys: the original's keys in order, unless they were edited since; each with its value, or None for the baked file's
        own.
    tensors: name to original bytes.
    padding: the bytes between header and tensor data; empty for zeros.
    header_sha256: hash of the original's bytes before the tensor data, lower-case hex.
    """

    temperature: float
    keys: KeyList
    tensors: Mapping[str, bytes]
    padding: bytes
    header_sha256: str


def sha256_of_blocks(blocks: Iterable[bytes]) -> str:
    """Lower-case hex SHA-256 of all blocks together."""
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()


def keys_of_baked(
    header: Header,
    *,
    tau: float,
    changes: Mapping[str, Value],
    remove: Collection[str],
    tensors: Mapping[str, bytes],
    changed: Collection[str],
) -> KeyList:
    """All keys of the baked file in order, for `rewritten_draft`.

    Parameters
    ----------
    header: of the original's first file.
    tau: what the logits are divided by, a float32.
    changes, remove: keys to set and to remove; those that change nothing are left out of the record.
    tensors: name to original bytes of every tensor that is changed.
    changed: names of the tensors and keys that carry the temperature, for people.
    """
    changes = {
        name: value for name, value in changes.items() if name not in header or header.value(name) != value
    }
    remove = [name for name in remove if name in header]
    position_of = {name: position for position, name in enumerate(header.keys)}
    touched = [*changes, *remove]
    kept = {f"{_KEY_PREFIX}{name}": header.value(name) for name in touched if name in header}
    padding = b"".join(header_bytes(header, start=header.header_end))
    facts = {
        BAKED_TEMPERATURE_KEY: Value.float32(tau),
        BAKED_VERSION_KEY: Value.string(__version__),
        CHANGED_KEY: Value.array(ValueType.STRING, changed),
        _SHA256_KEY: Value.string(sha256_of_blocks(header_bytes(header))),
        _NAMES_KEY: Value.array(ValueType.STRING, touched),
        _POSITIONS_KEY: Value.array(ValueType.INT32, [position_of.get(name, -1) for name in touched]),
        **kept,
        **{f"{_TENSOR_PREFIX}{name}": _bytes_value(data) for name, data in tensors.items()},
        **({_PADDING_KEY: _bytes_value(padding)} if any(padding) else {}),
    }
    keys: list[tuple[str, Value | None]] = [
        (name, changes.get(name)) for name in header.keys if name not in remove
    ]
    keys += [(name, value) for name, value in changes.items() if name not in header]
    return [*keys, *facts.items()]


def read_originals(header: Header) -> Originals:
    """What a baked file keeps of its original, and the list of keys that undoes the baking.

    InputError: the file is not baked, or its record is incomplete or makes no sense.
    """
    tau = baked_temperature(header)
    if tau is None:
        raise InputError(f"{header.path}: is not baked, so there is nothing to unbake")
    names = _texts(header, _NAMES_KEY)
    positions = header.get(_POSITIONS_KEY)
    sha256 = header.get(_SHA256_KEY)
    if (
        not isinstance(positions, list)
        or len(positions) != len(names)
        or len(set(names)) != len(names)
        or not all(isinstance(position, int) for position in positions)
        or not isinstance(sha256, str)
        or any(name.startswith(BAKED_PREFIX) for name in names)
    ):
        raise _damaged(header, f"{_NAMES_KEY}, {_POSITIONS_KEY} and {_SHA256_KEY} do not fit each other")
    keys: list[tuple[str, Value | None]] = [
        (name, None) for name in header.keys if not name.startswith(BAKED_PREFIX) and name not in names
    ]
    for position, name in sorted(zip(positions, names, strict=True)):
        if position >= 0:
            key = f"{_KEY_PREFIX}{name}"
            if key not in header:
                raise _damaged(header, f"{quoted(key)} is missing")
            keys.insert(position, (name, header.value(key)))
    tensors = {
        key.removeprefix(_TENSOR_PREFIX): _bytes(header, key)
        for key in header.keys
        if key.startswith(_TENSOR_PREFIX)
    }
    lost = [name for name in _texts(header, CHANGED_KEY) if name not in tensors and name not in names]
    if lost:
        raise _damaged(header, f"the original of {quoted(lost[0])} is missing")
    padding = _bytes(header, _PADDING_KEY) if _PADDING_KEY in header else b""
    return Originals(tau, keys, tensors, padding, sha256)


def _bytes_value(data: bytes) -> Value:
    head = Value.array(ValueType.UINT8, b"").raw[:4] + len(data).to_bytes(8, "little")
    return Value(ValueType.ARRAY, head + data)


def _bytes(header: Header, key: str) -> bytes:
    entry = header.entries[key]
    if entry.type is not ValueType.ARRAY or entry.element_type is not ValueType.UINT8:
        raise _damaged(header, f"{quoted(key)} is not an array of UINT8")
    return header.array_bytes(key)[12:]


def _texts(header: Header, key: str) -> list[str]:
    entry = header.entries.get(key)
    if entry is None or entry.type is not ValueType.ARRAY or entry.element_type is not ValueType.STRING:
        raise _damaged(header, f"{key} is missing or not an array of STRING")
    return [str(item) for item in header.array(key)]


def _damaged(header: Header, problem: str) -> InputError:
    return InputError(
        f"{header.path}: the record of what baking changed is damaged: {problem}; use the original file"
    )
