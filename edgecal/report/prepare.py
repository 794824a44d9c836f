"""Prepares each picture's numbers as arrays, and describes it in plain sentences with the numbers in them.

A picture for which the result has no numbers is None. No user text gets into a sentence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgecal.report.text import number, percent, plain
from edgecal.report.words import method_title
from edgecal.results.judging import (
    AblationRow,
    LayerDivergence,
    LearningCurve,
    LossCurve,
    MethodRow,
    ReliabilityBins,
    ReliabilityPlots,
    RiskPlots,
)

__all__ = [
    "FEW",
    "Curve",
    "Layers",
    "Loss",
    "Methods",
    "Reliability",
    "Sweep",
    "SweepLine",
    "layers_sentence",
    "learning_sentence",
    "loss_sentence",
    "methods_sentence",
    "prepare_layers",
    "prepare_learning",
    "prepare_loss",
    "prepare_methods",
    "prepare_reliability",
    "prepare_risk_coverage",
    "prepare_sweep",
    "reliability_sentence",
    "risk_sentence",
]

Floats = npt.NDArray[np.float64]
FEW = 10  # a group with fewer questions is drawn hollow and not joined: its place is mostly chance


@dataclass(frozen=True, eq=False)
class Reliability:
    """One reliability diagram; arrays are float64 [n_bins], NaN where a bin is empty.

    Attributes
    ----------
    edges: float64 [n_bins + 1], 0 to 1.
    share: of the questions in each bin, 0 in an empty one.
    confidence, accuracy: mean of each bin; low, high: the accuracy's interval, NaN where there is none.
    mean_confidence, mean_accuracy: over all questions; NaN without questions.
    """

    edges: Floats
    n: npt.NDArray[np.int64]
    share: Floats
    confidence: Floats
    accuracy: Floats
    low: Floats
    high: Floats
    mean_confidence: float
    mean_accuracy: float


@dataclass(frozen=True, eq=False)
class Loss:
    """The loss against the temperature, cut to the stretch worth seeing.

    Attributes
    ----------
    temperature, loss: float64 [n], increasing temperatures, and the loss in nats.
    chosen, low, high: the fitted temperature and its interval; at_chosen: the loss there.
    at_one: the loss at temperature 1, NaN where the curve does not reach.
    ends: the bracket's ends, the lower first, each with its interval (None without one); empty without a bracket.
    missing: the names of ends that the bracket lacks.
    """

    temperature: Floats
    loss: Floats
    chosen: float
    low: float
    high: float
    at_chosen: float
    at_one: float
    ends: tuple[tuple[float, tuple[float, float] | None], ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Layers:
    """Mean divergence by layer in nats (None without such examples), and how often the models part most at each layer.

    layer, pdl: int64 [n_layer]; agreement, disagreement: float64 [n_layer].
    """

    layer: npt.NDArray[np.int64]
    agreement: Floats | None
    disagreement: Floats | None
    pdl: npt.NDArray[np.int64]
    n_agreement: int
    n_disagreement: int


@dataclass(frozen=True, eq=False)
class Curve:
    """Risk (share of wrong answers) against coverage (share answered, the surest first); float64 [n]."""

    coverage: Floats
    risk: Floats

    def at(self, coverage: float) -> float:
        """The risk at a coverage, interpolated linearly."""
        return float(np.interp(coverage, self.coverage, self.risk))


@dataclass(frozen=True, eq=False)
class SweepLine:
    """One method over a sweep: x increasing; mean over splits of ECE (a share) and of another number, with their bars.

    other: the temperature, or in a learning curve |ln(temperature / oracle)|. ece_bar, other_bar: a standard deviation,
    in a learning curve a standard error. level: the method does not depend on x and has one point.
    """

    method: str
    x: Floats
    ece: Floats
    ece_bar: Floats
    other: Floats
    other_bar: Floats
    level: bool = False


@dataclass(frozen=True)
class Sweep:
    """The effect of changing one setting: a line for each known method."""

    lines: tuple[SweepLine, ...]


@dataclass(frozen=True, eq=False)
class Methods:
    """ECE of the compared methods in the result's order: mean and sd over splits, float64 [n], as shares."""

    titles: tuple[str, ...]
    kinds: tuple[str, ...]  # "reference", "label-free" or "labels"
    ece: Floats
    ece_sd: Floats
    as_it_is: float  # ECE of the chat model, NaN if it was not judged


def prepare_reliability(plots: ReliabilityPlots) -> dict[str, Reliability] | None:
    """The available diagrams by role (before, after, base), in this order; None without questions."""
    sets = (("before", plots["before"]), ("after", plots["after"]), ("base", plots["base"]))
    found = {role: _reliability(value) for role, value in sets if value is not None}
    return {role: one for role, one in found.items() if one.n.sum() > 0} or None


def prepare_loss(value: LossCurve | None) -> Loss | None:
    """The loss curve around the chosen temperature and 1; None if nothing was fitted."""
    if value is None:
        return None
    temperature, loss = _floats(value["temperature"]), _floats(value["loss"])
    low, high = sorted(value["interval"])
    chosen = value["chosen"]
    # The far ends are uninformative and would flatten the valley: keep from just below 1 and the interval to well
    # above.
    bracket = value["bracket"]
    named = {}
    if bracket is not None:
        named["low"] = bracket["low"], bracket["low_interval"]
        named["high"] = bracket["high"], bracket["high_interval"]
    ends = sorted(
        (end, None if pair is None else (pair[0], pair[1])) for end, pair in named.values() if end is not None
    )
    reach = [low, high, *(x for end, pair in ends for x in (end, *(pair or ())))]
    first, last = min(0.7, min(reach) / 1.6), max(2.0, high * 2.5, max(reach) * 1.3)
    inside = (temperature >= first) & (temperature <= last)
    if inside.sum() < 2:
        inside[:] = True
    spans = bool(temperature[0] <= 1 <= temperature[-1])
    return Loss(
        temperature[inside],
        loss[inside],
        chosen,
        low,
        high,
        float(np.interp(np.log(chosen), np.log(temperature), loss)),
        float(np.interp(0.0, np.log(temperature), loss)) if spans else float("nan"),
        tuple(ends),
        tuple(name for name, (end, _) in named.items() if end is None),
    )


def prepare_layers(value: LayerDivergence | None) -> Layers | None:
    """Divergence by layer; None if layers were not looked at."""
    if value is None:
        return None
    return Layers(
        np.asarray(value["layer"], dtype=np.int64),
        None if value["agreement"] is None else _floats(value["agreement"]),
        None if value["disagreement"] is None else _floats(value["disagreement"]),
        np.asarray(value["pdl_histogram"], dtype=np.int64),
        value["n_agreement"],
        value["n_disagreement"],
    )


def prepare_risk_coverage(plots: RiskPlots) -> dict[str, Curve]:
    """The available curves by role (before, after, base), in this order, by increasing coverage."""
    curves = {}
    for role, value in (("before", plots["before"]), ("after", plots["after"]), ("base", plots["base"])):
        if value is not None:
            coverage, risk = _floats(value["coverage"]), _floats(value["risk"])
            order = np.argsort(coverage, kind="stable")
            curves[role] = Curve(coverage[order], risk[order])
    return curves


def prepare_sweep(rows: Sequence[AblationRow], name: str) -> Sweep | None:
    """The ablation `name` ("lambda" or "prompts") as lines; None with fewer than two points to join."""
    groups: dict[str, list[tuple[float, AblationRow]]] = {}
    for row in rows:
        x = row.get("lambda") if name == "lambda" else row.get("n_prompts")
        method = row.get("method", "dual-align")
        if x is not None and row["ece"]["mean"] is not None and method_title(method) is not None:
            groups.setdefault(method, []).append((x, row))
    lines = tuple(_sweep_line(method, points) for method, points in groups.items())
    return Sweep(lines) if any(len(line.x) > 1 for line in lines) else None


def prepare_learning(curve: LearningCurve) -> Sweep | None:
    """The learning curve as lines; None with fewer than two points to join."""
    lines = []
    for line in curve["lines"]:
        known = [point for point in line["points"] if point["ece"]["mean"] is not None]
        if known and method_title(line["method"]) is not None:
            both = [[point["ece"] for point in known], [point["error"] for point in known]]
            means, bars = (
                [_floats([item[key] for item in items]) for items in both] for key in ("mean", "error")
            )
            x = _floats([point["n_labels"] for point in known])
            bars = [np.nan_to_num(bar) for bar in bars]
            lines.append(
                SweepLine(line["method"], x, means[0], bars[0], means[1], bars[1], not line["uses_labels"])
            )
    return Sweep(tuple(lines)) if any(len(line.x) > 1 for line in lines) else None


def prepare_methods(rows: Sequence[MethodRow]) -> Methods | None:
    """One row for each known method that was judged (the default one if marked, else the first); None if fewer than
    two."""
    chosen: dict[str, MethodRow] = {}
    for row in rows:
        name, spread = row["name"], row["figures"].get("ece")
        judged = row["withheld"] is None and spread is not None and spread["mean"] is not None
        if judged and method_title(name) is not None and (name not in chosen or row["default"]):
            chosen[name] = row
    if len(chosen) < 2:
        return None
    rows = list(chosen.values())
    references = {"plm", "polm", "vanilla"}
    return Methods(
        tuple(str(method_title(row["name"])) for row in rows),
        tuple(
            "reference" if row["name"] in references else "labels" if row["uses_labels"] else "label-free"
            for row in rows
        ),
        _floats([row["figures"]["ece"]["mean"] for row in rows]),
        np.nan_to_num(_floats([row["figures"]["ece"]["sd"] for row in rows])),
        float(_floats([chosen["polm"]["figures"]["ece"]["mean"]])[0]) if "polm" in chosen else float("nan"),
    )


def _reliability(value: ReliabilityBins) -> Reliability:
    n = np.asarray(value["n"], dtype=np.int64)
    filled = n > 0
    confidence, accuracy, low, high = (
        np.where(filled, _floats(values), np.nan)
        for values in (value["confidence"], value["accuracy"], value["low"], value["high"])
    )
    total = int(n.sum())
    return Reliability(
        _floats(value["edges"]),
        n,
        n / max(total, 1),
        confidence,
        accuracy,
        low,
        high,
        float(np.sum(n[filled] * confidence[filled]) / total) if total else float("nan"),
        float(np.sum(n[filled] * accuracy[filled]) / total) if total else float("nan"),
    )


def _sweep_line(method: str, points: Sequence[tuple[float, AblationRow]]) -> SweepLine:
    points = sorted(points, key=lambda point: point[0])
    eces = [row["ece"] for _, row in points]
    temperatures = [row["temperature"] for _, row in points]
    return SweepLine(
        method,
        _floats([x for x, _ in points]),
        _floats([one["mean"] for one in eces]),
        np.nan_to_num(_floats([one["sd"] for one in eces])),
        _floats([one["mean"] for one in temperatures]),
        np.nan_to_num(_floats([one["sd"] for one in temperatures])),
    )


def _floats(values: Sequence[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def reliability_sentence(data: Reliability) -> str:
    """How sure the model is, how often right, and whether it is too sure or too modest."""
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
    """Which temperature was chosen, with what interval, and what 1 means."""
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
    """Where the two models part."""
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
    """How many errors leaving the unsure half unanswered would avoid."""
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


def learning_sentence(data: Sweep) -> str:
    """How far off the temperatures are with the fewest labels, and how to read the lines."""
    text = (
        "Below: how far the temperature is from the one that all labels of the judging questions give (0.1 is about "
        "10 %). Marks are means over splits and draws of labels, bars one standard error; level lines are methods that "
        "never see an answer."
    )
    at = {line.method: dict(zip(line.x.tolist(), line.other.tolist(), strict=True)) for line in data.lines}
    both = sorted(at.get("anchored", {}).keys() & at.get("ts", {}).keys())
    if not both:
        return text
    n = min(both, key=lambda n: abs(n - 30))
    return (
        f"{text} With {n:,.0f} labels the anchored temperature is off by {number(at['anchored'][n], 2)} on average, "
        f"one fitted on these labels alone by {number(at['ts'][n], 2)}."
    )


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
