"""Writes one sentence for a reader who has never heard of calibration, from figures with their intervals.

It claims no more than the intervals allow.
"""

from __future__ import annotations

from edgecal.results.judging import Estimate, FigureSet

__all__ = ["write_comparison", "write_evaluation"]

_NEARLY_RIGHT = 0.03  # a calibration error below this is called small
# fewer questions are not judged: if a handful are all right, so is every resample, and the interval has no width
_FEWEST = 20


def write_evaluation(
    name: str,
    before: FigureSet,
    after: FigureSet | None,
    difference: FigureSet | None,
    temperature: float | None,
    *,
    n_questions: int,
    baked: float | None = None,
    several: bool = False,
) -> str:
    """The verdict on one model, with the effect of its temperature if it has one.

    Parameters
    ----------
    name: what to call the model.
    before, after, difference: figures with intervals, as `shape_figures` gives them; `after` and `difference`
        are None without a temperature.
    temperature: what the logits are divided by, or None.
    n_questions: on how many questions.
    baked: the temperature that the file's weights are divided by already, or None.
    several: whether questions have several temperatures, so that `temperature` is None.
    """
    sentence = f"{name} {_state(before, n_questions)}"
    if n_questions < _FEWEST:
        return f"{sentence}."
    if several and after is not None and difference is not None:
        return f"{sentence}; dividing its logits by a temperature for each type {_effect(before, after, difference)}."
    if after is None or difference is None or temperature is None:
        why = "its file holds no temperature" if baked is None else f"with {baked:.3g} baked into its weights"
        return f"{sentence} ({why})."
    return f"{sentence}; dividing its logits by {temperature:.3g} {_effect(before, after, difference)}."


def write_comparison(
    chat: str,
    before: FigureSet,
    after: FigureSet | None,
    difference: FigureSet | None,
    temperature: float | None,
    *,
    n_questions: int,
    supervised_ece: float | None,
    uses_labels: bool = False,
    lacks_layers: bool = False,
    settled: bool = True,
    harmful: bool = False,
) -> str:
    """The verdict on a pair: what the temperature does to the chat model.

    Parameters
    ----------
    chat: what to call the chat model.
    before, after, difference, temperature, n_questions: as in `write_evaluation`; None where no temperature was
        identified.
    supervised_ece: the same split's error with a temperature fitted on labels, for comparison; None if unknown.
    uses_labels: whether this temperature was itself fitted on labels.
    lacks_layers: whether there is no temperature because the method needs layers that cannot be compared.
    settled, harmful: as in `CompareResult`; a temperature that a fit would refuse is not praised.
    """
    found = "fitted on labels" if uses_labels else "found without labels"
    sentence = f"{chat} {_state(before, n_questions)}"
    if lacks_layers:
        return (
            f"{sentence}; its layers cannot be compared with the base model's, so this method gives no temperature "
            "(daca needs none)."
        )
    if after is None or difference is None or temperature is None:
        return f"{sentence}; these questions do not determine a temperature for it."
    if n_questions < _FEWEST:
        return f"{sentence}."
    oracle = (
        "" if supervised_ece is None or uses_labels else f" ({_percent(supervised_ece)} if fitted on labels)"
    )
    return (
        f"{sentence}; dividing its logits by {temperature:.3g}, {found}, "
        f"{_effect(before, after, difference, praised=not harmful)}{oracle}{_refusal(before, after, settled, harmful)}."
    )


def _state(figures: FigureSet, n_questions: int) -> str:
    accuracy, confidence, error = (_value(figures, name) for name in ("accuracy", "confidence", "ece"))
    gap = confidence - accuracy
    sure = f"{_percent(confidence)} sure on average"
    right = f"is right on {_percent(accuracy)} of these questions"
    if n_questions < _FEWEST:
        few = "1 question is" if n_questions == 1 else f"{n_questions} questions are"
        return f"{right} and {sure}, but {few} too few to judge its confidence"
    if error <= _NEARLY_RIGHT:
        return f"{right} and {sure}: its confidence can be believed"
    if abs(gap) >= _NEARLY_RIGHT and not _holds(figures["accuracy"], confidence):
        return f"{right} but {sure}: {'too sure' if gap > 0 else 'not sure enough'} of itself"
    low = figures["ece"]["low"]
    if low is None or low > _NEARLY_RIGHT:
        return f"{right} and {sure}, but too sure in some places and not sure enough in others"
    return f"{right} and {sure}: with so few questions, no more than chance may lie between the two"


def _holds(interval: Estimate, value: float) -> bool:
    low, high = interval["low"], interval["high"]
    return low is not None and high is not None and bool(low <= value <= high)


def _refusal(before: FigureSet, after: FigureSet, settled: bool, harmful: bool) -> str:
    if harmful:
        was, now = _value(before, "nll"), _value(after, "nll")
        what = "gets worse" if now > was else "is not shown to get better"
        also = "" if settled else ", and unlabelled questions leave its temperature unsettled"
        return f"; edgecal fit refuses that as harmful, since its NLL {what} ({was:.3f} before, {now:.3f} after){also}"
    if not settled:
        return "; edgecal fit refuses that as unsettled, since only labels, as here, can say what it does"
    return ""


def _effect(before: FigureSet, after: FigureSet, difference: FigureSet, *, praised: bool = True) -> str:
    low, high = difference["ece"]["low"], difference["ece"]["high"]
    was, now = _percent(_value(before, "ece")), _percent(_value(after, "ece"))
    moved = f"its calibration error (ECE) from {was} to {now}"
    if low is None or high is None or (high < 0 and not praised):
        return f"takes {moved}"
    if high < 0:
        return f"brings {moved} and changes no answer"
    if low > 0:
        return f"makes it worse: {moved}"
    return f"takes {moved}, which is within the noise ({_points(low)} to {_points(high)})"


def _value(figures: FigureSet, name: str) -> float:
    """The value of a figure that is always defined if there are questions."""
    value = figures[name]["value"]
    assert value is not None
    return value


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _points(share: float) -> str:
    return f"{100 * share:+.1f} points"
