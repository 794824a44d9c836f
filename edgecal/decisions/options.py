"""How questions are asked, as one value that runtime, fit and evaluation share."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgecal.decisions.labels import READOUTS, Readout
from edgecal.decisions.orders import DEFAULT_ORDER_MARGIN, DEFAULT_ORDERS, Orders, parse_orders
from edgecal.decisions.temperatures import TypedTemperatures
from edgecal.errors import InputError

__all__ = ["AUTO_CHAT_TEMPLATE", "DEFAULT_READOUT", "DecisionOptions"]

DEFAULT_READOUT: Readout = "labels"

# The file's own chat template if it has one, else plain text.
AUTO_CHAT_TEMPLATE = "auto"


@dataclass(frozen=True)
class DecisionOptions:
    """How questions are asked and when an answer is marked.

    Attributes
    ----------
    readout: "labels", "letters" (as llama.cpp's decision mode reads) or "texts" (each option's own text); None is what
        the file's temperatures were fitted for, else "labels".
    orders: in how many orders the options are shown: a number, "choices" (two, of yes and no one), "all" or "auto";
        None likewise, else "choices".
    order_margin: for "auto": nats by which a further order is assumed to be able to speak against the answer.
    min_mass: an answer whose labels have less of the model's probability is marked, 0 to 1.
    min_confidence: an answer whose probability is lower is marked, 0 to 1; None marks none for that.
    template: see `DecisionPrompting`.
    chat_template: "auto", "own" or the path of a Jinja file (see `resolve_chat_template`); None asks in plain text.

    Raises
    ------
    InputError: a value is out of range.
    """

    readout: Readout | None = None
    orders: Orders | None = None
    order_margin: float = DEFAULT_ORDER_MARGIN
    min_mass: float = 0.5
    min_confidence: float | None = None
    template: str | Path | None = None
    chat_template: str | Path | None = AUTO_CHAT_TEMPLATE

    def __post_init__(self) -> None:
        if self.readout is not None and self.readout not in READOUTS:
            raise InputError(f"readout is {self.readout!r:.60}, expected one of {', '.join(READOUTS)}")
        if self.orders is not None:
            parse_orders(self.orders)
        _check_number("order_margin", self.order_margin, 0.0, math.inf)
        _check_number("min_mass", self.min_mass, 0.0, 1.0)
        if self.min_confidence is not None:
            _check_number("min_confidence", self.min_confidence, 0.0, 1.0)

    def for_file(self, temperatures: TypedTemperatures) -> DecisionOptions:
        """The same with readout and orders decided: the caller's, else those that the file's temperatures were fitted
        for, else the defaults."""
        asked: Any = self.readout or temperatures.readout or DEFAULT_READOUT
        orders = self.orders or temperatures.orders or DEFAULT_ORDERS
        return replace(self, readout=asked, orders=parse_orders(orders))


def _check_number(name: str, value: Any, least: float, most: float) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not least <= value <= most:
        raise InputError(f"{name} is {value!r:.60}, expected a number from {least:g} to {most:g}")
