"""Options that several commands share: which questions, how they are asked, and how llama.cpp runs.

A decorator adds a group of options to a command; a `gather_` function makes an options object of their values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from edgecal import api

__all__ = [
    "ANY_PATH",
    "anchored_options",
    "bootstrap_option",
    "chat_template_option",
    "effect_option",
    "gather_method",
    "gather_questions",
    "gather_run",
    "gather_settings",
    "judged_data_option",
    "labelled_data_option",
    "llama_options",
    "method_options",
    "question_options",
    "reading_options",
    "run_options",
    "template_option",
]

Command = TypeVar("Command", bound=Callable[..., Any])

# Accepts any text: the code that opens the file reports in one line if it is missing or cannot be read.
ANY_PATH = click.Path(readable=False)

# `edgecal.data.FORMATS`, repeated because importing it takes 0.4 s, which --help should not cost.
_FORMATS = (
    "edgecal", "mmlu", "agieval", "arabicmmlu", "arc", "bbh", "belebele", "boolq", "ceval", "cmmlu",
    "commonsenseqa", "copa", "gpqa", "hellaswag", "kmmlu", "logiqa", "mathqa", "medmcqa", "openbookqa",
    "piqa", "race", "sciq", "siqa", "truthfulqa", "winogrande",
)  # fmt: skip
_MAP_COMMA = re.compile(r",(?=[\w-]+=)")


def _all(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def _refuse_model(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Refuses a model as the value: an option whose value is optional takes the argument after it."""
    if value is not None and value.lower().endswith(".gguf"):
        raise click.BadParameter(
            f"{value} is a model, not a template; before a model write --chat-template=own",
            context,
            parameter,
        )
    return value


def _parse_map(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, object] | None:
    """`question=Q,options=A+B,answer-base=1` as a dict, in which several names are a list."""
    made: dict[str, list[str]] = {}
    for part in (part for value in values for part in _MAP_COMMA.split(value)):
        key, _, column = (piece.strip() for piece in part.partition("="))
        if not key or not column:
            raise click.BadParameter(f"expected KEY=COLUMN, got {part!r}", context, parameter)
        made.setdefault(key, []).extend(piece.strip() for piece in column.split("+"))
    return {key: names[0] if len(names) == 1 else names for key, names in made.items()} or None


template_option = click.option(
    "--template",
    type=ANY_PATH,
    metavar="NAME|FILE|TEXT",
    help="Prompt template: default, question-answer, plain, subject, bracketed, brief, a Jinja file, or Jinja text.  "
    "[default: default]",
)


def chat_template_option(help: str) -> Callable[[Command], Command]:
    """`--chat-template` with this help. Its value, if left out, is `edgecal.prompts.OWN_CHAT_TEMPLATE`, written out
    here because importing it would make every command load Jinja."""
    return click.option(
        "--chat-template",
        is_flag=False,
        flag_value="own",
        type=ANY_PATH,
        callback=_refuse_model,
        metavar="[FILE]",
        help=help,
    )


reading_options = _all(
    click.option(
        "--format",
        type=click.Choice(_FORMATS),
        help="Format of the data files.  [default: recognised by their content]",
    ),
    click.option(
        "--map",
        "mapping",
        multiple=True,
        metavar="KEY=COLUMN,...",
        callback=_parse_map,
        help="Which columns hold what, if their names do not show it: question=COLUMN, options=COLUMN (a list) or "
        "options=A+B+C, answer=COLUMN, passage=COLUMN, subject=COLUMN, labels=COLUMN (the options' labels); and how to "
        "read answers: answer-base=0 or 1 (counted from there), label or text. Repeatable. A column may be a path "
        "(doc.question); in a table without a header, columns are 1, 2, 3, ...",
    ),
    click.option(
        "--strict", is_flag=True, help="Stop at the first row that does not fit instead of skipping it."
    ),
    click.option(
        "--subject",
        "subjects",
        multiple=True,
        metavar="NAME",
        help="Use only questions of this subject; repeatable.",
    ),
    click.option(
        "--limit", type=click.IntRange(min=1), metavar="N", help="Use N questions, drawn at random by --seed."
    ),
    click.option(
        "--seed",
        type=click.IntRange(min=0, max=2**64 - 1),
        default=0,
        show_default=True,
        help="Seed of all random draws.",
    ),
    template_option,
)

question_options = _all(
    reading_options,
    click.option(
        "--shots",
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        metavar="K",
        help="Show K worked examples of the same subject before each question.",
    ),
    click.option(
        "--shots-from",
        type=ANY_PATH,
        metavar="FILE",
        help="Take worked examples from FILE.  [default: a folder's dev split, else the other questions]",
    ),
    chat_template_option(
        "Put each question to the chat model as a turn of a conversation, using the chat template in its own file (no "
        "value, or own) or in FILE; the base model gets plain text."
    ),
)


def _judged_data(*, required: bool) -> Callable[[Command], Command]:
    return click.option(
        "--data",
        multiple=True,
        required=required,
        metavar="FILE",
        type=ANY_PATH,
        help="Questions with answers: a file or folder of JSON, JSON Lines, CSV, TSV, Parquet or Arrow, also "
        "compressed; repeatable; - is standard input.",
    )


labelled_data_option = _judged_data(required=True)
judged_data_option = _judged_data(required=False)  # for commands that also take requests

effect_option = click.option(
    "--effect-sample",
    type=click.IntRange(min=0),
    default=64,
    show_default=True,
    metavar="N",
    help="Number of questions on which each part of the prompting is tried alone, to measure its effect on the choice "
    "mass.",
)

llama_options = _all(
    click.option(
        "--threads",
        "-t",
        type=click.IntRange(min=1),
        metavar="N",
        help="Use at most N CPU threads.  [default: physical cores]",
    ),
    click.option(
        "--ubatch-size",
        "-ub",
        type=click.IntRange(min=16),
        metavar="N",
        help="Number of tokens that llama.cpp computes at once, a multiple of 4.  [default: 512]",
    ),
    click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=600.0,
        show_default=True,
        metavar="S",
        help="Give up on llama.cpp after S seconds without a sign of life.",
    ),
)

run_options = _all(
    llama_options,
    click.option(
        "--fast",
        is_flag=True,
        help="Use llama.cpp's flash attention: faster for prompts of about a thousand tokens and more, but the last "
        "bits of the numbers then depend on which prompts share the batch.",
    ),
    click.option(
        "--no-cache",
        is_flag=True,
        help="Neither read nor write the cache of earlier runs (see edgecal cache).",
    ),
)

method_options = _all(
    click.option(
        "--method",
        type=click.Choice(["dual-align", "daca", "naive", "process", "anchored", "ts", "vanilla"]),
        default="dual-align",
        show_default=True,
        help="Method of the fit. Only anchored and ts learn from answers; the others never see one.",
    ),
    click.option(
        "--ise",
        type=click.Choice(["mixture", "mean"]),
        help="Average the layers' distributions (mixture) or their entropies (mean) for the stability entropy.",
    ),
    click.option(
        "--tau-scope", type=click.Choice(["all", "final"]), help="Which layers the temperature divides."
    ),
    click.option(
        "--combine",
        type=click.Choice(["stratified", "divergence", "sum"]),
        help="How Dual-Align combines its two losses.",
    ),
    click.option(
        "--lambda", "lam", type=float, metavar="X", help="Weight of the process loss with --combine sum."
    ),
)

anchored_options = _all(
    click.option(
        "--labels",
        multiple=True,
        metavar="FILE",
        type=ANY_PATH,
        help="Fit by --method anchored with the answers in FILE, questions in any form that --data takes; repeatable. "
        "One that is also in --data labels it, the others are added. Answers in --data are then not used.",
    ),
    click.option(
        "--anchor", is_flag=True, help="Fit by --method anchored with the answers that some of --data have."
    ),
)

bootstrap_option = click.option(
    "--bootstrap",
    type=click.IntRange(min=20),
    default=1000,
    show_default=True,
    metavar="N",
    help="Number of bootstrap resamples for the intervals.",
)


def gather_questions(values: Mapping[str, Any]) -> api.QuestionOptions:
    """The values of `question_options` or `reading_options`."""
    from edgecal import api

    return api.QuestionOptions(
        **{item.name: values[item.name] for item in fields(api.QuestionOptions) if item.name in values}
    )


def gather_method(values: Mapping[str, Any]) -> api.Method:
    """The values of `method_options`, and of `anchored_options` where a command has them. Raises UsageError if these
    contradict each other."""
    from edgecal import api

    name = values["method"]
    if "anchor" in values:
        flags = [flag for flag in ("--labels", "--anchor") if values[flag[2:]]]
        if len(flags) > 1:
            raise click.UsageError(
                "--labels and --anchor exclude each other; to use the answers in --data too, name it by --labels too"
            )
        source = click.get_current_context().get_parameter_source("method")
        if flags and source is ParameterSource.DEFAULT:
            name = "anchored"
        if flags and name != "anchored":
            raise click.UsageError(f"{flags[0]} is for --method anchored, and the method is {name}")
        if name == "anchored" and not flags:
            raise click.UsageError("--method anchored needs labels: give --labels FILE, or --anchor")
    return api.Method(name, **{name: values[name] for name in ("ise", "tau_scope", "combine", "lam")})


def gather_settings(values: Mapping[str, Any]) -> api.CaptureSettings:
    """The settings of llama.cpp among the values of `llama_options` or `run_options`."""
    from edgecal import api

    settings = api.CaptureSettings(flash_attn=values.get("fast", False))
    if values["threads"] is not None:
        settings = replace(settings, n_threads=values["threads"])
    if (n_ubatch := values["ubatch_size"]) is not None:
        settings = replace(settings, n_ubatch=n_ubatch, n_batch=max(settings.n_batch, n_ubatch))
    return settings


def gather_run(values: Mapping[str, Any]) -> api.RunOptions:
    """The values of `llama_options` or `run_options`."""
    from edgecal import api

    return api.RunOptions(gather_settings(values), values["timeout"], not values.get("no_cache", False))
