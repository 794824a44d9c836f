"""Small columnar files that unpack to more than a memory holds: refused before they are unpacked."""

import io
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from edgecal import InputError
from edgecal.data import parquet_arrow, read_data
from edgecal.data.parquet_arrow import unpacked_sizes

GIB = 1 << 30
WRITERS = {"stream": pa.ipc.new_stream, "file": pa.ipc.new_file}
# Reads a file with so many MiB more than it has when it begins.
READER = """
import resource, sys
import psutil, pyarrow.parquet
from edgecal import InputError
from edgecal.data import read_data
most = psutil.Process().memory_info().vms + (int(sys.argv[2]) << 20)
resource.setrlimit(resource.RLIMIT_AS, (most, most))
try:
    print(len(read_data([sys.argv[1]]).records))
except InputError as error:
    print(error)
"""


def zeros(n):
    """One text of n null characters, which the system keeps nowhere until somebody writes to it."""
    offsets = pa.py_buffer(np.array([0, n], np.int64))
    return pa.LargeStringArray.from_buffers(1, offsets, pa.py_buffer(np.zeros(n, np.uint8)))


def arrow(kind, compression, *batches):
    sink = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with WRITERS[kind](sink, batches[0].schema, options=options) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.getvalue()


def of(**columns):
    return pa.record_batch(list(columns.values()), list(columns))


def read(path, mib):
    done = subprocess.run(
        [sys.executable, "-c", READER, str(path), str(mib)],
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.removesuffix("\n")


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("as_dictionary", [False, True])
def test_four_gib_in_a_batch_are_refused_without_taking_them(tmp_path, kind, as_dictionary):
    text = zeros(4 * GIB)
    if as_dictionary:
        text = pa.DictionaryArray.from_arrays(pa.array([0], pa.int8()), text)
    path = tmp_path / "x.arrow"
    path.write_bytes(arrow(kind, "zstd", of(question=text)))
    assert path.stat().st_size < 200_000
    assert read(path, 200) == f"{path}: unpacks to more than 512 MiB; give only a part of it"


def test_a_text_that_many_rows_share_counts_for_each(tmp_path):
    """60 GB, once each row of the Arrow file has its own; 20 GB in a batch of the Parquet file."""
    text = pa.DictionaryArray.from_arrays(pa.array(np.zeros(3000, np.int16)), pa.array(["q" * (20 << 20)]))
    batch = of(question=text, choices=pa.array([["x", "y"]] * 3000))
    paths = tmp_path / "x.arrow", tmp_path / "x.parquet"
    paths[0].write_bytes(arrow("file", "zstd", batch))
    pq.write_table(pa.table(batch), paths[1], compression="zstd")
    for path, mib in zip(paths, (200, 1500), strict=True):
        assert path.stat().st_size < 30_000
        assert read(path, mib) == f"{path}: unpacks to more than 512 MiB; give only a part of it"


def test_what_a_parquet_file_says_of_itself_is_asked_first(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_arrow, "_MAX_BYTES", 5000)
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lambda *_: pytest.fail("it was unpacked"))
    pq.write_table(pa.table({"question": ["q" * 3000, "r" * 3000]}), tmp_path / "x", row_group_size=1)
    with pytest.raises(InputError, match="x: unpacks to more than"):
        read_data([tmp_path / "x"])


HELD = {
    "numbers": pa.array(np.zeros(5000, np.int64)),
    "texts": pa.array(["q" * 50, None] * 100),
    "lists": pa.array([["x", "y"], None, []] * 100),
    "structs": pa.array([{"A": "x", "B": [1, 2]}, None] * 100),
    "maps": pa.array([[("A", "x")], []] * 100, pa.map_(pa.string(), pa.string())),
    "dictionary": pa.array(["x" * 900, "y" * 900] * 100).dictionary_encode(),
    "nothing": pa.nulls(70),
    "what hardly gets smaller": pa.array(np.random.default_rng(1).integers(0, 2**62, 300)),
    "truth values": pa.array([True, False] * 999),
}


@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
@pytest.mark.parametrize("kind", WRITERS)
def test_sizes_are_those_of_the_buffers(held, compression, kind):
    batch = of(held=HELD[held])
    data = arrow(kind, compression, batch, batch.slice(1))
    whole = {"stream": pa.ipc.open_stream, "file": pa.ipc.open_file}[kind](data)
    batches = list(whole) if kind == "stream" else [whole.get_batch(number) for number in range(2)]
    buffers = [b.size for each in batches for b in each.column(0).buffers() if b is not None]
    if held == "dictionary":
        buffers += [b.size for b in batches[0].column(0).dictionary.buffers() if b is not None]
    sizes = list(unpacked_sizes(data))
    assert len(sizes) == (3 if held == "dictionary" else 2)
    assert sum(buffers) <= sum(sizes) <= sum(buffers) + 64 * (len(buffers) + 4)  # plain ones are padded


def test_what_arrow_0_17_called_compression_is_one():
    """Its files say so beside the batch, where any text may stand."""
    batch = of(held=HELD["numbers"])
    data = arrow("stream", "zstd", batch)
    (packed,) = unpacked_sizes(data)
    assert packed >= 40_000 > 10 * len(data)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch, custom_metadata={"ARROW:experimental_compression": "ZSTD"})
    (first_bytes,) = unpacked_sizes(sink.getvalue())  # zeros, taken for sizes
    assert first_bytes < 100


def test_a_footer_that_names_a_batch_again_and_again_counts_it_so_often(tmp_path, monkeypatch):
    batch = of(question=HELD["numbers"])
    data = bytearray(arrow("file", "zstd", batch, batch, batch))
    sizes = list(unpacked_sizes(bytes(data)))
    assert len(sizes) == 3
    monkeypatch.setattr(parquet_arrow, "_MAX_BYTES", sum(sizes) - 1)
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(InputError, match="x: unpacks to more than"):
        read_data([tmp_path / "x"])


@pytest.mark.parametrize("kind", WRITERS)
def test_broken_metadata_are_told_as_such(kind):
    """Any byte of the file may be another: sizes, or an error that the reader knows."""
    whole = arrow(kind, "zstd", of(a=HELD["structs"], b=HELD["dictionary"]))
    rng = np.random.default_rng(5)
    for _ in range(400):
        data = bytearray(whole)
        data[int(rng.integers(8, len(data)))] = int(rng.integers(256))
        try:
            assert all(isinstance(size, int) for size in unpacked_sizes(bytes(data)))
        except (pa.ArrowException, OSError, ValueError, MemoryError, OverflowError):
            continue
