"""The steps of a capture: what a context runs, one after the other.

Data only: does not know which steps to take, nor how they are run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgecal.llama.decode_rows import filled

__all__ = ["EndStep", "LeadStep", "SharedStep", "Span", "Step", "cut_into_spans"]


@dataclass(frozen=True)
class SharedStep:
    """Runs tokens that several prompts share and keeps the state.

    Attributes
    ----------
    depth: where the state is kept; the state at depth - 1, if there is one, comes before these tokens.
    prompt: a prompt that holds the tokens.
    start, stop: which of its tokens. Rows that are filled up behind them are forgotten before the state is used.
    """

    depth: int
    prompt: int
    start: int
    stop: int

    @property
    def n_rows(self) -> int:
        return filled(self.stop - self.start)


@dataclass(frozen=True)
class LeadStep:
    """Lets a prompt go on from a state, up to the rows that it runs together with others.

    Attributes
    ----------
    depth: of the state, -1 for none.
    place: among the prompts that end together.
    prompt: which, by index.
    start: tokens in the state.
    stop: tokens before the rows that it runs with others; `start` if there is nothing between.
    """

    depth: int
    place: int
    prompt: int
    start: int
    stop: int

    @property
    def n_rows(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class EndStep:
    """Runs prompts to their ends side by side, each from where its `LeadStep` left it.

    Attributes
    ----------
    length: rows of each prompt, filled up behind its last token.
    prompts: which, by index, in the order of their places.
    starts: tokens of each before these rows.
    """

    length: int
    prompts: tuple[int, ...]
    starts: tuple[int, ...]

    @property
    def n_rows(self) -> int:
        return self.length * len(self.prompts)


Step = SharedStep | LeadStep | EndStep


@dataclass(frozen=True)
class Span:
    """Steps up to one that ends prompts: what a context can run without those before it, given the states.

    Attributes
    ----------
    states: the shared states that are kept when the steps begin, outermost first.
    steps: one after the other; only the last ends prompts.
    """

    states: tuple[SharedStep, ...]
    steps: tuple[Step, ...]

    @property
    def prompts(self) -> tuple[int, ...]:
        """The prompts that end here, by index."""
        last = self.steps[-1]
        assert isinstance(last, EndStep)
        return last.prompts


def cut_into_spans(steps: Sequence[Step]) -> list[Span]:
    """The steps of one context in the same order; the last of them ends prompts."""
    spans: list[Span] = []
    kept: list[SharedStep] = []
    states: tuple[SharedStep, ...] = ()
    waiting: list[Step] = []
    for step in steps:
        waiting.append(step)
        if isinstance(step, SharedStep):
            kept[step.depth :] = [step]
        elif isinstance(step, EndStep):
            spans.append(Span(states, tuple(waiting)))
            states, waiting = tuple(kept), []
    return spans
