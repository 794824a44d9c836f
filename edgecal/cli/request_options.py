"""The options of commands that take requests of typed questions instead of questions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    from edgecal.decisions import DecisionOptions

__all__ = ["check_request_options", "gather_decisions", "requests_options"]

Command = TypeVar("Command", bound=Callable[..., Any])


def requests_options(purpose: str, model: str) -> Callable[[Command], Command]:
    """Adds --requests, --readout and --orders; `purpose` is the help of the first, `model` names whose file decides."""

    def add(command: Command) -> Command:
        for option in (
            click.option(
                "--orders",
                metavar="N|choices|all|auto",
                help="In how many orders of their options --requests are asked (see edgecal decide)."
                f"  [default: as {model} says, else choices]",
            ),
            click.option(
                "--readout",
                type=click.Choice(["labels", "letters"]),
                help=f"How --requests are answered.  [default: as {model} says, else labels]",
            ),
            click.option(
                "--requests",
                multiple=True,
                metavar="FILE",
                type=click.Path(),
                help=f"{purpose}: bodies of /v1/systemone, one on each line; repeatable, - is standard input.",
            ),
        ):
            command = option(command)
        return command

    return add


def check_request_options(values: Mapping[str, Any], not_for_requests: Collection[str]) -> bool:
    """Whether there are requests. UsageError for an option that was given and does not go with them, or without."""
    context = click.get_current_context()
    given = {
        parameter.name: parameter.opts[0]
        for parameter in context.command.params
        if parameter.name is not None
        and context.get_parameter_source(parameter.name) is ParameterSource.COMMANDLINE
    }
    if values["requests"]:
        for name, option in given.items():
            if name in not_for_requests:
                raise click.UsageError(f"{option} does not go with --requests")
        return True
    if "readout" in given or "orders" in given:
        raise click.UsageError("--readout and --orders are for --requests")
    return False


def gather_decisions(values: Mapping[str, Any]) -> DecisionOptions:
    """The values of --readout, --orders, --template and --chat-template, and of --order-margin, --min-mass and
    --min-confidence where a command has them."""
    from edgecal.decisions import AUTO_CHAT_TEMPLATE, DecisionOptions, parse_orders

    chosen = values["chat_template"]
    more = ("order_margin", "min_mass", "min_confidence")
    return DecisionOptions(
        readout=values["readout"],
        orders=None if values["orders"] is None else parse_orders(values["orders"]),
        template=values["template"],
        chat_template=AUTO_CHAT_TEMPLATE if chosen is None else None if chosen == "none" else chosen,
        **{name: values[name] for name in more if values.get(name) is not None},
    )
