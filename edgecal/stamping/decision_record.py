"""The temperatures of typed questions in a file: a key for each type and number of options, and how they were fitted.

    edgecal.temperature.choice        FLOAT32   divides the logits of a choice question
    edgecal.temperature.choice.3_5    FLOAT32   of one with 3 to 5 options; also .2, .6_10 and .11
    edgecal.interval.NAME             2 FLOAT32 its 95 % interval
    edgecal.bracket.NAME              2 FLOAT32 the bracket's ends, NaN for a missing one
    edgecal.settled.NAME              BOOL      whether nothing spoke against it
    edgecal.bias.noul                 FLOAT32   added to the divided logit of yes less that of no (Platt)
    edgecal.bias.labels               UINT32    how many labelled questions gave the bias and noul's temperature
    edgecal.decision.*                STRING    how the questions were asked
    edgecal.requests.*                          what they were fitted on

The names are those of `edgecal.decisions.temperatures`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgecal.errors import InputError
from edgecal.gguf.header import Header
from edgecal.gguf.values import Value, ValueType
from edgecal.stamping.record import (
    BRACKET_KEY,
    INTERVAL_KEY,
    TEMPERATURE_KEY,
    check_figures,
    nearest_float32,
    read_ends,
    read_file_calibration,
    read_pair,
    read_typed,
)

if TYPE_CHECKING:
    from edgecal.decisions import TypedTemperatures

__all__ = [
    "GROUPS",
    "DecisionRecord",
    "GroupRecord",
    "check_decisions",
    "decision_keys",
    "decision_values",
    "doubts_of_groups",
    "read_decisions",
    "read_temperatures",
]

GROUPS: tuple[str, ...] = tuple(
    kind + bucket for kind in ("choice", "score", "noul") for bucket in ("", ".2", ".3_5", ".6_10", ".11")
)
SETTLED_KEY = "edgecal.settled"
BIAS_KEY = "edgecal.bias.noul"

# Each key, its type and the record's field.
_SETTING_KEYS: tuple[tuple[str, ValueType, str], ...] = (
    (BIAS_KEY, ValueType.FLOAT32, "noul_bias"),
    ("edgecal.bias.labels", ValueType.UINT32, "bias_labels"),
    ("edgecal.decision.readout", ValueType.STRING, "readout"),
    ("edgecal.decision.orders", ValueType.STRING, "orders"),
    ("edgecal.decision.prompt", ValueType.STRING, "prompt_sha256"),
    ("edgecal.requests.method", ValueType.STRING, "method"),
    ("edgecal.requests.count", ValueType.UINT32, "requests_count"),
    ("edgecal.requests.sha256", ValueType.STRING, "requests_sha256"),
    ("edgecal.requests.base.sha256", ValueType.STRING, "base_sha256"),
)
_READOUTS = ("labels", "letters", "texts")
_ORDERS = re.compile(r"[1-9]\d{0,3}|choices|all|auto")


@dataclass(frozen=True)
class GroupRecord:
    """What a file says about one type of question, or one type and number of options.

    Attributes
    ----------
    temperature: divides the logits, above 0.
    interval: its 95 % bounds.
    bracket: the temperatures between which the right one lies; None for an end that does not exist.
    settled: whether nothing spoke against it; None where the file does not say.
    """

    temperature: float
    interval: tuple[float, float] | None = None
    bracket: tuple[float | None, float | None] | None = None
    settled: bool | None = None


@dataclass(frozen=True)
class DecisionRecord:
    """What a file says about typed questions; anything but `groups` may be unknown (None).

    Attributes
    ----------
    groups: by name, of `GROUPS`.
    noul_bias: added to the divided logit of yes less that of no.
    bias_labels: labelled questions that gave it and noul's temperature.
    readout, orders: how questions were asked, as texts: "labels", "letters" or "texts"; "1", "2", ..., "choices",
        "all", "auto".
    prompt_sha256: of the template and the chat template.
    method, base_sha256: how they were fitted, and against which base model's files.
    requests_count, requests_sha256: the questions that they were fitted on.
    """

    groups: Mapping[str, GroupRecord] = field(default_factory=dict)
    noul_bias: float | None = None
    bias_labels: int | None = None
    readout: str | None = None
    orders: str | None = None
    prompt_sha256: str | None = None
    method: str | None = None
    requests_count: int | None = None
    requests_sha256: str | None = None
    base_sha256: str | None = None


def decision_keys(header: Header) -> list[str]:
    """The keys of a file that a `DecisionRecord` is read from."""
    ours = {key for name in GROUPS for key in _keys_of(name)} | {key for key, _, _ in _SETTING_KEYS}
    return [key for key in header.keys if key in ours]


def read_decisions(header: Header) -> DecisionRecord | None:
    """What a file says about typed questions; None if nothing.

    Raises
    ------
    InputError: a key is of the wrong type or holds what makes no sense, such as a temperature of 0.
    """
    if not decision_keys(header):
        return None
    settings = {name: read_typed(header, key, type_) for key, type_, name in _SETTING_KEYS}
    groups = {}
    for name in GROUPS:
        temperature, interval, bracket, settled = _keys_of(name)
        if temperature in header:
            groups[name] = GroupRecord(
                temperature=read_typed(header, temperature, ValueType.FLOAT32),
                interval=read_pair(header, interval),
                bracket=read_ends(header, bracket),
                settled=read_typed(header, settled, ValueType.BOOL),
            )
    record = DecisionRecord(groups, **settings)
    check_decisions(record, f"{header.path}: ")
    return record


def read_temperatures(header: Header) -> TypedTemperatures:
    """What typed questions are divided by, and how they were asked when that was fitted.

    Raises
    ------
    InputError: as `read_decisions` and `read_file_calibration`.
    """
    from edgecal.decisions import TypedTemperature, TypedTemperatures

    calibration = read_file_calibration(header)
    record = read_decisions(header) or DecisionRecord()
    return TypedTemperatures(
        general=None if calibration.kind == "none" else calibration.divisor,
        typed={
            name: TypedTemperature(group.temperature, group.settled) for name, group in record.groups.items()
        },
        noul_bias=record.noul_bias or 0.0,
        readout=record.readout,
        orders=record.orders,
        prompt_sha256=record.prompt_sha256,
    )


def decision_values(record: DecisionRecord) -> dict[str, Value]:
    """The keys of a record, for a file."""
    values: dict[str, Value] = {}
    for name in GROUPS:
        group = record.groups.get(name)
        if group is None:
            continue
        temperature, interval, bracket, settled = _keys_of(name)
        values[temperature] = Value.float32(group.temperature)
        for key, pair in ((interval, group.interval), (bracket, group.bracket)):
            if pair is not None:
                values[key] = Value.array(ValueType.FLOAT32, [math.nan if x is None else x for x in pair])
        if group.settled is not None:
            values[settled] = Value.of(ValueType.BOOL, group.settled)
    for key, type_, name in _SETTING_KEYS:
        value = getattr(record, name)
        if value is not None:
            values[key] = Value.of(type_, value)
    return values


def check_decisions(record: DecisionRecord, where: str) -> None:
    """InputError if a value makes no sense; `where` begins the message."""
    for name, group in record.groups.items():
        check_figures(group.temperature, group.interval, group.bracket, where, f".{name}")
    if record.noul_bias is not None and not math.isfinite(nearest_float32(record.noul_bias)):
        raise InputError(f"{where}{BIAS_KEY} is {record.noul_bias}, expected a finite number")
    if record.readout is not None and record.readout not in _READOUTS:
        raise InputError(
            f"{where}edgecal.decision.readout is {record.readout!r:.60}, expected one of {', '.join(_READOUTS)}"
        )
    if record.orders is not None and not _ORDERS.fullmatch(record.orders):
        raise InputError(
            f"{where}edgecal.decision.orders is {record.orders!r:.60}, expected a number from 1, choices, all or auto"
        )


def doubts_of_groups(header: Header) -> list[str]:
    """What a file says against its own temperatures of typed questions, one line each; errors as `read_decisions`."""
    record = read_decisions(header)
    return [
        f"{header.path}: its temperature of {name} is unreliable and was written only because of --unsettled"
        for name, group in (record.groups.items() if record is not None else ())
        if group.settled is False
    ]


def _keys_of(name: str) -> tuple[str, str, str, str]:
    """Of one group: temperature, interval, bracket, settled."""
    return (
        f"{TEMPERATURE_KEY}.{name}",
        f"{INTERVAL_KEY}.{name}",
        f"{BRACKET_KEY}.{name}",
        f"{SETTLED_KEY}.{name}",
    )
