"""Reads the requests of a file or of standard input as they come, in batches of bounded size.

An input is JSON Lines of requests, one request over any number of lines, or a list of requests. A batch ends where what
can be read without waiting ends, so a program that writes a request into a pipe gets its answer before it writes the
next. A request that breaks a rule is passed on as the error that it is.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass

from edgecal.decisions import Request, RequestError, parse_request, read_json
from edgecal.decisions.questions import Problem
from edgecal.errors import InputError

__all__ = ["RequestLine", "read_batches"]

_STDIN = "standard input"
_PIECE_BYTES = 1 << 20
_MOST_REQUESTS = 64

# Longer than any request that can be answered, escapes included. A longer line is not kept in memory.
_MOST_BYTES = 1 << 26


@dataclass(frozen=True)
class RequestLine:
    """One request of an input.

    Attributes
    ----------
    number: its line, or its place in a list of requests, from 1.
    request: what it says, or what is wrong with it.
    """

    number: int
    request: Request | RequestError


def read_batches(path: str) -> Iterator[list[RequestLine]]:
    """Yields the requests of an input in batches of 1 to 64.

    Parameters
    ----------
    path: a file, or `-` for standard input.

    Raises
    ------
    InputError: it cannot be read.
    """
    name = _STDIN if path == "-" else path
    batch: list[RequestLine] = []
    for piece in _lines(path, name):
        if isinstance(piece, RequestLine):
            batch.append(piece)
        if batch and (piece is None or len(batch) == _MOST_REQUESTS):
            yield batch
            batch = []
    if batch:
        yield batch


def _lines(path: str, name: str) -> Iterator[RequestLine | None]:
    """The requests; None where more may have to be waited for."""
    lines = _split(path, name)
    first = _next_said(lines)
    second = _next_said(lines) if first and not _is_object(first[1]) else None
    if first and _opens(first[1]) and not (first[1].startswith(b"{") and second and _is_object(second[1])):
        yield from _whole([each for each in (first, second) if each], lines, name)
        return
    for at in (first, second):
        if at:
            yield _parsed(*at, f"{name}, line {at[0]}")
    for at in lines:
        if at is None:
            yield None
        elif at[1].strip():
            yield _parsed(*at, f"{name}, line {at[0]}")


def _next_said(lines: Iterator[tuple[int, bytes] | None]) -> tuple[int, bytes] | None:
    return next((at for at in lines if at and at[1].strip()), None)


def _is_object(line: bytes) -> bool:
    return line.lstrip().startswith(b"{") and line.rstrip().endswith(b"}")


def _opens(line: bytes) -> bool:
    """Whether a line that is no object begins an object or a list."""
    return not _is_object(line) and line.lstrip().startswith((b"{", b"["))


def _whole(
    begun: list[tuple[int, bytes]], lines: Iterator[tuple[int, bytes] | None], name: str
) -> Iterator[RequestLine]:
    """The requests of an input that is one over several lines, or a list."""
    text, n_ended = b"", 0
    for number, line in itertools.chain(begun, filter(None, lines)):
        text += b"\n" * (number - 1 - n_ended) + line  # empty lines count for the places in messages
        n_ended = number - 1
        if len(text) > _MOST_BYTES:
            yield RequestLine(1, RequestError([_too_long()], name))
            return
    try:
        value = read_json(text, name)
    except RequestError as error:
        yield RequestLine(1, error)
        return
    if not isinstance(value, list):
        yield RequestLine(1, _checked(value, name))
        return
    for number, body in enumerate(value, start=1):
        yield RequestLine(number, _checked(body, f"{name}, request {number}"))


def _parsed(number: int, line: bytes, where: str) -> RequestLine:
    if len(line) > _MOST_BYTES:
        return RequestLine(number, RequestError([_too_long()], where))
    try:
        return RequestLine(number, _checked(read_json(line, where), where))
    except RequestError as error:
        return RequestLine(number, error)


def _checked(body: object, where: str) -> Request | RequestError:
    try:
        return parse_request(body, where)
    except RequestError as error:
        return error


def _too_long() -> Problem:
    return Problem(("body",), f"has more than {_MOST_BYTES >> 20} MiB", "out_of_range")


def _split(path: str, name: str) -> Iterator[tuple[int, bytes] | None]:
    """Each line with its number, without its end, and cut shortly after `_MOST_BYTES`; None before each wait."""
    try:
        descriptor = 0 if path == "-" else os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            number, rest, mark = 1, b"", b"\xef\xbb\xbf"
            while piece := os.read(descriptor, _PIECE_BYTES):
                piece, mark = piece.removeprefix(mark), b""
                *ended, last = piece.split(b"\n")
                for line in ended:
                    yield number, rest + line
                    number, rest = number + 1, b""
                if len(rest) <= _MOST_BYTES:
                    rest += last
                yield None
            if rest:
                yield number, rest
        finally:
            if descriptor:
                os.close(descriptor)
    except FileNotFoundError:
        raise InputError(f"{name}: no such file; expected a file, or - for standard input") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise InputError(f"{name}: cannot be read ({getattr(error, 'strerror', error)})") from None
