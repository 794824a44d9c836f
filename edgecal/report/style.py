"""Colours, line styles and matplotlib settings of the pictures, and elements that several of them share.

Series differ by marker, dash and hatch as well as by colour.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import RLock
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter

__all__ = [
    "DARK",
    "LIGHT",
    "PAGE",
    "PERCENT",
    "SERIES",
    "STEPS",
    "Palette",
    "Series",
    "canvas",
    "intervals",
    "legend_above",
    "matplotlib_settings",
]

Palette = Mapping[str, str]

LIGHT: Palette = {
    "paper": "#ffffff",
    "ink": "#1b1f24",
    "muted": "#545c66",
    "grid": "#dfe3e8",
    "base": "#35704a",
    "before": "#b0430a",
    "after": "#0b5cad",
    "split": "#7a3aa0",
}
DARK: Palette = {
    "paper": "#1a1e24",
    "ink": "#e9ecf0",
    "muted": "#aab3bf",
    "grid": "#353c46",
    "base": "#86cf9b",
    "before": "#ff9f61",
    "after": "#7fbaff",
    "split": "#d3a3f5",
}
# In the page every colour is a CSS variable; matplotlib draws these unique placeholders instead.
PAGE: Palette = {role: f"#e{index:x}d00f" for index, role in enumerate(LIGHT)}


@dataclass(frozen=True)
class Series:
    """How one series looks without its colour, and what it is called."""

    title: str
    marker: str
    dashes: str | tuple[int, tuple[float, ...]]
    hatch: str


SERIES = {
    "base": Series("base model", "^", (0, (1.2, 1.6)), ".."),
    "before": Series("before calibration", "s", (0, (5.0, 2.0)), "///"),
    "after": Series("after calibration", "o", "-", "\\\\\\"),
}

_SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "edgecal",
    "font.family": ["DejaVu Sans"],
    "font.size": 11,
    "axes.labelsize": 11.5,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "legend.fontsize": 11,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.linewidth": 0.9,
    "axes.grid": True,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "lines.markersize": 6.0,
    "hatch.linewidth": 0.8,
    "xtick.major.size": 3,
    "xtick.major.pad": 6,  # keeps the first one clear of the other axis's lowest
    "ytick.major.size": 3,
}
_LOCK = RLock()  # matplotlib's settings are one per process


@contextmanager
def matplotlib_settings(palette: Palette) -> Iterator[None]:
    """matplotlib's own defaults with this package's style on top, whatever the user's matplotlibrc says."""
    settings: dict[Any, Any] = {
        **_SETTINGS,
        "text.color": palette["ink"],
        "axes.labelcolor": palette["ink"],
        "axes.edgecolor": palette["muted"],
        "axes.titlecolor": palette["ink"],
        "axes.facecolor": "none",
        "figure.facecolor": palette["paper"],
        "savefig.facecolor": palette["paper"],
        "xtick.color": palette["muted"],
        "ytick.color": palette["muted"],
        "xtick.labelcolor": palette["ink"],
        "ytick.labelcolor": palette["ink"],
        "grid.color": palette["grid"],
        "legend.labelcolor": palette["ink"],
    }
    with _LOCK, matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(settings)
        yield


def canvas(width: float, height: float, gap: float = 0.02) -> Figure:
    """An empty figure of this size in inches, not one of pyplot's; `gap` is between columns, a share of the width."""
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(wspace=gap))


_Values = npt.NDArray[np.floating[Any]]
PERCENT = FuncFormatter(lambda share, _: f"{100 * share:.3g} %")
STEPS = [1, 2, 2.5, 5, 10]  # tick distances that are easy to read


def intervals(axes: Axes, x: _Values, low: _Values, high: _Values, colour: str) -> None:
    """Vertical bars from low to high with a short stroke at both ends."""
    axes.vlines(x, low, high, color=colour, linewidth=1.5, zorder=3)
    axes.plot(x, low, linestyle="none", marker="_", markersize=7, color=colour, zorder=3)
    axes.plot(x, high, linestyle="none", marker="_", markersize=7, color=colour, zorder=3)


def legend_above(figure: Figure, axes: Axes, columns: int) -> None:
    """The legend of these axes above the drawing, where it covers nothing."""
    figure.legend(
        *axes.get_legend_handles_labels(),
        loc="outside upper left",
        ncols=columns,
        borderaxespad=0.2,
        handlelength=2.6,
        columnspacing=1.2,
        labelspacing=0.3,
        borderpad=0.2,
    )
