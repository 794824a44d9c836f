"""Edits the keys of one model file: `edgecal.stamp`, `edgecal.strip`, and the edits of `edgecal set` and `unset`.

Every edit is planned first (`plan_stamp`, ...), so that an impossible one is refused before anything is written, and
warnings appear before gigabytes are copied; `Edit.write` then carries it out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecal.errors import InputError, UnsettledError
from edgecal.gguf.diff import diff_edits
from edgecal.gguf.header import FILLER_KEY, read_header
from edgecal.gguf.inplace.journal import recover
from edgecal.gguf.output import OutputPlan, plan_named_output
from edgecal.gguf.placing import write_output
from edgecal.gguf.rewrite import edited_size
from edgecal.gguf.shards import ShardSet, find_shards
from edgecal.gguf.spans import Progress
from edgecal.gguf.values import Value, parse_typed, quoted
from edgecal.results import EditResult, StampResult
from edgecal.results.fitting import SiblingFile
from edgecal.stamping.changes import calibration_edits, decision_edits, edit_cautions, strip_edits
from edgecal.stamping.decision_export import (
    check_can_export,
    export_edits,
    plan_temperatures,
    warn_of_export,
)
from edgecal.stamping.decision_record import DecisionRecord
from edgecal.stamping.fit_record import decisions_of_result, name_of_chat, read_result, record_of_result
from edgecal.stamping.record import CalibrationRecord

if TYPE_CHECKING:
    from edgecal.results import FitResult, RequestFitResult

__all__ = [
    "Edit",
    "Place",
    "plan_decision_export",
    "plan_set",
    "plan_stamp",
    "plan_strip",
    "plan_unset",
    "stamp",
    "strip",
    "write_calibrated",
]


@dataclass(frozen=True)
class Place:
    """Where an edit is written: to `output`, which may exist only with `force`, or into the file itself.

    With `verify` the tensor data are read back and compared with the original's.
    """

    output: str | Path | None = None
    in_place: bool = False
    force: bool = False
    verify: bool = False


@dataclass(frozen=True, eq=False)
class Edit:
    """A planned edit that can be written; nothing has changed yet."""

    plan: OutputPlan
    changes: Mapping[str, Value]
    remove: Collection[str]
    warnings: list[str]
    verify: bool
    temperature: float | None = None
    stamps: bool = False

    def write(self, on_progress: Progress | None = None) -> EditResult:
        """Writes the new file, or edits the old one in place; `on_progress` as for `stamp`.

        Raises
        ------
        OutputError: anything that the file system refuses; the previous state is intact.
        """
        plan = self.plan
        keys = diff_edits(plan.shards.header, self.changes, self.remove)
        written = write_output(
            plan, changes=self.changes, remove=self.remove, verify=self.verify, progress=on_progress
        )
        done = EditResult(
            file=str(plan.shards.path),
            output=str(written.path),
            in_place=plan.in_place,
            verified=self.verify,
            keys=[key.to_dict() for key in keys],
            siblings=written.describe_siblings(),
            warnings=self.warnings,
        )
        return StampResult(**vars(done), temperature=self.temperature) if self.stamps else done


def stamp(
    file: str | Path,
    output: str | Path | None = None,
    *,
    temperature: float | None = None,
    fit: FitResult | RequestFitResult | Mapping[str, Any] | str | Path | None = None,
    in_place: bool = False,
    force: bool = False,
    sampling_key: bool = True,
    force_baked: bool = False,
    unsettled: bool = False,
    verify: bool = False,
    on_progress: Progress | None = None,
) -> StampResult:
    """Write a temperature into the metadata of a model file, as `edgecal stamp` and `edgecal.fit` do.

    Parameters
    ----------
    file: a GGUF file; of a split model the first shard.
    output: the new file; give either this or `in_place`.
    temperature: what the logits are divided by, above 0; by default the fit's.
    fit: where the temperature comes from: a `FitResult`, its `to_dict()`, or a file with the output of `edgecal fit
        --json`; or those of a `RequestFitResult`, with a temperature for each type of question.
    in_place: change `file` itself.
    force: overwrite an existing `output`.
    sampling_key: also set `general.sampling.temp`, which llama.cpp's programs sample with. The author's is kept, and
        `strip` restores it.
    force_baked: stamp even if a temperature is baked into the weights already.
    unsettled: stamp even if the fit was refused; the file is marked accordingly.
    verify: check, byte by byte, that the tensor data are unchanged.
    on_progress: called with (bytes copied, bytes in total), if anything has to be copied.

    Raises
    ------
    InputError: the temperature is missing or makes no sense, `fit` is not a fit's result, the file cannot be read or is
        baked, or the output is not allowed. (Exit code 2 on the command line.)
    UnsettledError: the fit was refused; its `warnings` say why, one line each. (4)
    OutputError: the result could not be written; the previous state is intact. (5)
    """
    edit = plan_stamp(
        file,
        Place(output, in_place, force, verify),
        temperature=temperature,
        fit=fit,
        sampling_key=sampling_key,
        force_baked=force_baked,
        unsettled=unsettled,
    )
    done = edit.write(on_progress)
    assert isinstance(done, StampResult)
    return done


def strip(
    file: str | Path,
    output: str | Path | None = None,
    *,
    in_place: bool = False,
    force: bool = False,
    verify: bool = False,
    on_progress: Progress | None = None,
) -> EditResult:
    """Remove every `edgecal.*` key from a model file and restore its author's sampling temperature.

    The result is byte for byte the file from before it was first stamped. Parameters as for `stamp`.

    Raises
    ------
    InputError: the file cannot be read or is baked (use `unbake`), or the output is not allowed. (Exit code 2 on the
        command line.)
    OutputError: the result could not be written; the previous state is intact. (5)
    """
    return plan_strip(file, Place(output, in_place, force, verify)).write(on_progress)


def plan_stamp(
    file: str | Path,
    place: Place,
    *,
    temperature: float | None,
    fit: FitResult | RequestFitResult | Mapping[str, Any] | str | Path | None,
    sampling_key: bool,
    force_baked: bool,
    unsettled: bool,
) -> Edit:
    """Plans what `stamp` writes. Parameters and errors as for `stamp`."""
    inputs, where, result, warnings = [], "the fit", None, []
    if isinstance(fit, (str, Path)):
        inputs, where = [Path(fit)], str(fit)
        result = read_result(fit)
    elif fit is not None:
        result = fit if isinstance(fit, Mapping) else fit.to_dict()
    if result is not None and "groups" in result:
        if temperature is not None:
            raise InputError(
                f"{where}: holds a temperature for each type of question, which --temperature cannot replace; leave it "
                "out"
            )
        decisions = decisions_of_result(result, where, unsettled=unsettled)
        shards = find_shards(file)
        warnings += [
            *_warn_of_another(shards, name_of_chat(result, where), where),
            *warn_of_export(shards.header),
        ]
        changes, remove = decision_edits(shards.header, decisions, force_baked=force_baked)
        return _planned(shards, place, changes, remove, warnings, inputs, stamps=True)
    if result is not None:
        record = record_of_result(result, where)
        if temperature is not None and temperature != record.temperature:
            warnings.append(
                f"--temperature {temperature:g} is not the fit's {record.temperature:g}: its interval is left out, "
                "the rest of where it comes from is written as it stands"
            )
            record = replace(record, temperature=temperature, interval=None)
    elif temperature is None:
        raise InputError("there is no temperature to stamp: give one, or a fit's result")
    else:
        record = CalibrationRecord(temperature)
    if record.doubts and not unsettled:
        raise UnsettledError(
            f"{where}: its temperature {record.temperature:.4g} is refused, since it may make the model less honest "
            "than it is, and nothing was written; --unsettled writes it all the same, marked so",
            record.doubts,
        )
    warnings += [f"FILE is marked as unreliable: {doubt}" for doubt in record.doubts]
    shards = find_shards(file)
    if result is not None:
        warnings += _warn_of_another(shards, name_of_chat(result, where), where)
    warnings += warn_of_export(shards.header)
    changes, remove = calibration_edits(shards.header, record, sampling_key, force_baked=force_baked)
    return _planned(
        shards, place, changes, remove, warnings, inputs, temperature=record.temperature, stamps=True
    )


def plan_strip(file: str | Path, place: Place) -> Edit:
    """Plans what `strip` writes; errors as for `strip`."""
    shards = find_shards(file)
    return _planned(shards, place, *strip_edits(shards.header))


def plan_decision_export(
    shards: ShardSet,
    place: Place,
    template: str,
    *,
    prompt_sha256: str,
    reasons: Collection[str] = (),
    warnings: Collection[str] = (),
    unsettled: bool = False,
) -> Edit:
    """Plans to make a chat model a decision model for llama.cpp.

    Parameters
    ----------
    shards: the model.
    place: where the result is written.
    template, prompt_sha256: what llama.cpp asks by, and the hash of the prompt that this is made from.
    reasons: what else speaks against it, one line each.
    warnings: what else the user should know.
    unsettled: write it even if something speaks against it.

    Raises
    ------
    InputError: the file is another kind of decision model, its keys make no sense, or as for `strip`.
    UnsettledError: something speaks against it; `warnings` say what.
    """
    check_can_export(shards)
    export = plan_temperatures(shards.header, prompt_sha256)
    against = [*reasons, *export.reasons]
    if against and not unsettled:
        raise UnsettledError(
            f"{shards.path}: llama.cpp's probabilities may be less honest than they look, and nothing was written; "
            "--unsettled writes it all the same",
            against,
        )
    told = [*warnings, *export.warnings, *(f"{shards.path}: {reason}" for reason in against)]
    return _planned(shards, place, *export_edits(shards.header, export, template), told)


def plan_set(
    file: str | Path, place: Place, key: str, type_name: str, text: str, inputs: Collection[Path] = ()
) -> Edit:
    """Plans to set one key to `text`, parsed as a GGUF type (see `parse_typed`); `inputs` must not be overwritten.

    InputError: an unknown type, a bad value, a key reserved for edgecal, and as for `strip`.
    """
    if key == FILLER_KEY:
        raise InputError(
            f"{FILLER_KEY} is edgecal's own and cannot be set; it can be removed with edgecal unset"
        )
    changes = {key: parse_typed(type_name, text)}
    shards = _open_for([key], file)
    return _planned(shards, place, changes, (), edit_cautions(shards.header, changes, ()), inputs)


def plan_unset(file: str | Path, place: Place, keys: Collection[str]) -> Edit:
    """Plans to remove keys; InputError for a missing one (with similar names), and as for `strip`."""
    shards = _open_for(keys, file)
    header = shards.header
    for key in keys:
        if key not in header:
            raise InputError(f"{header.path}: has no key {_suggest(key, header.keys)}")
    return _planned(shards, place, {}, keys, edit_cautions(header, {}, keys))


def write_calibrated(
    chat: ShardSet,
    plan: OutputPlan,
    record: CalibrationRecord | DecisionRecord,
    *,
    sampling_key: bool = True,
    force_baked: bool = False,
    on_progress: Progress | None = None,
) -> list[SiblingFile]:
    """Writes `chat` with `record` in it where `plan` says; returns how each later shard was placed (path and how).

    InputError and OutputError as `calibration_edits`, `decision_edits` and `write_output`.
    """
    if isinstance(record, DecisionRecord):
        changes, remove = decision_edits(chat.header, record, force_baked=force_baked)
    else:
        changes, remove = calibration_edits(chat.header, record, sampling_key, force_baked=force_baked)
    return write_output(plan, changes=changes, remove=remove, progress=on_progress).describe_siblings()


def _planned(
    shards: ShardSet,
    place: Place,
    changes: Mapping[str, Value],
    remove: Collection[str],
    warnings: Collection[str] = (),
    inputs: Collection[Path] = (),
    *,
    temperature: float | None = None,
    stamps: bool = False,
) -> Edit:
    # An edit in place seldom needs room; if there is too little, writing fails.
    plan = plan_named_output(
        shards,
        place.output,
        in_place=place.in_place,
        force=place.force,
        inputs=inputs,
        room=not place.in_place,
    )
    edited_size(shards.header, changes, remove)  # refuses the impossible before any warning is shown
    return Edit(plan, changes, remove, list(warnings), place.verify, temperature, stamps)


def _open_for(keys: Collection[str], file: str | Path) -> ShardSet:
    """Opens the model of a file whose `keys` are to be edited.

    An edit of the keys that say how a model is split is about this one file, whatever its keys and name say now;
    otherwise wrong ones could never be corrected.
    """
    if not any(key.startswith("split.") for key in keys):
        return find_shards(file)
    recover(Path(file))
    return ShardSet((Path(file),), (read_header(file),), None)


def _warn_of_another(shards: ShardSet, fitted: str | None, where: str) -> list[str]:
    """A warning if the result is a fit of a model with another name."""
    here = shards.header.get("general.name")
    if not fitted or not isinstance(here, str) or not here or fitted == here:
        return []
    return [f"{where} is a fit of {quoted(fitted)}, {shards.path} is {quoted(here)}; is it the same model?"]


def _suggest(key: str, known: Collection[str]) -> str:
    """The name of a missing key, with similar names that exist."""
    from difflib import get_close_matches

    close = get_close_matches(key, known, n=3)
    return quoted(key) + (f"; did you mean {' or '.join(map(quoted, close))}?" if close else "")
