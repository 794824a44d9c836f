"""Reads requests of the format `POST /v1/systemone` from files, one JSON object on each line, and from Python.

One bad request costs that request, not the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecal.errors import InputError

if TYPE_CHECKING:
    from edgecal.data import SkippedRow
    from edgecal.decisions import Question, Request

__all__ = ["AskedQuestion", "ReadRequests", "RequestSource", "read_requests", "request_files"]

PathLike = str | Path
RequestSource = PathLike | Iterable["PathLike | Mapping[str, Any] | Request"]


@dataclass(frozen=True)
class AskedQuestion:
    """One question of a request.

    Attributes
    ----------
    state: text, dict or list.
    question: what is asked about it.
    answer: index of the right option, or None.
    source: where it came from, for messages.
    """

    state: Any
    question: Question
    answer: int | None
    source: str


@dataclass(frozen=True)
class ReadRequests:
    """The requests of some files.

    Attributes
    ----------
    requests: those that keep the format's rules, in the files' order.
    skipped: the others, with the reason.
    files: what was read.
    """

    requests: tuple[Request, ...]
    skipped: tuple[SkippedRow, ...]
    files: tuple[str, ...]

    @property
    def questions(self) -> list[AskedQuestion]:
        """Every question of every request."""
        return [
            AskedQuestion(
                request.state, question, request.answers.get(key), f"{request.source}, question {key!r:.60}"
            )
            for request in self.requests
            for key, question in request.questions.items()
        ]

    def warnings(self) -> list[str]:
        """One line for each request that was skipped, and for each unknown field."""
        texts = [f"skipped: {row.reason}" for row in self.skipped]
        return texts + [f"{one.source}: {text}" for one in self.requests for text in one.warnings]


def read_requests(source: RequestSource, *, strict: bool = False) -> ReadRequests:
    """Reads requests.

    Parameters
    ----------
    source: files, of which `-` is standard input; requests as dicts; or `Request` objects. A file holds one request on
        each line, or is itself one request or a list of them.
    strict: a request that breaks the format's rules is an error.

    Raises
    ------
    InputError: a file cannot be read, or no request is left; if `strict`, any request is bad.
    """
    from edgecal.data import SkippedRow
    from edgecal.decisions import Request

    if isinstance(source, Mapping):
        raise InputError("the requests are one request; give a list of requests, or a file")
    items = [source] if isinstance(source, (str, Path)) else list(source)
    requests, skipped = [], []
    for number, item in enumerate(items, start=1):
        if isinstance(item, Request):
            requests.append(item)
            continue
        for where, decode in _bodies(item, f"request {number}"):
            found = _parsed(where, decode)
            if isinstance(found, Request):
                requests.append(found)
            elif strict:
                raise found
            else:
                skipped.append(SkippedRow(where, str(found)))
    if not requests:
        first = f": {skipped[0].reason}" if skipped else "; give at least one"
        raise InputError(f"there is no request that can be used{first}")
    return ReadRequests(tuple(requests), tuple(skipped), tuple(map(str, request_files(items, stdin=True))))


def request_files(source: RequestSource, *, stdin: bool = False) -> list[Path]:
    """The files among sources of requests; `stdin`: standard input counts."""
    items = [source] if isinstance(source, (str, Path)) else source
    return [Path(item) for item in items if isinstance(item, (str, Path)) and (stdin or str(item) != "-")]


def _parsed(where: str, decode: Callable[[], Any]) -> Request | InputError:
    from edgecal.decisions import parse_request

    try:
        return parse_request(decode(), where)
    except InputError as error:
        return error


def _bodies(item: object, where: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Each request's place, and a function that decodes it; InputError for what is neither file nor request."""
    from edgecal.data.sources import read_bytes
    from edgecal.decisions import read_json

    if not isinstance(item, (str, Path)):
        yield where, partial(_itself, item)
        return
    raw = read_bytes(str(item)).removeprefix(b"\xef\xbb\xbf")
    lines = [(number, line) for number, line in enumerate(raw.split(b"\n"), start=1) if line.strip()]
    whole = _whole(raw, lines)
    if whole is not None:
        for number, body in enumerate(whole, start=1):
            yield str(item) if len(whole) == 1 else f"{item}, request {number}", partial(_itself, body)
        return
    for number, line in lines:
        place = f"{item}, line {number}"
        yield place, partial(read_json, line, place)


def _whole(raw: bytes, lines: Sequence[tuple[int, bytes]]) -> list[Any] | None:
    """The requests of a file that is one JSON value over several lines, or a list; None for JSON Lines."""
    from edgecal.decisions import read_json

    first = lines[0][1].strip() if lines else b""
    if not first.startswith((b"[", b"{")) or (first.startswith(b"{") and first.endswith(b"}")):
        return None
    try:
        value = read_json(raw, "")
    except InputError:
        return None
    return value if isinstance(value, list) else [value]


def _itself(body: Any) -> Any:
    return body
