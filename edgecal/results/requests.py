"""Result of `fit --requests`: temperatures of typed questions with their evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypedDict

from edgecal.results.fitting import (
    BracketEnds,
    FitBootstrap,
    FitModels,
    LabelVerdict,
    MassByRole,
    Runtime,
    SiblingFile,
    Variant,
)
from edgecal.results.judging import MethodRow
from edgecal.results.printed import Count, Interval, NonNegative, Printed, Seed, Share, Temperature
from edgecal.results.questions import Skipped

__all__ = [
    "ComparedGroup",
    "FittedGroup",
    "NoulBias",
    "RequestCompareResult",
    "RequestFitResult",
    "RequestsRead",
]


class FittedGroup(TypedDict):
    """The temperature of one type of question, or of one type and number of options.

    name: "choice", "score" or "noul"; for 2, 3 to 5, 6 to 10, or 11 and more options with ".2", ".3_5", ".6_10" or
        ".11" after it.
    n_questions: questions that were run; each counts once, in whatever orders it was asked.
    n_labelled: how many of them had an answer.
    temperature: the chat model's logits are divided by it; null where the questions do not determine one.
    interval: its 95 % interval.
    source: "prompts", by the method, or "labels", with the bias.
    agreement_rate: share of the questions on which both models choose alike.
    choice_mass: mean probability of all labels together.
    bracket: the temperatures between which the right one lies.
    harmful: whether the labelled questions fail to show that the temperature is better than none; null if there are
        fewer than 30, or the temperature was fitted on them.
    label_check: the negative log-likelihood of the labels; null where there are fewer than 30.
    settled: whether nothing speaks against it. Others are not written unless --unsettled is given.
    reasons: what does, one line each.
    """

    name: str
    n_questions: Count
    n_labelled: Count
    temperature: Temperature | None
    interval: Interval | None
    source: Literal["prompts", "labels"]
    agreement_rate: Share
    choice_mass: MassByRole
    bracket: BracketEnds
    harmful: bool | None
    label_check: LabelVerdict | None
    settled: bool
    reasons: list[str]


class NoulBias(TypedDict):
    """Scale and bias of yes/no questions, from labels (Platt 1999).

    temperature, interval: one over the scale.
    bias, bias_interval: added to the divided logit of yes less that of no.
    n_labels: labelled yes/no questions.
    gain: by how much it lowers the mean negative log-likelihood of labels that it was not fitted on, in nats.
    gain_interval: 2 standard errors less and more.
    used: whether that is more than noise, so that it takes the place of the temperature without labels.
    """

    temperature: Temperature
    interval: Interval
    bias: float
    bias_interval: Interval
    n_labels: Count
    gain: float
    gain_interval: Interval
    used: bool


class RequestsRead(TypedDict):
    """The requests that were read.

    files: where from.
    n_requests: requests, without those that were skipped.
    n_questions: questions that were run.
    n_skipped: requests that break the format's rules, and questions that do not fit a model.
    skipped: the first of these.
    limit: how many questions were to be drawn; null: all.
    sha256: hash of the models' prompts in all orders, whatever the order of the requests.
    """

    files: list[str]
    n_requests: Count
    n_questions: Count
    n_skipped: Count
    skipped: list[Skipped]
    limit: Count | None
    sha256: str


@dataclass(frozen=True)
class RequestFitResult(Printed):
    """Temperatures of typed questions and everything needed to judge them.

    Attributes
    ----------
    groups: one for each type, and for each type and number of options, that the requests hold.
    noul_bias: scale and bias of yes/no questions; None without enough labels.
    method: what was minimised.
    variant: the method's options.
    readout: how answers were read: "labels" or "letters".
    orders: in how many orders the options were shown: a number, "choices", "all" or "auto".
    shots: worked examples that the base model was shown before each question.
    prompt_sha256: hash of the template and the chat model's chat template.
    requests: what was read.
    output: the file that was written, or None.
    siblings: how the other shards of a split model were placed beside the output.
    bootstrap: how the intervals were made; the share is the largest of all groups.
    models: both models, and what running them took.
    lens: rms error of the lens for each model, as a share of the logits' spread; None without layers.
    runtime: versions and settings that can influence a number.
    warnings: one line each, without the groups' reasons.
    """

    groups: list[FittedGroup]
    noul_bias: NoulBias | None
    method: str
    variant: Variant
    readout: str
    orders: str
    shots: Count
    prompt_sha256: str
    requests: RequestsRead
    output: str | None
    siblings: list[SiblingFile]
    bootstrap: FitBootstrap
    models: FitModels
    lens: dict[str, NonNegative] | None
    runtime: Runtime
    warnings: list[str]

    @property
    def temperatures(self) -> dict[str, float]:
        """The settled temperatures by the groups' names."""
        return {
            group["name"]: group["temperature"]
            for group in self.groups
            if group["settled"] and group["temperature"] is not None
        }


class ComparedGroup(TypedDict):
    """Ways of asking the questions of one type, and temperatures for them.

    name: "choice", "score" or "noul".
    n_questions: its questions with an answer.
    rows: one for each way and each temperature.
    """

    name: str
    n_questions: Count
    rows: list[MethodRow]


@dataclass(frozen=True)
class RequestCompareResult(Printed):
    """What label sums, orders and temperatures bring for typed questions.

    Attributes
    ----------
    groups: the types that the requests hold.
    readout, orders, prompt_sha256, requests, models, runtime: as in `RequestFitResult`.
    n_splits, fit_share, seed: how each type's questions were divided into some to fit on and some to judge.
    warnings: one line each.
    """

    groups: list[ComparedGroup]
    readout: str
    orders: str
    prompt_sha256: str
    requests: RequestsRead
    n_splits: Count
    fit_share: Share
    seed: Seed
    models: FitModels
    runtime: Runtime
    warnings: list[str]
