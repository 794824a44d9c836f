"""From a question's logits to its answer.

With logits `z[r]` of the options in order r, the averaged logits are `z = mean_r log softmax(z[r])`, and the
probabilities `softmax(z / T)`; of a noul `sigmoid((z_true - z_false) / T + bias)`. "None of the above" takes part as an
option, and is then reported apart: the others' probabilities are those given that it is one of them.

`confidence` is the format's own and no probability of being right: of a choice `(n p_max - 1) / (n - 1)`, of a score
`1 - E|level - mode|` over the mean distance of the levels from their middle, at least 0. The probability of the answer
is `probability`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecal.decisions.questions import Question, QuestionType, Score
from edgecal.decisions.temperatures import UsedTemperature

__all__ = ["Decision", "Decisions", "answer_question", "average_orders", "label_logits"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Decision:
    """The answer to one question.

    Attributes
    ----------
    type: "noul", "choice" or "score".
    keys: the options' names: of a noul "true" and "false", of a score "0", "1", ...
    probs: a probability for each, which sum to 1.
    label_mass: probability that the model says any label at all, mean over the orders, 0 to 1. Far below 1 it was about
        to say something else.
    temperature: what the logits were divided by.
    settled: whether that temperature deserves trust; None: there is none, or nobody knows.
    abstained: whether the answer should not be used; `doubts` say why.
    doubts: what speaks against the answer, one line each.
    temperature_doubt: the first of these if it speaks against the temperature, else None.
    n_orders: in how many orders the options were shown.
    order_spread: the largest difference between two orders in the answer's probability; None with one order.
    none_of_the_above: probability that no option applies; None if it was not asked.
    legend: of a score, the levels' descriptions.
    """

    type: QuestionType
    keys: tuple[str, ...]
    probs: tuple[float, ...]
    label_mass: float
    temperature: float
    settled: bool | None
    abstained: bool
    doubts: tuple[str, ...] = ()
    n_orders: int = 1
    order_spread: float | None = None
    none_of_the_above: float | None = None
    legend: tuple[Any, ...] = ()
    temperature_doubt: str | None = None

    @property
    def index(self) -> int:
        """Index of the most probable option; of equal ones the first."""
        return max(range(len(self.probs)), key=self.probs.__getitem__)

    @property
    def key(self) -> str:
        """Name of the most probable option."""
        return self.keys[self.index]

    @property
    def probability(self) -> float:
        """Probability of the most probable option."""
        return self.probs[self.index]

    @property
    def score(self) -> float:
        """The expectation of the options' indices: of a score, its value."""
        return float(sum(index * p for index, p in enumerate(self.probs)))

    @property
    def confidence(self) -> float:
        """The format's confidence, 0 to 1; no probability of being right. See the module."""
        n = len(self.probs)
        if self.type != "score":
            return min(1.0, max(0.0, (n * self.probability - 1) / (n - 1)))
        distance = sum(p * abs(level - self.index) for level, p in enumerate(self.probs))
        uniform = sum(abs(level - (n - 1) / 2) for level in range(n)) / n
        return min(1.0, max(0.0, 1 - distance / uniform))

    def to_dict(self) -> dict[str, Any]:
        """The answer in the format, our own facts under names with x_."""
        answer: dict[str, Any] = {"type": self.type}
        by_key = dict(zip(self.keys, self.probs, strict=True))
        if self.type == "noul":
            answer |= {"noul": self.probs[0]}
        elif self.type == "choice":
            answer |= {"choice": self.key, "probabilities": by_key, "confidence": self.confidence}
        else:
            answer |= {
                "score": self.score,
                "probabilities": by_key,
                "legend": dict(zip(self.keys, self.legend, strict=True)),
                "confidence": self.confidence,
            }
        answer |= {
            "x_probability": self.probability,
            "x_label_mass": self.label_mass,
            "x_temperature": self.temperature,
            "x_settled": self.settled,
            "x_abstained": self.abstained,
        }
        if self.order_spread is not None:
            answer["x_order_spread"] = self.order_spread
        if self.none_of_the_above is not None:
            answer["x_none_of_the_above"] = self.none_of_the_above
        if self.doubts:
            answer["x_doubts"] = list(self.doubts)
        return answer


@dataclass(frozen=True)
class Decisions(Mapping[str, Decision]):
    """The answers to all questions of a request, by their ids.

    Attributes
    ----------
    answers: by id, in the request's order.
    model: the model's name.
    input_tokens: tokens of all prompts, as if each were read whole.
    tokens_computed: rows that the model computed, with padding; fewer, since the state is read once.
    """

    answers: Mapping[str, Decision]
    model: str
    input_tokens: int
    tokens_computed: int = field(compare=False, default=0)

    def __getitem__(self, key: str) -> Decision:
        return self.answers[key]

    def __iter__(self) -> Any:
        return iter(self.answers)

    def __len__(self) -> int:
        return len(self.answers)

    def to_dict(self) -> dict[str, Any]:
        """The response of `POST /v1/systemone`."""
        return {
            "model": self.model,
            "answers": {key: answer.to_dict() for key, answer in self.answers.items()},
            "usage": {"input_tokens": self.input_tokens, "output_tokens": 0},
            "x_tokens_computed": self.tokens_computed,
        }


def label_logits(by_place: FloatArray, order: Sequence[int]) -> FloatArray:
    """Logits of the options, from those of the places at which they stood; float64 [..., K] each."""
    by_option = np.empty_like(by_place)
    by_option[..., list(order)] = by_place
    return by_option


def average_orders(logits: FloatArray) -> FloatArray:
    """The mean over orders of the options' log-probabilities: float64 [R, ..., K] -> [..., K]; -inf stays."""
    peak = logits.max(axis=-1, keepdims=True)
    log_probs = logits - peak - np.log(np.exp(logits - peak).sum(axis=-1, keepdims=True))
    mean: FloatArray = log_probs.mean(axis=0)
    return mean


def answer_question(
    question: Question,
    logits: FloatArray,
    label_mass: Sequence[float],
    rather: Sequence[str | None],
    used: UsedTemperature,
    *,
    min_mass: float,
    min_confidence: float | None = None,
) -> Decision:
    """The answer that logits give.

    Parameters
    ----------
    question: with n options; of a choice that offers "none of the above", K is n + 1.
    logits: float64 [R, K], the labels' logits in each of R orders, by option; finite.
    label_mass: [R], probability of all labels together in each order.
    rather: [R], the text of a control token that is likelier than every label, or None.
    used: the temperature.
    min_mass: mark the answer below this mean label mass, 0 to 1.
    min_confidence: mark the answer if its probability is below this; None never does.
    """
    averaged = average_orders(logits)
    probs = _probs(averaged, used)
    none = None
    doubts = [] if used.doubt is None else [used.doubt]
    abstained = False
    n = len(question.keys)
    if len(probs) > n:
        none = float(probs[n])
        if none > probs[:n].max():
            doubts.append("none of the above is likelier than every option")
            abstained = True
        probs = _probs(averaged[:n], used)
    index = int(probs.argmax())
    spread = None
    if len(logits) > 1:
        alone = [float(_probs(average_orders(one[None, :n]), used)[index]) for one in logits]
        spread = max(alone) - min(alone)
    mass = float(np.mean(label_mass))
    if mass < min_mass:
        doubts.append(f"the model puts only {mass:.1%} of its probability on the labels")
        abstained = True
    if (token := next((text for text in rather if text is not None), None)) is not None:
        doubts.append(f"the control token {token!r} is likelier than every label")
        abstained = True
    sure = float(probs[index])
    if min_confidence is not None and sure < min_confidence:
        doubts.append(f"the probability is below {min_confidence:g}")
        abstained = True
    return Decision(
        type=question.type,
        keys=question.keys,
        probs=tuple(probs.tolist()),
        label_mass=min(1.0, mass),
        temperature=used.temperature,
        settled=used.settled,
        abstained=abstained,
        doubts=tuple(doubts),
        n_orders=len(logits),
        order_spread=spread,
        none_of_the_above=none,
        legend=tuple(question.criteria) if isinstance(question, Score) else (),
        temperature_doubt=used.doubt,
    )


def _probs(log_probs: FloatArray, used: UsedTemperature) -> FloatArray:
    scaled = log_probs / used.temperature
    if used.bias:
        scaled = scaled + np.array([used.bias, 0.0])
    odds = np.exp(scaled - scaled.max())
    probs: FloatArray = odds / odds.sum()
    return probs
