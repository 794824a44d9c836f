"""`edgecal fit`: reads options, calls `edgecal.fit`, and prints a table or JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from edgecal.cli.options import (
    anchored_options,
    bootstrap_option,
    method_options,
    question_options,
    run_options,
)
from edgecal.cli.request_options import check_request_options, gather_decisions, requests_options
from edgecal.errors import NotIdentifiedError, UnsettledError

if TYPE_CHECKING:
    from edgecal.api import OutputOptions
    from edgecal.results import FitResult, RequestFitResult

__all__ = ["fit_command"]


@click.command("fit", short_help="Fit a chat model's temperature against its base model.")
@click.argument("base", type=click.Path())
@click.argument("chat", type=click.Path())
@click.option(
    "--data",
    multiple=True,
    metavar="FILE",
    type=click.Path(),
    help="Questions: JSON Lines in one of the forms {question, choices}, {prompt, labels} or {tokens, choice_tokens}, "
    "or a file or folder in another common format; repeatable, - is standard input.  [default: a built-in bank]",
)
@requests_options("Fit a temperature for each type and size of question in these requests instead", "CHAT")
@question_options
@anchored_options
@method_options
@click.option(
    "--output",
    "-o",
    type=click.Path(),
    metavar="FILE",
    help="Output file.  [default: <chat>.calibrated.gguf]",
)
@click.option("--in-place", is_flag=True, help="Write the temperature into the chat model's own file.")
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0, min_open=True),
    default=0.05,
    show_default=True,
    metavar="X",
    help="Stop when half of the 95 % interval is at most this share of the temperature; with --labels or --anchor, of "
    "the bracket's ends.",
)
@click.option("--all", "run_all", is_flag=True, help="Run all questions, however narrow the interval is.")
@click.option(
    "--plan",
    "only_plan",
    is_flag=True,
    help="Print what running all questions would cost in tokens, time and memory, and stop there.",
)
@click.option("--dry-run", is_flag=True, help="Do everything except writing the file.")
@click.option("--force", is_flag=True, help="Overwrite an existing output.")
@click.option("--force-baked", is_flag=True, help="Fit even if CHAT already has a temperature baked in.")
@click.option(
    "--unsettled",
    is_flag=True,
    help="Write the temperature even if it is unsettled or harmful, and mark the file as such.",
)
@click.option("--no-sampling-key", is_flag=True, help="Write only edgecal.* keys, not general.sampling.temp.")
@bootstrap_option
@run_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@click.option("--quiet", "-q", is_flag=True, help="No progress and no warnings on stderr.")
def fit_command(
    base: str,
    chat: str,
    data: tuple[str, ...],
    requests: tuple[str, ...],
    output: str | None,
    in_place: bool,
    tolerance: float,
    run_all: bool,
    only_plan: bool,
    dry_run: bool,
    force: bool,
    force_baked: bool,
    unsettled: bool,
    no_sampling_key: bool,
    as_json: bool,
    quiet: bool,
    **values: Any,
) -> None:
    """Fit ONE temperature for CHAT from unlabelled prompts, so that its confidence is as honest as BASE's; or, with
    --labels or --anchor, from them and a handful of answers.

    BASE is the pre-trained model that CHAT was post-trained from; both are GGUF files (of a split model, the
    first shard). CHAT is never changed unless --in-place is given: the result is a new file that holds the
    temperature.

    A temperature that may do harm is refused: exit code 4, the reasons, and no file. It is unsettled if unlabelled
    prompts only narrow it down to a range (the bracket) wider than a factor of 1.5, or if BASE puts less than 80 % of
    its probability on the choices. It is harmful if 30 or more prompts have an "answer" and the answers do not become
    more probable with it. Answers are used for nothing else, except by --method ts, and with --labels or --anchor: such
    a temperature is unsettled if its own interval is wider than a factor of 2, or if it makes the model less honest
    with a probability of over 5 %.

    With --requests the file gets a temperature for each type of question (choice, score, noul) and number of options,
    fitted on unlabelled requests after the label sums and the average over orders that `edgecal decide` uses; only
    those that are settled, and the others are named. --template is then that of the questions, and CHAT is asked by its
    own chat template if it has one (--chat-template none: in plain text). BASE is shown 4
    worked examples of edgecal's own before each question if it does not answer by the labels without; or --shots.

    \b
    Exit codes: 0 done, 2 bad input, 3 model or native failure, 4 not identified, unsettled or
    harmful (the last two still print the result), 5 could not write.
    """
    from edgecal import api
    from edgecal.cli.options import gather_method, gather_questions, gather_run
    from edgecal.cli.progress import show_progress
    from edgecal.cli.result_forms import show_warnings
    from edgecal.cli.stdio import say
    from edgecal.gguf.output import default_output
    from edgecal.gguf.shards import find_shards

    has_requests = check_request_options({**values, "requests": requests}, _NOT_FOR_REQUESTS)
    if only_plan:
        _show_plan(base, chat, data, as_json=as_json, quiet=quiet, values=values)
        return
    if in_place and output is not None:
        raise click.UsageError("--in-place and --output exclude each other")
    if dry_run and in_place:
        raise click.UsageError("--dry-run writes nothing, so --in-place does not go with it")
    target: Path | None = None
    if not dry_run and not in_place:
        target = Path(output) if output is not None else default_output(find_shards(Path(chat)))
    output_options = api.OutputOptions(
        target,
        in_place=in_place,
        force=force,
        sampling_key=not no_sampling_key,
        force_baked=force_baked,
        unsettled=unsettled,
    )
    if has_requests:
        _fit_requests(base, chat, requests, output_options, as_json=as_json, quiet=quiet, values=values)
        return
    try:
        with show_progress(quiet=quiet) as on_progress:
            result = api.fit(
                base,
                chat,
                list(data) if data else None,
                method=gather_method(values),
                labels=list(values["labels"]) or None,
                questions=gather_questions(values),
                run=gather_run(values),
                output=output_options,
                n_bootstrap=values["bootstrap"],
                tolerance=None if run_all else tolerance,
                on_progress=on_progress,
            )
    except UnsettledError as error:
        show_warnings(error.warnings, quiet=quiet)
        _show(error.result, as_json=as_json, sampling_key=not no_sampling_key)
        for reason in error.result.reasons:
            say(f"refused: {reason}")
        raise
    except NotIdentifiedError as error:
        show_warnings(error.warnings, quiet=quiet)  # one of them may be the reason
        raise
    show_warnings([*result.warnings, *(f"unsettled: {reason}" for reason in result.reasons)], quiet=quiet)
    _show(result, as_json=as_json, sampling_key=not no_sampling_key)


# The options that say nothing about requests.
_NOT_FOR_REQUESTS = (
    "data", "format", "mapping", "subjects", "shots_from", "labels", "anchor", "tolerance", "run_all",
    "only_plan", "no_sampling_key",
)  # fmt: skip


def _fit_requests(
    base: str,
    chat: str,
    requests: tuple[str, ...],
    output: OutputOptions,
    *,
    as_json: bool,
    quiet: bool,
    values: dict[str, Any],
) -> None:
    from edgecal import api
    from edgecal.cli.options import gather_method, gather_run
    from edgecal.cli.progress import show_progress
    from edgecal.cli.result_forms import show_warnings
    from edgecal.cli.stdio import say

    try:
        with show_progress(quiet=quiet) as on_progress:
            is_given = (
                click.get_current_context().get_parameter_source("shots") is ParameterSource.COMMANDLINE
            )
            result = api.fit_requests(
                base,
                chat,
                list(requests),
                method=gather_method(values),
                decisions=gather_decisions(values),
                shots=values["shots"] if is_given else None,
                limit=values["limit"],
                seed=values["seed"],
                strict=values["strict"],
                run=gather_run(values),
                output=output,
                n_bootstrap=values["bootstrap"],
                on_progress=on_progress,
            )
    except UnsettledError as error:
        show_warnings(error.result.warnings, quiet=quiet)
        _show_groups(error.result, as_json=as_json)
        for reason in error.warnings:
            say(f"refused: {reason}")
        raise
    show_warnings(result.warnings, quiet=quiet)
    for group in result.groups:
        for reason in group["reasons"]:
            say(f"unsettled: {group['name']}: {reason}")
    _show_groups(result, as_json=as_json)


def _show_groups(result: RequestFitResult, *, as_json: bool) -> None:
    from edgecal.cli.stdio import printing
    from edgecal.cli.tables import print_request_fit

    with printing("" if result.output is None else f"; {result.output} is complete"):
        if as_json:
            click.echo(json.dumps(result.to_dict(), allow_nan=False))
        else:
            print_request_fit(result)


def _show(result: FitResult, *, as_json: bool, sampling_key: bool) -> None:
    from edgecal.cli.stdio import printing
    from edgecal.cli.tables import print_fit

    with printing("" if result.output is None else f"; {result.output} is complete"):
        if as_json:
            click.echo(json.dumps(result.to_dict(), allow_nan=False))
        else:
            print_fit(result, sampling_key=sampling_key)


def _show_plan(
    base: str, chat: str, data: tuple[str, ...], *, as_json: bool, quiet: bool, values: dict[str, Any]
) -> None:
    from edgecal import api
    from edgecal.cli.options import gather_method, gather_questions, gather_run
    from edgecal.cli.progress import show_progress
    from edgecal.cli.result_forms import show_warnings
    from edgecal.cli.stdio import printing
    from edgecal.cli.tables import print_plan

    with show_progress(quiet=quiet) as on_progress:
        plan = api.plan(
            base,
            chat,
            list(data) if data else None,
            method=gather_method(values),
            labels=list(values["labels"]) or None,
            questions=gather_questions(values),
            run=gather_run(values),
            on_progress=on_progress,
        )
    show_warnings(plan.warnings, quiet=quiet)
    with printing():
        if as_json:
            click.echo(json.dumps(plan.to_dict(), allow_nan=False))
        else:
            print_plan(plan)
