"""`edgecal label`: reads options, asks on a screen or line by line, and prints the result."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from edgecal.cli.options import ANY_PATH, question_options, run_options
from edgecal.errors import InputError

if TYPE_CHECKING:
    from edgecal.api import LabelSession
    from edgecal.results import LabelResult

__all__ = ["label_command"]

_STOPPED = {
    "narrow": "the interval is narrow enough",
    "all": "every question was asked",
    "left": "left; the same command continues",
}


@click.command("label", short_help="Label the questions that say most of the temperature.")
@click.argument("base", type=click.Path())
@click.argument("chat", type=click.Path())
@click.option(
    "--data",
    multiple=True,
    metavar="FILE",
    type=click.Path(),
    help="Questions, as for fit; repeatable.  [default: a built-in bank]",
)
@click.option(
    "--output",
    "-o",
    type=ANY_PATH,
    default="labels.jsonl",
    show_default=True,
    metavar="FILE",
    help="File of the labels, written after each one; one that exists is continued.",
)
@click.option(
    "--ratio",
    type=click.FloatRange(min=1, min_open=True),
    default=1.5,
    show_default=True,
    metavar="X",
    help="Stop when the upper end of the 95 % interval is at most X times the lower end (after 30 labels or more).",
)
@click.option("--plain", is_flag=True, help="No screen: ask on stderr, read one answer per line from stdin.")
@question_options
@run_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@click.option("--quiet", "-q", is_flag=True, help="No progress and no warnings on stderr.")
def label_command(
    base: str,
    chat: str,
    data: tuple[str, ...],
    output: str,
    ratio: float,
    plain: bool,
    as_json: bool,
    quiet: bool,
    **values: Any,
) -> None:
    """Ask for the labels that say most of CHAT's temperature, one key each; edgecal fit --labels FILE uses them.

    Both models are run on all questions first, but what they answer is never shown. Questions are drawn at random,
    those more often whose label says more, and each label counts by the inverse of that probability, so that the choice
    does not bias the fit. The interval of the temperature is shown as it shrinks.

    A letter answers, space is "unsure", backspace takes the last answer back, escape leaves; the same command continues
    later. (With --plain: a letter, unsure, undo, leave.) Answers in the data are neither shown nor used. An unsure
    question counts as unlabelled.

    The screen needs textual: pip install 'edgecal[label]'.
    """
    from edgecal import api
    from edgecal.cli.options import gather_questions, gather_run
    from edgecal.cli.progress import show_progress
    from edgecal.cli.result_forms import show_warnings
    from edgecal.cli.stdio import printing

    if not plain:
        _check_screen()
    with show_progress(quiet=quiet) as on_progress:
        session = api.label(
            base,
            chat,
            list(data) if data else None,
            output=output,
            questions=gather_questions(values),
            run=gather_run(values),
            ratio=ratio,
            on_progress=on_progress,
        )
    if plain:
        _ask_line_by_line(session)
    else:
        from edgecal.cli.label_screen import ask_on_screen

        ask_on_screen(session)
    result = session.result()
    show_warnings(result.warnings, quiet=quiet)
    with printing():
        if as_json:
            click.echo(json.dumps(result.to_dict(), allow_nan=False))
        else:
            _print(result)


def _check_screen() -> None:
    if not all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        raise InputError(
            "edgecal label needs a terminal for its screen; --plain asks on stderr and reads answers from stdin"
        )
    if find_spec("textual") is None:
        raise InputError(
            "edgecal label needs textual for its screen: pip install 'edgecal[label]'; --plain does without"
        )


def _ask_line_by_line(session: LabelSession) -> None:
    """Questions on stderr, answers from stdin; its end leaves."""
    from edgecal.cli.stdio import printable

    while (shown := session.question) is not None:
        lines = [f"\n{len(session.answers) + 1} of {session.n_questions}", *shown.text.splitlines()]
        for line in [*lines, *(f"  {key}  {text}" for key, text in shown.options)]:
            click.echo(printable(line.lstrip("\n")), err=True)
        said = sys.stdin.readline()
        word, keys = said.strip().upper(), [key for key, _ in shown.options]
        if not said or word == "LEAVE":
            return
        if word == "UNDO":
            session.undo()
        elif word in (*keys, "UNSURE"):
            session.answer(None if word == "UNSURE" else keys.index(word))
        else:
            click.echo(f"expected {', '.join(keys)}, unsure, undo or leave", err=True)
            continue
        low, high = session.fit.interval
        click.echo(f"{session.fit.n_labelled} labels, temperature {low:.3g} to {high:.3g}", err=True)


def _print(result: LabelResult) -> None:
    from edgecal.cli.stdio import printable
    from edgecal.cli.tables import print_plain, two_columns

    (low, high), (first_low, first_high) = result.interval, result.prior_interval
    table = two_columns()
    unsure = f", {result.n_unsure} unsure" if result.n_unsure else ""
    table.add_row("labels", f"{result.n_labelled} of {result.n_questions:,} questions{unsure}")
    table.add_row("temperature", f"{result.temperature:.4g}  (95 % interval {low:.4g} to {high:.4g})")
    table.add_row("without labels", f"{result.prior_temperature:.4g}  ({first_low:.4g} to {first_high:.4g})")
    table.add_row("ratio", f"{result.ratio:.3g}, wanted {result.wanted_ratio:g}")
    table.add_row("stopped", _STOPPED[result.stopped])
    table.add_row("output", printable(result.output))
    print_plain(table)
