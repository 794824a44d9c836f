"""Reproduces the logits that llama.cpp computes from the last block: the lens with llama.cpp's own roundings.

The lens (`project`) is exact; llama.cpp rounds the head's input to the type that goes with the head's (`rounding`).
Only with the same rounding can the check tell a right lens from a slightly wrong one. The norm before it is computed
in float32 as in llama.cpp, because a difference in its last bit can flip a rounding.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgecal.lens.head import Head
from edgecal.lens.rounding import round_input, sum_errors

__all__ = ["apply_head", "head_input", "reproduce"]


def reproduce(
    hidden: NDArray[np.float32], head: Head, row_index: NDArray[np.integer] | None = None
) -> tuple[NDArray[np.float32], ...]:
    """Compute the last block's logits as llama.cpp does, once for each way in which its builds multiply.

    Parameters
    ----------
    hidden: float32 [m, width], the residual stream after the last block.
    row_index: int [r], indices into `head.rows`; None takes all rows.

    Returns
    -------
    float32 [m, r] each: with the head's input rounded to the type that goes with the head's and, unless the head is
    F32, with the input unrounded, as builds with a BLAS library multiply.

    Raises
    ------
    ValueError: the hidden states do not have the head's width.
    """
    if hidden.ndim != 2 or hidden.shape[1] != head.width:
        raise ValueError(f"hidden has shape {hidden.shape}, expected [m, {head.width}]")
    x = head_input(hidden, head)
    ways = [apply_head(x, head, row_index, rounds=True)]
    if head.type_name != "F32":
        ways.append(apply_head(x, head, row_index, rounds=False))
    return tuple(way.astype(np.float32) for way in ways)


def head_input(hidden: NDArray[np.float32], head: Head) -> NDArray[np.float32]:
    """Merge and normalize hidden states, float32 [m, width], into the head's input, float32 [m, n_embd]; each step is
    rounded to float32 as in ggml's `rms_norm` and `norm`."""
    h = hidden if head.merge is None else head.merge(hidden, rounds=True)
    if not head.normalized:
        return h
    n = h.shape[1]
    with np.errstate(all="ignore"):  # non-finite values pass through; the check refuses them
        if head.centered:
            h = h - (h.sum(axis=1, keepdims=True, dtype=np.float64) / n).astype(np.float32)
        square = ((h * h).sum(axis=1, keepdims=True, dtype=np.float64) / n).astype(np.float32)
        scale = np.float32(1) / np.sqrt(square + np.float32(head.eps))
        x: NDArray[np.float32] = h * scale * head.norm_weight + head.norm_bias
    return x


def apply_head(
    x: NDArray[np.float32],
    head: Head,
    row_index: NDArray[np.integer] | None = None,
    *,
    rounds: bool,
    times: float = 1.0,
) -> NDArray[np.float64]:
    """Compute logits, float64 [m, r], from the head's input x, float32 [m, n_embd].

    `rounds`: round x as llama.cpp does for the head's type. `times`: multiplies the head's product, to restore its
    scale where x was divided by a temperature before rounding.
    """
    from edgecal.lens.kernels import multiply_rows

    selected = slice(None) if row_index is None else row_index
    rounded = round_input(x, head.type_name, head.block_elements) if rounds else x
    z = multiply_rows(rounded.astype(np.float64), np.ascontiguousarray(head.rows[selected]))
    if rounds and head.row_minima is not None:
        z += sum_errors(x).astype(np.float64) @ head.row_minima[selected].T
    return head.transform(z * times + head.row_bias[selected])
