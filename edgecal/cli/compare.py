"""`edgecal compare`: reads options, calls `edgecal.compare`, and prints the table as the papers have it."""

from __future__ import annotations

from typing import Any

import click

from edgecal.cli.options import (
    bootstrap_option,
    effect_option,
    labelled_data_option,
    method_options,
    question_options,
    run_options,
)
from edgecal.cli.result_forms import choose_form, showing_options

__all__ = ["compare_command"]


@click.command("compare", short_help="Compare all methods on a pair of models, on questions with answers.")
@click.argument("base", type=click.Path())
@click.argument("chat", type=click.Path())
@labelled_data_option
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
    """
    from edgecal import api
    from edgecal.cli.options import gather_method, gather_questions, gather_run
    from edgecal.cli.progress import show_progress
    from edgecal.cli.result_forms import show_result, show_warnings

    form = choose_form(values)
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
