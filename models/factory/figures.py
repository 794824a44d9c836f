"""What stored pairs are like: what each model knows, its right temperature, and what is found without labels.

    python models/factory/figures.py [FOLDER]      # a Markdown table of every pair in it (bench/pairs)

The oracle is the temperature of least mean negative log-likelihood against the known probabilities, where a pair has
them, else against the labels. It makes and captures nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from factory.store import check_file

from edgecal.calibration import TAU_MAX, TAU_MIN, ChoiceLogits, Method, fit_bracket, fit_temperature
from edgecal.errors import NotIdentifiedError
from edgecal.metrics import compute_ece, softmax_probs

Array = NDArray[Any]
COLUMNS = {
    "accuracy base": ".3f",
    "accuracy chat": ".3f",
    "agreement": ".3f",
    "ECE base": ".3f",
    "ECE chat": ".3f",
    "NLL base": ".3f",
    "NLL chat": ".3f",
    "oracle base": ".2f",
    "oracle chat": ".2f",
    "ECE at oracle": ".3f",
    "DACA": ".2f",
    "low": ".2f",
    "high": ".2f",
    "mass base": ".3f",
    "mass chat": ".3f",
}


def log_softmax(logits: Array, tau: float) -> Array:
    """Log-probabilities of logits [n, K] divided by tau, in float64; -inf where the logits are."""
    z = logits.astype(np.float64) / tau
    z = z - z.max(axis=1, keepdims=True)
    found: Array = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    return found


def mean_nll(logits: Array, target: Array, tau: float) -> float:
    """Mean cross-entropy in nats of `target` [n, K] (0 in the padding) with the tempered logits."""
    log_probs = log_softmax(logits, tau)
    return float(
        -np.multiply(target, log_probs, where=target > 0, out=np.zeros(target.shape)).sum(axis=1).mean()
    )


def oracle(logits: Array, target: Array) -> float:
    """The temperature of least `mean_nll`, which is convex in 1 / tau; to about 1e-6."""
    low, high = -np.log(TAU_MAX), -np.log(TAU_MIN)
    ratio = (np.sqrt(5) - 1) / 2
    while high - low > 1e-6:
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        if mean_nll(logits, target, np.exp(-a)) <= mean_nll(logits, target, np.exp(-b)):
            high = b
        else:
            low = a
    return float(np.exp(-(low + high) / 2))


def figures(arrays: Mapping[str, Array]) -> dict[str, float]:
    """Every figure of `COLUMNS`; NaN where there is none. Accuracy, ECE and NLL are against the drawn labels."""
    base, chat, n_choices, labels = (arrays[n] for n in ("base_final", "chat_final", "n_choices", "labels"))
    certain = np.zeros(base.shape)
    certain[np.arange(len(labels)), labels] = 1.0
    target = arrays.get("probs", certain)
    found: dict[str, float] = {}
    taus = {"base": oracle(base, target), "chat": oracle(chat, target)}

    def ece(logits: Array, tau: float) -> float:
        probs = softmax_probs(logits, n_choices, tau)
        return compute_ece(probs.max(axis=1), probs.argmax(axis=1) == labels)

    for role, logits in (("base", base), ("chat", chat)):
        found[f"accuracy {role}"] = float(np.mean(logits.argmax(axis=1) == labels))
        found[f"ECE {role}"] = ece(logits, 1.0)
        found[f"NLL {role}"] = mean_nll(logits, certain, 1.0)
        found[f"oracle {role}"] = taus[role]
        found[f"mass {role}"] = float(arrays[f"{role}_mass"].mean())
    found["ECE at oracle"] = ece(chat, taus["chat"])
    found["agreement"] = float(np.mean(base.argmax(axis=1) == chat.argmax(axis=1)))
    pair = ChoiceLogits(base, chat, None, None, n_choices, labels)
    try:
        found["DACA"] = fit_temperature(pair, Method.of("daca"), n_bootstrap=0).temperature
    except NotIdentifiedError:
        found["DACA"] = float("nan")
    bracket = fit_bracket(pair, n_bootstrap=0)
    found["low"], found["high"] = (
        float("nan") if end is None else end for end in (bracket.low, bracket.high)
    )
    return found


def table(folder: Path) -> str:
    """A row for each stored pair, by name."""
    lines = [f"| pair | {' | '.join(COLUMNS)} |", f"|---{'|---:' * len(COLUMNS)}|"]
    for path in sorted(folder.glob("*.npz")):
        found = figures(check_file(path))
        cells = ["none" if np.isnan(found[c]) else format(found[c], spec) for c, spec in COLUMNS.items()]
        lines.append(f"| {path.stem} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    default = Path(__file__).resolve().parents[2] / "bench/pairs"
    print(table(Path(sys.argv[1]) if len(sys.argv) > 1 else default))
