"""What describes the code is true: the CLI reference, the README's tree, links and keys."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import edgecal
from edgecal.architectures import FAMILIES, REFUSALS
from edgecal.gguf.header import read_header
from edgecal.prompts import read_bank
from edgecal.stamping.edits import calibration_edits
from edgecal.stamping.record import CalibrationRecord

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def block(name):
    return re.search(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", README, re.DOTALL).group(1)


def test_the_cli_reference_is_current():
    """In a process of its own: click remembers the help option of a command that ran without its group."""
    script = ROOT / "tests/support/cli_reference.py"
    made = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert (ROOT / "docs/cli.md").read_text("utf-8") == made.stdout


def test_the_tree_names_every_part():
    named = set(re.findall(r"^ {0,2}([a-z_]+(?:/|\.py))", block("tree"), re.MULTILINE)) - {"edgecal/"}
    parts = {
        f"{path.name}/" if path.is_dir() else path.name
        for path in Path(edgecal.__file__).parent.iterdir()
        if not path.name.startswith("_")
    }
    assert named == parts | {"native/", "models/", "bench/", "examples/", "tests/"}


def test_every_key_is_explained(tmp_path):
    from support.tiny_models import write_tiny_llama

    path = write_tiny_llama(tmp_path / "m.gguf", seed=1, metadata={"general.sampling.temp": 0.7})
    record = CalibrationRecord(
        2.0,
        (1.9, 2.1),
        "daca",
        "",
        "choices",
        100,
        "0" * 64,
        0.8,
        (1.5, None),
        False,
        True,
        ("too wide",),
        "base",
        "0" * 64,
        "llama.cpp",
    )
    changes, _ = calibration_edits(read_header(path), record)
    explained = set(re.findall(r"`((?:edgecal|general)\.[a-z0-9_.]+)`", README))
    assert set(changes) <= explained


@pytest.mark.parametrize(
    "page",
    ["README.md", "models/README.md", "bench/README.md", "docs/log.md", "docs/real.md", "CHANGELOG.md"],
)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text("utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert ((ROOT / page).parent / target).exists(), target


def test_the_bank_is_as_large_as_the_readme_says():
    bank = read_bank()
    assert f"{len(bank)} questions over {len({question.subject for question in bank})} subjects" in README


def test_the_make_targets_that_the_readme_names_exist():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in set(re.findall(r"(?:^    |`)make ([a-z-]+)", README, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_methods_that_the_readme_quotes_are_rows_of_the_comparison():
    printed = (ROOT / "docs/comparison.md").read_text("utf-8").splitlines()
    quoted = block("methods").split("\n")[:-1]
    assert quoted[0].startswith("| method |")
    assert {row.split(" |")[0] for row in quoted} >= {"| plm", "| polm", "| daca", "| ts"}
    start = printed.index(quoted[0])
    assert set(quoted) <= set(printed[start : start + 23])


def test_every_architecture_of_the_table_is_listed():
    page = (ROOT / "docs/architectures.md").read_text("utf-8")
    listed = re.findall(r"^\| `([^`]+)` \| (no|outputs|untested|layers)", page, re.MULTILINE)
    assert {name for name, _ in listed} == set(FAMILIES) | set(REFUSALS)
    assert {name for name, works in listed if works == "no"} == set(REFUSALS)
