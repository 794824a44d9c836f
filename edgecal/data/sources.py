"""Finds the files that a path names: a file, standard input, or a folder laid out as data sets usually are.

Of a folder with several splits only one is read: test, else validation, else dev, else train. File names tell the
split (`anatomy_test.csv`, `test-00000-of-00001.parquet`), or folder names (`test/high/1.txt`). The split after it is
named too, for data sets that withhold the answers of their test split, and so is the dev split, which in MMLU holds
the worked examples.
"""

from __future__ import annotations

import os
import re
import sys
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgecal.data.decoded_rows import fail, listed
from edgecal.errors import InputError

__all__ = ["SPLITS", "SPLIT_ORDER", "Source", "find_sources", "read_bytes", "subject_of"]

# If a split is there twice, the file with the earlier suffix is read.
_SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet", ".arrow", ".feather", ".tsv", ".csv")
_PACKED_SUFFIXES = ("", ".gz", ".gzip", ".zst", ".zstd", ".bz2", ".lz4")
_TEXT_SUFFIX = ".txt"  # RACE has JSON in such files
# Descriptions, and what the datasets library caches of `map` and `filter`: no data of their own.
_METADATA = re.compile(
    r"(dataset_infos?|dataset_dict|state|package|config|README|LICENSE)\.(json|txt)|cache-[0-9a-f]+.*\.arrow",
    re.I,
)
_MAX_SHOWN = 8
SPLITS = {
    "test": "test",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "dev",
    "train": "train",
    "auxiliary_train": "train",
}
SPLIT_ORDER = ("test", "validation", "dev", "train")
_WORDS = "|".join(sorted(SPLITS, key=len, reverse=True))
_SPLIT_LAST = re.compile(rf"(?:^|(?P<rest>.+)[-_.])(?P<split>{_WORDS})$", re.I)
_SPLIT_FIRST = re.compile(rf"(?P<split>{_WORDS})[-_.](?P<rest>.+)$", re.I)
_NUMBERED = re.compile(r"[-_.]\d+-of-\d+$")


@dataclass(frozen=True)
class Source:
    """The files that one path names.

    Attributes
    ----------
    files: the files to read, in order; `-` is standard input.
    dev: the files of a folder's dev split, if another split is read.
    next_best: the files to read instead if `files` hold no answers.
    notes: what of a folder is left out.
    is_folder: whether the path is a folder, in which files without questions may lie by chance.
    """

    files: tuple[str, ...]
    dev: tuple[str, ...] = ()
    next_best: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    is_folder: bool = False


def find_sources(paths: Sequence[str | Path]) -> list[Source]:
    """Finds the files of each path.

    Raises
    ------
    InputError: a folder cannot be listed, or holds no data files.
    """
    sources = []
    for path in map(str, paths):
        try:
            is_folder = path != "-" and Path(path).is_dir()
        except (OSError, ValueError):  # ValueError: a null character in the path
            is_folder = False
        sources.append(_list_folder(path) if is_folder else Source((path,)))
    return sources


def read_bytes(path: str) -> bytes:
    """All bytes of a file, or of standard input for `-`. Raises InputError if it cannot be read."""
    try:
        return sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except FileNotFoundError:
        fail(path, "no such file; expected a file, a folder, or - for standard input")
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        fail(path, f"cannot be read ({getattr(error, 'strerror', error)})")


def _split_of(path: str | Path) -> tuple[str | None, str]:
    """The split in a file's name (`test`, `validation`, `dev`, `train`, or None), and the rest of the name."""
    stem = _NUMBERED.sub("", _parts(Path(path))[0])
    match = _SPLIT_LAST.match(stem) or _SPLIT_FIRST.match(stem)
    if not match:
        return None, stem
    rest = match["rest"] or ""
    return SPLITS[match["split"].lower()], "" if rest.isdecimal() else rest


def _parts(path: Path) -> tuple[str, str, str]:
    """A file's name without suffixes, its suffix, and the suffix of its compression; in lower case."""
    packed = path.suffix.lower() if path.suffix.lower() in _PACKED_SUFFIXES else ""
    inner = Path(path.stem) if packed else path
    return inner.stem, inner.suffix.lower(), packed


def subject_of(path: str, tasks: Collection[str]) -> str | None:
    """The subject that a file's name tells, or None.

    Parameters
    ----------
    path: the file; `-` tells none.
    tasks: the names to look for in the file's name and in its folder's. Empty: any name beside a split, such as
        `anatomy` in `anatomy_test.csv` and in `test/anatomy.csv`.
    """
    if path == "-":
        return None
    split, rest = _split_of(path)
    if not tasks:
        split = split or SPLITS.get(Path(path).absolute().parent.name.lower())
        return rest if split and rest and rest.isprintable() else None
    return next((name for name in (rest, Path(path).absolute().parent.name) if name in tasks), None)


def _list_folder(folder: str) -> Source:
    found, strays = _walk(folder)
    names = listed(strays, _MAX_SHOWN)
    if not found:
        suffixes = ", ".join(suffix[1:] for suffix in _SUFFIXES)
        fail(folder, f"the folder holds no data files ({suffixes}), only {names or 'nothing'}")
    by_split: dict[str | None, list[Path]] = defaultdict(list)
    for path in found:
        by_split[_folder_split(path, Path(folder))].append(path)
    splits = [split for split in SPLIT_ORDER if split in by_split]
    left = splits[1:]
    common = by_split.get(None, [])
    first = by_split[splits[0]] if splits else []
    files, notes = _drop_repeats(sorted(first + common, key=lambda path: path.parts))
    if strays:
        notes.append(f"{folder}: not read, since they are not data files: {names}")
    if left:
        notes.append(f"{folder}: of its splits ({', '.join(splits)}) the first with answers is read")
    following = by_split[left[0]] if left and left[0] != "train" else []
    return Source(
        files=tuple(map(str, files)),
        dev=tuple(map(str, by_split["dev"])) if "dev" in left else (),
        next_best=tuple(map(str, _drop_repeats(sorted(following + common))[0])) if following else (),
        notes=tuple(notes),
        is_folder=True,
    )


def _walk(folder: str) -> tuple[list[Path], list[str]]:
    """The data files under a folder, sorted, and the names of other files; hidden files are passed over."""

    def refuse(error: OSError) -> None:
        raise InputError(f"{folder}: the folder cannot be read ({error.strerror})") from None

    found = []
    strays = []
    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith((".", "__"))]
        for path in (Path(parent) / name for name in names if not name.startswith(".")):
            _, suffix, packed = _parts(path)
            is_data = suffix in _SUFFIXES or (packed and not suffix)
            if not _METADATA.fullmatch(path.name) and (
                is_data or (suffix == _TEXT_SUFFIX and (packed or _starts_as_json(path)))
            ):
                found.append(path)
            else:
                strays.append(str(path.relative_to(folder)))
    return sorted(found, key=lambda path: path.parts), sorted(strays)


def _starts_as_json(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            head = stream.read(64)
    except OSError:
        return True  # reading it will say why
    return head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"[")


def _folder_split(path: Path, folder: Path) -> str | None:
    split, _ = _split_of(path)
    if split:
        return split
    for part in reversed(path.relative_to(folder).parent.parts):
        if part.lower() in SPLITS:
            return SPLITS[part.lower()]
    return None


def _drop_repeats(paths: list[Path]) -> tuple[list[Path], list[str]]:
    """Drops files whose rows are there twice: in two containers, as ARC ships JSON Lines and CSV, or packed and
    unpacked."""
    best: dict[Path, Path] = {}
    for path in sorted(paths, key=_rank):
        best.setdefault(_twin(path), path)
    kept = [path for path in paths if best[_twin(path)] == path]
    dropped = [path for path in paths if best[_twin(path)] != path]
    return kept, [f"{path}: not read, since {best[_twin(path)].name} holds the same rows" for path in dropped]


def _twin(path: Path) -> Path:
    """The path without what may differ between files of the same rows."""
    stem, suffix, _ = _parts(path)
    return path.with_name(stem if _split_of(path)[0] else stem + suffix)


def _rank(path: Path) -> tuple[int, int]:
    _, suffix, packed = _parts(path)
    return _SUFFIXES.index(suffix) if suffix in _SUFFIXES else len(_SUFFIXES), _PACKED_SUFFIXES.index(packed)
