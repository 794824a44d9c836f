"""`edgecal.bake` and `edgecal.unbake`: a temperature divided into a model's own weights, and taken back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgecal.baking.originals import Originals, keys_of_baked, read_originals, sha256_of_blocks
from edgecal.baking.recipe import Recipe, divided, find_recipe, why_check
from edgecal.errors import InputError, OutputError
from edgecal.gguf.draft import Draft
from edgecal.gguf.header import FILLER_KEY, read_header
from edgecal.gguf.output import plan_named_output
from edgecal.gguf.placing import read_tensors, write_shards
from edgecal.gguf.rewrite import KeyList, header_bytes, planned_header
from edgecal.gguf.shards import ShardSet, find_shards
from edgecal.gguf.spans import Progress
from edgecal.gguf.values import quoted
from edgecal.results import BakeResult, UnbakeResult
from edgecal.stamping.changes import calibration_edits
from edgecal.stamping.decision_record import read_decisions
from edgecal.stamping.record import CalibrationRecord, check_not_baked, read_calibration, read_sampling

if TYPE_CHECKING:
    from edgecal.baking.logit_check import BakeCheck
    from edgecal.llama.settings import CaptureSettings

__all__ = ["bake", "unbake"]


def bake(
    file: str | Path,
    output: str | Path | None = None,
    *,
    temperature: float | None = None,
    in_place: bool = False,
    force: bool = False,
    check: bool = True,
    verify: bool = False,
    settings: CaptureSettings | None = None,
    timeout_s: float | None = None,
    on_progress: Progress | None = None,
) -> BakeResult:
    """Write a model file with its logits divided by its temperature, as `edgecal bake` does.

    Nothing is re-quantized. The new file's `edgecal.temperature` is 1, since nothing is left to divide by. It has the
    author's sampling temperature again, and keeps the originals of everything that changed, for `unbake`.

    Parameters
    ----------
    file: a GGUF file; of a split model the first shard.
    output: the new file; give either this or `in_place`.
    temperature: what the logits are divided by, above 0; by default the file's `edgecal.temperature`.
    in_place: replace `file` itself.
    force: overwrite an existing `output`.
    check: run the original and the new file in llama.cpp and compare their logits before anything is written.
    verify: also compare all other tensor data with the original's, byte by byte.
    settings: how llama.cpp is run for the check.
    timeout_s: how long llama.cpp may show no sign of life before it is given up.
    on_progress: called with (bytes copied, bytes in total) of each file.

    Raises
    ------
    InputError: there is no temperature or an unusable one, the file is baked already, the model cannot be baked (and
        why), or the output is not allowed. (Exit code 2 on the command line.)
    ModelError: the check failed, or llama.cpp cannot run the model. (3)
    OutputError: the result could not be written. Whatever is raised, nothing was written. (5)
    """
    shards = find_shards(file)
    header = shards.header
    check_not_baked(header, "baking it again")
    tau, record = _settle(shards, temperature)
    recipe = find_recipe(shards, tau)
    architecture = header.architecture or ""
    reason = why_check(architecture, recipe)
    if reason is not None and not check:
        raise InputError(f"{header.path}: {reason}; leave out --no-check")
    plan = plan_named_output(shards, output, in_place=in_place, force=force)
    originals = read_tensors(shards, recipe.tensors)
    new = {name: divided(data, tau, f"{header.path}: {name}") for name, data in originals.items()}
    changes, remove = calibration_edits(header, record, sampling_key=False)
    remove |= {FILLER_KEY}  # so a filler in a baked file must come from a later edit in place
    keys = keys_of_baked(
        header,
        tau=tau,
        changes={**changes, **recipe.keys},
        remove=remove,
        tensors=originals,
        changed=(*recipe.tensors, *recipe.keys),
    )
    found: list[BakeCheck] = []

    def inspect(paths: Sequence[Path], first: Draft) -> None:
        if check:
            found.append(_checked(shards, paths, tau, recipe, settings, timeout_s))

    written = write_shards(plan, keys=keys, tensors=new, verify=verify, progress=on_progress, inspect=inspect)
    return BakeResult(
        output=str(plan.path),
        temperature=tau,
        changed=(*recipe.tensors, *recipe.keys),
        head_type=recipe.head_type,
        error=found[0].error if found else None,
        allowed=found[0].allowed if found else None,
        plain=found[0].plain if found else None,
        sampling_temperature=read_sampling(read_header(plan.path)).authors,
        siblings=written.describe_siblings(),
    )


def unbake(
    file: str | Path,
    output: str | Path | None = None,
    *,
    in_place: bool = False,
    force: bool = False,
    keep_edits: bool = False,
    verify: bool = False,
    on_progress: Progress | None = None,
) -> UnbakeResult:
    """Restore the original of a baked model, byte for byte.

    A baked file whose header was edited since (stamped by force, other keys set, re-quantized) is refused, since
    undoing the baking would not give the original. With `keep_edits` only what baking changed is restored, everything
    else stays, and the result says that it is not exact. Parameters and errors otherwise as for `bake`.

    Raises
    ------
    InputError: the file is not baked, was edited since, or its baked tensors have changed. (Exit code 2 on the command
        line.)
    OutputError: the result could not be written; the previous state is intact. (5)
    """
    shards = find_shards(file)
    originals = read_originals(shards.header)
    _check_tensors(shards, originals)
    keys, is_exact = _restored_keys(shards, originals)
    if not (is_exact or keep_edits):
        raise InputError(
            f"{shards.path}: was edited after it was baked, so unbaking cannot restore the original file; undo that "
            "edit first, or give --keep-edits to undo only the baking"
        )
    plan = plan_named_output(shards, output, in_place=in_place, force=force)

    def inspect(paths: Sequence[Path], first: Draft) -> None:
        found = sha256_of_blocks(header_bytes(read_header(first.path)))
        if is_exact and found != originals.header_sha256:
            raise OutputError(f"{plan.path}: the header read back is not the original's; nothing was written")

    written = write_shards(
        plan,
        keys=keys,
        tensors=originals.tensors,
        padding=originals.padding,
        verify=verify,
        progress=on_progress,
        inspect=inspect,
    )
    return UnbakeResult(str(plan.path), originals.temperature, is_exact, written.describe_siblings())


def _settle(shards: ShardSet, temperature: float | None) -> tuple[float, CalibrationRecord]:
    """The temperature to bake, rounded to float32, and the new file's calibration record, in which 1 is left to divide
    by. It keeps the facts of the fit if the fit's temperature is baked."""
    header = shards.header
    record = read_calibration(header)
    decisions = read_decisions(header)
    if decisions is not None and decisions.groups:
        raise InputError(
            f"{header.path}: holds a temperature for each of {', '.join(decisions.groups)}, and a baked file can hold "
            "only one for all questions; let apps divide by them (edgecal decide; for llama.cpp edgecal export --to "
            "llama-decision), or take them out with edgecal strip and bake one with --temperature"
        )
    if temperature is None and record is None:
        raise InputError(
            f"{header.path}: holds no edgecal.temperature to bake; fit one with edgecal fit, or give --temperature"
        )
    wanted = temperature if temperature is not None else (record.temperature if record else math.nan)
    with np.errstate(over="ignore", under="ignore"):
        tau = float(np.float32(wanted))
    if not 0 < tau < math.inf:
        raise InputError(f"the temperature must be a positive finite float32, got {wanted}")
    if tau == 1:
        raise InputError(f"{header.path}: a temperature of 1 divides nothing, so there is nothing to bake")
    if record is None or float(np.float32(record.temperature)) != tau:
        return tau, CalibrationRecord(1.0, target=None)
    low, high = record.interval or (tau, tau)
    interval = None if record.interval is None else (low / tau, high / tau)
    ends = (None, None) if record.bracket is None else record.bracket
    bracket = tuple(None if end is None else end / tau for end in ends)
    return tau, replace(
        record,
        temperature=1.0,
        interval=interval,
        bracket=None if record.bracket is None else (bracket[0], bracket[1]),
    )


def _checked(
    shards: ShardSet,
    paths: Sequence[Path],
    tau: float,
    recipe: Recipe,
    settings: CaptureSettings | None,
    timeout_s: float | None,
) -> BakeCheck:
    from edgecal.baking.logit_check import check_baked
    from edgecal.worker.process import DEFAULT_TIMEOUT_S

    check = check_baked(
        shards.paths,
        paths,
        tau,
        what=str(shards.path),
        divides_input=bool(recipe.tensors),
        settings=settings,
        timeout_s=DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s,
    )
    check.raise_if_refused(shards.path, str(shards.header.architecture), tau, recipe.head_type)
    return check


def _restored_keys(shards: ShardSet, originals: Originals) -> tuple[KeyList, bool]:
    """The keys of the restored file, and whether it then is the original byte for byte.

    A filler that the record does not mention was left by an edit in place; files baked by version 0.3 may have kept the
    original's.
    """
    header = shards.header
    recorded = [(name, value) for name, value in originals.keys if value is not None or name != FILLER_KEY]
    for keys in (recorded, originals.keys):
        blocks = planned_header(header, keys, originals.padding)
        if sha256_of_blocks(blocks) == originals.header_sha256:
            return keys, True
    return recorded, False


def _check_tensors(shards: ShardSet, originals: Originals) -> None:
    """Raises InputError unless each changed tensor is what baking made of the original."""
    for name, data in read_tensors(shards, tuple(originals.tensors)).items():
        original = originals.tensors[name]
        if len(original) != len(data) or shards.tensor(name)[1].type_name != "F32":
            raise InputError(
                f"{shards.path}: the record of what baking changed is damaged: its original of {quoted(name)} does not "
                "fit that tensor; use the original file"
            )
        if data != divided(original, originals.temperature, f"{shards.path}: {name}"):
            raise InputError(f"{shards.path}: {name} was changed after it was baked; use the original file")
