"""The screen of `edgecal label`: shows a session's question and its interval, and turns keys into calls.

Only this module imports textual. It knows nothing of temperatures, and never what a model answers.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.events import Key, Resize
from textual.widgets import Static

from edgecal.cli.stdio import printable
from edgecal.errors import EdgecalError

if TYPE_CHECKING:
    from edgecal.api import LabelSession

__all__ = ["LabelScreen", "ask_on_screen", "draw_interval"]

_LOW = 12  # lines, below which the screen keeps to what is needed
_HELP = "space unsure · backspace undo · ↑↓ scroll · esc leave"
_ENDED = {"narrow": "Done: the interval is narrow enough.", "all": "Done: every question was asked."}


def ask_on_screen(session: LabelSession) -> None:
    """Asks until the user leaves.

    Raises
    ------
    KeyboardInterrupt: on Ctrl-C.
    EdgecalError: a label could not be written.
    """
    screen = LabelScreen(session)
    screen.run(mouse=False)  # so that the terminal's own way to select text works
    if screen.return_code:
        raise SystemExit(screen.return_code)  # a bug, whose traceback has been printed
    if screen.failure is not None:
        raise screen.failure


class LabelScreen(App[None]):
    """One question at a time.

    Attributes
    ----------
    failure: why it ended: an EdgecalError, or KeyboardInterrupt; None if the user left.
    """

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #place, #keys { color: $text-muted; }
    #place, #interval, #keys { height: auto; padding: 0 1; }
    #question { height: 1fr; padding: 1 2; }
    .low #question { padding: 0 1; }
    .low #keys { display: none; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "unsure", priority=True),
        Binding("backspace", "undo", priority=True),
        Binding("escape", "leave", priority=True),
        Binding("enter", "end", priority=True),
        Binding("ctrl+c", "interrupt", priority=True),
    ]

    def __init__(self, session: LabelSession) -> None:
        super().__init__()
        self.failure: BaseException | None = KeyboardInterrupt()
        self._session = session
        self._widest = session.fit.prior_interval
        self._width = 80

    def compose(self) -> ComposeResult:
        yield Static(id="place", markup=False)
        with VerticalScroll(id="question"):
            yield Static(id="text", markup=False)
        yield Static(id="interval", markup=False)
        yield Static(id="keys", markup=False)

    def on_mount(self) -> None:
        self._draw()

    def on_resize(self, event: Resize) -> None:
        self._width = event.size.width
        self.screen.set_class(event.size.height < _LOW, "low")
        self._draw()

    def on_key(self, event: Key) -> None:
        shown = self._session.question
        keys = [key for key, _ in shown.options] if shown else []
        if event.character and event.character.upper() in keys:
            event.stop()
            self._answer(keys.index(event.character.upper()))

    def action_unsure(self) -> None:
        if self._session.question is not None:
            self._answer(None)

    def action_undo(self) -> None:
        try:
            self._session.undo()
        except EdgecalError as error:
            self._fail(error)
        self._draw()

    def action_leave(self) -> None:
        self.failure = None
        self.exit()

    def action_end(self) -> None:
        if self._session.question is None:
            self.action_leave()

    def action_interrupt(self) -> None:
        self._fail(KeyboardInterrupt())

    def _answer(self, choice: int | None) -> None:
        try:
            self._session.answer(choice)
        except EdgecalError as error:
            self._fail(error)
        self.query_one("#question").scroll_home(animate=False)
        self._draw()

    def _fail(self, failure: BaseException) -> None:
        self.failure = failure
        self.exit()

    def _draw(self) -> None:
        session, fit = self._session, self._session.fit
        (low, high), (widest_low, widest_high) = fit.interval, self._widest
        self._widest = min(low, widest_low), max(high, widest_high)
        shown = session.question
        unsure = f", {session.n_unsure} unsure" if session.n_unsure else ""
        self._put("place", f"question {len(session.answers) + bool(shown)} · {fit.n_labelled} labels{unsure}")
        text = Text()
        if shown is None:
            text.append(
                f"{_ENDED[session.stopped or 'all']}\n\nEnter ends; backspace takes the last answer back."
            )
        else:
            text.append("\n".join(map(printable, shown.text.expandtabs(4).splitlines())) + "\n\n")
            for key, option in shown.options:
                text.append(f" {key} ", style="reverse").append(f"  {printable(option)}\n")
        self._put("text", text)
        bar = draw_interval(fit.interval, self._widest, self._width - 2)
        ratio = f"temperature {low:.3g} to {high:.3g}: ratio {high / low:.3g}, stops at {session.ratio:g}"
        self._put("interval", f"{bar}\n{ratio}")
        letters = "/".join(key for key, _ in shown.options) if shown else "enter end"
        self._put("keys", f"{letters} · {_HELP}")

    def _put(self, where: str, text: str | Text) -> None:
        self.query_one(f"#{where}", Static).update(text)


def draw_interval(interval: tuple[float, float], widest: tuple[float, float], width: int) -> str:
    """A bar of `width` characters whose full part is the interval, on a logarithmic axis over all of `widest`."""
    width = max(width, 1)
    start, span = math.log(widest[0]), math.log(widest[1] / widest[0]) or 1.0
    first, last = (round((math.log(end) - start) / span * width) for end in interval)
    first = min(first, width - 1)
    last = max(last, first + 1)
    return "─" * first + "█" * (last - first) + "─" * (width - last)
