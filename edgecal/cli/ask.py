"""`edgecal ask`: asks a calibrated model one question, for a first look."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from edgecal.cli.options import ANY_PATH, chat_template_option, llama_options, template_option

if TYPE_CHECKING:
    from edgecal.results.model_files import AnswerShown

__all__ = ["ask_command"]

_LEAST_MASS = 0.5  # as in a fit's warnings; below, the model was about to say something else


@click.command("ask", short_help="Ask a model one question and see how sure it is.")
@click.argument("model", type=ANY_PATH)
@click.argument("question")
@click.option(
    "--choice",
    "-c",
    "choices",
    multiple=True,
    required=True,
    metavar="TEXT",
    help="An option; 2 to 26 of them.",
)
@click.option("--subject", metavar="NAME", help="Subject of the question, for templates that name it.")
@template_option
@chat_template_option(
    "Put the question as a turn of a conversation, using the chat template in the model's own file (no value, or own) "
    "or in FILE."
)
@click.option(
    "--min-confidence",
    type=click.FloatRange(0, 1),
    metavar="X",
    help="Abstain if the confidence is below X.",
)
@click.option(
    "--basecal",
    type=ANY_PATH,
    metavar="FILE",
    help="Also say how probable MODEL's base model finds the answer, by the map in FILE (see edgecal project).",
)
@llama_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--quiet", "-q", is_flag=True, help="Print no warnings on stderr.")
def ask_command(model: str, question: str, choices: tuple[str, ...], **values: Any) -> None:
    """Ask MODEL one multiple-choice QUESTION and print how sure it is of each option.

    The logits are divided by the file's temperature, unless that is baked into the weights. The exit code is 0 even if
    the model abstains.
    """
    from edgecal.cli.stdio import printing, say
    from edgecal.runtime.ask_in_worker import AskRequest, ask

    options = {"n_threads": values["threads"], "n_threads_batch": values["threads"]}
    if values["ubatch_size"] is not None:
        options |= {"n_ubatch": values["ubatch_size"], "n_batch": max(512, values["ubatch_size"])}
    asked = ask(
        AskRequest(
            model,
            question,
            choices,
            values["template"],
            values["subject"],
            values["chat_template"],
            values["min_confidence"],
            values["basecal"],
            tuple((name, value) for name, value in options.items() if value is not None),
        ),
        timeout_s=values["timeout"],
    )
    mass = asked.answer.label_mass
    if mass < _LEAST_MASS and not values["quiet"]:
        say(
            f"warning: only {mass:.1%} of all probability lies on the letters, so the model was about to say something "
            "else; another --template or --chat-template may suit it"
        )
    if not values["quiet"]:
        for doubt in asked.calibration.doubts:
            say(f"warning: this file's temperature is unreliable: {doubt}")
    with printing():
        if values["as_json"]:
            calibration = asked.calibration
            shown: AnswerShown = {
                "model": model,
                "question": question,
                "choices": list(choices),
                "answer": asked.answer.to_dict(),
                "calibration": {
                    "kind": calibration.kind,
                    "temperature": calibration.temperature,
                    "divisor": calibration.divisor,
                    "doubts": list(calibration.doubts),
                },
            }
            click.echo(json.dumps(shown, allow_nan=False))
        else:
            _print(asked, choices)


def _print(asked: Any, choices: tuple[str, ...]) -> None:
    from rich.text import Text

    from edgecal.cli.stdio import printable
    from edgecal.cli.tables import print_plain, two_columns

    answer = asked.answer
    table = two_columns()
    said = f"{answer.label}: {printable(answer.text)}"
    if answer.abstained:
        table.add_row(
            "answer", Text(f"none: less sure than {answer.min_confidence:.1%}; it would have been {said}")
        )
    else:
        table.add_row("answer", Text(said, style="bold"))
    table.add_row("confidence", f"{answer.confidence:.1%}")
    for index, (choice, prob) in enumerate(zip(choices, answer.probs, strict=True)):
        bar = "█" * round(20 * prob)
        table.add_row(
            "options" if index == 0 else "",
            Text(f"{chr(65 + index)}  {prob:>6.1%}  {bar:<20}  {printable(choice)}"),
        )
    if answer.base_confidence is not None:
        table.add_row("base model", f"{answer.base_confidence:.1%} for that answer, by the BaseCal map")
    table.add_row("calibration", Text(printable(asked.calibration.sentence)))
    print_plain(table)
