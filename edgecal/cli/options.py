"""Options that several commands share, each said once: questions, how llama.cpp is run, how a result is shown.

A decorator adds options; the values that belong together are gathered by a function beside it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    import edgecal

__all__ = [
    "ANY_PATH",
    "bootstrap_option",
    "chat_template_option",
    "effect_option",
    "gather_method",
    "gather_questions",
    "gather_run",
    "gather_settings",
    "labelled_data_option",
    "llama_options",
    "method_options",
    "question_options",
    "reading_options",
    "run_options",
    "template_option",
]

Command = TypeVar("Command", bound=Callable[..., Any])

# Any text: whether there is such a file, and whether it can be read, whoever opens it says in a line of its own.
ANY_PATH = click.Path(readable=False)

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
    """An option whose value may be left out takes a model that follows it for its value."""
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
    """`question=Q,options=A+B,answer-base=1` as a dict of names, several as a list."""
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
    help="How a question is put: default, question-answer, plain, subject, bracketed, brief, a Jinja file, or Jinja "
    "text.  [default: default]",
)


def chat_template_option(help: str) -> Callable[[Command], Command]:
    """`--chat-template` with its help; without a value it is `edgecal.prompts.OWN_CHAT_TEMPLATE`, which to import would
    make every command load Jinja."""
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
        help="What the data files are.  [default: found out from their content]",
    ),
    click.option(
        "--map",
        "mapping",
        multiple=True,
        metavar="KEY=COLUMN,...",
        callback=_parse_map,
        help="Which columns hold what, where no reader knows: question=COLUMN, options=COLUMN (a list) or "
        "options=A+B+C, answer=COLUMN, passage=COLUMN, subject=COLUMN, labels=COLUMN (of the options), and "
        "answer-base=0, 1, label or text, which answers are; repeatable. A column may be a path (doc.question); in a "
        "table without a header they are 1, 2, 3, ...",
    ),
    click.option(
        "--strict", is_flag=True, help="Stop at the first row that does not fit, instead of skipping it."
    ),
    click.option(
        "--subject",
        "subjects",
        multiple=True,
        metavar="NAME",
        help="Only questions of this subject; repeatable.",
    ),
    click.option(
        "--limit", type=click.IntRange(min=1), metavar="N", help="Draw N of the questions, by --seed."
    ),
    click.option(
        "--seed",
        type=click.IntRange(min=0, max=2**64 - 1),
        default=0,
        show_default=True,
        help="Seed of everything that is drawn.",
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
        help="Worked examples of the same subject before each question.",
    ),
    click.option(
        "--shots-from",
        type=ANY_PATH,
        metavar="FILE",
        help="Take worked examples from these questions.  [default: a folder's dev part, else the other questions]",
    ),
    chat_template_option(
        "Ask the chat model in a turn of a conversation, by the template in its own file (no value, or own) or in "
        "FILE; a base model stays plain."
    ),
)

labelled_data_option = click.option(
    "--data",
    multiple=True,
    required=True,
    metavar="FILE",
    type=ANY_PATH,
    help="Questions with answers: a file or folder in one of the usual forms (JSON, JSON Lines, CSV, TSV, Parquet, "
    "Arrow, also packed); repeatable, - is standard input.",
)

effect_option = click.option(
    "--effect-sample",
    type=click.IntRange(min=0),
    default=64,
    show_default=True,
    metavar="N",
    help="Questions on which each part of the prompting is tried alone, for its effect on the choice mass.",
)

llama_options = _all(
    click.option(
        "--threads",
        "-t",
        type=click.IntRange(min=1),
        metavar="N",
        help="CPU threads at most.  [default: physical cores]",
    ),
    click.option(
        "--ubatch-size",
        "-ub",
        type=click.IntRange(min=16),
        metavar="N",
        help="Tokens that llama.cpp computes at once, a multiple of 4.  [default: 512]",
    ),
    click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=600.0,
        show_default=True,
        metavar="S",
        help="Seconds without a sign of life after which llama.cpp counts as hung.",
    ),
)

run_options = _all(
    llama_options,
    click.option(
        "--fast",
        is_flag=True,
        help="Use llama.cpp's flash attention, with which the last bits of a prompt's numbers depend on its company; "
        "quicker for prompts of about a thousand tokens and more.",
    ),
    click.option(
        "--no-cache",
        is_flag=True,
        help="Neither use nor keep what models say about prompts (see edgecal cache).",
    ),
)

method_options = _all(
    click.option(
        "--method",
        type=click.Choice(["dual-align", "daca", "naive", "process", "ts", "vanilla"]),
        default="dual-align",
        show_default=True,
        help="What is minimised; ts learns from answers, the others never see one.",
    ),
    click.option(
        "--ise", type=click.Choice(["mixture", "mean"]), help="What is averaged in the stability entropy."
    ),
    click.option(
        "--tau-scope", type=click.Choice(["all", "final"]), help="Which layers the temperature divides."
    ),
    click.option(
        "--combine",
        type=click.Choice(["stratified", "divergence", "sum"]),
        help="How Dual-Align joins its two losses.",
    ),
    click.option(
        "--lambda", "lam", type=float, metavar="X", help="Weight of the process loss with --combine sum."
    ),
)

bootstrap_option = click.option(
    "--bootstrap",
    type=click.IntRange(min=20),
    default=1000,
    show_default=True,
    metavar="N",
    help="Resamples for the intervals.",
)


def gather_questions(values: Mapping[str, Any]) -> edgecal.QuestionOptions:
    """What `question_options` or `reading_options` gave."""
    import edgecal

    return edgecal.QuestionOptions(
        **{item.name: values[item.name] for item in fields(edgecal.QuestionOptions) if item.name in values}
    )


def gather_method(values: Mapping[str, Any]) -> edgecal.Method:
    """What `method_options` gave."""
    import edgecal

    return edgecal.Method(
        values["method"], **{name: values[name] for name in ("ise", "tau_scope", "combine", "lam")}
    )


def gather_settings(values: Mapping[str, Any]) -> edgecal.CaptureSettings:
    """What `llama_options` say about llama.cpp, and `run_options` where the command has them."""
    import edgecal

    settings = edgecal.CaptureSettings(flash_attn=values.get("fast", False))
    if values["threads"] is not None:
        settings = replace(settings, n_threads=values["threads"])
    if (n_ubatch := values["ubatch_size"]) is not None:
        settings = replace(settings, n_ubatch=n_ubatch, n_batch=max(settings.n_batch, n_ubatch))
    return settings


def gather_run(values: Mapping[str, Any]) -> edgecal.RunOptions:
    """What `llama_options` or `run_options` gave."""
    import edgecal

    return edgecal.RunOptions(gather_settings(values), values["timeout"], not values.get("no_cache", False))
