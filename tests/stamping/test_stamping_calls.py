"""`edgecal.stamp`, `strip`, `bake`, `unbake` and `show` do and refuse what the commands of these names do."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.bake_files import SHAPES
from support.edits import MODEL, RESULT
from support.gguf_files import write_bytes

import edgecal
from edgecal.cli.commands import run_command
from edgecal.errors import EdgecalError

BAKEABLE = SHAPES["stamped, no author's temperature"]
REFUSED = RESULT | {"settled": False, "harmful": None, "reasons": ["nothing shows it"]}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_bytes(tmp_path / "m.gguf", MODEL)
    write_bytes(tmp_path / "bakeable.gguf", BAKEABLE)
    (tmp_path / "fit.json").write_text(json.dumps(RESULT))
    (tmp_path / "refused.json").write_text(json.dumps(REFUSED))
    return tmp_path


STAMP = [
    ({"temperature": 2.5}, ["--temperature", "2.5"]),
    ({"temperature": 2.5, "sampling_key": False}, ["--temperature", "2.5", "--no-sampling-key"]),
    ({"fit": "fit.json"}, ["--from", "fit.json"]),
    ({"fit": Path("fit.json"), "temperature": 2}, ["--from", "fit.json", "--temperature", "2"]),
    ({"fit": RESULT, "verify": True}, ["--from", "fit.json", "--verify"]),
    ({"fit": REFUSED, "unsettled": True}, ["--from", "refused.json", "--unsettled"]),
]


@pytest.mark.parametrize(("keywords", "options"), STAMP)
def test_stamp_writes_the_same_bytes(here, capfd, keywords, options):
    result = edgecal.stamp("m.gguf", "python.gguf", **keywords)
    run_command(["stamp", "m.gguf", "--output", "command.gguf", "--json", *options])
    stamped = (here / "command.gguf").read_bytes()
    assert (here / "python.gguf").read_bytes() == stamped != MODEL
    printed = json.loads(capfd.readouterr().out)
    assert result.to_dict() | {"output": "command.gguf"} == printed
    write_bytes(here / "place.gguf", MODEL)
    assert edgecal.stamp("place.gguf", in_place=True, **keywords).in_place
    assert edgecal.strip(here / "place.gguf", in_place=True).keys
    assert (here / "place.gguf").read_bytes() == MODEL


def test_a_fits_own_result_is_stamped(here):
    class Fitted:
        def to_dict(self):
            return RESULT

    edgecal.stamp("m.gguf", "object.gguf", fit=Fitted())
    edgecal.stamp("m.gguf", "file.gguf", fit="fit.json")
    assert (here / "object.gguf").read_bytes() == (here / "file.gguf").read_bytes()


def test_strip_bake_and_unbake_write_the_same_bytes(here, capfd):
    edgecal.stamp("m.gguf", "stamped.gguf", temperature=2.5)
    edgecal.strip("stamped.gguf", "python.gguf", verify=True)
    run_command(["strip", "stamped.gguf", "-o", "command.gguf", "-q"])
    assert (here / "python.gguf").read_bytes() == (here / "command.gguf").read_bytes() == MODEL
    baked = edgecal.bake("bakeable.gguf", "b.python.gguf", check=False)
    run_command(["bake", "bakeable.gguf", "-o", "b.command.gguf", "--no-check", "--json"])
    assert json.loads(capfd.readouterr().out) == json.loads(
        json.dumps(baked.to_dict() | {"output": "b.command.gguf"})
    )
    assert (here / "b.python.gguf").read_bytes() == (here / "b.command.gguf").read_bytes() != BAKEABLE
    back = edgecal.unbake("b.python.gguf", "back.gguf", verify=True)
    assert back.exact and (here / "back.gguf").read_bytes() == BAKEABLE


@pytest.mark.parametrize("name", ["m.gguf", "bakeable.gguf"])
def test_show_says_what_the_command_prints(here, capfd, name):
    edgecal.stamp(name, "s.gguf", fit=REFUSED, unsettled=True)
    for file in (name, Path("s.gguf")):
        shown = edgecal.show(file)
        run_command(["show", str(file), "--json"])
        captured = capfd.readouterr()
        assert shown.to_dict() == json.loads(captured.out)
        assert [f"edgecal: warning: {line}" for line in shown.warnings] == captured.err.splitlines()
    assert len(shown.warnings) == 1 and shown.calibration["edgecal.temperature"] == pytest.approx(2.31)


REFUSALS = [
    ("stamp", {"temperature": 0.0}, ["--temperature=0"], 2),
    ("stamp", {"temperature": float("nan")}, ["--temperature=nan"], 2),
    ("stamp", {"fit": "gone.json"}, ["--from", "gone.json"], 2),
    ("stamp", {"fit": "m.gguf"}, ["--from", "m.gguf"], 2),
    ("stamp", {"fit": "refused.json"}, ["--from", "refused.json"], 4),
    ("stamp", {"fit": "fit.json", "output": "fit.json", "force": True}, ["--from", "fit.json", "--force"], 2),
    ("stamp", {"temperature": 2.0, "output": "m.gguf", "force": True}, ["--temperature", "2", "--force"], 2),
    ("stamp", {"temperature": 2.0, "output": "bakeable.gguf"}, ["--temperature", "2"], 2),
    ("stamp", {"temperature": 2.0, "output": "gone/o.gguf"}, ["--temperature", "2"], 2),
    ("stamp", {"temperature": 2.0, "file": "gone.gguf"}, ["--temperature", "2"], 2),
    ("strip", {"file": "fit.json"}, [], 2),
    ("bake", {"check": False}, ["--no-check"], 2),
    (
        "bake",
        {"check": False, "file": "bakeable.gguf", "temperature": 1.0},
        ["--no-check", "--temperature", "1"],
        2,
    ),
    ("unbake", {}, [], 2),
]


@pytest.mark.parametrize(("name", "keywords", "options", "code"), REFUSALS)
def test_the_same_is_refused_in_the_same_words(here, name, keywords, options, code):
    before = {path.name: path.read_bytes() for path in here.iterdir()}
    given = {"file": "m.gguf", "output": "o.gguf"} | keywords
    with pytest.raises(EdgecalError) as called:
        getattr(edgecal, name)(**given)
    with pytest.raises(EdgecalError) as commanded:
        run_command([name, given["file"], "--output", given["output"], *options])
    assert (str(called.value), type(called.value)) == (str(commanded.value), type(commanded.value))
    assert called.value.exit_code == code
    assert {path.name: path.read_bytes() for path in here.iterdir()} == before


@pytest.mark.parametrize("name", ["stamp", "strip", "bake", "unbake"])
@pytest.mark.parametrize("place", [{}, {"output": "o.gguf", "in_place": True}])
def test_exactly_one_place_is_given(here, name, place):
    keywords = {"stamp": {"temperature": 2.0}, "bake": {"check": False}}.get(name, {})
    edgecal.bake("bakeable.gguf", "b.gguf", check=False)
    file = "b.gguf" if name == "unbake" else "bakeable.gguf"
    before = {path.name: path.read_bytes() for path in here.iterdir()}
    with pytest.raises(edgecal.InputError, match=r"in.place"):
        getattr(edgecal, name)(file, **place, **({} if name == "strip" else keywords))
    assert {path.name: path.read_bytes() for path in here.iterdir()} == before


def test_a_stamp_needs_a_temperature(here):
    with pytest.raises(edgecal.InputError, match="no temperature"):
        edgecal.stamp("m.gguf", "o.gguf")
    with pytest.raises(edgecal.UnsettledError) as refused:
        edgecal.stamp("m.gguf", "o.gguf", fit=REFUSED)
    assert refused.value.warnings == ("nothing shows it",)


def test_progress_counts_bytes(here):
    seen = []
    edgecal.stamp("m.gguf", "o.gguf", temperature=2.0, on_progress=lambda *counts: seen.append(counts))
    assert seen[-1][0] == seen[-1][1] > 0


def test_a_public_name_is_a_function_whatever_was_imported_before():
    """A module of edgecal's with a public name would take that name's place once it is imported."""
    code = (
        "import edgecal, pkgutil, importlib\n"
        "for part in pkgutil.walk_packages(edgecal.__path__, 'edgecal.'):\n"
        "    if '._native' not in part.name and '__main__' not in part.name and '.report' not in part.name:\n"
        "        importlib.import_module(part.name)\n"
        "print([name for name in edgecal.__all__ if type(getattr(edgecal, name)).__name__ == 'module'])\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out == "[]\n"
    parts = {path.stem for path in Path(edgecal.__file__).parent.iterdir()}
    assert not parts & set(edgecal.__all__)
