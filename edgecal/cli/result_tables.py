"""Results of `eval` and `compare` for people, on stdout. Knows results, not how they came about."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from edgecal.cli.streams import printable
from edgecal.cli.tables import bracket_text, print_plain, terminal_width, two_columns
from edgecal.report.text_tables import TextTable, describe_data, describe_prompting, list_tables
from edgecal.results.judging import CompareResult, EvalResult, Judgement, RunCost, TemperatureUsed

__all__ = ["print_result"]


def print_result(result: Judgement) -> None:
    """Prints the verdict, what was judged, and the tables."""
    print_plain(Text(_plain(result.verdict), "bold"))
    print_plain("")
    facts = two_columns()
    facts.add_row("data", _plain(describe_data(result)))
    facts.add_row("prompting", _plain(describe_prompting(result)))
    if isinstance(result, EvalResult):
        facts.add_row("temperature", _temperature(result.temperature))
    else:
        facts.add_row("bracket", bracket_text(result.bracket))
        facts.add_row("settled", _settled(result))
        runs = result.extra_runs
        for name, cost in (
            ("cape", runs["cape"]),
            ("verbalized", runs["verbalized"]),
            ("effects", runs["effects"]),
        ):
            if cost is not None:
                facts.add_row(f"run for {name}", _run(cost))
    print_plain(facts)
    for table in list_tables(result):
        print_plain("")
        print_plain(_draw(_narrowed(table)))
        if table.note:
            print_plain(Text(_plain(table.note), "dim"))


def _plain(text: str) -> str:
    """Printable, and a space that does not break as a plain one."""
    return printable(text.replace("\u00a0", " "))


def _temperature(temperature: TemperatureUsed) -> str:
    if temperature["source"] == "baked":
        return "baked into the weights, nothing is left to divide by"
    if temperature["value"] is None:
        return "none in this file; --temperature tries one"
    where = "from the file" if temperature["source"] == "file" else "as given"
    return f"{temperature['value']:.4g}, {where}"


def _settled(result: CompareResult) -> str:
    """What edgecal fit would do with the method of the verdict, and how many reasons it would give."""
    if not result.reasons:
        return "yes"
    what = " and ".join(
        word for word, holds in (("unsettled", not result.settled), ("harmful", result.harmful)) if holds
    )
    return f"no, {what}: edgecal fit refuses it (the warnings say why)"


def _run(run: RunCost) -> str:
    text = f"{run['n_prompts']:,} prompts, {run['n_tokens']:,} tokens"
    return text + (f", {run['n_generated']:,} generated" if "n_generated" in run else "")


def _narrowed(table: TextTable) -> TextTable:
    """The table without those of its optional columns for which a terminal has no room."""
    width = terminal_width()
    for column in table.optional:
        if width is None or _width(table) <= width:
            break
        if column in table.columns:
            table = table.without(column)
    return table


def _width(table: TextTable) -> int:
    """Characters across; the last column may wrap, so 20 are enough for it where there is more in it."""
    widths = [max(map(len, (name, *cells))) for name, *cells in zip(table.columns, *table.rows, strict=True)]
    return sum(widths[:-1]) + min(widths[-1], 20) + 2 * len(widths)


def _draw(table: TextTable) -> Table:
    drawn = Table(title=table.title, title_justify="left", box=None, padding=(0, 2, 0, 0), header_style="dim")
    for index, column in enumerate(table.columns):
        last = index == len(table.columns) - 1
        drawn.add_column(
            column,
            no_wrap=index > 0 and not last,
            overflow="fold",
            justify="left" if index == 0 or last else "right",
        )
    for row in table.rows:
        drawn.add_row(*(_plain(cell) for cell in row))
    return drawn
