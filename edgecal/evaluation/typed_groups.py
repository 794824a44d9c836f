"""What typed questions have beside figures: label mass, and whether the answer depends on the order of the options.

It takes arrays; `edgecal.api.evaluate_requests` runs the model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgecal.decisions.temperatures import BUCKETS, TYPES, UsedTemperature, bucket_of
from edgecal.evaluation.baselines import judge_logits
from edgecal.evaluation.judged_sets import number
from edgecal.metrics import Judged
from edgecal.metrics.estimate import draw_weights
from edgecal.results.judging import Estimate, JudgedGroup

__all__ = ["group_names", "judge_groups", "judge_typed"]

FloatArray = npt.NDArray[np.float64]


def judge_typed(
    logits: npt.NDArray[np.floating],
    n_choices: npt.NDArray[np.integer],
    labels: npt.NDArray[np.integer],
    used: Sequence[UsedTemperature],
) -> Judged:
    """Judges each question's probabilities, by the formula of `edgecal.decisions.answers`.

    Parameters
    ----------
    logits: float [n, k_max], averaged over the orders; n_choices[i] of a row count.
    labels: int [n].
    used: n temperatures; a bias is added to the first option.
    """
    divided = np.asarray(logits, dtype=np.float64) / np.array([one.temperature for one in used])[:, None]
    divided[:, 0] += [one.bias for one in used]
    return judge_logits(divided, n_choices, labels)


def group_names(kinds: Sequence[str], n_choices: npt.NDArray[np.integer]) -> dict[str, npt.NDArray[np.int64]]:
    """The questions of all groups: "all", each type, and each type and bucket of several; without empty ones."""
    found = {"all": np.arange(len(kinds))}
    buckets = np.array([bucket_of(int(n)) for n in n_choices])
    for kind in TYPES:
        of_kind = np.array(kinds) == kind
        found[kind] = np.flatnonzero(of_kind)
        for bucket, _, _ in BUCKETS if kind != "noul" else ():
            found[f"{kind}.{bucket}"] = np.flatnonzero(of_kind & (buckets == bucket))
    return {name: rows for name, rows in found.items() if len(rows)}


def judge_groups(
    groups: dict[str, npt.NDArray[np.int64]],
    used: Sequence[UsedTemperature] | None,
    label_mass: FloatArray,
    flipped: npt.NDArray[np.bool_],
    n_orders: npt.NDArray[np.integer],
    n_tokens: npt.NDArray[np.integer],
    n_tokens_once: npt.NDArray[np.integer],
    *,
    n_bootstrap: int,
    level: float,
    seed: int,
) -> list[JudgedGroup]:
    """The groups' rows; all arrays have an entry for each of n questions, and so has `used`, if there are any."""
    rows: list[JudgedGroup] = []
    for name, those in groups.items():
        found = (
            {(used[at].temperature, used[at].settled) for at in those.tolist()} if used is not None else set()
        )
        temperature, settled = found.pop() if len(found) == 1 else (None, None)

        def mean(values: npt.NDArray[np.generic], those: npt.NDArray[np.int64] = those) -> Estimate:
            return _mean(values[those].astype(np.float64), n_bootstrap, level, seed)

        rows.append(
            {
                "name": name,
                "n": len(those),
                "temperature": temperature,
                "settled": settled,
                "label_mass": mean(label_mass),
                "flips": mean(flipped),
                "n_orders": float(n_orders[those].mean()),
                "n_tokens": float(n_tokens[those].mean()),
                "n_tokens_once": float(n_tokens_once[those].mean()),
            }
        )
    return rows


def _mean(values: FloatArray, n_bootstrap: int, level: float, seed: int) -> Estimate:
    """The mean, with a percentile interval from resamples of the values, whatever their order."""
    ordered = np.sort(values)
    drawn = [weights @ ordered / len(ordered) for weights in draw_weights(len(ordered), n_bootstrap, seed)]
    low = high = float("nan")
    if n_bootstrap:
        tail = 0.5 * (1.0 - level)
        low, high = np.quantile(np.concatenate(drawn), [tail, 1.0 - tail]).tolist()
    return {"value": float(ordered.mean()), "low": number(low), "high": number(high)}
