"""Reads, writes and compares spans of open files, by descriptor and offset."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from edgecal.errors import InputError, OutputError

__all__ = [
    "BLOCK_BYTES",
    "Progress",
    "check_same_data",
    "data_digest",
    "file_blocks",
    "first_difference",
    "read_blocks",
    "read_exactly",
    "read_span",
    "write_all",
]

Progress = Callable[[int, int], None]  # bytes done, bytes in total

BLOCK_BYTES = 1 << 20


def read_span(file: int, start: int, end: int) -> bytes:
    """The bytes from `start` to `end`, fewer if the file ends earlier. Raises the system's OSError."""
    parts = []
    if start < end:
        os.lseek(file, start, os.SEEK_SET)
    while start < end and (part := os.read(file, end - start)):
        parts.append(part)
        start += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def read_exactly(file: int, start: int, n_bytes: int) -> bytes:
    """As `read_span`, but raises OSError if the file ends earlier."""
    found = read_span(file, start, start + n_bytes)
    if len(found) < n_bytes:
        raise OSError("the file became shorter while it was read")
    return found


def read_blocks(file: int, start: int, end: int) -> Iterator[bytes]:
    """The bytes from `start` to `end` in blocks of at most 1 MiB, fewer if the file ends earlier. Raises the system's
    OSError."""
    while start < end and (block := read_span(file, start, min(start + BLOCK_BYTES, end))):
        yield block
        start += len(block)


def file_blocks(path: Path, start: int = 0) -> Iterator[bytes]:
    """Everything from byte `start` to the end of a file, in blocks; InputError if it cannot be read."""
    try:
        with path.open("rb", buffering=0) as file:
            yield from read_blocks(file.fileno(), start, 1 << 63)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error


def write_all(target: int, data: bytes | memoryview) -> None:
    """Writes every byte; a short write (an interrupt, a limit) is continued."""
    view = memoryview(data)
    while view:
        view = view[os.write(target, view) :]


def first_difference(first: int, start: int, second: int, second_start: int, n_bytes: int) -> int | None:
    """How many of `n_bytes` bytes are equal in two descriptors from the given offsets on; None if all are.

    A file that ends earlier differs there. Raises the kernel's OSError.
    """
    done = 0
    while done < n_bytes:
        size = min(BLOCK_BYTES, n_bytes - done)
        one, other = (
            read_span(file, at, at + size)
            for file, at in ((first, start + done), (second, second_start + done))
        )
        if len(one) < size or one != other:
            pairs = zip(one, other, strict=False)
            return done + next(
                (index for index, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other))
            )
        done += size
    return None


def check_same_data(
    source: int,
    start: int,
    target: int,
    target_start: int,
    output: Path,
    except_for: Sequence[tuple[int, int]] = (),
) -> None:
    """Raises OutputError unless the data after `start` in one descriptor equal those after `target_start` in the other.

    Spans of the target in `except_for` (from, to; ascending) may differ. Flushed pages are first dropped from the page
    cache, so that the disk is read and not memory.
    """
    end = os.fstat(target).st_size
    if end - target_start != os.fstat(source).st_size - start:
        raise OutputError(f"{output}: the data read back has another size than what was copied")
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(target, 0, 0, os.POSIX_FADV_DONTNEED)
    position = target_start
    for stop, resume in (*except_for, (end, end)):
        offset = start + position - target_start
        found = first_difference(source, offset, target, position, stop - position)
        if found is not None:
            raise OutputError(
                f"{output}: the data read back differs from what was copied at byte {position + found}"
            )
        position = resume


def data_digest(path: Path, start: int) -> bytes:
    """A digest of everything from byte `start` to the end of a file; InputError if it cannot be read."""
    from hashlib import blake2b

    digest = blake2b()
    for block in file_blocks(path, start):
        digest.update(block)
    return digest.digest()
