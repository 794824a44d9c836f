"""`edgecal compare`: reads options, calls `edgecal.compare`, and prints the table as the papers have it."""

from __future__ import annotations

import json
from typing import Any

import click
from click.core import ParameterSource

from edgecal.cli.options import (
    bootstrap_option,
    effect_option,
    judged_data_option,
    method_options,
    question_options,
    run_options,
)
from edgecal.cli.request_options import check_request_options, gather_decisions, requests_options
from edgecal.cli.result_forms import choose_form, showing_options

__all__ = ["compare_command"]

_NOT_FOR_REQUESTS = (
    "data", "format", "mapping", "subjects", "shots_from", "effect_sample", "permutations", "verbalized",
    "projection", "bootstrap", "as_csv", "as_markdown", "report",
)  # fmt: skip


@click.command("compare", short_help="Compare all methods on a pair of models, on questions with answers.")
@click.argument("base", type=click.Path())
@click.argument("chat", type=click.Path())
@judged_data_option
@requests_options("Compare ways of asking the typed questions of these requests instead", "CHAT")
@question_options
@method_options
@click.option(
    "--splits",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    metavar="N",
    help="Number of random splits.",
)
@click.option(
    "--fit-share",
    type=click.FloatRange(min=0, max=1, min_open=True, max_open=True),
    default=0.3,
    show_default=True,
    metavar="X",
    help="Share of the questions to fit on; the rest are for judging.",
)
@click.option(
    "--permutations",
    type=click.IntRange(min=0),
    default=4,
    show_default=True,
    metavar="N",
    help="How many orders of the options cape averages over; 0 leaves cape out.",
)
@click.option(
    "--verbalized/--no-verbalized",
    default=True,
    show_default=True,
    help="Also ask the chat model to state its confidence.",
)
@click.option(
    "--projection/--no-projection",
    default=True,
    show_default=True,
    help="Also map the chat model's hidden states to the base model's (basecal-proj).",
)
@bootstrap_option
@effect_option
@run_options
@showing_options
def compare_command(base: str, chat: str, **values: Any) -> None:
    """Compare every method on BASE and CHAT: fitted on some of the questions, judged on the rest.

    Each model runs over the questions once, and most methods are computed from that run; cape and verbalized need extra
    runs, which are counted. The label-free methods never see an answer. --method chooses the one for the verdict and
    the pictures.

    With --requests it compares, for each type of typed questions that have an "answer" beside them, label sums, orders
    and temperatures, alone and together; as a table or with --json.
    """
    from edgecal import api
    from edgecal.cli.options import gather_method, gather_questions, gather_run
    from edgecal.cli.progress import show_progress
    from edgecal.cli.result_forms import show_result, show_warnings

    has_requests = check_request_options(values, _NOT_FOR_REQUESTS)
    if not has_requests and not values["data"]:
        raise click.UsageError("Missing option '--data' or '--requests'.")
    form = choose_form(values)
    if has_requests:
        _compare_requests(base, chat, form, values)
        return
    with show_progress(quiet=values["quiet"]) as on_progress:
        result = api.compare(
            base,
            chat,
            list(values["data"]),
            method=gather_method(values),
            questions=gather_questions(values),
            run=gather_run(values),
            n_splits=values["splits"],
            fit_share=values["fit_share"],
            n_permutations=values["permutations"],
            verbalized=values["verbalized"],
            projection=values["projection"],
            n_bootstrap=values["bootstrap"],
            effect_sample=values["effect_sample"],
            on_progress=on_progress,
        )
    show_warnings(result.warnings, quiet=values["quiet"])
    show_result(result, form, values["report"])


def _compare_requests(base: str, chat: str, form: str, values: dict[str, Any]) -> None:
    from edgecal import api
    from edgecal.cli.options import gather_method, gather_run
    from edgecal.cli.progress import show_progress
    from edgecal.cli.result_forms import show_warnings
    from edgecal.cli.stdio import printing
    from edgecal.cli.tables import print_request_comparison

    is_given = click.get_current_context().get_parameter_source("shots") is ParameterSource.COMMANDLINE
    with show_progress(quiet=values["quiet"]) as on_progress:
        result = api.compare_requests(
            base,
            chat,
            list(values["requests"]),
            method=gather_method(values),
            decisions=gather_decisions(values),
            n_splits=values["splits"],
            fit_share=values["fit_share"],
            limit=values["limit"],
            seed=values["seed"],
            strict=values["strict"],
            shots=values["shots"] if is_given else None,
            run=gather_run(values),
            on_progress=on_progress,
        )
    show_warnings(result.warnings, quiet=values["quiet"])
    with printing(""):
        if form == "json":
            click.echo(json.dumps(result.to_dict(), allow_nan=False))
        else:
            print_request_comparison(result)
