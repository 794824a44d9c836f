"""Works out what stamping and stripping change in a file, and what any edit of keys may break.

Edits (keys to set, keys to remove) are carried out by `edgecal.gguf`. A stamp keeps what `strip_edits` needs to restore
the original bytes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from edgecal.errors import InputError
from edgecal.gguf.header import FILLER_KEY, PADDING_KEY, PREFIX, Header
from edgecal.gguf.rewrite import padding_edits
from edgecal.gguf.values import Value, ValueType, describe_type, quoted
from edgecal.stamping.decision_export import exported_keys, unexport_edits
from edgecal.stamping.decision_record import (
    DecisionRecord,
    check_decisions,
    decision_keys,
    decision_values,
    read_decisions,
)
from edgecal.stamping.record import (
    BAKED_PREFIX,
    ORIGINAL_KEY,
    PREVIOUS_KEY,
    RECORD_KEYS,
    SAMPLING_KEY,
    TEMPERATURE_KEY,
    CalibrationRecord,
    check_record,
    is_baked,
    nearest_float32,
    read_calibration,
    record_values,
    sampling_is_ours,
)

__all__ = ["calibration_edits", "decision_edits", "edit_cautions", "strip_edits"]


def calibration_edits(
    header: Header, record: CalibrationRecord, sampling_key: bool = True, *, force_baked: bool = False
) -> tuple[dict[str, Value], frozenset[str]]:
    """The edits that stamp `record` into a file: (keys to set, keys to remove), for `write_edited`.

    With `sampling_key` the sampling temperature becomes ours and the author's is kept. Without it only `edgecal.*` is
    written; if the sampling temperature was ours, the author's is restored, or the key removed if there was none. A
    record replaces an earlier one as a whole; what `strip_edits` needs was kept by the first. InputError: the record or
    the file's keys make no sense, the author's value is not a number, or the file is baked and `force_baked` is false.
    """
    check_record(record, "")
    if not force_baked:
        _refuse_baked(header)
    read_calibration(header)
    changes = record_values(record)
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
    # An author's value with the bits of our temperature would look like ours, so record that it is not.
    left = changes.get(SAMPLING_KEY, authors)
    if not sampling_key and left == temperature:
        kept = _previous_values(header, left)
    changes |= kept
    changes |= _first_padding(header)
    ours = {key for key, _, _ in RECORD_KEYS} | {PREVIOUS_KEY, ORIGINAL_KEY}
    remove = {key for key in ours if key in header and key not in changes}
    if not sampling_key and authors is None and sampling_is_ours(header):
        remove.add(SAMPLING_KEY)
    # llama.cpp would go on dividing by the old temperatures.
    remove |= {key for key in exported_keys(header) if key not in changes}
    return changes, frozenset(remove)


def decision_edits(
    header: Header, record: DecisionRecord, *, force_baked: bool = False
) -> tuple[dict[str, Value], frozenset[str]]:
    """The edits that stamp the temperatures of typed questions into a file: (keys to set, keys to remove).

    They replace earlier ones as a whole, and leave `edgecal.temperature` and the sampling temperature alone.
    InputError: the record or the file's keys make no sense, or the file is baked and `force_baked` is false.
    """
    check_decisions(record, "")
    if not force_baked:
        _refuse_baked(header)
    read_decisions(header)
    read_calibration(header)
    changes = decision_values(record) | _first_padding(header)
    replaced = (*decision_keys(header), *exported_keys(header))
    return changes, frozenset(key for key in replaced if key not in changes)


def _refuse_baked(header: Header) -> None:
    if is_baked(header):
        raise InputError(
            f"{header.path}: a temperature is already baked into its weights, and a second one would calibrate it "
            "twice; remove it with edgecal unbake first, or give --force-baked"
        )


def _first_padding(header: Header) -> dict[str, Value]:
    """What keeps the padding of a file that edgecal has not stamped yet; later the padding is our own."""
    is_stamped = TEMPERATURE_KEY in header or PADDING_KEY in header or bool(decision_keys(header))
    return {} if is_stamped else padding_edits(header)


def _kept_values(header: Header) -> dict[str, Value]:
    return {key: header.value(key) for key in (PREVIOUS_KEY, ORIGINAL_KEY) if key in header}


def authors_value(header: Header) -> tuple[Value | None, bool]:
    """The author's sampling temperature as written (None: there was none), and whether it is the file's current one,
    which setting ours would replace."""
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
    number = nearest_float32(float(authors.python()))
    return {PREVIOUS_KEY: Value.float32(number), ORIGINAL_KEY: authors}


def strip_edits(header: Header) -> tuple[dict[str, Value], frozenset[str]]:
    """The edits that remove a calibration: (keys to set, keys to remove), for `write_edited`.

    Every `edgecal.*` key goes, and every key that `edgecal export` added; of a baked file only the latter. If the
    sampling temperature is ours, the author's is restored, or the key removed if there was none; one that was set later
    stays. Both lists are empty for a file that edgecal never wrote to.

    The result has the bytes of the file before it was first stamped, padding included, however often it was
    stamped, with or without the sampling key, by copy or in place.

    InputError: the file is baked (its original weights would be lost), or the author's temperature that it keeps is not
        a number.
    """
    exported = unexport_edits(header)
    if is_baked(header):
        if exported:
            return {}, exported
        raise InputError(
            f"{header.path}: a temperature is baked into its weights, and the keys to be removed hold the original "
            "ones; use edgecal unbake"
        )
    remove = {*exported, *(key for key in header.keys if key.startswith(PREFIX))}
    if remove:
        remove.add(FILLER_KEY)  # otherwise an edit in place would add one to avoid copying the file
    changes: dict[str, Value] = {}
    if sampling_is_ours(header):
        authors, _ = authors_value(header)
        if authors is None:
            remove.add(SAMPLING_KEY)
        elif not authors.type.is_number:
            raise InputError(
                f"{header.path}: keeps a previous {SAMPLING_KEY} of type {authors.type.name}, expected a number, so "
                "edgecal did not write it; remove that key with edgecal unset"
            )
        else:
            changes[SAMPLING_KEY] = authors
    return changes, frozenset(remove)


_HARMLESS = re.compile(r"tokenizer\.chat_templates?(\..*)?")
_PREVIOUS_PREFIX = "edgecal.previous."
_USUAL_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")


def edit_cautions(header: Header, changes: Mapping[str, Value], remove: Collection[str]) -> list[str]:
    """One line for each key whose edit may break the model, in the order given.

    Setting a key to its current value does not count.
    """
    edited = [name for name, value in changes.items() if name not in header or header.value(name) != value]
    edited += [name for name in remove if name in header]
    found = []
    for name in edited:
        reason = _danger(header, name)
        if reason is not None:
            found.append(f"{quoted(name)}: {reason}")
        if name not in changes:
            continue
        now = describe_type(changes[name])
        if name in header:
            before = describe_type(Value(header.type_of(name), header.value_head(name, 64)))
            if before != now:
                found.append(
                    f"{quoted(name)}: was {before} and is {now}; programs that expect {before} may fail"
                )
        elif _USUAL_NAME.fullmatch(name) is None:
            found.append(
                f"{quoted(name)}: an unusual name; programs look for words of a-z, 0-9 and _ with dots"
            )
    return found


def _danger(header: Header, name: str) -> str | None:
    if name == "general.architecture":
        return "says how the tensors are read; llama.cpp will not load the model with another one"
    if name == "general.quantization_version":
        return "says how the tensors are stored; llama.cpp may refuse the model"
    if name.startswith("split."):
        return "llama.cpp finds a split model's other files by it"
    if name.startswith(BAKED_PREFIX):
        return "edgecal unbake needs it to restore the original weights"
    if name.startswith(_PREVIOUS_PREFIX):
        return "edgecal strip needs it to restore the original file"
    if name.startswith(PREFIX):
        return "edgecal's own; edgecal stamp and edgecal strip keep such keys consistent"
    if name.startswith("tokenizer.") and _HARMLESS.fullmatch(name) is None:
        return "texts may become other tokens than the model was trained on, or the model may not load"
    if header.architecture and name.startswith(f"{header.architecture}."):
        return "a dimension or constant of the network; the model may not load or answer nonsense"
    return None
