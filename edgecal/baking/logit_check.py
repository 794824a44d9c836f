"""The decisive check: llama.cpp's logits of the baked model, times tau, are the original's except for rounding.

llama.cpp rounds the head's input, and divided numbers round differently. So even after a correct bake the logits
differ, by a millionth of their spread or by a hundredth, depending on the head's type and the norm. Hence two
comparisons that are free of it. The head's input, which llama.cpp exposes, must be tau times smaller to float32
precision. And the logits must differ exactly as the same roundings, repeated here with the original's head
(`edgecal.lens.reproduce`), make them differ; that reveals a bias, scale or cap that was not divided.

A worker process runs a few token ids through both files, one after the other.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgecal.errors import ModelError
from edgecal.gguf.shards import shard_name
from edgecal.llama.settings import CaptureSettings
from edgecal.worker.process import DEFAULT_TIMEOUT_S, run_in_worker

if TYPE_CHECKING:
    from edgecal.lens import Head
    from edgecal.llama.model import Model

__all__ = ["ALLOWED", "BakeCheck", "Seen", "check_baked", "compare_models", "compare_seen", "furthest_tokens"]

# Where the roundings are reproduced, only float32's remain: at most 1e-6 on all models tried (docs/log.md).
ALLOWED = 1e-4

N_PROMPTS = 4
N_TOKENS = 8
N_FURTHEST = 64
MASKED = -1e30  # llama.cpp masks tokens with minus infinity or the lowest float32

# Where they cannot be (another kind of build, an architecture with an unknown scale), the bound is this many times what
# they would amount to, or what they amount to on ordinary models.
_LOOSE = 3.0
_ORDINARY, _ORDINARY_BF16 = 1e-3, 5e-3


@dataclass(frozen=True)
class BakeCheck:
    """How far the baked logits, times tau, are from the original's.

    Attributes
    ----------
    error: the larger of two root mean squares over all tokens: the difference of the head's inputs in the component
        that differs most, relative to its size; and the difference of the logits beyond what roundings explain,
        relative to each row's spread. NaN if anything was not finite.
    plain: root mean square difference of the logits, roundings included, in units of their spread.
    allowed: the bound for `error`.
    n_prompts: how many were run.
    """

    error: float
    plain: float
    allowed: float
    n_prompts: int

    def raise_if_refused(self, model: object, architecture: str, tau: float, head_type: str) -> None:
        """Raises ModelError, with the measured and the allowed error, unless `error` is a number within the bound."""
        if self.error <= self.allowed:
            return
        found = f"{self.error:.3g} rms" if math.isfinite(self.error) else "no finite numbers"
        raise ModelError(
            f"{model}: llama.cpp's baked logits times {tau:.6g} are not the original's (architecture {architecture}, "
            f"head {head_type}, {self.n_prompts} prompts): expected at most {self.allowed:.2g} rms beyond what the "
            f"head rounds, got {found}; nothing was written, let apps divide by edgecal.temperature instead"
        )


@dataclass(frozen=True)
class Seen:
    """A model's outputs at m tokens of some prompts: the head's inputs, float32 [m, n_embd], and the logits, float32
    [m, n_vocab]."""

    inputs: NDArray[np.float32]
    logits: NDArray[np.float32]
    n_prompts: int


@dataclass(frozen=True)
class CompareRequest:
    """Two files to run (the first shards of split models), what the first one's logits are divided by, and whether the
    division is in the head's input (else it is in a key, applied after the head)."""

    original: str
    baked: str
    tau: float
    divides_input: bool
    settings: CaptureSettings


def compare_seen(
    original: Seen, baked: Seen, tau: float, *, divides_input: bool, head: Head | None, head_type: str
) -> BakeCheck:
    """Compares two models' outputs for the same tokens.

    Tokens that are masked in both are left out. The result is NaN if a token is masked in only one of them, a row has
    no spread, or anything is not finite.

    Parameters
    ----------
    head: of the original, for the tokens where its roundings are reproduced; None where it cannot be read.
    head_type: how the head is stored.
    """
    n_prompts = original.n_prompts
    shown = original.logits > MASKED
    no_match = BakeCheck(math.nan, math.nan, ALLOWED, n_prompts)
    if not np.array_equal(shown, baked.logits > MASKED) or not shown.any(axis=1).all():
        return no_match
    spread = np.array(
        [row[keep].astype(np.float64).std() for row, keep in zip(original.logits, shown, strict=True)]
    )
    if not len(spread) or not (spread > 0).all() or not np.isfinite(baked.logits[shown]).all():
        return no_match
    factor = tau if divides_input else 1.0
    off_input = _input_error(original.inputs.astype(np.float64), baked.inputs.astype(np.float64) * factor)
    off = _difference(original.logits, baked.logits, tau) / spread[:, None]
    plain = _rms(off[shown])
    if head is None:
        return BakeCheck(max(off_input, plain), plain, _ordinary(head_type), n_prompts)
    kept = shown[:, head.token_ids]
    off, seen = off[:, head.token_ids][kept], original.logits[:, head.token_ids]
    loose = _ordinary(head_type)
    for rounds in (True, False):
        before = _apply(original.inputs, head, rounds, 1.0)
        predicted = _apply(baked.inputs, head, rounds, factor) - before
        if _rms(((before - seen) / spread[:, None])[kept]) <= ALLOWED:
            rest = _rms(off - (predicted / spread[:, None])[kept])
            return BakeCheck(max(off_input, rest), plain, ALLOWED, n_prompts)
        loose = max(loose, _LOOSE * _rms((predicted / before.std(axis=1, keepdims=True))[kept]))
    # The input is still compared strictly.
    return BakeCheck(max(off_input * loose / ALLOWED, plain), plain, loose, n_prompts)


def furthest_tokens(original: Seen, baked: Seen, tau: float) -> NDArray[np.int64]:
    """The 64 tokens whose logits differ most compared with the others, ascending: a bias that was not divided shows
    there."""
    with np.errstate(all="ignore"):
        off = np.nan_to_num(_difference(original.logits, baked.logits, tau), posinf=0, neginf=0)
        off = np.abs(off - np.median(off, axis=1, keepdims=True)).max(axis=0)
    return np.sort(np.argsort(-off, kind="stable")[:N_FURTHEST])


def _difference(original: NDArray[np.float32], baked: NDArray[np.float32], tau: float) -> NDArray[np.float64]:
    with np.errstate(all="ignore"):  # from masked tokens, which are ignored
        off: NDArray[np.float64] = baked.astype(np.float64) * tau - original
    return off


def _input_error(original: NDArray[np.float64], baked: NDArray[np.float64]) -> float:
    """The largest root mean square difference of a component over the tokens, relative to that component's size (at
    least a millionth of all components' size, so that tiny ones do not count)."""
    size = np.sqrt(np.mean(original**2, axis=0))
    off = np.sqrt(np.mean((baked - original) ** 2, axis=0))
    return float(np.max(off / np.maximum(size, 1e-6 * np.sqrt(np.mean(size**2)))))


def _apply(x: NDArray[np.float32], head: Head, rounds: bool, times: float) -> NDArray[np.float64]:
    from edgecal.lens.reproduce import apply_head

    return apply_head(x, head, rounds=rounds, times=times)


def _rms(off: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(off * off))) if off.size else math.nan


def _ordinary(head_type: str) -> float:
    return _ORDINARY_BF16 if head_type == "BF16" else _ORDINARY


def check_baked(
    original: Sequence[Path],
    baked: Sequence[Path],
    tau: float,
    *,
    what: str,
    divides_input: bool = True,
    settings: CaptureSettings | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
) -> BakeCheck:
    """Runs both models and compares them; each is given as all its files in order, whatever their names.

    Raises
    ------
    ModelError: llama.cpp cannot run one of them; `what` names the model.
    """
    settings = CaptureSettings() if settings is None else settings
    with tempfile.TemporaryDirectory(prefix="edgecal-") as name:
        folder = Path(name)
        before, after = _linked(folder / "original", original), _linked(folder / "baked", baked)
        request = CompareRequest(str(before), str(after), tau, divides_input, settings)
        try:
            check: BakeCheck = run_in_worker(
                "edgecal.baking.logit_check:compare_models", request, what=what, timeout_s=timeout_s
            )
        except ModelError as error:  # the names that llama.cpp was given are gone when the user reads this
            text = str(error).replace(str(before), what).replace(str(after), f"{what}, baked")
            raise ModelError(text) from None
        return check


def compare_models(request: CompareRequest, report: Callable[[Any], None]) -> BakeCheck:
    """The worker's side: load, run and free one model after the other."""
    original, baked = (_see(path, request.settings, report) for path in (request.original, request.baked))
    head, head_type = _read_head(request.original, furthest_tokens(original, baked, request.tau))
    return compare_seen(
        original, baked, request.tau, divides_input=request.divides_input, head=head, head_type=head_type
    )


def _read_head(path: str, ids: NDArray[np.int64]) -> tuple[Head | None, str]:
    from edgecal.gguf.shards import find_shards
    from edgecal.lens import check_token_ids, read_head
    from edgecal.llama.library import dequantize_rows

    shards = find_shards(Path(path))
    place = shards.find_tensor("output.weight") or shards.find_tensor("token_embd.weight")
    assert place is not None  # else there would be nothing to bake
    try:
        head = read_head(shards, check_token_ids(place[1].ne[1], ids), dequantize_rows)
    except ModelError:
        return None, place[1].type_name
    return head, place[1].type_name


def _see(path: str, settings: CaptureSettings, report: Callable[[Any], None]) -> Seen:
    from edgecal.architectures import family_of
    from edgecal.llama.context import Context, TokenBatch
    from edgecal.llama.library import steady_experts
    from edgecal.llama.model import Model
    from edgecal.llama.packing import CACHE_STEP

    with Model(path, on_progress=report) as model:
        rng = np.random.default_rng(0)
        n = max(1, min(N_TOKENS, model.n_ctx_train))
        prompts = [rng.integers(0, model.n_vocab, n, dtype=np.int32) for _ in range(N_PROMPTS)]
        # If the header claims an embedding longer than the head's input, llama.cpp reads beyond it and aborts.
        if not family_of(model.architecture).embeds_input or model.n_embd_out != model.n_embd:
            return _see_by_lens(path, model, prompts, settings)
        if model.n_expert > 0:
            steady_experts()
        inputs = np.full((N_PROMPTS * n, model.n_embd), np.nan, np.float32)
        logits = np.full((N_PROMPTS * n, model.n_vocab), np.nan, np.float32)
        with Context(
            model, settings, n_ctx_seq=CACHE_STEP, n_seq_max=1, n_outputs_max=n, hidden=False
        ) as context:
            for index, tokens in enumerate(prompts):
                batch = TokenBatch(
                    tokens=tokens,
                    positions=np.arange(n, dtype=np.int32),
                    seq_ids=np.zeros(n, np.int32),
                    wanted=np.arange(n, dtype=np.int32) + index * n,
                    outputs=np.ones(n, np.bool_),
                )
                context.clear()
                context.decode_inputs(batch, inputs)
                context.clear()
                context.decode(batch, logits, None, None)
                report(index)
        return Seen(inputs, logits, N_PROMPTS)


def _see_by_lens(
    path: str, model: Model, prompts: list[NDArray[np.int32]], settings: CaptureSettings
) -> Seen:
    """The outputs at each prompt's last token, with the head's input computed from the last block's output by the
    file's norm."""
    from edgecal.architectures import stream_of
    from edgecal.gguf.shards import find_shards
    from edgecal.lens import read_head
    from edgecal.lens.reproduce import head_input
    from edgecal.llama.capture import capture
    from edgecal.llama.library import dequantize_rows

    shards = find_shards(Path(path))
    head = read_head(shards, np.zeros(1, np.int32), dequantize_rows)
    stream = stream_of(model.architecture, shards.header.get, path)
    inputs = np.full((len(prompts), model.n_embd), np.nan, np.float32)
    logits = np.full((len(prompts), model.n_vocab), np.nan, np.float32)
    for chunk in capture(model, prompts, settings, hidden=True, stream=stream):
        assert chunk.hidden is not None
        inputs[chunk.indices] = head_input(chunk.hidden[:, -1], head)
        logits[chunk.indices] = chunk.logits
    return Seen(inputs, logits, len(prompts))


def _linked(folder: Path, paths: Sequence[Path]) -> Path:
    """Links a model's files under names by which llama.cpp finds them; the path of the first."""
    folder.mkdir()
    names = [shard_name("model", index, len(paths)) for index in range(len(paths))]
    if len(paths) == 1:
        names = ["model.gguf"]
    for name, path in zip(names, paths, strict=True):
        (folder / name).symlink_to(path.resolve())
    return folder / names[0]
