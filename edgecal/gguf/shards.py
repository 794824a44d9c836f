"""Finds the files of a split model by llama.cpp's naming rule.

llama.cpp finds the later shards by the first one's name: `<prefix>-00001-of-0000N.gguf`, counted from 1 in names and
from 0 in `split.no`. `placing` puts later shards beside a new first one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecal.errors import InputError
from edgecal.gguf.header import Header, read_header
from edgecal.gguf.tensors import TensorInfo
from edgecal.gguf.values import PythonValue, quoted

__all__ = ["ShardSet", "find_shards", "shard_name", "split_name"]

COUNT_KEY, NUMBER_KEY, TENSORS_KEY = "split.count", "split.no", "split.tensors.count"
MAX_SHARDS = 1 << 12

_NAME = re.compile(r"(?P<prefix>.+)-(?P<number>\d{5,})-of-(?P<count>\d{5,})\.gguf", re.DOTALL)


@dataclass(frozen=True, eq=False)
class ShardSet:
    """One model: its files in order (one, unless it is split) and their headers.

    `prefix` is the part of the name before `-00001-of-...`; None for a single file.
    """

    paths: tuple[Path, ...]
    headers: tuple[Header, ...]
    prefix: str | None

    @property
    def count(self) -> int:
        return len(self.paths)

    @property
    def path(self) -> Path:
        """The first file, which llama.cpp is given."""
        return self.paths[0]

    @property
    def header(self) -> Header:
        """The first file's header, which holds all metadata of a split model."""
        return self.headers[0]

    @property
    def n_tensors(self) -> int:
        return sum(len(header.tensors) for header in self.headers)

    @property
    def n_bytes(self) -> int:
        """Size of all files together."""
        return sum(header.file_size for header in self.headers)

    def get(self, key: str, default: Any = None) -> PythonValue:
        """The value of a metadata key, as `Header.get` of the first file."""
        return self.header.get(key, default)

    def find_tensor(self, name: str) -> tuple[Path, TensorInfo] | None:
        """The file that holds a tensor and its entry, None if no file does."""
        for path, header in zip(self.paths, self.headers, strict=True):
            info = header.tensors.get(name)
            if info is not None:
                return path, info
        return None

    def tensor(self, name: str) -> tuple[Path, TensorInfo]:
        """As `find_tensor`; InputError if no file holds the tensor."""
        found = self.find_tensor(name)
        if found is None:
            raise InputError(f"{self.path}: has no tensor {quoted(name)}")
        return found


def shard_name(prefix: str, index: int, count: int) -> str:
    """llama.cpp's name of shard `index` (from 0) of `count`."""
    return f"{prefix}-{index + 1:05d}-of-{count:05d}.gguf"


def split_name(name: str) -> tuple[str, int, int] | None:
    """(prefix, index from 0, count) of a shard's file name, None if it is not named like one."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    prefix, index, count = match["prefix"], int(match["number"]) - 1, int(match["count"])
    return (prefix, index, count) if shard_name(prefix, index, count) == name else None


def find_shards(path: Path | str) -> ShardSet:
    """The model whose first file is `path`: that file alone, or all shards of a split model.

    An edit in place that was interrupted is finished or undone first (see `journal`).
    InputError if a file cannot be read as GGUF, if `path` is a later shard (the message names the first) or is not
    named by llama.cpp's rule, if siblings are missing (it names them) or contradict the first, or if two hold the same
    tensor.
    """
    from edgecal.gguf.inplace.journal import recover

    path = Path(path)
    recover(path)
    first = read_header(path)
    count = _number(first, COUNT_KEY, 1)
    if count <= 1:
        return ShardSet((path,), (first,), None)
    if count > MAX_SHARDS:
        raise InputError(f"{path}: claims to be one of {count} shards, more than {MAX_SHARDS}: refused")
    number = _number(first, NUMBER_KEY, 0)
    named = split_name(path.name)
    if number != 0:
        hint = ""
        if named is not None and named[2] == count:
            hint = f": give the first, {path.with_name(shard_name(named[0], 0, count))}"
        raise InputError(f"{path}: is shard {number + 1} of {count} of a split model{hint}")
    if named is None or named[1:] != (0, count):
        raise InputError(
            f"{path}: is the first of {count} shards and must be named {shard_name('<prefix>', 0, count)}, "
            "or llama.cpp does not find the others"
        )
    prefix = named[0]
    paths = tuple(path.with_name(shard_name(prefix, index, count)) for index in range(count))
    missing = [sibling.name for sibling in paths if not sibling.exists()]
    if missing:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise InputError(f"{path}: the model is split into {count} files, missing beside it: {shown}")
    headers = (first, *(_read_sibling(sibling, index, count) for index, sibling in enumerate(paths) if index))
    _check_tensors(paths, headers)
    return ShardSet(paths, headers, prefix)


def _number(header: Header, key: str, default: int) -> int:
    if key not in header:
        return default
    value: Any = header.get(key) if header.type_of(key).is_integer else None
    if value is None or value < 0:
        raise InputError(f"{header.path}: {key} is not a whole number of 0 or more")
    return int(value)


def _read_sibling(path: Path, index: int, count: int) -> Header:
    header = read_header(path)
    found = (_number(header, NUMBER_KEY, 0), _number(header, COUNT_KEY, 1))
    if found != (index, count):
        raise InputError(
            f"{path}: its name says shard {index + 1} of {count}, its header shard {found[0] + 1} of {found[1]}; "
            "the files do not belong together"
        )
    return header


def _check_tensors(paths: Sequence[Path], headers: Sequence[Header]) -> None:
    holder: dict[str, Path] = {}
    for path, header in zip(paths, headers, strict=True):
        for name in header.tensors:
            if name in holder:
                raise InputError(f"{path}: tensor {quoted(name)} is also in {holder[name].name}")
            holder[name] = path
    expected = _number(headers[0], TENSORS_KEY, len(holder))
    if len(holder) != expected:
        raise InputError(
            f"{paths[0]}: {TENSORS_KEY} is {expected}, the {len(paths)} files hold {len(holder)} tensors; "
            "the files do not belong together"
        )
