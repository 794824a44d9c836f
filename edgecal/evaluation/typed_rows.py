"""Ways of asking typed questions, and temperatures for them: fitted on some questions, judged on the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edgecal.calibration import ChoiceLogits, Method
from edgecal.decisions.temperatures import UsedTemperature
from edgecal.evaluation.baselines import judge_logits
from edgecal.evaluation.method_rows import fixed_row, tempered_row, withheld_row
from edgecal.evaluation.splits import Split
from edgecal.evaluation.typed_groups import judge_typed
from edgecal.results.judging import MethodRow

__all__ = ["WAYS", "compare_ways"]

# How else the chat model may be asked: the name of a row, and what it means.
WAYS = {
    "bare": "bare labels in the order given, as llama.cpp's decision mode reads them",
    "sums": "label sums, in the order given",
    "orders": "bare labels, mean over all orders that were run",
    "sums-orders": "label sums, mean over all orders that were run",
}


def compare_ways(
    logits: ChoiceLogits,
    others: Mapping[str, npt.NDArray[np.floating] | str],
    used: Sequence[UsedTemperature] | None,
    splits: Sequence[Split],
    method: Method,
    no_layers: str | None,
) -> list[MethodRow]:
    """The rows of n questions of one type, all with labels.

    Parameters
    ----------
    logits: both models' as `decide` divides them.
    others: for each of `WAYS` the chat model's logits asked so, float [n, k_max], or why there are none.
    used: the temperatures that the chat model's file holds, n of them; None if it holds none.
    splits: of the n questions.
    method: the label-free one beside daca.
    no_layers: why there are no layer logits; None if there are.
    """
    n_choices, labels = logits.n_choices, logits.labels
    rows: list[MethodRow] = []
    for name, title in WAYS.items():
        asked = others[name]
        rows.append(
            withheld_row(name, title, asked)
            if isinstance(asked, str)
            else fixed_row(name, title, judge_logits(asked, n_choices, labels), splits)
        )
    as_it_is = judge_logits(logits.chat_final, n_choices, labels)
    rows.append(fixed_row("decide", "as decide asks, without a temperature", as_it_is, splits))
    if used is not None:
        judged = judge_typed(logits.chat_final, n_choices, labels, used)
        rows.append(fixed_row("file", "with what the file divides by", judged, splits))
    for candidate in dict.fromkeys((method, Method("daca"), Method("ts"))):
        if candidate.needs_layers and no_layers is not None:
            rows.append(withheld_row(candidate.name, candidate.name, no_layers, candidate.variant))
        else:
            rows.append(tempered_row(logits, candidate, splits, default=candidate == method))
    return rows
