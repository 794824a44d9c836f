"""Applies a head to hidden states: the logit lens.

Deterministic: each output is summed in float64 from its own hidden state in a fixed order, so it depends neither on
the other rows of the batch nor on the number of threads.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgecal.lens.head import Head

__all__ = ["project"]


def project(hidden: NDArray[np.float32], head: Head, row_index: NDArray[np.int32]) -> NDArray[np.float32]:
    """Logits of chosen head rows for every prompt and block: the logit lens.

    `z = transform(rows[j] . (norm(merge(h)) * weight + bias) + row_bias[j])` with
    RMSNorm `h / sqrt(mean(h^2) + eps)` (arXiv 1910.07467) or
    LayerNorm `(h - mean(h)) / sqrt(var(h) + eps)` (arXiv 1607.06450), and
    `transform(x) = c * tanh(scale * x / c)` with a soft cap c, else `scale * x`; where a block outputs several
    streams, `merge` (`edgecal.lens.stream_merge`) combines them into one.

    Parameters
    ----------
    hidden: float32 [n, n_layer, width], the residual stream after each block.
    head: from `read_head`; its `width` must be that of the hidden states.
    row_index: int32 [n, k_max], for each prompt indices into `head.rows`; -1 is padding.

    Returns
    -------
    float32 [n, n_layer, k_max], accumulated in float64; -inf where `row_index` is -1. Non-finite hidden states give
    non-finite logits.

    Raises
    ------
    ValueError: shapes that do not match each other, or a row that the head does not have.
    """
    if hidden.ndim != 3 or hidden.shape[2] != head.width:
        raise ValueError(f"hidden has shape {hidden.shape}, expected [n, n_layer, {head.width}]")
    if row_index.ndim != 2 or len(row_index) != len(hidden):
        raise ValueError(f"row_index has shape {row_index.shape}, expected [{len(hidden)}, k_max]")
    if row_index.size and not -1 <= row_index.min() <= row_index.max() < len(head.rows):
        raise ValueError(
            f"row_index holds {row_index.min()} to {row_index.max()}, expected -1 to {len(head.rows) - 1}"
        )
    from edgecal.lens.kernels import project_rows

    merged = hidden if head.merge is None else head.merge(hidden)
    return project_rows(
        np.ascontiguousarray(merged, np.float32),
        np.ascontiguousarray(row_index, np.int32),
        head.rows,
        head.row_bias,
        head.norm_weight,
        head.norm_bias,
        head.normalized,
        head.centered,
        head.eps,
        head.logit_scale,
        0.0 if head.soft_cap is None else head.soft_cap,
    )
