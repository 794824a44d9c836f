"""Typed questions as models are asked them: prompts in all orders, and the mean over the orders of what comes back.

Shared by the fit and the evaluation of requests, so that both see the logits that `decide` divides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from edgecal.errors import InputError, ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgecal.api.requests import AskedQuestion, ReadRequests
    from edgecal.data import SkippedRow
    from edgecal.decisions import DecisionOptions, DecisionPrompting
    from edgecal.decisions.questions import QuestionType
    from edgecal.pair.run import RunOptions
    from edgecal.prompts import Prompt
    from edgecal.results.requests import RequestsRead

__all__ = [
    "Asked",
    "ask",
    "average",
    "average_all",
    "compute_sha256",
    "count_orders",
    "describe_requests",
    "find_rows",
    "run_fitting",
    "tell_skipped",
]

Result = TypeVar("Result")

_SHOWN_SKIPPED = 20


@dataclass(frozen=True)
class Asked:
    """A question as models are asked it, in each of its orders.

    Attributes
    ----------
    question: where it came from, its state and its answer.
    orders: of the options, "none of the above" included; R.
    n_wanted: how many of these are asked for; the others are run for what they show.
    prompts: by role ("base", "chat"), R prompts each.
    digest: of these prompts, for an order of the questions that depends on content alone.
    """

    question: AskedQuestion
    orders: tuple[tuple[int, ...], ...]
    n_wanted: int
    prompts: Mapping[str, tuple[Prompt, ...]]
    digest: bytes

    @property
    def kind(self) -> QuestionType:
        """Type of the question."""
        return self.question.question.type

    @property
    def n_options(self) -> int:
        """How many options it has, "none of the above" left out."""
        return len(self.question.question.keys)


def ask(
    questions: Sequence[AskedQuestion],
    promptings: Mapping[str, DecisionPrompting],
    way: DecisionOptions,
    *,
    limit: int | None,
    seed: int,
    strict: bool,
    least_orders: int = 1,
) -> tuple[list[Asked], list[SkippedRow]]:
    """Every question's prompts in canonical order, and the questions for which there are none.

    Parameters
    ----------
    questions: at least one.
    promptings: how each role's model is asked.
    way: with the orders decided.
    limit, seed: draw so many questions; None takes all.
    strict: a question that cannot be asked is an error.
    least_orders: ask in at least so many orders.

    Raises
    ------
    InputError: no question can be asked; if `strict`, any cannot.
    """
    from edgecal.data import SkippedRow
    from edgecal.prompts.orders import draw_indices

    asked, skipped = [], []
    for question in questions:
        made = _try_to_ask(question, promptings, way, least_orders)
        if isinstance(made, Asked):
            asked.append(made)
        elif strict:
            raise made
        else:
            skipped.append(SkippedRow(question.source, str(made)))
    if not asked:
        raise InputError(f"there is no question that can be asked: {skipped[0].reason}")
    asked.sort(key=lambda one: (one.digest, -1 if one.question.answer is None else one.question.answer))
    return [asked[at] for at in draw_indices(len(asked), limit or len(asked), seed)], skipped


def _try_to_ask(
    asked: AskedQuestion, promptings: Mapping[str, DecisionPrompting], way: DecisionOptions, least_orders: int
) -> Asked | InputError:
    from edgecal.decisions import list_orders
    from edgecal.prompts import digest_prompt

    question = asked.question
    n = next(iter(promptings.values())).n_places(question)
    orders = list_orders(question.type, n, way.orders or 1)
    n_wanted = len(orders)
    if n_wanted < least_orders:
        orders = list_orders(question.type, n, least_orders)
    try:
        prompts = {
            role: tuple(one.render(asked.state, question, order, asked.source).prompt for order in orders)
            for role, one in promptings.items()
        }
    except InputError as error:
        return error
    digest = hashlib.sha256(question.type.encode())
    for prompt in (prompt for those in prompts.values() for prompt in those):
        digest.update(digest_prompt(prompt))
    return Asked(asked, tuple(orders), n_wanted, prompts, digest.digest())


def run_fitting(
    asked: Sequence[Asked],
    run: Callable[[Sequence[Asked]], Result],
    models: Mapping[str, str],
    *,
    strict: bool,
    options: RunOptions,
) -> tuple[list[Asked], Result, list[SkippedRow]]:
    """Runs models over the questions that fit all of them; returns these, what `run` returned, and the others.

    Parameters
    ----------
    run: runs the models over all questions that it gets.
    models: each role's path.
    strict: a question that does not fit is an error.

    Raises
    ------
    InputError: as `run`, unless it is only about some of the questions.
    ModelError: a model could not be run.
    """
    from edgecal.data import SkippedRow
    from edgecal.pair.run import find_misfits

    try:
        return list(asked), run(asked), []
    except InputError as error:
        if strict:
            raise
        owners = [at for at, one in enumerate(asked) for _ in one.orders]
        misfits: dict[int, str] = {}
        try:
            for role, path in models.items():
                prompts = [prompt for one in asked for prompt in one.prompts[role]]
                for at, reason in find_misfits(path, role, prompts, options=options):
                    misfits.setdefault(owners[at], reason)
        except ModelError:
            raise error from None
        if not 0 < len(misfits) < len(asked):
            raise
    fitting = [one for at, one in enumerate(asked) if at not in misfits]
    return (
        fitting,
        run(fitting),
        [SkippedRow(asked[at].question.source, misfits[at]) for at in sorted(misfits)],
    )


def describe_requests(
    read: ReadRequests, asked: Sequence[Asked], skipped: Sequence[SkippedRow], limit: int | None
) -> RequestsRead:
    """What was read and asked, for a result; of the skipped rows the first are shown."""
    return {
        "files": list(read.files),
        "n_requests": len(read.requests),
        "n_questions": len(asked),
        "n_skipped": len(skipped),
        "skipped": [{"where": row.where, "reason": row.reason} for row in skipped[:_SHOWN_SKIPPED]],
        "limit": limit,
        "sha256": compute_sha256(asked),
    }


def compute_sha256(asked: Sequence[Asked]) -> str:
    """SHA-256 (hex) of all prompts of some questions, in their order."""
    return hashlib.sha256(b"".join(one.digest for one in asked)).hexdigest()


def tell_skipped(rows: Sequence[SkippedRow]) -> list[str]:
    """One line for each row, which names its place once."""
    return [
        f"skipped: {row.reason if row.reason.startswith(row.where) else f'{row.where}: {row.reason}'}"
        for row in rows
    ]


def average(orders: Sequence[Sequence[int]], by_place: NDArray[Any]) -> NDArray[np.float64]:
    """The mean over a question's first r orders of its options' log-probabilities.

    Parameters
    ----------
    orders: at least r.
    by_place: float [r, ..., k], the labels' logits, padded with -inf.

    Returns
    -------
    float64 [..., K], by option.
    """
    from edgecal.decisions import label_logits
    from edgecal.decisions.answers import average_orders

    places = by_place[..., : len(orders[0])].astype(np.float64)
    return average_orders(
        np.stack([label_logits(z, order) for z, order in zip(places, orders, strict=False)])
    )


def count_orders(asked: Asked, by_place: NDArray[Any], way: DecisionOptions) -> int:
    """In how many orders `decide` would ask a question; `by_place` as for `average`, in all of its orders."""
    from edgecal.decisions import is_decided

    n_all = asked.n_wanted
    for n_done in range(1, n_all) if way.orders == "auto" else ():
        second, first = np.sort(average(asked.orders, by_place[:n_done]))[-2:]
        if is_decided(float(first - second), n_done, n_all, way.order_margin):
            return n_done
    return n_all


def find_rows(asked: Sequence[Asked], by_place: NDArray[Any], way: DecisionOptions) -> list[range]:
    """The rows of each question's orders that count, where all prompts' rows follow each other; `by_place` float
    [n_prompts, k]."""
    starts = np.cumsum([0, *(len(one.orders) for one in asked)]).tolist()
    return [
        range(start, start + count_orders(one, by_place[start : start + len(one.orders)], way))
        for start, one in zip(starts, asked, strict=False)
    ]


def average_all(asked: Sequence[Asked], rows: Sequence[range], logits: NDArray[Any]) -> NDArray[np.float32]:
    """The averaged logits of n questions.

    Parameters
    ----------
    asked: n questions.
    rows: for each the rows of its first orders in `logits`.
    logits: float [n_prompts, ..., k], padded with -inf.

    Returns
    -------
    float32 [n, ..., k_max] by option, padded with -inf; without "none of the above".
    """
    k_max = max(one.n_options for one in asked)
    out = np.full((len(asked), *logits.shape[1:-1], k_max), -np.inf, dtype=np.float32)
    for at, (one, those) in enumerate(zip(asked, rows, strict=True)):
        n = one.n_options
        out[at, ..., :n] = average(one.orders, logits[those.start : those.stop])[..., :n]
    return out
