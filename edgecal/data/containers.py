"""Decodes a file's bytes to rows: recognises by content how the file is packed and which container it is.

Suffixes are ignored, so a `.txt`, a wrong suffix and standard input are all read.
"""

from __future__ import annotations

from collections.abc import Collection

from edgecal.data.decoded_rows import Table, damaged, fail
from edgecal.data.delimited_text import first_record, read_delimited_text
from edgecal.data.json_text import read_json_text
from edgecal.data.parquet_arrow import read_arrow, read_parquet

__all__ = ["read_table"]

# The first bytes of what pyarrow can unpack.
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4"}
_MAX_UNPACKED = 1 << 29
_MAX_LAYERS = 3
# The first bytes of other files that people give by mistake.
_FOREIGN = {
    b"PK\x03\x04": "a ZIP archive or a spreadsheet; unpack it, or save the sheet as CSV",
    b"\xfd7zXZ\x00": "an xz file; unpack it first",
    b"\xd0\xcf\x11\xe0": "an old Excel file; save the sheet as CSV",
    b"GGUF": "a GGUF model, not data",
    b"%PDF": "a PDF",
    b"version https://git-lfs": "a Git LFS pointer, not the data; run git lfs pull",
    b"SQLite format 3": "an SQLite data base; export the table as CSV",
}
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_EXPECTED = "edgecal reads JSON, JSON Lines, CSV, TSV, Parquet and Arrow"
_MAX_SHOWN_COLUMNS = 12
_HEAD = 10_000
_PARQUET, _ARROW_FILE, _ARROW_STREAM = b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"


def read_table(name: str, data: bytes, wanted: Collection[str] = ()) -> Table:
    """Decodes a file; gzip, bzip2, zstd and lz4 are unpacked first.

    Parameters
    ----------
    name: for messages.
    data: all of its bytes.
    wanted: names of columns that the user expects, by which a header is recognised as by names such as "question".
        If all are numbers and none is in the header, the table has no header, and its columns are numbered from 1.

    Raises
    ------
    DamagedFileError: the file is of a known kind, but broken.
    InputError: the file as a whole cannot be understood, or holds no rows.
    """
    data = _unpack(name, data)
    if data.startswith((_PARQUET, _ARROW_FILE, _ARROW_STREAM)):
        rows = (read_parquet if data.startswith(_PARQUET) else read_arrow)(name, data)
        table = Table(rows, "columnar")
    else:
        text = _decode(name, data)
        is_json = text.lstrip(" \t\r\n")[:1] in ("{", "[")
        table = (_read_json if is_json else _read_text)(name, text, frozenset(wanted))
    if not table.rows:
        fail(name, "holds no rows")
    return table


def _unpack(name: str, data: bytes) -> bytes:
    for _ in range(_MAX_LAYERS):
        kind = next((kind for head, kind in _PACKED.items() if data.startswith(head)), None)
        if kind is None:
            return data
        import pyarrow as pa

        parts: list[bytes] = []
        left = _MAX_UNPACKED
        try:
            with pa.CompressedInputStream(pa.BufferReader(data), kind) as stream:
                while part := stream.read(min(left + 1, 1 << 20)):
                    parts.append(part)
                    left -= len(part)
                    if left < 0:
                        break
        except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
            damaged(name, f"a broken {kind} file ({_first_line(error)}); download or pack it again")
        if left < 0:
            fail(
                name, f"unpacks to more than {_MAX_UNPACKED >> 20} MiB; unpack it, and give only a part of it"
            )
        data = b"".join(parts)
    fail(name, f"compressed more than {_MAX_LAYERS} times over; unpack it first")


def _read_json(name: str, text: str, wanted: frozenset[str]) -> Table:
    if '":' not in text[:_HEAD].replace(" ", ""):
        rows = read_delimited_text(name, text, wanted)  # a table may begin with a bracket, too
        if rows is not None:
            return Table(rows, "delimited")
    return read_json_text(name, text, wanted)


def _read_text(name: str, text: str, wanted: frozenset[str]) -> Table:
    rows = read_delimited_text(name, text, wanted)
    if rows is not None:
        return Table(rows, "delimited")
    lines = [line.strip() for line in text.split("\n", 20)[:20]]
    if sum(line[:1] == "{" for line in lines) * 2 >= sum(map(bool, lines)):
        return read_json_text(name, text, wanted)
    columns = [cell.strip() for cell in first_record(text)]
    shown = ", ".join(f"{column!r:.40}" for column in columns[:_MAX_SHOWN_COLUMNS])
    number = next(number for number, line in enumerate(text.split("\n"), start=1) if line.strip())
    fail(
        f"{name}, line {number}",
        f"neither JSON nor a table of questions: its first row holds {len(columns)} column(s): {shown}; expected "
        "a header with a column like question, or MMLU's rows that end in a letter",
    )


def _decode(name: str, data: bytes) -> str:
    for head, kind in _FOREIGN.items():
        if data.startswith(head):
            fail(name, f"it is {kind}; {_EXPECTED}")
    head = data[:400]
    if data.startswith(_UTF16_MARKS) or (len(head) > 3 and head.count(0) * 3 > len(head)):
        fail(name, "UTF-16 or binary, not UTF-8 text; save the file as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # utf-8-sig counts from after the byte order mark
        offset = error.start + (3 if data.startswith(b"\xef\xbb\xbf") else 0)
        line_start = data.rfind(b"\n", 0, offset) + 1
        fail(
            f"{name}, line {data.count(bytes([10]), 0, offset) + 1}",
            f"not UTF-8 text (byte {offset - line_start + 1} of the line is 0x{data[offset]:02x}); "
            "save the file as UTF-8",
        )
    if not text.strip():
        fail(name, "the file is empty; expected at least one question")
    return text.replace("\r", "\n") if "\n" not in text else text


def _first_line(error: BaseException) -> str:
    return f"{str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__:.200}"
