"""`edgecal eval`: reads options, calls `edgecal.evaluate`, and prints its result or writes a report."""

from __future__ import annotations

from typing import Any

import click

from edgecal.cli.options import (
    bootstrap_option,
    effect_option,
    judged_data_option,
    question_options,
    run_options,
)
from edgecal.cli.request_options import check_request_options, gather_decisions, requests_options
from edgecal.cli.result_forms import choose_form, showing_options

__all__ = ["eval_command"]

_NOT_FOR_REQUESTS = ("data", "format", "mapping", "subjects", "shots", "shots_from", "effect_sample")


@click.command("eval", short_help="Judge a model's confidence on questions with answers.")
@click.argument("model", type=click.Path())
@judged_data_option
@requests_options("Judge answers to the typed questions of these requests instead", "MODEL")
@question_options
@click.option(
    "--temperature",
    type=click.FloatRange(min=0, min_open=True),
    metavar="X",
    help='Divide the logits by X for the "after" figures.  [default: edgecal.temperature in the file, if any]',
)
@bootstrap_option
@effect_option
@run_options
@showing_options
def eval_command(model: str, **values: Any) -> None:
    """Judge MODEL on questions with answers: as it is, and with the temperature in its file.

    Reports accuracy, calibration errors, Brier scores, likelihood and ranking, each with a bootstrap interval, overall
    and by subject.

    With --requests it judges typed questions that have an "answer" beside them (true or false, an option's name, a
    level's number): by type, before and after the file's temperature of their type and number of options, with the
    probability of all labels, how often the answer depends on the order of the options, and what orders cost in tokens.
    --template is then that of the typed questions.
    """
    from edgecal import api
    from edgecal.cli.options import gather_questions, gather_run
    from edgecal.cli.progress import show_progress
    from edgecal.cli.result_forms import show_result, show_warnings

    has_requests = check_request_options(values, _NOT_FOR_REQUESTS)
    if not has_requests and not values["data"]:
        raise click.UsageError("Missing option '--data' or '--requests'.")
    form = choose_form(values)
    with show_progress(quiet=values["quiet"]) as on_progress:
        if has_requests:
            result = api.evaluate_requests(
                model,
                list(values["requests"]),
                temperature=values["temperature"],
                decisions=gather_decisions(values),
                limit=values["limit"],
                seed=values["seed"],
                strict=values["strict"],
                n_bootstrap=values["bootstrap"],
                run=gather_run(values),
                on_progress=on_progress,
            )
        else:
            result = api.evaluate(
                model,
                list(values["data"]),
                temperature=values["temperature"],
                n_bootstrap=values["bootstrap"],
                effect_sample=values["effect_sample"],
                questions=gather_questions(values),
                run=gather_run(values),
                on_progress=on_progress,
            )
    show_warnings(result.warnings, quiet=values["quiet"])
    show_result(result, form, values["report"])
