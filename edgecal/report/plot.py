"""Draws prepared numbers of one model or pair: a function per picture, on a matplotlib figure that is passed in.

Every word in a picture is this module's own; user text never gets here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from edgecal.report.prepare import FEW, Curve, Layers, Loss, Methods, Reliability, Sweep
from edgecal.report.style import PERCENT, SERIES, STEPS, Palette, intervals, legend_above
from edgecal.report.text import plain
from edgecal.report.words import method_title

__all__ = ["plot_layers", "plot_loss", "plot_methods", "plot_reliability", "plot_risk_coverage", "plot_sweep"]

_PLAIN = FuncFormatter(lambda value, _: f"{value:g}")
_TITLES = {"base": "Base model", "before": "Before calibration", "after": "After calibration"}


def plot_reliability(
    figure: Figure,
    diagrams: Mapping[str, Reliability],
    palette: Palette,
    *,
    titles: bool = True,
    tallest: float | None = None,
) -> None:
    """How often the model was right against how sure it was, by group, over the histogram of confidences.

    Parameters
    ----------
    diagrams: by role, one beside the other.
    tallest: top of the histograms' scale, so that separate pictures can share it; default: the tallest bar.
    """
    top = tallest or max(float(one.share.max()) for one in diagrams.values())
    axes = figure.subplots(2, len(diagrams), squeeze=False, sharex=True, height_ratios=[3.6, 1.0])
    for column, (role, data) in enumerate(diagrams.items()):
        upper, lower = axes[0][column], axes[1][column]
        _reliability_panel(upper, data, role, palette)
        _histogram_panel(lower, data, role, palette, top)
        if titles:
            upper.set_title(_TITLES[role])
        if column == 0:
            upper.set_ylabel("how often it was right")
            lower.set_ylabel("share of\nquestions")
        else:
            upper.tick_params(labelleft=False)
            lower.tick_params(labelleft=False)
        lower.set_xlabel("how sure the model was")
    figure.align_ylabels()


def _reliability_panel(axes: Axes, data: Reliability, role: str, palette: Palette) -> None:
    colour, look = palette[role], SERIES[role]
    filled, many = data.n > 0, data.n >= FEW
    sure, right = data.confidence[many], data.accuracy[many]
    axes.plot([0, 1], [0, 1], color=palette["muted"], linewidth=1.2, linestyle=(0, (4, 3)))
    # The gap to the diagonal is what calibration is about: a hatched bar from one to the other.
    axes.bar(
        sure,
        right - sure,
        bottom=sure,
        width=0.035,
        color=palette["paper"],
        edgecolor=colour,
        hatch=look.hatch,
        linewidth=0.6,
        alpha=0.65,
    )
    with_interval = filled & np.isfinite(data.low) & np.isfinite(data.high)
    intervals(
        axes,
        data.confidence[with_interval],
        data.low[with_interval],
        data.high[with_interval],
        colour,
    )
    axes.plot(
        sure,
        right,
        color=colour,
        marker=look.marker,
        linestyle=look.dashes,
        linewidth=1.1,
        markersize=6.5,
        markeredgecolor=palette["paper"],
        markeredgewidth=0.8,
        zorder=4,
    )
    few = filled & ~many
    if few.any():  # an empty line that is not clipped would upset the layout
        axes.plot(
            data.confidence[few],
            data.accuracy[few],
            color=colour,
            marker=look.marker,
            linestyle="none",
            markersize=6.5,
            markerfacecolor=palette["paper"],
            markeredgewidth=1.2,
            zorder=4,
            clip_on=False,
        )
    axes.text(0.975, 0.03, "too sure", color=palette["muted"], ha="right", va="bottom")
    axes.text(0.025, 0.97, "too modest", color=palette["muted"], ha="left", va="top")
    axes.text(
        0.10,
        0.125,
        "honest",
        color=palette["muted"],
        ha="left",
        va="bottom",
        rotation=45,
        transform_rotates_text=True,
        rotation_mode="anchor",
    )
    axes.set_xlim(0, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.yaxis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
    axes.yaxis.set_major_formatter(PERCENT)


def _histogram_panel(axes: Axes, data: Reliability, role: str, palette: Palette, top: float) -> None:
    axes.bar(
        data.edges[:-1],
        data.share,
        width=np.diff(data.edges),
        align="edge",
        color=palette["paper"],
        edgecolor=palette[role],
        hatch=SERIES[role].hatch,
        linewidth=1.0,
    )
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, top * 1.08)
    axes.xaxis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
    axes.xaxis.set_major_formatter(PERCENT)
    axes.yaxis.set_major_locator(MaxNLocator(2, steps=STEPS))
    axes.yaxis.set_major_formatter(PERCENT)


def plot_loss(figure: Figure, data: Loss, palette: Palette) -> None:
    """The loss against the temperature; the chosen one with its interval, and 1, where the model is as delivered."""
    axes = figure.subplots()
    axes.axvspan(data.low, data.high, color=palette["after"], alpha=0.22, linewidth=0)
    axes.plot(data.temperature, data.loss, color=palette["ink"])
    axes.axvline(data.chosen, color=palette["after"], linewidth=1.2, linestyle=(0, (4, 2)))
    span = float(data.loss.max() - data.loss.min()) or 1.0
    room = 0.36 if data.ends else 0.22
    bottom, top = float(data.loss.min()) - room * span, float(data.loss.max()) + 0.08 * span
    bracket = float(data.loss.min()) - 0.11 * span
    axes.plot([data.low, data.high], [bracket, bracket], color=palette["after"], linewidth=2.2)
    axes.plot(
        [data.low, data.high],
        [bracket] * 2,
        color=palette["after"],
        linestyle="none",
        marker="|",
        markersize=9,
    )
    axes.plot(
        [data.chosen],
        [data.at_chosen],
        color=palette["after"],
        marker="o",
        markersize=8,
        markeredgecolor=palette["paper"],
        zorder=5,
    )
    if data.ends:
        _draw_bracket(axes, data, float(data.loss.min()) - 0.25 * span, palette)
    axes.set_xscale("log")
    axes.set_xlim(data.temperature[0], data.temperature[-1])
    axes.set_ylim(bottom, top)
    middle = float(np.sqrt(data.temperature[0] * data.temperature[-1]))
    to_left = data.chosen > middle
    axes.annotate(
        f"chosen: {plain(data.chosen)}",
        (data.chosen, top),
        xytext=(-6 if to_left else 6, -2),
        textcoords="offset points",
        ha="right" if to_left else "left",
        va="top",
        color=palette["after"],
        fontweight="bold",
    )
    axes.annotate(
        "interval",
        (data.low if to_left else data.high, bracket),
        xytext=(-7 if to_left else 7, 0),
        textcoords="offset points",
        ha="right" if to_left else "left",
        va="center",
        color=palette["after"],
    )
    if np.isfinite(data.at_one) and data.temperature[0] <= 1 <= data.temperature[-1]:
        axes.plot(
            [1],
            [data.at_one],
            color=palette["before"],
            marker="s",
            markersize=8,
            markeredgecolor=palette["paper"],
            zorder=5,
        )
        axes.annotate(
            "as delivered: 1",
            (1, data.at_one),
            xytext=(9, 3),
            textcoords="offset points",
            color=palette["before"],
            fontweight="bold",
        )
    first, last = data.temperature[0], data.temperature[-1]
    ticks = [t for t in (0.05, 0.1, 0.2, 0.5, 1, 2, 3, 5, 7, 10, 20, 50, 100, 1000) if first <= t <= last]
    crowded = len(ticks) > 7
    axes.xaxis.set_major_locator(FixedLocator([t for t in ticks if not (crowded and t in (3, 7))]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(_PLAIN)
    heights = [
        t for t in MaxNLocator(5, steps=STEPS).tick_values(bottom, top) if t >= 0 or data.loss.min() < 0
    ]
    axes.yaxis.set_major_locator(FixedLocator(heights))
    axes.set_xlabel("temperature (higher makes it less sure)")
    axes.set_ylabel("loss in nats (lower fits better)")


def _draw_bracket(axes: Axes, data: Loss, height: float, palette: Palette) -> None:
    """Both ends of the bracket on one line, each a mark with its interval as a thicker stretch."""
    ends = [end for end, _ in data.ends]
    axes.plot(ends, [height] * len(ends), color=palette["base"], linewidth=1.2)
    for end, interval in data.ends:
        if interval is not None:
            axes.plot(interval, [height] * 2, color=palette["base"], linewidth=4, solid_capstyle="butt")
        axes.plot([end], [height], color=palette["base"], marker="|", markersize=12, linestyle="none")
    axes.annotate(
        "bracket",
        (ends[0], height),
        xytext=(-9, 0),
        textcoords="offset points",
        ha="right",
        va="center",
        color=palette["base"],
    )


def plot_layers(figure: Figure, data: Layers, palette: Palette) -> None:
    """Mean divergence of the two models by layer, over the histogram of where their paths part most."""
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[2.2, 1.0])
    lines = (
        ("both choose alike", data.agreement, "after", "o", "-"),
        ("they choose differently", data.disagreement, "split", "D", (0, (5.0, 2.0))),
    )
    for label, values, colour, marker, dashes in lines:
        if values is not None:
            upper.plot(
                data.layer,
                values,
                color=palette[colour],
                marker=marker if len(data.layer) <= 48 else None,
                linestyle=dashes,
                markersize=6 if len(data.layer) <= 16 else 4,
                markeredgecolor=palette["paper"],
                markeredgewidth=0.6,
                label=label,
            )
    upper.set_ylim(bottom=0)
    upper.yaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
    upper.set_ylabel("divergence in nats")
    if data.agreement is not None or data.disagreement is not None:
        legend_above(figure, upper, 1)
    total = max(int(data.pdl.sum()), 1)
    lower.bar(
        data.layer,
        data.pdl / total,
        width=0.72,
        color=palette["paper"],
        edgecolor=palette["split"],
        hatch="///",
        linewidth=1.0,
    )
    lower.set_ylim(0, max(float(data.pdl.max()) / total, 0.01) * 1.1)
    lower.set_xlim(data.layer[0] - 0.6, data.layer[-1] + 0.6)
    lower.xaxis.set_major_locator(MaxNLocator(9, integer=True, steps=[1, 2, 4, 5, 10]))
    lower.yaxis.set_major_locator(MaxNLocator(2, steps=STEPS))
    lower.yaxis.set_major_formatter(PERCENT)
    lower.set_ylabel("paths part\nhere")
    lower.set_xlabel("layer of the model, first to last")
    figure.align_ylabels()


def plot_risk_coverage(figure: Figure, curves: Mapping[str, Curve], palette: Palette) -> None:
    """The share of wrong answers when only the surest share of the questions is answered."""
    axes = figure.subplots()
    for role, curve in curves.items():
        look = SERIES[role]
        step = max(1, len(curve.coverage) // 8)
        axes.plot(
            curve.coverage,
            curve.risk,
            color=palette[role],
            linestyle=look.dashes,
            marker=look.marker,
            markevery=(list(curves).index(role) * step // 3, step),
            markeredgecolor=palette["paper"],
            markeredgewidth=0.8,
            markersize=6.5,
            label=look.title,
        )
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, max(0.01, *(float(curve.risk.max()) for curve in curves.values())) * 1.08)
    axes.xaxis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
    axes.xaxis.set_major_formatter(PERCENT)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
    axes.yaxis.set_major_formatter(PERCENT)
    axes.set_xlabel("share of questions answered, the surest first")
    axes.set_ylabel("wrong among those answered")
    legend_above(figure, axes, 2)


_LINES: Sequence[tuple[str, str, str | tuple[int, tuple[float, ...]]]] = (
    ("after", "o", "-"),
    ("before", "s", (0, (5.0, 2.0))),
    ("base", "^", (0, (1.2, 1.6))),
    ("split", "D", (0, (6.0, 2.0, 1.2, 2.0))),
    ("ink", "v", (0, (3.0, 1.5))),
)
_SWEPT = {  # name of the setting, and of the number below the calibration error
    "lambda": ("weight of the process loss (lambda)", "temperature"),
    "prompts": ("number of prompts used for the fit", "temperature"),
    "learning": ("number of labels used for the fit", "temperature\noff by (ln)"),
}


def plot_sweep(figure: Figure, data: Sweep, palette: Palette, name: str) -> None:
    """Calibration error and temperature or its error, mean and bars, against one setting."""
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[1.5, 1.0])
    values = np.unique(np.concatenate([line.x for line in data.lines]))
    for index, line in enumerate(data.lines):
        colour, marker, dashes = _LINES[index % len(_LINES)]
        # Settings are steps of a ladder (0, 0.1, 1; 30, 60, 125): evenly spaced, labelled with their values.
        x = np.searchsorted(values, line.x) + (index - (len(data.lines) - 1) / 2) * 0.08
        for axes, mean, bar in ((upper, line.ece, line.ece_bar), (lower, line.other, line.other_bar)):
            known = np.isfinite(mean)
            intervals(
                axes, x[known], np.asarray(mean - bar)[known], np.asarray(mean + bar)[known], palette[colour]
            )
            if line.level and known.any():
                axes.axhline(mean[0], color=palette[colour], linestyle=dashes, linewidth=1.1)
            axes.plot(
                x[known],
                mean[known],
                color=palette[colour],
                marker=marker,
                linestyle=dashes,
                linewidth=1.5,
                markeredgecolor=palette["paper"],
                markeredgewidth=0.8,
                zorder=4,
                label=method_title(line.method),
            )
    upper.set_ylim(bottom=0)
    upper.yaxis.set_major_locator(MaxNLocator(4, steps=STEPS))
    upper.yaxis.set_major_formatter(PERCENT)
    upper.set_ylabel("calibration\nerror (ECE)")
    lower.yaxis.set_major_locator(MaxNLocator(4, steps=STEPS))
    label, below = _SWEPT[name]
    lower.set_ylabel(below)
    step = -(-len(values) // 8)
    shown = np.arange(0, len(values), step)
    lower.xaxis.set_major_locator(FixedLocator(shown.tolist()))
    lower.xaxis.set_major_formatter(
        FuncFormatter(lambda place, _: f"{values[round(place)]:g}" if 0 <= round(place) < len(values) else "")
    )
    lower.set_xlim(-0.4, len(values) - 0.6)
    lower.set_xlabel(label)
    if len(data.lines) > 1:
        legend_above(figure, upper, 2)
    figure.align_ylabels()


def plot_methods(figure: Figure, data: Methods, palette: Palette) -> None:
    """The calibration error of every method, mean and spread over splits; shorter is better."""
    axes = figure.subplots()
    looks = {
        "reference": ("base", "^", "uncalibrated"),
        "label-free": ("after", "o", "needs no answers"),
        "labels": ("before", "s", "learns from answers"),
    }
    y = np.arange(len(data.titles), dtype=np.float64)
    kinds = np.array(data.kinds)
    for kind, (colour, marker, label) in looks.items():
        mine = kinds == kind
        if not mine.any():
            continue
        low = np.maximum(data.ece - data.ece_sd, 0)[mine]
        axes.hlines(y[mine], 0, data.ece[mine], color=palette[colour], linewidth=0.8, linestyle=(0, (1, 2)))
        axes.hlines(y[mine], low, (data.ece + data.ece_sd)[mine], color=palette[colour], linewidth=2.0)
        axes.plot(
            data.ece[mine],
            y[mine],
            color=palette[colour],
            marker=marker,
            linestyle="none",
            markersize=7.5,
            markeredgecolor=palette["paper"],
            markeredgewidth=0.8,
            label=label,
            zorder=4,
        )
    top = float((data.ece + data.ece_sd).max()) * 1.22 or 0.01
    for place, ece, sd in zip(y, data.ece, data.ece_sd, strict=True):
        axes.annotate(
            f"{100 * ece:.1f} %",
            (ece + sd, place),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
        )
    axes.set_yticks(y, data.titles)
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, top)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
    axes.xaxis.set_major_formatter(PERCENT)
    axes.set_xlabel("calibration error (ECE), lower is better")
    legend_above(figure, axes, 1)
