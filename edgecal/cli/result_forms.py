"""How `eval` and `compare` show a result: a table, JSON, CSV, Markdown, and a report file."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edgecal.cli.options import ANY_PATH
from edgecal.errors import OutputError

if TYPE_CHECKING:
    from edgecal.results.judging import Judgement

__all__ = ["choose_form", "show_result", "show_warnings", "showing_options"]

Command = TypeVar("Command", bound=Callable[..., Any])

_FORMS = ("as_json", "as_csv", "as_markdown")


def showing_options(command: Command) -> Command:
    """Adds --json, --csv, --markdown, --report and --quiet."""
    for option in (
        click.option("--quiet", "-q", is_flag=True, help="No progress and no warnings on stderr."),
        click.option(
            "--report",
            type=ANY_PATH,
            metavar="FILE",
            help="Also write a report as one self-contained HTML file; an existing report is overwritten.",
        ),
        click.option("--markdown", "as_markdown", is_flag=True, help="Print a block for a model card."),
        click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values."),
        click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object."),
    ):
        command = option(command)
    return command


def choose_form(values: Mapping[str, Any]) -> str:
    """Which form to print: "json", "csv", "markdown" or "table". Checked before anything runs.

    Raises
    ------
    click.UsageError: more than one was asked for.
    OutputError: a report was asked for that could not be written.
    """
    asked = [form.removeprefix("as_") for form in _FORMS if values[form]]
    if len(asked) > 1:
        raise click.UsageError(f"--{asked[0]} and --{asked[1]} exclude each other")
    if values["report"] is not None:
        from edgecal.report import check_report_path

        check_report_path(values["report"])
    return asked[0] if asked else "table"


def show_result(result: Judgement, form: str, report: str | None) -> None:
    """Writes the report if one is wanted, and prints a result of `eval` or `compare`, also if the report failed.

    Raises
    ------
    OutputError: standard output or the report cannot be written.
    """
    from edgecal.cli.stdio import printing, say

    result.runtime["command"] = shlex.join(["edgecal", *sys.argv[1:]])
    failure: OutputError | None = None
    if report is not None:
        from edgecal.report import write_report

        try:
            write_report(result, report)
        except OutputError as error:
            failure = error
    with printing("" if report is None or failure is not None else f"; {report} is complete"):
        if form == "json":
            click.echo(json.dumps(result.to_dict(), allow_nan=False))
        elif form == "csv":
            from edgecal.report.text_tables import render_csv

            click.echo(render_csv(result), nl=False)
        elif form == "markdown":
            from edgecal.report.text_tables import render_markdown

            click.echo(render_markdown(result), nl=False)
        else:
            from edgecal.cli.tables import print_result

            print_result(result)
    if failure is not None:
        raise failure
    if report is not None:
        say(f"report written to {report}")


def show_warnings(warnings: Sequence[str], *, quiet: bool) -> None:
    """One line on stderr for each warning."""
    from edgecal.cli.stdio import say

    for warning in warnings if not quiet else ():
        say(f"warning: {warning}")
