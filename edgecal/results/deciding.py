"""What `edgecal decide` prints: the response of `POST /v1/systemone`, and what became of a request that was refused."""

from __future__ import annotations

from typing import Literal, TypedDict, final

from edgecal.results.printed import Count, Json, NonNegative, NotRequired, Ordinal, Share, Temperature

__all__ = [
    "DecisionGiven",
    "DecisionsShown",
    "RefusalShown",
    "RequestProblem",
    "RequestRefused",
    "TokensUsed",
]


class DecisionGiven(TypedDict):
    """The answer to one question. Keys without x_ are the format's.

    type: the question's type, on which the format's other keys depend.
    noul: probability that the answer is yes; of a noul only.
    choice: the most probable option; of a choice only.
    score: the mean of the levels, weighted with their probabilities; of a score only.
    probabilities: of each option, or of each level, by its number from "0"; not of a noul.
    legend: what each level means; of a score only.
    confidence: the format's own: of a choice (n p - 1) / (n - 1), of a score 1 minus the mean distance from the
        likeliest level over that of the levels from their middle; no probability of being right; not of a noul.
    x_probability: probability of the answer: of the most probable option or level, or of yes or no.
    x_label_mass: probability that the model says any label at all, mean over the orders.
    x_temperature: what the logits were divided by.
    x_settled: whether that temperature was fitted for such questions and settled; null: there is none, or nobody knows.
    x_abstained: whether the answer should not be used; x_doubts say why.
    x_order_spread: the largest difference between two orders of the options in x_probability; left out with one order.
    x_none_of_the_above: probability that no option applies; left out where it was not asked.
    x_doubts: what speaks against the answer, one line each; left out if nothing does.
    """

    type: Literal["noul", "choice", "score"]
    noul: NotRequired[Share]
    choice: NotRequired[str]
    score: NotRequired[NonNegative]
    probabilities: NotRequired[dict[str, Share]]
    legend: NotRequired[dict[str, Json]]
    confidence: NotRequired[Share]
    x_probability: Share
    x_label_mass: Share
    x_temperature: Temperature
    x_settled: bool | None
    x_abstained: bool
    x_order_spread: NotRequired[Share]
    x_none_of_the_above: NotRequired[Share]
    x_doubts: NotRequired[list[str]]


class TokensUsed(TypedDict):
    """How many tokens a request took.

    input_tokens: of all prompts, as if each were read whole.
    output_tokens: always 0.
    """

    input_tokens: Count
    output_tokens: Count


@final
class DecisionsShown(TypedDict):
    """The answers to one request.

    model: the name in the request, or the model's own.
    answers: by the questions' ids.
    usage: tokens, as the format counts them.
    x_tokens_computed: rows that the model computed, with padding; fewer, since a state is read once.
    """

    model: str
    answers: dict[str, DecisionGiven]
    usage: TokensUsed
    x_tokens_computed: Count


class RequestProblem(TypedDict):
    """One rule that a request breaks.

    loc: the place: "body", then names of fields and indices.
    msg: what was expected, and what was found.
    type: a word for programs.
    """

    loc: list[str | int]
    msg: str
    type: Literal["missing", "wrong_type", "out_of_range", "invalid"]


class RequestRefused(TypedDict):
    """Why a request of several was not answered.

    line: its line, or its place in a list of requests.
    detail: every rule that it breaks, at least one.
    """

    line: Ordinal
    detail: list[RequestProblem]


@final
class RefusalShown(TypedDict):
    """What stands in the place of a response.

    error: why there is none.
    """

    error: RequestRefused
