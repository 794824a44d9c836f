"""What describes the code is true: the CLI reference, the tree, links, keys, figures, and every name in the pages."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from support.pages import GUIDE, PAGES, README, ROOT, block, code_block, read_page
from test_architecture import MAY_IMPORT

import edgecal
from edgecal.architectures import FAMILIES, REFUSALS
from edgecal.calibration import METHODS
from edgecal.gguf.header import read_header
from edgecal.prompts import read_bank
from edgecal.stamping.changes import calibration_edits
from edgecal.stamping.record import CalibrationRecord

PACKAGE = Path(edgecal.__file__).parent
PAGE_NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
ALL_PAGES = [
    *PAGE_NAMES,
    "models/README.md",
    "bench/README.md",
    "docs/log.md",
    "docs/real.md",
    "CHANGELOG.md",
]


def code_words(text):
    """What stands in `backticks`, outside fenced blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def anchors(text):
    """The anchors that GitHub makes of the headings."""
    headings = re.findall(
        r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_cli_reference_is_current():
    """In a process of its own: click remembers the help option of a command that ran without its group."""
    script = ROOT / "tests/support/cli_reference.py"
    made = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert (ROOT / "docs/cli.md").read_text("utf-8") == made.stdout


def test_the_readme_is_short():
    assert len(read_page(README).splitlines()) <= 150


def tree():
    return re.findall(r"^  ([a-z_]+)(?:/|\.py) ", code_block("tree"), re.MULTILINE)


def test_the_tree_names_every_part():
    parts = [
        path.stem
        for path in PACKAGE.iterdir()
        if not path.name.startswith("_") and path.suffix in ("", ".py")
    ]
    assert sorted(tree()) == sorted(parts)


def test_the_tree_stands_top_down():
    """Each part may import those below it only."""
    order = tree()
    for at, part in enumerate(order):
        assert MAY_IMPORT[part] <= set(order[at + 1 :]), part


@pytest.mark.parametrize("page", PAGE_NAMES)
def test_every_path_and_module_exists(page):
    for word in code_words(read_page(ROOT / page)):
        if re.fullmatch(r"(edgecal|tests|native|models|bench|examples|docs)/[\w./-]*", word):
            assert (ROOT / word).exists(), word
        elif re.fullmatch(r"\w+\.py", word):
            assert any(PACKAGE.rglob(word)), word
        elif match := re.fullmatch(r"(edgecal(?:\.[a-z_]\w*)+)", word):
            assert exists(match[1]) or word in explained_keys(), word


def exists(dotted):
    """Whether a module, or a name of one, is there."""
    parts = dotted.split(".")
    for n in range(len(parts), 0, -1):
        name = ".".join(parts[:n])
        if name == "edgecal" or (exists(".".join(parts[: n - 1])) and find_spec(name) is not None):
            module = __import__(name, fromlist=["_"])
            rest = parts[n:]
            return not rest or (len(rest) == 1 and hasattr(module, rest[0]))
    return False


def explained_keys():
    rows = re.findall(r"^\|([^|]+)\|", block("keys"), re.MULTILINE)
    return {word for row in rows for word in code_words(row)} | {"edgecal.previous.sampling.temp"}


@pytest.mark.parametrize("page", PAGE_NAMES)
def test_every_class_that_is_named_is_one(page):
    source = "\n".join(path.read_text("utf-8") for path in PACKAGE.rglob("*.py"))
    named = {
        word for word in code_words(read_page(ROOT / page)) if re.fullmatch(r"(?:[A-Z][a-z]+){2,}", word)
    }
    assert {name for name in named if not re.search(rf"^(?:class )?{name}\b", source, re.MULTILINE)} == set()


def test_every_public_name_is_in_the_guide():
    named = {word.removeprefix("edgecal.").split("(")[0] for word in code_words(read_page(GUIDE))}
    assert set(edgecal.__all__) - {"__version__"} <= named


def test_every_method_is_explained():
    rows = re.findall(r"^\| `([a-z-]+)`", read_page(GUIDE), re.MULTILINE)
    assert set(METHODS) <= set(rows)


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
        labels_count=30,
        labels_sha256="0" * 64,
    )
    changes, _ = calibration_edits(read_header(path), record)
    assert set(changes) <= set(re.findall(r"`((?:edgecal|general)\.[a-z0-9_.]+)`", block("keys")))


@pytest.mark.parametrize("page", ALL_PAGES)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text("utf-8")
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", text):
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path.read_text("utf-8")), f"{target}#{anchor}"


@pytest.mark.parametrize("page", [README, GUIDE], ids=["README", "guide"])
def test_the_bank_is_as_large_as_is_said(page):
    bank = read_bank()
    said = f"{len(bank)} questions over {len({question.subject for question in bank})} subjects"
    assert said in " ".join(read_page(page).split())


@pytest.mark.parametrize("page", PAGE_NAMES)
def test_the_make_targets_that_are_named_exist(page):
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in set(re.findall(r"(?:^    |`)make ([a-z-]+)", read_page(ROOT / page), re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_methods_that_are_quoted_are_rows_of_the_comparison():
    printed = (ROOT / "docs/comparison.md").read_text("utf-8").splitlines()
    quoted = block("methods").split("\n")[:-1]
    assert quoted[0].startswith("| method |")
    assert {row.split(" |")[0] for row in quoted} >= {"| plm", "| polm", "| daca", "| ts"}
    start = printed.index(quoted[0])
    assert set(quoted) <= set(printed[start : start + 30])


def test_the_figures_of_the_readme_stand_where_it_says():
    """Each is quoted as a command of this repository printed it."""
    figures = re.findall(r"^- .*?(?=^- |\Z)", block("figures"), re.MULTILINE | re.DOTALL)
    assert len(figures) == 3
    for text in figures:
        (page,) = re.findall(r"\(\[(docs/\w+\.md)\]", text)
        numbers = re.findall(r"\d+\.\d(?= %| to )|\d+(?= of | architectures)|(?<= of )\d+", text)
        assert len(numbers) >= 2
        printed = (ROOT / page).read_text("utf-8")
        for number in numbers:
            assert re.search(rf"(?<![\d.]){re.escape(number)}(?![\d.]*\d)", printed), (page, number)


def test_every_architecture_of_the_table_is_listed():
    page = (ROOT / "docs/architectures.md").read_text("utf-8")
    listed = re.findall(r"^\| `([^`]+)` \| (no|outputs|untested|layers)", page, re.MULTILINE)
    assert {name for name, _ in listed} == set(FAMILIES) | set(REFUSALS)
    assert {name for name, works in listed if works == "no"} == set(REFUSALS)


def test_ten_sentences():
    """The way of the data through `fit`: ten items, in order."""
    assert re.findall(r"^(\d+)\. ", block("ten"), re.MULTILINE) == [str(n) for n in range(1, 11)]
