"""Reads what a file says about its calibration: the record's keys and types, a baked temperature, and whose the
sampling temperature is.

`edgecal.temperature` is the only calibration value. `general.sampling.temp` is what llama.cpp's tools sample with; by
itself it is the author's, never a calibration. It counts as ours exactly when `edgecal.temperature` exists and both
hold the same float32 bits. To keep this rule unambiguous, an author's value that happens to have those bits is also
kept as the previous one, even if the sampling key is not touched. So whatever was stamped, with and without the
sampling key, the author's value is either still in place or under `edgecal.previous.sampling.temp`. That key is
FLOAT32; an author's value of another numeric type is also kept exactly, in its own type, under
`edgecal.previous.sampling.original`, so that it can be put back bit for bit.

A value that another program set after our stamp counts as the author's.

`edgecal.settled` and `edgecal.harmful` say whether anything speaks against the temperature, `edgecal.reasons` what;
a file with any reason was written only because of `--unsettled`. An end of `edgecal.bracket` that does not exist is
NaN.

A file whose logits are divided already (`edgecal.baked.*`) is calibrated; a second calibration has to be forced.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from typing import Any, Literal

from edgecal.errors import InputError
from edgecal.gguf.header import Header
from edgecal.gguf.values import Value, ValueType
from edgecal.version import __version__

__all__ = [
    "BAKED_PREFIX",
    "BAKED_TEMPERATURE_KEY",
    "BAKED_VERSION_KEY",
    "CHANGED_KEY",
    "SAMPLING_KEY",
    "TEMPERATURE_KEY",
    "CalibrationRecord",
    "FileCalibration",
    "SamplingTemperature",
    "baked_temperature",
    "check_not_baked",
    "is_baked",
    "read_calibration",
    "read_doubts",
    "read_file_calibration",
    "read_sampling",
]

TEMPERATURE_KEY = "edgecal.temperature"
SAMPLING_KEY = "general.sampling.temp"
PREVIOUS_KEY = "edgecal.previous.sampling.temp"
ORIGINAL_KEY = "edgecal.previous.sampling.original"
INTERVAL_KEY = "edgecal.interval"
BRACKET_KEY = "edgecal.bracket"
REASONS_KEY = "edgecal.reasons"
BAKED_PREFIX = "edgecal.baked."

# Each key's name in the file, its type, and the record's field, in the file's order.
RECORD_KEYS: tuple[tuple[str, ValueType, str], ...] = (
    ("edgecal.version", ValueType.STRING, "version"),
    (TEMPERATURE_KEY, ValueType.FLOAT32, "temperature"),
    (INTERVAL_KEY, ValueType.ARRAY, "interval"),
    ("edgecal.method", ValueType.STRING, "method"),
    ("edgecal.variant", ValueType.STRING, "variant"),
    ("edgecal.target", ValueType.STRING, "target"),
    ("edgecal.prompts.count", ValueType.UINT32, "prompts_count"),
    ("edgecal.prompts.sha256", ValueType.STRING, "prompts_sha256"),
    ("edgecal.labels.count", ValueType.UINT32, "labels_count"),
    ("edgecal.labels.sha256", ValueType.STRING, "labels_sha256"),
    ("edgecal.agreement_rate", ValueType.FLOAT32, "agreement_rate"),
    (BRACKET_KEY, ValueType.ARRAY, "bracket"),
    ("edgecal.settled", ValueType.BOOL, "settled"),
    ("edgecal.harmful", ValueType.BOOL, "harmful"),
    (REASONS_KEY, ValueType.ARRAY, "reasons"),
    ("edgecal.base.name", ValueType.STRING, "base_name"),
    ("edgecal.base.sha256", ValueType.STRING, "base_sha256"),
    ("edgecal.llama_cpp", ValueType.STRING, "llama_cpp"),
)


@dataclass(frozen=True)
class CalibrationRecord:
    """What a file says about its calibration; everything but the temperature may be unknown (None).

    `temperature` divides the logits (> 0, stored as float32); `interval` are its 95 % bounds;
    `agreement_rate` is between 0 and 1; `target` says what is calibrated; `version` is edgecal's own. `bracket` are the
    temperatures between which the right one lies (None for an end that does not exist), `settled` whether it is narrow
    enough, `harmful` whether labels failed to show that the temperature helps; `reasons` why it was refused, one line
    each (empty: it was not refused, or not checked). `labels_count` and `labels_sha256` are the labels that anchored
    it, None for another method.
    """

    temperature: float
    interval: tuple[float, float] | None = None
    method: str | None = None
    variant: str | None = None
    target: str | None = "choices"
    prompts_count: int | None = None
    prompts_sha256: str | None = None
    agreement_rate: float | None = None
    bracket: tuple[float | None, float | None] | None = None
    settled: bool | None = None
    harmful: bool | None = None
    reasons: tuple[str, ...] = ()
    base_name: str | None = None
    base_sha256: str | None = None
    llama_cpp: str | None = None
    version: str | None = field(default=__version__)
    labels_count: int | None = None
    labels_sha256: str | None = None

    @property
    def doubts(self) -> tuple[str, ...]:
        """What speaks against the temperature, one line each; empty if nothing does or nothing is known."""
        if self.reasons:  # a file may hold anything, and this may go into a comment in a script
            return tuple(
                " ".join("".join(char if char.isprintable() else " " for char in reason).split())
                for reason in self.reasons
            )
        return ("no reason is given",) if self.settled is False or self.harmful is True else ()


@dataclass(frozen=True)
class SamplingTemperature:
    """The sampling temperature in a file: `current` (None: no key), whether it is the calibration's (`ours`),
    and the author's own (`authors`, None: the author gave none), wherever it is kept."""

    current: float | None
    ours: bool
    authors: float | None


def is_baked(header: Header) -> bool:
    """Whether a file says that a temperature is baked into its weights."""
    return any(key.startswith(BAKED_PREFIX) for key in header.keys)


def read_calibration(header: Header) -> CalibrationRecord | None:
    """The calibration in a file; None if there is no `edgecal.temperature`.

    Other keys that are missing are None. InputError for a key of the wrong type, a temperature that is not a positive
    finite number, bounds that are not two finite numbers in order, or a rate outside 0..1.
    """
    if TEMPERATURE_KEY not in header:
        return None
    found = {name: _read(header, key, type_) for key, type_, name in RECORD_KEYS}
    record = CalibrationRecord(**(found | {"reasons": found["reasons"] or ()}))
    check_record(record, f"{header.path}: ")
    return record


def read_doubts(header: Header) -> list[str]:
    """What a file says against its own temperature, one printable line each; empty if nothing.

    Raises InputError as `read_calibration`.
    """
    record = read_calibration(header)
    return [
        f"{header.path}: its temperature is unreliable and was written only because of --unsettled: {doubt}"
        for doubt in (() if record is None else record.doubts)
    ]


def _read(header: Header, key: str, type_: ValueType) -> Any:
    if key not in header:
        return None
    if key == REASONS_KEY:
        value = header.get(key) if header.type_of(key) is ValueType.ARRAY else None
        if not isinstance(value, list) or not all(isinstance(x, str) for x in value):
            raise InputError(f"{header.path}: {key} is not an array of STRING, so edgecal did not write it")
        return tuple(value)
    if type_ is ValueType.ARRAY:
        return read_ends(header, key) if key == BRACKET_KEY else read_pair(header, key)
    return read_typed(header, key, type_)


def read_typed(header: Header, key: str, type_: ValueType) -> Any:
    """A key's value, None if there is no such key; InputError if it has another type."""
    if key not in header:
        return None
    found = header.type_of(key)
    if found is not type_:
        raise InputError(
            f"{header.path}: {key} is {found.name}, expected {type_.name}, so edgecal did not write it"
        )
    return header.get(key)


def read_pair(header: Header, key: str) -> tuple[float, float] | None:
    """Two FLOAT32, None if there is no such key; InputError if it holds anything else."""
    if key not in header:
        return None
    value = header.get(key) if header.type_of(key) is ValueType.ARRAY else None
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(x, float) for x in value):
        raise InputError(f"{header.path}: {key} is not two FLOAT32, so edgecal did not write it")
    return value[0], value[1]


def read_ends(header: Header, key: str) -> tuple[float | None, float | None] | None:
    """The same with None for NaN: a bracket, an end of which may not exist."""
    pair = read_pair(header, key)
    return pair and (None if math.isnan(pair[0]) else pair[0], None if math.isnan(pair[1]) else pair[1])


def check_record(record: CalibrationRecord, where: str) -> None:
    check_figures(record.temperature, record.interval, record.bracket, where)
    rate = record.agreement_rate
    if rate is not None and not 0 <= rate <= 1:
        raise InputError(f"{where}edgecal.agreement_rate is {rate}, expected a number from 0 to 1")


def check_figures(
    temperature: float | None,
    interval: tuple[float, float] | None,
    bracket: tuple[float | None, float | None] | None,
    where: str,
    suffix: str = "",
) -> None:
    """InputError if a temperature, its interval or its bracket makes no sense. `where` begins the message, `suffix`
    ends the names of the keys in it."""
    if temperature is not None and not _is_divisor(temperature):
        raise InputError(
            f"{where}{TEMPERATURE_KEY}{suffix} is {temperature}, expected a positive finite number"
        )
    if interval is not None:
        low, high = interval
        if not (math.isfinite(low) and math.isfinite(high) and low <= high):
            raise InputError(
                f"{where}{INTERVAL_KEY}{suffix} is [{low}, {high}], expected two finite numbers in order"
            )
    for end in bracket or ():
        if end is not None and not _is_divisor(end):
            raise InputError(
                f"{where}{BRACKET_KEY}{suffix} holds {end}, expected positive finite numbers (or NaN)"
            )


def _is_divisor(number: float) -> bool:
    return math.isfinite(nearest_float32(number)) and nearest_float32(number) > 0


def record_values(record: CalibrationRecord) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for key, type_, name in RECORD_KEYS:
        value = getattr(record, name)
        if value is None or value == ():
            continue
        if key == REASONS_KEY:
            values[key] = Value.array(ValueType.STRING, value)
        elif type_ is ValueType.ARRAY:
            values[key] = Value.array(ValueType.FLOAT32, [math.nan if x is None else x for x in value])
        else:
            values[key] = Value.of(type_, value)
    return values


def nearest_float32(number: float) -> float:
    """The nearest float32; infinity beyond its range."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", number))[0])
    except OverflowError:
        return math.copysign(math.inf, number)


def read_sampling(header: Header) -> SamplingTemperature:
    """The sampling temperature in a file, and whose it is. A value that is not a number counts as None."""
    current = _number(header, SAMPLING_KEY)
    ours = sampling_is_ours(header)
    return SamplingTemperature(current, ours, _number(header, PREVIOUS_KEY) if ours else current)


def _number(header: Header, key: str) -> float | None:
    if key not in header or not header.type_of(key).is_number:
        return None
    return float(header.get(key, math.nan))


def sampling_is_ours(header: Header) -> bool:
    """Whether edgecal wrote the sampling temperature in a file."""
    if TEMPERATURE_KEY not in header or SAMPLING_KEY not in header:
        return False
    if header.type_of(SAMPLING_KEY) is not ValueType.FLOAT32:
        return False
    return header.value(SAMPLING_KEY) == header.value(TEMPERATURE_KEY)


BAKED_TEMPERATURE_KEY = "edgecal.baked.temperature"
BAKED_VERSION_KEY = "edgecal.baked.version"
CHANGED_KEY = "edgecal.baked.changed"


def baked_temperature(header: Header) -> float | None:
    """The temperature that a file's logits are already divided by; None if the file is not baked.

    InputError: the file has the keys of a baked file but no valid temperature.
    """
    if not is_baked(header):
        return None
    found = header.entries.get(BAKED_TEMPERATURE_KEY)
    value = header.get(BAKED_TEMPERATURE_KEY) if found and found.type is ValueType.FLOAT32 else None
    if not isinstance(value, float) or not 0 < value < float("inf"):
        raise InputError(
            f"{header.path}: has {BAKED_PREFIX}* keys, but {BAKED_TEMPERATURE_KEY} is "
            f"{'missing' if found is None else 'not a positive FLOAT32'}; was the file edited after baking?"
        )
    return value


def check_not_baked(header: Header, what: str) -> None:
    """Raises InputError if the file is baked; `what` names what cannot be done ("fitting it again")."""
    tau = baked_temperature(header)
    if tau is not None:
        raise InputError(
            f"{header.path}: its logits are already divided by {tau:.6g} (edgecal bake), so {what} would calibrate "
            "it twice; take that back first with edgecal unbake"
        )


Kind = Literal["stamped", "baked", "none"]


@dataclass(frozen=True)
class FileCalibration:
    """How a file is calibrated.

    Attributes
    ----------
    kind: "stamped": a temperature is in the metadata, and apps divide the logits by it to get confidence. "baked": the
        weights give divided logits already. "none": the file is not calibrated.
    temperature: what was fitted (stamped), or what the weights' logits are divided by (baked); above 0, None if kind is
        "none".
    divisor: what is left to divide the file's logits by: the temperature if stamped, else 1, unless a baked file
        was calibrated again by force.
    record: how the temperature was fitted; None where the file does not say.
    sampling: the temperature that programs sample with by default, and whose it is.
    """

    kind: Kind
    temperature: float | None
    divisor: float
    record: CalibrationRecord | None
    sampling: SamplingTemperature

    @property
    def doubts(self) -> tuple[str, ...]:
        """What speaks against the temperature, one line each: edgecal refused it, and the user insisted (`edgecal fit
        --unsettled`). Empty if nothing does, or the file does not say."""
        return () if self.record is None else self.record.doubts

    @property
    def sentence(self) -> str:
        """The calibration in one sentence for people."""
        return self._told + ("; it is unreliable: " + "; ".join(self.doubts) if self.doubts else "")

    @property
    def _told(self) -> str:
        if self.kind == "stamped":
            return f"logits are divided by the file's temperature, {self.divisor:.4g}"
        if self.kind == "baked":
            then = (
                "so logits are taken as they are"
                if self.divisor == 1
                else f"and logits are divided by a further {self.divisor:.4g}, which was stamped later"
            )
            return f"the temperature, {self.temperature:.4g}, is baked into the weights, {then}"
        return (
            "the file holds no calibration of multiple-choice questions, so logits are taken as they are "
            "(temperature 1) and the confidence is the model's own; edgecal fit finds a temperature"
        )


def read_file_calibration(header: Header) -> FileCalibration:
    """How the file with this header (of a split model the first shard's) is calibrated.

    If a baked file names the baked temperature as what is left to divide by, which edgecal never writes, it is not
    divided twice.

    Raises
    ------
    InputError: a calibration key is of the wrong type or makes no sense.
    """
    record = read_calibration(header)
    sampling = read_sampling(header)
    baked = baked_temperature(header)
    left = 1.0 if record is None or record.temperature == baked else record.temperature
    if baked is not None:
        return FileCalibration("baked", baked, left, record, sampling)
    if record is not None:
        return FileCalibration("stamped", left, left, record, sampling)
    return FileCalibration("none", None, 1.0, None, sampling)
