"""The calibration keys of a GGUF file, and what happens to the author's sampling temperature.

Knows which keys say what, in which types. Does not write files (`stamp`) and does not fit.

`edgecal.temperature` is the only calibration value. `general.sampling.temp` is what llama.cpp's tools sample
with; alone it is the author's, never a calibration. It counts as ours exactly when `edgecal.temperature` is
there and both hold the same float32 bits; to keep that rule free of doubt, an author's value that happens to
have those bits is written down as the previous one even where the sampling key is not touched. So for every
history of stamping with and without the sampling key the author's value is either still in place or under
`edgecal.previous.sampling.temp`. That key is FLOAT32; an author's value of another numeric type is also kept
exactly, in its own type, under `edgecal.previous.sampling.original`, so that it can be put back bit for bit.

A value that somebody set by other means after our stamp is theirs: it takes the author's place.

`edgecal.settled` and `edgecal.harmful` say whether anything speaks against the temperature, `edgecal.reasons` what;
a file with any reason is one that somebody insisted on (`--unsettled`). An end of `edgecal.bracket` that does not
exist is NaN.

A file whose logits are divided already (`edgecal.baked.*`) is calibrated; a second calibration has to be forced.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from typing import Any

from edgecal import __version__
from edgecal.errors import InputError
from edgecal.gguf.header import Header
from edgecal.gguf.padding import PADDING_KEY, padding_edits
from edgecal.gguf.values import Value, ValueType

__all__ = [
    "BAKED_PREFIX",
    "PREFIX",
    "SAMPLING_KEY",
    "TEMPERATURE_KEY",
    "CalibrationRecord",
    "SamplingTemperature",
    "calibration_edits",
    "is_baked",
    "read_calibration",
    "read_doubts",
    "read_sampling",
]

PREFIX = "edgecal."
TEMPERATURE_KEY = "edgecal.temperature"
SAMPLING_KEY = "general.sampling.temp"
PREVIOUS_KEY = "edgecal.previous.sampling.temp"
ORIGINAL_KEY = "edgecal.previous.sampling.original"
INTERVAL_KEY = "edgecal.interval"
BRACKET_KEY = "edgecal.bracket"
REASONS_KEY = "edgecal.reasons"
BAKED_PREFIX = "edgecal.baked."

# Each key's name in the file, its type, and the field of the record. The file's order is this one.
_KEYS: tuple[tuple[str, ValueType, str], ...] = (
    ("edgecal.version", ValueType.STRING, "version"),
    (TEMPERATURE_KEY, ValueType.FLOAT32, "temperature"),
    (INTERVAL_KEY, ValueType.ARRAY, "interval"),
    ("edgecal.method", ValueType.STRING, "method"),
    ("edgecal.variant", ValueType.STRING, "variant"),
    ("edgecal.target", ValueType.STRING, "target"),
    ("edgecal.prompts.count", ValueType.UINT32, "prompts_count"),
    ("edgecal.prompts.sha256", ValueType.STRING, "prompts_sha256"),
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
    """What a file says about its calibration; all but the temperature may be unknown (None).

    `temperature` divides the logits (> 0, stored as float32); `interval` are its 95 % bounds;
    `agreement_rate` is between 0 and 1; `target` says what is calibrated; `version` is edgecal's own. `bracket` are the
    temperatures between which the right one lies (None for an end that does not exist), `settled` whether it is narrow
    enough, `harmful` whether labels failed to show that the temperature helps; `reasons` why it was refused, one line
    each (empty: it was not, or nobody looked).
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

    @property
    def doubts(self) -> tuple[str, ...]:
        """What speaks against the temperature, one line each; none where nothing does or nothing is known."""
        if self.reasons:  # of a file, which may hold anything: made fit for a comment in a script
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
    """Whether a file says that its weights hold a temperature."""
    return any(key.startswith(BAKED_PREFIX) for key in header.keys)


def read_calibration(header: Header) -> CalibrationRecord | None:
    """The calibration in a file, None where there is no `edgecal.temperature`.

    Missing other keys are None. InputError for a key of the wrong type, a temperature that is not a
    positive finite number, bounds that are not two finite numbers in order, or a rate outside 0..1.
    """
    if TEMPERATURE_KEY not in header:
        return None
    found = {name: _read(header, key, type_) for key, type_, name in _KEYS}
    record = CalibrationRecord(**(found | {"reasons": found["reasons"] or ()}))
    _check(record, f"{header.path}: ")
    return record


def read_doubts(header: Header) -> list[str]:
    """What a file says against its own temperature, one line each, fit to be shown; empty where it says nothing.

    Raises InputError as `read_calibration`.
    """
    record = read_calibration(header)
    return [
        f"{header.path}: its temperature is not to be relied on, and was written all the same (--unsettled): {doubt}"
        for doubt in (() if record is None else record.doubts)
    ]


def _read(header: Header, key: str, type_: ValueType) -> Any:
    if key not in header:
        return None
    found = header.type_of(key)
    if key == REASONS_KEY:
        value = header.get(key) if found is ValueType.ARRAY else None
        if not isinstance(value, list) or not all(isinstance(x, str) for x in value):
            raise InputError(f"{header.path}: {key} is not an array of STRING, so edgecal did not write it")
        return tuple(value)
    if type_ is ValueType.ARRAY:
        value = header.get(key) if found is type_ else None
        if not isinstance(value, list) or len(value) != 2 or not all(isinstance(x, float) for x in value):
            raise InputError(f"{header.path}: {key} is not two FLOAT32, so edgecal did not write it")
        return tuple(None if key == BRACKET_KEY and math.isnan(x) else x for x in value)
    if found is not type_:
        raise InputError(
            f"{header.path}: {key} is {found.name}, expected {type_.name}, so edgecal did not write it"
        )
    return header.get(key)


def _check(record: CalibrationRecord, where: str) -> None:
    tau = record.temperature
    if not (math.isfinite(tau) and _float32(tau) > 0 and math.isfinite(_float32(tau))):
        raise InputError(f"{where}{TEMPERATURE_KEY} is {tau}, expected a positive finite number")
    if record.interval is not None:
        low, high = record.interval
        if not (math.isfinite(low) and math.isfinite(high) and low <= high):
            raise InputError(
                f"{where}{INTERVAL_KEY} is [{low}, {high}], expected two finite numbers in order"
            )
    for end in record.bracket or ():
        if end is not None and not (math.isfinite(_float32(end)) and _float32(end) > 0):
            raise InputError(f"{where}{BRACKET_KEY} holds {end}, expected positive finite numbers (or NaN)")
    rate = record.agreement_rate
    if rate is not None and not 0 <= rate <= 1:
        raise InputError(f"{where}edgecal.agreement_rate is {rate}, expected a number from 0 to 1")


def _float32(number: float) -> float:
    """The nearest float32; infinity beyond its range."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", number))[0])
    except OverflowError:
        return math.copysign(math.inf, number)


def read_sampling(header: Header) -> SamplingTemperature:
    """Whose the sampling temperature in a file is. A value that is no number counts as None."""
    current = _number(header, SAMPLING_KEY)
    ours = sampling_is_ours(header)
    return SamplingTemperature(current, ours, _number(header, PREVIOUS_KEY) if ours else current)


def _number(header: Header, key: str) -> float | None:
    if key not in header or not header.type_of(key).is_number:
        return None
    return float(header.get(key, math.nan))


def sampling_is_ours(header: Header) -> bool:
    """Whether the sampling temperature in a file is the one that edgecal put there."""
    if TEMPERATURE_KEY not in header or SAMPLING_KEY not in header:
        return False
    if header.type_of(SAMPLING_KEY) is not ValueType.FLOAT32:
        return False
    return header.value(SAMPLING_KEY) == header.value(TEMPERATURE_KEY)


def calibration_edits(
    header: Header, record: CalibrationRecord, sampling_key: bool = True, *, force_baked: bool = False
) -> tuple[dict[str, Value], frozenset[str]]:
    """The edits that stamp `record` into a file: (keys to set, keys to remove), for `write_edited`.

    With `sampling_key` the sampling temperature becomes ours and the author's is kept; without it only
    `edgecal.*` is written, and where the sampling temperature was ours the author's is put back, or the key
    removed if the author had none. A record replaces an earlier one as a whole. What `strip_edits` needs to
    give the original bytes back is kept by the first. InputError: the record or what the file holds makes no
    sense, the author's value is not a number, or the file is baked and `force_baked` false.
    """
    _check(record, "")
    if is_baked(header) and not force_baked:
        raise InputError(
            f"{header.path}: the temperature is in its weights already (edgecal bake), a second one would calibrate "
            "twice; take it out with edgecal unbake first, or give --force-baked"
        )
    read_calibration(header)
    changes = _record_values(record)
    temperature = changes[TEMPERATURE_KEY]
    kept = _kept_values(header)
    authors, replaced = authors_value(header)
    if sampling_key:
        changes[SAMPLING_KEY] = temperature
        kept = _previous_values(header, authors) if replaced else kept
    elif sampling_is_ours(header):
        kept = {}
        if authors is not None:
            changes[SAMPLING_KEY] = authors
    # An author's value with the bits of our temperature would look like ours: say that it is not.
    left = changes.get(SAMPLING_KEY, authors)
    if not sampling_key and left == temperature:
        kept = _previous_values(header, left)
    changes |= kept
    if TEMPERATURE_KEY not in header and PADDING_KEY not in header:
        changes |= padding_edits(header)
    ours = {key for key, _, _ in _KEYS} | {PREVIOUS_KEY, ORIGINAL_KEY}
    remove = {key for key in ours if key in header and key not in changes}
    if not sampling_key and authors is None and sampling_is_ours(header):
        remove.add(SAMPLING_KEY)
    return changes, frozenset(remove)


def _record_values(record: CalibrationRecord) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for key, type_, name in _KEYS:
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


def _kept_values(header: Header) -> dict[str, Value]:
    return {key: header.value(key) for key in (PREVIOUS_KEY, ORIGINAL_KEY) if key in header}


def authors_value(header: Header) -> tuple[Value | None, bool]:
    """The author's sampling temperature as it was written (None: there was none), and whether it is the
    file's current one, which setting ours would replace."""
    if SAMPLING_KEY not in header or sampling_is_ours(header):
        kept = _kept_values(header)
        return kept.get(ORIGINAL_KEY, kept.get(PREVIOUS_KEY)), False
    return header.value(SAMPLING_KEY), True


def _previous_values(header: Header, authors: Value | None) -> dict[str, Value]:
    """The keys that keep an author's value."""
    if authors is None:
        return {}
    if not authors.type.is_number:
        raise InputError(
            f"{header.path}: {SAMPLING_KEY} is {authors.type.name}, not a number, and cannot be kept as the "
            "previous temperature; use --no-sampling-key, which leaves it alone"
        )
    if authors.type is ValueType.FLOAT32:
        return {PREVIOUS_KEY: authors}
    number = _float32(float(authors.python()))
    return {PREVIOUS_KEY: Value.float32(number), ORIGINAL_KEY: authors}
