"""Lists the pictures, and renders a result's pictures as SVG and PNG bytes.

`prepare` has the numbers and `plot` draws; this module decides names, sizes and formats.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

from edgecal.errors import InputError
from edgecal.results.judging import CompareResult, Judgement

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from edgecal.report.style import Palette

__all__ = ["PICTURES", "available_pictures", "draw", "page_pictures"]

PICTURES = ("reliability", "loss", "layers", "risk-coverage", "methods", "learning", "lambda", "prompts")
_WIDTH = 4.6  # inches, 331 units: on a phone's screen one unit is about one pixel
_DPI = 200


def available_pictures(result: Judgement) -> tuple[str, ...]:
    """The pictures for which a checked result has numbers, in the order of `PICTURES`."""
    return tuple(picture for picture in PICTURES if _numbers(result, picture))


def draw(result: Judgement, picture: str, format: str = "svg", dark: bool = False) -> bytes:
    """One picture of a checked result, complete with its background.

    Parameters
    ----------
    picture: one of `PICTURES`.
    format: "svg" (text stays text) or "png" (200 dots per inch).
    dark: light lines on a dark background.

    Returns
    -------
    The file's bytes; the same for the same result and the same version of matplotlib.

    Raises
    ------
    InputError: there is no such picture or format, or the result has no numbers for it.
    """
    from edgecal.report.style import DARK, LIGHT, matplotlib_settings

    if picture not in PICTURES:
        raise InputError(f"there is no picture '{picture[:40]}'; there are {', '.join(PICTURES)}")
    if format not in ("svg", "png"):
        raise InputError(f"pictures are svg or png, not '{format[:40]}'")
    numbers = _numbers(result, picture)
    if not numbers:
        raise InputError(f"the result has no numbers for the picture '{picture}'")
    palette = DARK if dark else LIGHT
    with matplotlib_settings(palette):
        figure = _figure(picture, numbers, palette)
        buffer = io.BytesIO()
        if format == "png":
            figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
            return buffer.getvalue()
        return _svg(figure).encode("utf-8")


def page_pictures(result: Judgement) -> dict[str, str]:
    """Every picture of a checked result as an `<svg>` element for the page, by name.

    Colours are CSS variables (`var(--ink)` and so on), identifiers begin with the picture's name, the font is
    the page's. A reliability diagram is a picture of its own for each role: "reliability-before".
    """
    from edgecal.report.plot import plot_reliability
    from edgecal.report.style import PAGE, canvas, matplotlib_settings

    found = {}
    with matplotlib_settings(PAGE):
        for picture in available_pictures(result):
            numbers = _numbers(result, picture)
            if picture != "reliability":
                found[picture] = _inline(_svg(_figure(picture, numbers, PAGE)), picture)
                continue
            tallest = max(float(one.share.max()) for one in numbers.values())
            for role, one in numbers.items():
                figure = canvas(_WIDTH, 4.9)
                plot_reliability(figure, {role: one}, PAGE, titles=False, tallest=tallest)
                found[f"reliability-{role}"] = _inline(_svg(figure), f"reliability-{role}")
    return found


def _numbers(result: Judgement, picture: str) -> Any:
    from edgecal.report import prepare

    if picture == "reliability":
        return prepare.prepare_reliability(result.plots["reliability"])
    if picture == "loss":
        return prepare.prepare_loss(result.plots["loss"])
    if picture == "layers":
        return prepare.prepare_layers(result.plots["layers"])
    if picture == "risk-coverage":
        return prepare.prepare_risk_coverage(result.plots["risk_coverage"])
    if not isinstance(result, CompareResult):
        return None
    if picture == "methods":
        return prepare.prepare_methods(result.rows)
    if picture == "learning":
        return prepare.prepare_learning(result.learning_curve)
    return prepare.prepare_sweep(result.ablations.get(picture, []), picture)


def _figure(picture: str, numbers: Any, palette: Palette) -> Figure:
    from edgecal.report import plot
    from edgecal.report.style import canvas

    if picture == "reliability":
        figure = canvas(1.0 + 3.4 * len(numbers), 4.9, gap=0.05)
        plot.plot_reliability(figure, numbers, palette)
    elif picture == "loss":
        figure = canvas(_WIDTH, 3.5)
        plot.plot_loss(figure, numbers, palette)
    elif picture == "layers":
        figure = canvas(_WIDTH, 4.7)
        plot.plot_layers(figure, numbers, palette)
    elif picture == "risk-coverage":
        figure = canvas(_WIDTH, 4.0)
        plot.plot_risk_coverage(figure, numbers, palette)
    elif picture == "methods":
        figure = canvas(_WIDTH, 1.7 + 0.33 * len(numbers.titles))
        plot.plot_methods(figure, numbers, palette)
    else:
        figure = canvas(_WIDTH, 4.2)
        plot.plot_sweep(figure, numbers, palette, picture)
    return figure


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    return buffer.getvalue().replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")


def _inline(svg: str, name: str) -> str:
    """Turns matplotlib's complete file into an element that can share a page with others."""
    from edgecal.report.style import PAGE

    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(
        r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL
    )  # would affect the whole page
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-").replace('xlink:href="#', f'href="#{name}-')
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    svg = re.sub(r"\bfont: (?:(\d+) )?([\d.]+px) [^;\"]*", _font, svg)  # as matplotlib before 3.10 writes it
    svg = re.sub(
        r'\bfill="(#[0-9a-f]{6})"', r'style="fill: \1"', svg
    )  # not every viewer accepts a variable in an attribute
    for role, colour in PAGE.items():
        svg = svg.replace(colour, f"var(--{role})")
    view = re.search(r'viewBox="[^"]*"', svg)
    assert view is not None, "matplotlib writes a viewBox"
    head = f'<svg {view[0]} role="img" aria-labelledby="{name}-about" class="picture">'
    return head + svg[svg.index(">") + 1 :]


def _font(match: re.Match[str]) -> str:
    """CSS's font shorthand as separate properties, without the family, which the page chooses."""
    weight, size = match.groups()
    return f"font-size: {size}" + (f"; font-weight: {weight}" if weight else "")
