"""`edgecal plot`: pictures from a saved result, and one line on whatever is wrong."""

import json
import subprocess
import sys
from xml.etree import ElementTree

import pytest
from support.results import compare_result, hostile_result, minimal_result

from edgecal.cli.commands import run_command
from edgecal.errors import InputError, OutputError
from edgecal.report import PICTURES, check_result, draw


def plot(*arguments, stdin=None, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "edgecal", "plot", *map(str, arguments)],
        capture_output=True,
        input=stdin,
        cwd=cwd,
        timeout=60,
    )


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "result.json"
    path.write_text(json.dumps(compare_result()), encoding="utf-8")
    return path


def refused(arguments, kind, *parts, capsys):
    """The command, in this process, ends in one line that says all parts, and prints nothing."""
    with pytest.raises(kind) as caught:
        run_command(["plot", *map(str, arguments)])
    line = str(caught.value)
    assert "\n" not in line
    for part in parts:
        assert part in line
    assert capsys.readouterr().out == ""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_every_picture_beside_the_result(saved, tmp_path, capsys):
    assert run_command(["plot", str(saved)]) == 0
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / f"{name}.svg") for name in PICTURES]
    checked = check_result(compare_result(), "x")
    for name in PICTURES:
        assert (tmp_path / f"{name}.svg").read_bytes() == draw(checked, name)
    assert names(tmp_path) == sorted(["result.json", *(f"{name}.svg" for name in PICTURES)])


def test_chosen_pictures_in_both_formats(saved, tmp_path):
    folder = tmp_path / "a" / "b"
    options = ["--picture", "loss", "--picture", "layers", "--format", "both", "--dark", "-o", str(folder)]
    assert run_command(["plot", str(saved), *options]) == 0
    assert names(folder) == ["layers.png", "layers.svg", "loss.png", "loss.svg"]
    checked = check_result(compare_result(), "x")
    assert (folder / "loss.png").read_bytes() == draw(checked, "loss", "png", dark=True)


def test_standard_input_goes_to_the_current_folder(tmp_path):
    content = b"\xef\xbb\xbf" + json.dumps(minimal_result("eval")).encode()
    run = plot("-", stdin=content, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert run.stdout == b"reliability.svg\nrisk-coverage.svg\n"
    assert names(tmp_path) == ["reliability.svg", "risk-coverage.svg"]


def test_hostile_text_reaches_no_picture(tmp_path):
    path = tmp_path / "hostile.json"
    path.write_text(json.dumps(hostile_result("eval")))
    assert run_command(["plot", str(path), "-o", str(tmp_path / "drawn")]) == 0
    for path in (tmp_path / "drawn").iterdir():
        ElementTree.parse(path)
        assert "alert" not in path.read_text("utf-8")


def test_existing_files_are_refused_before_anything_is_written(saved, tmp_path, capsys):
    (tmp_path / "risk-coverage.svg").write_text("mine")
    options = ["--picture", "loss", "--picture", "risk-coverage"]
    refused([saved, *options], OutputError, "risk-coverage.svg: exists", "--force", capsys=capsys)
    assert names(tmp_path) == ["result.json", "risk-coverage.svg"]
    assert (tmp_path / "risk-coverage.svg").read_text() == "mine"
    assert run_command(["plot", str(saved), "--force", "--picture", "risk-coverage"]) == 0
    assert (tmp_path / "risk-coverage.svg").read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"", ["not valid JSON"]),
        (b"{", ["not valid JSON", "line 1"]),
        (b"\xff\xfe{", ["not UTF-8"]),
        (b"[1, 2]", ["expected a JSON object, got a list"]),
        (b'{"kind": "fit"}', ['"kind" is "fit"']),
        (b'{"kind": "eval", "verdict": NaN}', ["NaN is not a JSON number"]),
        (b"[" * 100_000, ["not valid JSON"]),
        (b'{"temperature": 3.8}', ['the key "kind" is missing']),
    ],
)
def test_bad_results(tmp_path, capsys, content, parts):
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    refused([path], InputError, "bad.json", *parts, capsys=capsys)
    assert names(tmp_path) == ["bad.json"]


def test_bad_options_and_places(saved, tmp_path, capsys):
    gone = tmp_path / "none.json"
    refused([gone], InputError, "none.json: cannot be read (No such file or directory)", capsys=capsys)
    refused([tmp_path], InputError, "cannot be read (Is a directory)", capsys=capsys)
    refused([saved, "--picture", "pie"], InputError, "no picture 'pie'; there are reliability", capsys=capsys)
    least = tmp_path / "least.json"
    least.write_text(json.dumps(minimal_result("eval")))
    refused([least, "--picture", "loss"], InputError, "no numbers for the picture 'loss'", capsys=capsys)
    refused([least, "-o", saved], OutputError, "result.json", "cannot be made", capsys=capsys)
    (tmp_path / "reliability.svg").mkdir()
    refused([least, "--force"], OutputError, "reliability.svg: is a folder", capsys=capsys)
    assert names(tmp_path) == ["least.json", "reliability.svg", "result.json"]


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["-"], 2, "standard input: not valid JSON"),
        (["-", "--format", "gif"], 2, "'gif' is not one of"),
        (["result.json", "-o", "result.json"], 5, "result.json: the folder cannot be made"),
    ],
)
def test_exit_codes(saved, tmp_path, arguments, code, complaint):
    run = plot(*arguments, stdin=b"", cwd=tmp_path)
    text = run.stderr.decode()
    assert run.returncode == code, text
    assert run.stdout == b"" and "Traceback" not in text
    assert complaint in text.strip().splitlines()[-1]


def test_the_help_names_every_picture(capsys):
    assert run_command(["plot", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for name in PICTURES:
        assert name in text
