"""The pages that describe edgecal to people, and the blocks in them that tests run or compare."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
GUIDE = ROOT / "docs/guide.md"
ARCHITECTURE = ROOT / "docs/architecture.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
PAGES = (README, GUIDE, ARCHITECTURE, CONTRIBUTING)


def read_page(page: Path) -> str:
    return page.read_text("utf-8")


def block(name: str) -> str:
    """What stands between `<!-- name -->` and `<!-- /name -->`, which is in exactly one of the pages."""
    pattern = re.compile(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", re.DOTALL)
    (found,) = (match[1] for page in PAGES for match in pattern.finditer(read_page(page)))
    return found


def code_block(name: str) -> str:
    """The same without the fence around it."""
    match = re.fullmatch(r"```\w*\n(.*?)```\n", block(name), re.DOTALL)
    assert match, f"the block {name} is not fenced code and nothing else"
    return match[1]
