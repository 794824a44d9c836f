"""A result as a block of Markdown, ready for a model card. A pure function of the result dictionary."""

from __future__ import annotations

import re

from edgecal.report.text import visible
from edgecal.report.text_tables import TextTable, describe_data, describe_prompting, list_tables
from edgecal.results.judging import CompareResult, Judgement

__all__ = ["render_markdown"]

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#$~])")


def render_markdown(result: Judgement) -> str:
    """Headings, the verdict, what was judged, and every table; names are escaped. Ends with a line break."""
    if isinstance(result, CompareResult):
        named = [result.models["base"]["name"], result.models["chat"]["name"]]
    else:
        named = [result.model["name"]]
    names = " and ".join(map(_escape, named))
    runtime = result.runtime
    lines = [
        f"## Calibration of {names}",
        "",
        _escape(result.verdict),
        "",
        f"- Data: {_escape(describe_data(result))}",
        f"- Prompting: {_escape(describe_prompting(result))}",
        f"- Made by edgecal {_escape(runtime['edgecal'])} with {_escape(runtime['llama_cpp'])}",
    ]
    if "command" in runtime:
        lines.append(f"- Command: {_code(runtime['command'])}")
    for table in list_tables(result):
        lines += ["", f"### {_escape(table.title)}", "", *_draw(table)]
        if table.note:
            lines += ["", _escape(table.note[0].upper() + table.note[1:] + ".")]
    return "\n".join(lines) + "\n"


def _draw(table: TextTable) -> list[str]:
    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(_escape(cell) for cell in cells) + " |"

    return [line(table.columns), "|" + "---|" * len(table.columns), *(line(row) for row in table.rows)]


def _escape(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", visible(text))


def _code(text: str) -> str:
    shown = visible(text)
    longest = max((len(run) for run in re.findall(r"`+", shown)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if longest else ""
    return f"{fence}{pad}{shown}{pad}{fence}"
