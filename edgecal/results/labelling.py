"""The result of `label`: what labels and unlabelled questions say of the temperature together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgecal.results.printed import Count, Interval, NonNegative, Ordinal, Printed, Share, Temperature
from edgecal.results.questions import DataRead, PromptingUsed

__all__ = ["LabelResult"]


@dataclass(frozen=True)
class LabelResult(Printed):
    """Labels, and the temperature that they give together with the unlabelled questions.

    Attributes
    ----------
    output: the file of labels.
    stopped: "narrow": the interval is narrow enough; "all": every question was asked; "left": neither yet.
    n_labelled: questions with a label.
    n_unsure: questions that were asked and skipped.
    n_questions: questions available.
    temperature: the posterior median.
    interval: the 95 % posterior interval.
    ratio: upper by lower end of this interval.
    wanted_ratio: the ratio that is narrow enough.
    prior_temperature, prior_interval: the same without labels.
    doubt: probability that this temperature makes the model less honest than it is.
    data: what was read.
    prompting: how questions were put to the models.
    warnings: one line each.
    """

    output: str
    stopped: Literal["narrow", "all", "left"]
    n_labelled: Count
    n_unsure: Count
    n_questions: Ordinal
    temperature: Temperature
    interval: Interval
    ratio: NonNegative
    wanted_ratio: NonNegative
    prior_temperature: Temperature
    prior_interval: Interval
    doubt: Share
    data: DataRead
    prompting: PromptingUsed
    warnings: list[str]
