"""`edgecal project`: reads options, calls `edgecal.fit_projection`, and prints a table or JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgecal.cli.options import ANY_PATH, bootstrap_option, question_options, run_options
from edgecal.errors import UnsettledError

if TYPE_CHECKING:
    from edgecal.results import ProjectionResult

__all__ = ["project_command"]


@click.command("project", short_help="Fit a map by which a chat model says what its base model thinks.")
@click.argument("base", type=ANY_PATH)
@click.argument("chat", type=ANY_PATH)
@click.option(
    "--data",
    multiple=True,
    metavar="FILE",
    type=ANY_PATH,
    help="Questions, as for edgecal fit; repeatable, - is standard input.  [default: a built-in bank]",
)
@question_options
@click.option(
    "--output", "-o", type=ANY_PATH, metavar="FILE", help="Output file.  [default: <chat>.basecal.gguf]"
)
@click.option("--dry-run", is_flag=True, help="Do everything except writing the file.")
@click.option("--force", is_flag=True, help="Overwrite an existing output.")
@click.option(
    "--unsettled",
    is_flag=True,
    help="Write the map even if it is unsettled or harmful, and mark the file as such.",
)
@bootstrap_option
@run_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@click.option("--quiet", "-q", is_flag=True, help="No progress and no warnings on stderr.")
def project_command(
    base: str,
    chat: str,
    data: tuple[str, ...],
    output: str | None,
    dry_run: bool,
    force: bool,
    unsettled: bool,
    as_json: bool,
    quiet: bool,
    **values: Any,
) -> None:
    """Fit a linear map from CHAT's last hidden state to BASE's logits of the labels (BaseCal), from unlabelled prompts.

    It is no temperature. With the file, edgecal ask --basecal and edgecal.load(..., basecal=...) also say how probable
    BASE finds CHAT's answer, without BASE. Neither model is changed.

    A map that may do harm is refused as by edgecal fit: exit code 4, the reasons, and no file. It is unsettled if BASE
    is no yardstick on these prompts, and harmful if 30 or more of them have an "answer" and the map's confidence in
    CHAT's choices, each prompt left out of the map, is not shown to be better than CHAT's own.

    \b
    Exit codes: 0 done, 2 bad input, 3 model or native failure, 4 too few prompts, unsettled or
    harmful (the last two still print the result), 5 could not write.
    """
    from edgecal import api
    from edgecal.cli.options import gather_questions, gather_run
    from edgecal.cli.progress import show_progress
    from edgecal.cli.result_forms import show_warnings
    from edgecal.cli.stdio import say
    from edgecal.gguf.output import default_projection
    from edgecal.gguf.shards import find_shards

    target: Path | None = None
    if not dry_run:
        target = Path(output) if output is not None else default_projection(find_shards(Path(chat)))
    try:
        with show_progress(quiet=quiet) as on_progress:
            result = api.fit_projection(
                base,
                chat,
                list(data) if data else None,
                target,
                force=force,
                unsettled=unsettled,
                questions=gather_questions(values),
                run=gather_run(values),
                n_bootstrap=values["bootstrap"],
                on_progress=on_progress,
            )
    except UnsettledError as error:
        show_warnings(error.warnings, quiet=quiet)
        _show(error.result, as_json=as_json)
        for reason in error.result.reasons:
            say(f"refused: {reason}")
        raise
    show_warnings([*result.warnings, *(f"unsettled: {reason}" for reason in result.reasons)], quiet=quiet)
    _show(result, as_json=as_json)


def _show(result: ProjectionResult, *, as_json: bool) -> None:
    from edgecal.cli.stdio import printable, printing
    from edgecal.cli.tables import bracket_text, label_check_text, print_plain, two_columns

    with printing("" if result.output is None else f"; {result.output} is complete"):
        if as_json:
            click.echo(json.dumps(result.to_dict(), allow_nan=False))
            return
        table = two_columns()
        table.add_row(
            "map",
            f"for the labels {', '.join(map(repr, sorted(result.labels)))}, from {result.n_prompts} prompts",
        )
        table.add_row(
            "error", f"{result.error:.3f} rms from the base model's own probability, on prompts left out"
        )
        mass = result.choice_mass
        table.add_row("choice mass", f"base {mass['base']:.3f}, chat {mass['chat']:.3f} of all probability")
        table.add_row("bracket", bracket_text(result.bracket))
        table.add_row("settled", "yes" if result.settled else "no")
        if result.ece is not None:
            ece = result.ece
            table.add_row(
                "ECE",
                f"of CHAT's choices: {ece['chat']:.1%} by itself, {ece['base']:.1%} by BASE, "
                f"{ece['projection']:.1%} by the map ({result.n_labelled} labelled)",
            )
        if result.label_check is not None:
            table.add_row("NLL", label_check_text(result.label_check))
        written = "nothing written" if result.output is None else printable(result.output)
        table.add_row("output", f"{written} ({result.n_bytes:,} bytes)")
        print_plain(table)
