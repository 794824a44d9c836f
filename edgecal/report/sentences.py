"""What is seen in each picture, said in plain sentences with the numbers in it.

Knows prepared numbers. Text of users does not get here.
"""

from __future__ import annotations

import math

from edgecal.report.prepare import FEW, Curve, Layers, Loss, Methods, Reliability
from edgecal.report.text import number, percent, plain

__all__ = ["layers_sentence", "loss_sentence", "methods_sentence", "reliability_sentence", "risk_sentence"]


def reliability_sentence(data: Reliability) -> str:
    """How sure, how often right, and in which direction that errs."""
    sure, right = data.mean_confidence, data.mean_accuracy
    gap = 100 * (sure - right)
    if abs(gap) < 0.5:
        verdict = "as sure, on the whole, as it should be"
    else:
        verdict = f"{number(abs(gap), 1)} points too {'sure' if gap > 0 else 'modest'}"
    text = f"On average {percent(sure, 0)} sure and right {percent(right, 0)} of the time: {verdict}."
    most = int(data.share.argmax())
    if data.share[most] >= 0.4:
        share, said, came = (float(values[most]) for values in (data.share, data.confidence, data.accuracy))
        text += (
            f" {percent(share, 0)} of the questions are in one group, where it was {percent(said, 0)} sure and "
            f"right {percent(came, 0)} of the time."
        )
    if ((data.n > 0) & (data.n < FEW)).any():
        text += f" Hollow marks: fewer than {FEW} questions, so mostly chance."
    return text


def loss_sentence(data: Loss, method: str | None, level: str) -> str:
    """Which temperature was chosen, how firmly, and what 1 means."""
    by = f" by {method}" if method else ""
    text = (
        f"The lowest point of the curve is the temperature chosen{by}: {plain(data.chosen)}. The shaded band is its "
        f"{level}interval, {plain(data.low)} to {plain(data.high)}: how far the choice moves when the prompts are "
        "drawn again."
    )
    if math.isfinite(data.at_one):
        text += (
            f" At temperature 1 the model is as delivered, with a loss of {plain(data.at_one)} in place of "
            f"{plain(data.at_chosen)}."
        )
    return text + _bracket_text(data)


def _bracket_text(data: Loss) -> str:
    def said(end: float, interval: tuple[float, float] | None) -> str:
        within = "" if interval is None else f" ({plain(interval[0])} to {plain(interval[1])})"
        return f"{plain(end)}{within}"

    ends = [said(*end) for end in data.ends]
    missing = " and ".join(f"its {name} end" for name in data.missing)
    if len(ends) == 2:
        return (
            f" The line at the bottom is the bracket, from {ends[0]} to {ends[1]}: unlabelled questions alone say no "
            "more than that the right temperature lies in it, if neither model counts against the other."
        )
    if missing:
        only = f", the other is {ends[0]}" if ends else ""
        return f" The bracket lacks {missing}{only}: without labels nothing bounds the temperature there."
    return ""


def layers_sentence(data: Layers) -> str:
    """Where the paths of the two models part."""
    text = (
        "How differently the two models see a question, layer by layer (0 is alike, 0.69 the most there can be), for "
        f"the {data.n_agreement:,} questions on which both choose the same and the {data.n_disagreement:,} on which "
        "they do not."
    )
    total = int(data.pdl.sum())
    if total:
        most = int(data.pdl.argmax())
        text += (
            f" Below: the layer at which each of the latter's paths part most sharply, most often layer "
            f"{data.layer[most]} ({int(data.pdl[most]):,} of {total:,})."
        )
    return text


def risk_sentence(curves: dict[str, Curve]) -> str:
    """What leaving the unsure half unanswered would save."""
    before, after = curves["before"], curves.get("after")
    text = (
        f"Answering only the half of the questions that it is surest of, the model would be wrong on "
        f"{percent(before.at(0.5))} of them instead of {percent(before.at(1.0))} of all."
    )
    if after is not None and after.at(0.5) == before.at(0.5):
        text += " With the temperature it is the same: that changes how sure the model is, hardly of which questions."
    elif after is not None:
        text += (
            f" With the temperature it would be {percent(after.at(0.5))}: that changes how sure the model is, and only "
            "a little of which questions it is surest."
        )
    return text


def methods_sentence(data: Methods, n_splits: int) -> str:
    """Which method without answers came out best, and how to read the marks."""
    text = f"Marks are means over {n_splits:,} splits, bars one standard deviation; further left is better."
    free = [index for index, kind in enumerate(data.kinds) if kind == "label-free"]
    if free:
        best = min(free, key=lambda index: float(data.ece[index]))
        if data.as_it_is <= data.ece[best]:
            return (
                f"{text} None of the methods that never see an answer has a smaller error here than the chat model as "
                f"it is ({percent(data.as_it_is)}; {data.titles[best]} {percent(float(data.ece[best]))})."
            )
        text += (
            f" Of the methods that never see an answer, {data.titles[best]} has the smallest error here "
            f"({percent(float(data.ece[best]))}); differences smaller than the bars mean nothing."
        )
    return text
