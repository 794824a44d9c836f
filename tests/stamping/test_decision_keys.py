"""The temperatures of typed questions in a file: written, read, shown, taken out again; and what makes no sense."""

import json
import math

import pytest
from support.edits import MODEL, names
from support.gguf_files import write_bytes

import edgecal
from edgecal import InputError
from edgecal.cli.commands import run_command
from edgecal.decisions import BUCKETS, TYPES
from edgecal.gguf.header import read_header
from edgecal.gguf.rewrite import write_edited
from edgecal.gguf.values import Value, ValueType
from edgecal.runtime.export_targets import TARGETS, export
from edgecal.stamping.changes import decision_edits
from edgecal.stamping.decision_record import (
    GROUPS,
    DecisionRecord,
    GroupRecord,
    read_decisions,
    read_temperatures,
)

RECORD = DecisionRecord(
    groups={
        "choice": GroupRecord(1.5, (1.25, 1.75), (1.25, None), False),
        "choice.3_5": GroupRecord(2.0, (1.75, 2.25), (1.5, 2.5), True),
        "noul": GroupRecord(0.5, settled=True),
    },
    noul_bias=-0.25,
    bias_labels=40,
    readout="labels",
    orders="2",
    prompt_sha256="ab" * 32,
    method="dual-align",
    requests_count=600,
    requests_sha256="cd" * 32,
    base_sha256="ef" * 32,
)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_bytes(tmp_path / "m.gguf", MODEL)
    return tmp_path


def write(source, target, record=RECORD):
    changes, remove = decision_edits(read_header(source), record)
    write_edited(read_header(source), target, changes=changes, remove=remove)
    return target


def test_the_names_are_those_of_decisions():
    assert (
        tuple(f"{kind}{b}" for kind in TYPES for b in ("", *(f".{name}" for name, *_ in BUCKETS))) == GROUPS
    )


def test_what_was_written_is_read(here):
    write("m.gguf", here / "out.gguf")
    header = read_header(here / "out.gguf")
    assert read_decisions(header) == RECORD
    assert header.value("edgecal.temperature.choice.3_5") == Value.float32(2.0)
    assert math.isnan(header.get("edgecal.bracket.choice")[1])
    found = read_temperatures(header)
    assert found.general is None and found.readout == "labels" and found.orders == "2"
    assert (found.find("choice", 4).temperature, found.find("choice", 4).settled) == (2.0, True)
    assert (found.find("choice", 9).temperature, found.find("choice", 9).settled) == (1.5, False)
    assert (found.find("noul", 2).temperature, found.find("noul", 2).bias) == (0.5, -0.25)
    assert found.find("score", 4).settled is None
    assert read_decisions(read_header(here / "m.gguf")) is None


@pytest.mark.parametrize("first", ["temperature", "decisions"])
def test_strip_restores_the_bytes_whatever_was_stamped_first(here, first):
    if first == "temperature":
        edgecal.stamp("m.gguf", "a.gguf", temperature=3.0)
        write("a.gguf", here / "b.gguf")
    else:
        write("m.gguf", here / "a.gguf")
        edgecal.stamp("a.gguf", "b.gguf", temperature=3.0)
    both = read_header(here / "b.gguf")
    assert both.get("edgecal.temperature") == 3.0 and read_decisions(both) == RECORD
    assert read_temperatures(both).general == 3.0
    fewer = DecisionRecord({"score": GroupRecord(1.125)})
    write("b.gguf", here / "c.gguf", fewer)
    assert read_decisions(read_header(here / "c.gguf")) == fewer
    for name in ("a.gguf", "b.gguf", "c.gguf"):
        edgecal.strip(name, f"stripped.{name}")
        assert (here / f"stripped.{name}").read_bytes() == MODEL


def test_show_prints_a_line_for_each(here, capsys):
    write("m.gguf", here / "out.gguf")
    run_command(["show", "out.gguf"])
    shown = capsys.readouterr()
    lines = {line.split("  ")[0]: line for line in shown.out.splitlines()}
    assert (
        "2  (95 % interval 1.75 to 2.25; bracket 1.5 to 2.5; settled)"
        in lines["edgecal.temperature.choice.3_5"]
    )
    assert "bracket 1.25 to none; unsettled" in lines["edgecal.temperature.choice"]
    assert "edgecal.settled.choice" not in shown.out
    assert "temperature of choice is unreliable" in shown.err and "noul is unreliable" not in shown.err
    run_command(["show", "out.gguf", "--json"])
    section = json.loads(capsys.readouterr().out)["calibration"]
    assert section["edgecal.bracket.choice"] == [1.25, None] and section["edgecal.settled.noul"] is True


def test_several_temperatures_cannot_be_baked(here):
    edgecal.stamp("m.gguf", "a.gguf", temperature=3.0)
    write("a.gguf", here / "b.gguf")
    for temperature in (None, 2.0):
        with pytest.raises(InputError, match=r"each of choice, choice\.3_5, noul, and a baked file .* strip"):
            edgecal.bake("b.gguf", "c.gguf", temperature=temperature, check=False)
    assert names(here) == ["a.gguf", "b.gguf", "m.gguf"]


def test_other_commands_go_on_as_before(here, capsys):
    edgecal.stamp("m.gguf", "a.gguf", temperature=3.0)
    write("a.gguf", here / "b.gguf")
    write("m.gguf", here / "typed.gguf")
    for target in TARGETS:
        plain, both = (export(here / name, target).sentence for name in ("a.gguf", "b.gguf"))
        assert plain == both
        with pytest.raises(InputError, match=f"typed questions alone, which {target} cannot use"):
            export(here / "typed.gguf", target)
    run_command(["diff", "a.gguf", "b.gguf"])
    assert "edgecal.temperature.choice.3_5" in capsys.readouterr().out


F32, ARRAY = ValueType.FLOAT32, ValueType.ARRAY
BAD = [
    (
        "edgecal.temperature.choice",
        Value.of(F32, math.nan),
        "edgecal.temperature.choice is nan, expected a positive",
    ),
    ("edgecal.temperature.noul", Value.of(F32, 0.0), "edgecal.temperature.noul is 0.0, expected a positive"),
    ("edgecal.temperature.score", Value.of(F32, -1.0), "is -1.0"),
    ("edgecal.temperature.score.11", Value.of(F32, math.inf), "is inf"),
    ("edgecal.temperature.score", Value.of(ValueType.FLOAT64, 1.0), "is FLOAT64, expected FLOAT32"),
    ("edgecal.temperature.choice.2", Value.string("2"), "is STRING, expected FLOAT32"),
    ("edgecal.interval.choice", Value.array(F32, [1.0]), "edgecal.interval.choice is not two FLOAT32"),
    ("edgecal.interval.choice", Value.array(F32, [2.0, 1.0]), "two finite numbers in order"),
    ("edgecal.bracket.choice", Value.array(F32, [0.0, 1.0]), "edgecal.bracket.choice holds 0.0"),
    ("edgecal.bracket.choice", Value.string("x"), "edgecal.bracket.choice is not two FLOAT32"),
    ("edgecal.settled.choice", Value.uint32(1), "edgecal.settled.choice is UINT32, expected BOOL"),
    ("edgecal.bias.noul", Value.of(F32, math.inf), "edgecal.bias.noul is inf, expected a finite"),
    ("edgecal.decision.orders", Value.string("0"), "edgecal.decision.orders is '0', expected a number"),
    (
        "edgecal.decision.readout",
        Value.string("voices"),
        "edgecal.decision.readout is 'voices', expected one of",
    ),
    ("edgecal.requests.count", Value.string("9"), "edgecal.requests.count is STRING"),
]


@pytest.mark.parametrize(("key", "value", "message"), BAD)
def test_what_makes_no_sense_is_one_clear_error(here, key, value, message):
    write("m.gguf", here / "a.gguf")
    write_edited(read_header(here / "a.gguf"), here / "bad.gguf", changes={key: value})
    header = read_header(here / "bad.gguf")
    for read in (read_decisions, read_temperatures):
        with pytest.raises(InputError, match=r"^\S*bad\.gguf: ") as caught:
            read(header)
        assert message in str(caught.value)
    with pytest.raises(InputError):
        edgecal.show("bad.gguf")
    edgecal.strip("bad.gguf", "back.gguf")
    assert (here / "back.gguf").read_bytes() == MODEL


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (DecisionRecord({"choice": GroupRecord(0.0)}), "edgecal.temperature.choice is 0.0"),
        (DecisionRecord({"choice": GroupRecord(1e-60)}), "edgecal.temperature.choice is 1e-60"),
        (DecisionRecord(noul_bias=math.nan), "edgecal.bias.noul is nan"),
        (DecisionRecord(orders="-1"), "edgecal.decision.orders"),
    ],
)
def test_no_such_record_is_written(here, record, message):
    with pytest.raises(InputError, match=message):
        decision_edits(read_header(here / "m.gguf"), record)
