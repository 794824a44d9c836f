"""`edgecal.doctor`: finds out what edgecal can and cannot do with a model file, and why."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecal.api.progress import OnProgress, on_observe
from edgecal.api.questions import PathLike
from edgecal.errors import EdgecalError, InputError, ModelError
from edgecal.results import DoctorResult

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgecal.gguf.header import Header
    from edgecal.gguf.shards import ShardSet
    from edgecal.pair.run import RunOptions
    from edgecal.pair.worker_examine import Examination
    from edgecal.results.fitting import FinalTransform

__all__ = ["doctor"]

_ANY_TEMPERATURE = 2.0  # any value: whether a model can be baked does not depend on it


def doctor(
    model: PathLike,
    *,
    run: RunOptions | bool = False,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> DoctorResult:
    """Find out what edgecal can do with a model file: from its header alone, or by running it.

    Parameters
    ----------
    model: a GGUF file, the first shard where the model is split.
    run: options with which to send a few random token ids through the model, in a process of its own, and to check the
        lens; True: the defaults. Nothing is cached, and no tokenizer is needed.
    seed: draws the token ids.
    on_progress: as in `fit`.

    Raises
    ------
    InputError: the file does not exist or is not a GGUF file. Anything wrong with a model is in the result.
    """
    from edgecal.gguf.model_checks import check_model
    from edgecal.gguf.shards import find_shards
    from edgecal.pair.compatibility import count_blocks, warn_of_memory
    from edgecal.pair.run import RunOptions

    options = run if isinstance(run, RunOptions) else RunOptions()
    shards = find_shards(Path(model))
    header = shards.header
    facts = _facts(shards, seed if run else None)
    try:
        check_model(header)
    except InputError as error:
        return replace(facts, reason=str(error), exit_code=error.exit_code)
    facts = replace(facts, n_layer=count_blocks(header), notes=[*facts.notes, *warn_of_memory(shards)])
    refusal = _why_no_layers(shards)
    if not run:
        reason = str(refusal) if refusal is not None else _what_only_a_run_tells(shards)
        code = 0 if refusal is None else refusal.exit_code
        methods = _methods(reason is None)
        return replace(facts, methods=methods, reason=reason, exit_code=code)
    try:
        found, refusal = _examine(shards, refusal, options, seed, on_progress)
    except EdgecalError as error:
        return replace(
            facts,
            captured_layers=0,
            reason=str(error),
            exit_code=error.exit_code if refusal is None else refusal.exit_code,
        )
    rms = found.lens_rms
    return replace(
        facts,
        n_layer=found.n_layer,
        captured_layers=found.captured_layers,
        lens_rms=None if rms is None or not math.isfinite(rms) else rms,
        methods=_methods(refusal is None),
        reason=None if refusal is None else str(refusal),
        exit_code=0 if refusal is None else refusal.exit_code,
        logit_spread=found.logit_spread if math.isfinite(found.logit_spread) else None,
        llama_cpp=found.llama_cpp,
    )


def _examine(
    shards: ShardSet,
    refusal: EdgecalError | None,
    options: Any,
    seed: int,
    on_progress: OnProgress | None,
) -> tuple[Examination, EdgecalError | None]:
    """What the run found, and why the layers cannot be used, or None.

    Raises
    ------
    EdgecalError: not even the outputs can be computed.
    """
    from edgecal.pair.run import examine
    from edgecal.pair.worker_examine import ExamineRequest

    path = str(shards.path)
    request = ExamineRequest(path, options.settings, seed)
    listen = on_observe(on_progress)
    if refusal is None:
        try:
            found = examine(request, layers=True, options=options, on_progress=listen)
            return found, None if found.refusal is None else ModelError(found.refusal)
        except ModelError as error:
            refusal = error
    return examine(request, layers=False, options=options, on_progress=listen), refusal


def _why_no_layers(shards: ShardSet) -> EdgecalError | None:
    """Why the header rules out reading the layers: the error that `edgecal fit` would raise; None if it does not."""
    import numpy as np

    from edgecal.architectures import stream_of, why_no_layers
    from edgecal.lens import read_head
    from edgecal.pair.compatibility import count_blocks

    header, path = shards.header, shards.path
    architecture = header.architecture or ""
    if (reason := why_no_layers(architecture, header.get)) is not None:
        return InputError(f"{path}: the layers of the architecture {architecture} cannot be used: {reason}")
    if count_blocks(header) < 2:
        return InputError(
            f"{path}: the model has one block; process alignment needs at least 2, to find where the models diverge"
        )
    try:
        stream_of(architecture, header.get, path)
        read_head(shards, np.zeros(1, np.int32), _no_numbers)
    except ModelError as error:
        return error
    return None


def _what_only_a_run_tells(shards: ShardSet) -> str | None:
    """Why the header alone cannot promise the layers, or None."""
    from edgecal.architectures import family_of

    architecture = shards.header.architecture or ""
    if family_of(architecture).is_known:
        return None
    return (
        f"{shards.path}: edgecal does not know the architecture {architecture}; give --run to find out whether its "
        "layers can be used"
    )


def _no_numbers(type_name: str, raw: NDArray[np.uint8], n_per_row: int) -> NDArray[np.float32]:
    """Zeros in place of dequantized rows: this only tests whether the head can be read, without llama.cpp."""
    import numpy as np

    return np.zeros((len(raw), n_per_row), np.float32)


def _methods(layers: bool) -> list[str]:
    from edgecal.calibration import METHODS, Method

    return [name for name in METHODS if layers or not Method(name).needs_layers]


def _facts(shards: ShardSet, seed: int | None) -> DoctorResult:
    """The result with what the header says; no method is listed yet."""
    from edgecal.architectures import family_of

    header = shards.header
    head = shards.find_tensor("output.weight") or shards.find_tensor("token_embd.weight")
    bake, bake_reason = _bakeable(shards)
    tokenizer = header.get("tokenizer.ggml.model")
    return DoctorResult(
        path=str(shards.path),
        name=header.get("general.name"),
        architecture=header.architecture,
        known=family_of(header.architecture or "").is_known,
        n_bytes=shards.n_bytes,
        head=None
        if head is None
        else {"tensor": head[1].name, "type": head[1].type_name, "n_vocab": math.prod(head[1].ne[1:])},
        ending=_ending(header, head[1].ne[0] if head is not None and head[1].ne else 0),
        tokenizer=tokenizer if isinstance(tokenizer, str) else None,
        has_chat_template="tokenizer.chat_template" in header,
        bakeable=bake,
        bake_reason=bake_reason,
        notes=_notes(header, tokenizer),
        n_layer=None,
        methods=[],
        reason=None,
        exit_code=0,
        seed=seed,
    )


def _ending(header: Header, n_embd: int) -> FinalTransform | None:
    """How the last block's output becomes logits; None if the header does not say."""
    from edgecal.architectures import family_of, norm_of, refusal_of, stream_of, transform_of

    architecture = header.architecture or ""
    if not n_embd or refusal_of(architecture) is not None:
        return None
    try:
        norm = norm_of(architecture, header.get, header.path)
        transform = transform_of(architecture, n_embd, header.get, header.path)
        stream = stream_of(architecture, header.get, header.path)
    except ModelError:
        return None
    has_norm = family_of(architecture).norm is not None
    return {
        "norm": ("layer" if norm.centered else "rms") if has_norm else None,
        "eps": norm.eps,
        "logit_scale": transform.scale,
        "soft_cap": transform.soft_cap,
        "node": stream.node,
        "n_streams": stream.n_streams,
    }


def _bakeable(shards: ShardSet) -> tuple[bool, str | None]:
    from edgecal.baking.recipe import find_recipe
    from edgecal.stamping.record import is_baked

    if is_baked(shards.header):
        return False, f"{shards.path}: a temperature is baked into it already; edgecal unbake removes it"
    try:
        find_recipe(shards, _ANY_TEMPERATURE)
    except EdgecalError as error:
        return False, str(error)
    return True, None


def _notes(header: Header, tokenizer: Any) -> list[str]:
    from edgecal.stamping.record import read_calibration

    notes = []
    if tokenizer in ("none", "no_vocab"):
        notes.append(
            'the file holds no tokenizer: prompts must be given as {"tokens": ..., "choice_tokens": ...}'
        )
    try:
        record = read_calibration(header)
    except InputError as error:
        notes.append(str(error))
    else:
        if record is not None:
            notes.append(f"the file is calibrated: its temperature is {record.temperature:g}")
    return notes
