"""`edgecal questions`: shows how question files are read, or prints their questions in edgecal's own form."""

from __future__ import annotations

import json
from collections.abc import Iterator
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

import click

from edgecal.cli.options import ANY_PATH, reading_options

if TYPE_CHECKING:
    from edgecal.results import QuestionsResult
    from edgecal.results.questions import PromptLine, QuestionLine, TokensLine

__all__ = ["questions_command"]

_FIRST = 3


@click.command("questions", short_help="Show how question files are read, or convert them.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=ANY_PATH)
@reading_options
@click.option(
    "--json", "as_json", is_flag=True, help="Print every question in edgecal's own form, one per line."
)
@click.option("--quiet", "-q", is_flag=True, help="Print no warnings and no skipped rows on stderr.")
def questions_command(files: tuple[str, ...], as_json: bool, quiet: bool, **values: Any) -> None:
    """Show how FILEs are read: what was decided about them, and the first questions as a model would see them.

    A FILE is a file or folder of questions, as for --data of fit, eval and compare; - is standard input. With --limit,
    all drawn questions are shown. The output of --json reads back as the same questions.
    """
    from edgecal import api
    from edgecal.cli.options import gather_questions
    from edgecal.cli.result_forms import show_warnings
    from edgecal.cli.stdio import printing, say

    result = api.read_questions(list(files), questions=gather_questions(values))
    show_warnings(result.warnings, quiet=quiet)
    if not quiet:
        for row in result.data["skipped"]:
            say(f"skipped: {row['where']}: {row['reason']}")
        if as_json:
            for name, text in _facts(result):
                say(f"{name}: {text}")
    with printing():
        if as_json:
            for question in result.questions:
                click.echo(json.dumps(question, allow_nan=False))
        else:
            _print(result, len(result.questions) if values["limit"] else _FIRST)


def _facts(result: QuestionsResult) -> Iterator[tuple[str, str]]:
    data = result.data
    formats = dict.fromkeys(data["formats"])
    yield "files", f"{', '.join(data['files'][:_FIRST])}{' ...' if len(data['files']) > _FIRST else ''}"
    yield "format", ", ".join(formats)
    skipped = f", {data['n_skipped']:,} do not fit" if data["n_skipped"] else ""
    drawn = f", {data['n_questions']:,} questions drawn" if data["limit"] else ""
    yield "rows", f"{data['n_read']:,}{skipped}{drawn}"
    for decision in data["decisions"]:
        yield "decided", decision


def _print(result: QuestionsResult, n_shown: int) -> None:
    from edgecal.cli.stdio import printable
    from edgecal.cli.tables import print_plain, two_columns

    table = two_columns()
    for name, text in _facts(result):
        table.add_row(name, printable(text))
    print_plain(table)
    shown = zip(result.sources[:n_shown], result.questions, result.prompts, strict=False)
    for source, question, prompt in shown:
        subject = f" ({printable(question['subject'])})" if "subject" in question else ""
        click.echo(click.style(f"\n{printable(source)}{subject}", bold=True))
        lines = prompt.split("\n") if isinstance(prompt, str) else [f"tokens {' '.join(map(str, prompt))}"]
        for line in [*lines, _answer_line(question)]:
            click.echo(f"    {printable(line)}" if line else "")


def _answer_line(question: QuestionLine | PromptLine | TokensLine) -> str:
    """The right option; for a ready-made prompt also its labels."""
    if "choices" in question:
        names = list(ascii_uppercase)
    else:
        names = list(map(repr, question["labels"] if "labels" in question else question["choice_tokens"]))
    right = "no answer" if "answer" not in question else f"right: {names[question['answer']]}"
    return f"[{right}]" if "choices" in question else f"[{', '.join(names)}; {right}]"
