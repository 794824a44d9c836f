"""Packed files, Arrow and Parquet as libraries write them, folders with strays, and whatever is damaged."""

import bz2
import gzip
import io
import json
import random
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import datasets as ds
from support.data_formats import expected, facts
from support.datasets import CONTAINERS

from edgecal import InputError
from edgecal.data import containers, parquet_arrow, read_data

PACKED = {
    "gz": gzip.compress,
    "zst": lambda data: pa.Codec("zstd").compress(data).to_pybytes(),
    "bz2": bz2.compress,
    "lz4": lambda data: pa.Codec("lz4").compress(data).to_pybytes(),
    "gz.zst": lambda data: PACKED["zst"](gzip.compress(data)),
    "two members": lambda data: gzip.compress(data[:99]) + gzip.compress(data[99:]),
}


def table(rows=None, **types):
    rows = ds.edgecal_rows() if rows is None else rows
    return pa.table({key: pa.array([row[key] for row in rows], types.get(key)) for key in rows[0]})


def arrow(held, kind="stream", **options):
    sink = io.BytesIO()
    with {"stream": pa.ipc.new_stream, "file": pa.ipc.new_file}[kind](
        sink, held.schema, options=pa.ipc.IpcWriteOptions(**options)
    ) as writer:
        writer.write_table(held, max_chunksize=2)
    return sink.getvalue()


def parquet(held, **options):
    sink = io.BytesIO()
    pq.write_table(held, sink, **options)
    return sink.getvalue()


ARROW = {
    "stream": lambda held: arrow(held),
    "file": lambda held: arrow(held, "file"),
    "compressed": lambda held: arrow(held, "file", compression="zstd"),
    "parquet": lambda held: parquet(held, row_group_size=2),
}


@pytest.mark.parametrize("packed", PACKED)
@pytest.mark.parametrize("container", CONTAINERS)
def test_packed_files_are_read_as_what_they_hold(tmp_path, container, packed):
    path = CONTAINERS[container](tmp_path / "plain", ds.edgecal_rows())
    path.write_bytes(PACKED[packed](path.read_bytes()))
    data = read_data([path], strict=True)
    assert facts(data) == expected()
    assert data.records[0].source.startswith(f"{path}, ")


@pytest.mark.parametrize("container", ARROW)
def test_arrow(tmp_path, container):
    path = tmp_path / "x"
    path.write_bytes(ARROW[container](table()))
    data = read_data([path], strict=True)
    assert facts(data) == expected()
    assert [record.source for record in data.records] == [f"{path}, row {n}" for n in range(1, 6)]


@pytest.mark.parametrize("container", ARROW)
def test_what_columns_stand_for(tmp_path, container):
    held = pa.table(
        {
            "question": pa.array(["p?", "q?", "p?"]).dictionary_encode(),
            # a struct has the fields of every row
            "choices": pa.array([{"A": "x", "B": "y"}, {"A": "u", "B": "v", "C": "w"}, {"A": "x", "B": "y"}]),
            "answer": pa.array(["B", "C", None]).dictionary_encode(),
            "subject": pa.array([b"s", b"s", b"t"]),
            "score": pa.array([1.0, float("nan"), None]),
        }
    )
    (tmp_path / "x").write_bytes(ARROW[container](held))
    wanted = [("p?", ["x", "y"], 1, "s"), ("q?", ["u", "v", "w"], 2, "s"), ("p?", ["x", "y"], None, "t")]
    assert facts(read_data([tmp_path / "x"], strict=True)) == wanted
    maps = [[("A", "x"), ("B", "y")], [("A", "u"), ("B", "v"), ("C", "w")], [("A", "x"), ("B", "y")]]
    held = held.set_column(1, "choices", pa.array(maps, pa.map_(pa.string(), pa.string())))
    (tmp_path / "x").write_bytes(ARROW[container](held))
    assert facts(read_data([tmp_path / "x"], strict=True)) == wanted


def test_decimals_are_numbers(tmp_path):
    held = pa.table(
        {
            "question": ["p?", "q?"],
            "choices": [["x", "y"], ["u", "v"]],
            "answer": pa.array([Decimal("1.00"), Decimal(0)], pa.decimal128(5, 2)),
        }
    )
    (tmp_path / "x").write_bytes(arrow(held))
    assert [record.answer for record in read_data([tmp_path / "x"], strict=True).records] == [1, 0]


@pytest.mark.parametrize(
    ("names", "column", "wanted"),
    [
        (list("ABCD"), "answer", [1, 2, 1, None]),
        (["0", "1", "2", "3"], "answer", [1, 2, 1, None]),
        (["choice1", "choice2", "choice3", "choice4"], "answer", [1, 2, 1, None]),
        (["knots", "soil", "tea", "rope"], "subject", ["soil", "tea", "soil", None]),
    ],
)
def test_class_numbers_count_from_0_whatever_is_there(tmp_path, names, column, wanted):
    """No answer is 0, so that without the classes the numbers could count from 1."""
    held = pa.table(
        {"question": list("pqrs"), "choices": [["w", "x", "y", "z"]] * 4, column: pa.array([1, 2, 1, -1])}
    )
    features = {
        column: {"names": names, "_type": "ClassLabel"},
        "question": {"dtype": "string", "_type": "Value"},
    }
    held = held.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    (tmp_path / "x").write_bytes(arrow(held))
    assert [getattr(record, column) for record in read_data([tmp_path / "x"], strict=True).records] == wanted


@pytest.mark.parametrize("pack", [None, "gz", "zst"])
def test_a_folder_as_the_datasets_library_saves_it(tmp_path, pack):
    """`DatasetDict.save_to_disk`: a folder for each split, with what it says of itself and what `map` left behind."""
    rows = ds.edgecal_rows()
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    for split, part in (("train", rows[:1]), ("test", rows)):
        folder = tmp_path / split
        folder.mkdir()
        (folder / "state.json").write_text('{"_data_files": [{"filename": "data-00000-of-00002.arrow"}]}')
        (folder / "dataset_info.json").write_text('{"features": {}}')
        (folder / "cache-0123456789abcdef.arrow").write_bytes(arrow(table(rows[:1])))
        for shard, held in enumerate((part[:3], part[3:])):
            content = arrow(table(held)) if held else arrow(table(part).slice(0, 0))
            name = f"data-{shard:05}-of-00002.arrow{f'.{pack}' if pack else ''}"
            (folder / name).write_bytes(PACKED[pack](content) if pack else content)
    data = read_data([tmp_path], strict=True)
    assert facts(data) == expected() and len(data.files) == 2
    assert any("dataset_info.json" in note for note in data.notes)
    assert facts(read_data([tmp_path / "test"])) == expected()
    assert facts(read_data([tmp_path / "train"])) == expected()[:1]


def test_shards_named_by_data_set_and_split(tmp_path):
    for split, part in (("train", ds.edgecal_rows()[:1]), ("test", ds.edgecal_rows())):
        (tmp_path / f"quiz-{split}-00000-of-00001.arrow").write_bytes(arrow(table(part)))
    assert facts(read_data([tmp_path])) == expected()


def test_packed_and_unpacked_in_a_folder(tmp_path):
    plain = ds.write_json_lines(tmp_path / "quiz_test.jsonl", ds.edgecal_rows())
    (tmp_path / "quiz_test.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    (tmp_path / "quiz_dev.csv.zst").write_bytes(PACKED["zst"](b"question,A,B,answer\nq,x,y,A\n"))
    data = read_data([tmp_path])
    assert facts(data) == expected()
    assert any(
        "quiz_test.jsonl.gz: not read, since quiz_test.jsonl holds the same rows" in note
        for note in data.notes
    )
    plain.unlink()
    assert facts(read_data([tmp_path])) == expected()


STRAYS = {
    "results.json": json.dumps(
        {"kind": "eval", "data": {"files": ["x"]}, "wrong": [{"question": "q", "choices": ["a"]}]}
    ),
    "scores.csv": "model,accuracy\nx,0.5\ny,0.6\n",
    "scores.jsonl": '{"model": "x", "accuracy": 0.5}\n{"model": "y", "accuracy": 0.6}\n',
    "empty.json": "",
    "blank.csv": "\n\n",
    "notes.csv": "just words",
    "list.json": "[1, 2, 3]",
    "broken.json": '{"a": ',
    "README.md": "# Words",
    "SHA256SUMS": "0" * 64,
    "dataset_infos.json": "{}",
    "free.jsonl": '{"question": "Why?", "answer": "So."}\n',
}


@pytest.mark.parametrize("strict", [False, True])
def test_strays_in_a_folder_are_named_and_left_out(tmp_path, strict):
    ds.write_json_lines(tmp_path / "quiz.jsonl", ds.edgecal_rows())
    (tmp_path / "deep").mkdir()
    for name, text in STRAYS.items():
        (tmp_path / "deep" / name).write_text(text)
    data = read_data([tmp_path], strict=strict)
    assert facts(data) == expected() and data.files == (str(tmp_path / "quiz.jsonl"),) and not data.skipped
    said = "\n".join(data.notes)
    assert all(name in said for name in STRAYS)


@pytest.mark.parametrize("name", sorted(set(STRAYS) - {"README.md", "SHA256SUMS"}))
def test_a_stray_that_is_named_is_an_error(tmp_path, name):
    path = tmp_path / name
    path.write_text(STRAYS[name])
    for given in ([path], [tmp_path]):
        with pytest.raises(InputError) as caught:
            read_data(given)
        assert str(caught.value).startswith(str(tmp_path)) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["x.parquet", "x.arrow", "x.jsonl.gz"])
def test_what_is_damaged_in_a_folder_is_an_error(tmp_path, name):
    """It surely held questions, which would be missing."""
    ds.write_json_lines(tmp_path / "quiz.jsonl", ds.edgecal_rows())
    content = {"parquet": parquet(table()), "arrow": arrow(table()), "gz": gzip.compress(b"x" * 999)}
    (tmp_path / name).write_bytes(content[name.rsplit(".")[-1]][:-20])
    with pytest.raises(InputError, match=f"{name}: .*; download or"):
        read_data([tmp_path])


def test_lists_of_rows_by_subject(tmp_path):
    rows = [{key: row[key] for key in ("question", "choices", "answer")} for row in ds.edgecal_rows()]
    rows[4]["subject"] = "its own"
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"version": 2, "knots": rows[:2], "law": [], "tea": rows[2:]}, indent=1))
    data = read_data([path], strict=True)
    subjects = ["knots", "knots", "tea", "tea", "its own"]
    assert facts(data) == [(*item[:3], s) for item, s in zip(expected(), subjects, strict=True)]
    lines = [path.read_text().count("\n", 0, path.read_text().index(json.dumps(r["question"]))) for r in rows]
    assert [record.source for record in data.records] == [f"{path}, line {line}" for line in lines]
    path.write_text(json.dumps({"knots": rows[:2], "tea": [{"question": "q", "choices": ["x"]}]}))
    (skipped,) = read_data([path]).skipped
    assert skipped.subject == "tea"


def test_lists_of_rows_by_split(tmp_path):
    rows = ds.edgecal_rows()
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"train": rows[:2], "validation": rows[:1], "test": rows[1:]}))
    data = read_data([path], strict=True)
    assert facts(data) == expected()[1:]
    assert data.notes == (f"{path}: of its splits (test, validation, train) test is read",)


def test_one_row_with_lists_of_objects_is_one_row(tmp_path):
    row = {
        "question": "q?",
        "choices": [{"label": "A", "text": "x"}, {"label": "B", "text": "y"}],
        "answerKey": "B",
    }
    path = ds.write_json(tmp_path / "x.json", row | {"sources": [{"page": 3}]})
    assert facts(read_data([path], format="arc")) == [("q?", ["x", "y"], 1, None)]


def test_nothing_in_keys_that_are_not_needed(tmp_path):
    path = tmp_path / "x.jsonl"
    more = '"passage": NaN, "prompt": null, "tokens": NaN, "loss": -Infinity'
    path.write_text("".join(f"{json.dumps(row)[:-1]}, {more}}}\n" for row in ds.edgecal_rows()))
    assert facts(read_data([path], strict=True)) == expected()


BOMBS = {
    "gzip": (containers, "_MAX_UNPACKED", 5000, lambda: gzip.compress(b"x" * 5001)),
    "zstd": (containers, "_MAX_UNPACKED", 5000, lambda: PACKED["zst"](b"x" * 5001)),
    "cells": (
        parquet_arrow,
        "_MAX_CELLS",
        5000,
        lambda: parquet(pa.table({"question": pa.nulls(5001, pa.string())})),
    ),
    "bytes": (
        parquet_arrow,
        "_MAX_BYTES",
        5000,
        lambda: arrow(pa.table({"question": ["x" * 5001]}), compression="zstd"),
    ),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_small_file_does_not_fill_the_memory(tmp_path, monkeypatch, kind):
    module, name, limit, make = BOMBS[kind]
    monkeypatch.setattr(module, name, limit)
    (tmp_path / "x").write_bytes(make())
    with pytest.raises(InputError, match=r"x: (unpacks to more than|holds more than 5,000 cells)"):
        read_data([tmp_path / "x"])


def test_packed_over_and_over(tmp_path):
    data = b"{}"
    for _ in range(9):
        data = gzip.compress(data)
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(InputError, match="compressed more than 3 times over"):
        read_data([tmp_path / "x"])


WHOLE = {
    "gz": lambda: gzip.compress(json.dumps(ds.edgecal_rows()).encode()),
    "zst": lambda: PACKED["zst"](json.dumps(ds.edgecal_rows()).encode()),
    "parquet": lambda: parquet(table(), compression="zstd"),
    "arrow": lambda: arrow(table(), "file"),
    "stream": lambda: arrow(table(), compression="lz4"),
    "json": lambda: json.dumps({"knots": ds.edgecal_rows()[:2], "tea": ds.edgecal_rows()[2:]}).encode(),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_damage_is_said_in_one_line(tmp_path, kind):
    whole = WHOLE[kind]()
    draw = random.Random(kind)
    n_refused = 0
    for _ in range(60):
        data = bytearray(whole)
        if draw.random() < 0.5:
            del data[draw.randrange(len(data)) :]
        for _ in range(draw.randrange(4)):
            if data:
                data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        (tmp_path / "x").write_bytes(data)
        try:
            read_data([tmp_path / "x"])
        except InputError as error:
            n_refused += 1
            assert str(error).startswith(f"{tmp_path / 'x'}") and "\n" not in str(error)
    assert n_refused > 10
