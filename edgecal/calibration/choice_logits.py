"""The input of a fit: both models' logits of the choice tokens, prompt by prompt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgecal.calibration.arrays import BoolArray, FloatArray, IntArray
from edgecal.errors import InputError, ModelError

__all__ = ["ChoiceLogits"]


@dataclass(frozen=True, eq=False)
class ChoiceLogits:
    """Logits of the choice tokens after the last prompt token, for the base and the chat model.

    Attributes
    ----------
    base_final, chat_final : float32 [n_prompts, k_max]
        llama.cpp's own logits. Only the first `n_choices[i]` entries of row i count; the rest becomes -inf.
    base_layers, chat_layers : float32 [n_prompts, n_layer, k_max], or both None
        Logit-lens logits after block l at index l - 1. The last layer is by definition `*_final`, which overwrites
        the lens's result.
    n_choices : int32 [n_prompts]
        2 to k_max.
    labels : int32 [n_prompts]
        Index of the right choice, -1 if unknown.

    The arrays are copied, made C-contiguous and converted. Zero prompts are allowed.

    Raises
    ------
    InputError
        Shapes, dtypes, choice counts or labels do not match each other.
    ModelError
        A logit that counts is NaN or infinite; the message names prompt (from 0), model and layer.
    """

    base_final: FloatArray
    chat_final: FloatArray
    base_layers: FloatArray | None
    chat_layers: FloatArray | None
    n_choices: IntArray
    labels: IntArray

    def __post_init__(self) -> None:
        n_prompts, k_max = _check_shape("base_final", self.base_final, 2)
        if k_max < 2:
            raise InputError(f"base_final has room for {k_max} choices; a question needs at least 2")
        n_choices = _to_int32("n_choices", self.n_choices, n_prompts)
        labels = _to_int32("labels", self.labels, n_prompts)
        for name, low, high, values in (
            ("n_choices", np.full(n_prompts, 2), np.full(n_prompts, k_max), n_choices),
            ("labels", np.full(n_prompts, -1), n_choices - 1, labels),
        ):
            bad = np.flatnonzero((values < low) | (values > high))
            if bad.size:
                i = int(bad[0])
                raise InputError(f"{name} of prompt {i} is {values[i]}, expected {low[i]} to {high[i]}")
        object.__setattr__(self, "n_choices", n_choices)
        object.__setattr__(self, "labels", labels)
        padding = np.arange(k_max) >= n_choices[:, None]
        for name in ("base_final", "chat_final"):
            object.__setattr__(self, name, _to_logits(name, getattr(self, name), (n_prompts, k_max), padding))
        if (self.base_layers is None) != (self.chat_layers is None):
            raise InputError("expected layer logits of both models or of neither, got those of one model")
        if self.base_layers is None:
            return
        n_layer = _check_shape("base_layers", self.base_layers, 3)[1]
        if n_layer < 1:
            raise InputError("base_layers has 0 layers; pass None if there are no layer logits")
        for name, final in (("base_layers", self.base_final), ("chat_layers", self.chat_final)):
            shape = (n_prompts, n_layer, k_max)
            layers = _to_logits(name, getattr(self, name), shape, padding[:, None, :], final)
            object.__setattr__(self, name, layers)

    @property
    def n_prompts(self) -> int:
        """Number of prompts."""
        return int(self.n_choices.shape[0])

    @property
    def n_layer(self) -> int | None:
        """Number of layers; None without layer logits."""
        return None if self.base_layers is None else int(self.base_layers.shape[1])

    @property
    def agreement(self) -> BoolArray:
        """bool [n_prompts]: whether both models prefer the same choice (ties: the lowest index)."""
        from edgecal.calibration.prompt_kernels import agreeing_rows

        return agreeing_rows(self.base_final, self.chat_final)

    def take(self, indices: npt.ArrayLike) -> ChoiceLogits:
        """The prompts at `indices` (int, repeats allowed; or bool [n_prompts]), in that order."""
        chosen = np.asarray(indices)
        if chosen.size == 0:
            chosen = chosen.astype(np.int64)
        base, chat = self.base_layers, self.chat_layers
        return ChoiceLogits(
            base_final=self.base_final[chosen],
            chat_final=self.chat_final[chosen],
            base_layers=None if base is None else base[chosen],
            chat_layers=None if chat is None else chat[chosen],
            n_choices=self.n_choices[chosen],
            labels=self.labels[chosen],
        )


def _check_shape(name: str, array: FloatArray, n_dims: int) -> tuple[int, ...]:
    shape = np.shape(array)
    if len(shape) != n_dims:
        raise InputError(f"{name} has {len(shape)} dimensions {shape}, expected {n_dims}")
    return shape


def _to_int32(name: str, values: IntArray, n_prompts: int) -> IntArray:
    array = np.asarray(values)
    if array.shape != (n_prompts,):
        raise InputError(f"{name} has shape {array.shape}, expected ({n_prompts},)")
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"{name} has dtype {array.dtype}, expected whole numbers (int32)")
    return array.astype(np.int32)


def _to_logits(
    name: str, values: FloatArray, shape: tuple[int, ...], padding: BoolArray, final: FloatArray | None = None
) -> FloatArray:
    """Returns a float32 copy with -inf in the padding and `final`, if given, as its last layer; refuses NaN and inf."""
    array = np.asarray(values)
    if array.shape != shape:
        raise InputError(f"{name} has shape {array.shape}, expected {shape}")
    if not np.issubdtype(array.dtype, np.floating):
        raise InputError(f"{name} has dtype {array.dtype}, expected float32")
    with np.errstate(over="ignore"):  # a float64 beyond float32's range becomes inf and is refused below
        copy = np.array(array, dtype=np.float32, order="C")
    if final is not None:
        copy[:, -1, :] = final
    bad = np.argwhere(~np.isfinite(copy) & ~padding)
    if bad.size:
        at = [int(i) for i in bad[0]]
        layer = f", layer {at[1] + 1}" if len(at) == 3 else ""
        model = "base" if name.startswith("base") else "chat"
        raise ModelError(
            f"the {model} model's logit of choice {at[-1]} is {copy[tuple(at)]} at prompt {at[0]}{layer}; "
            "expected a finite number, so the model's file may be damaged"
        )
    np.copyto(copy, np.float32(-np.inf), where=padding)
    return copy
