"""What is shipped, and what the package index is told."""

import re
import sys
from pathlib import Path

import edgecal

ROOT = Path(__file__).parents[1]
PROJECT = (ROOT / "pyproject.toml").read_text("utf-8")


def test_the_types_are_shipped():
    """In a wheel, too: `make test` without `make dev` runs an installed copy."""
    assert (Path(edgecal.__file__).parent / "py.typed").is_file()
    assert '"Typing :: Typed"' in PROJECT


def test_the_classifiers_begin_with_the_oldest_python():
    oldest = re.search(r'requires-python = ">=3\.(\d+)"', PROJECT)[1]
    minors = [int(minor) for minor in re.findall(r'"Programming Language :: Python :: 3\.(\d+)"', PROJECT)]
    assert minors == list(range(int(oldest), max(minors) + 1))
    assert sys.version_info >= (3, int(oldest))


def test_the_options_of_llama_cpps_build_are_where_the_makefile_and_the_guide_say():
    for page in ("Makefile", "docs/guide.md"):
        (name,) = set(
            re.findall(
                r"-DCMAKE_PROJECT_llama_cpp_INCLUDE=\S*?(native/\w+\.cmake)", (ROOT / page).read_text("utf-8")
            )
        )
        assert (ROOT / name).is_file()
