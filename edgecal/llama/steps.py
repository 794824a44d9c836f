"""The steps of a capture, as data: what one context runs, one after the other.

`packing` chooses the steps and `step_runner` runs them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgecal.llama.decode_rows import filled

__all__ = ["EndStep", "LeadStep", "SharedStep", "Span", "Step", "cut_into_spans"]


@dataclass(frozen=True)
class SharedStep:
    """Runs a prefix that several prompts share and keeps the state after it.

    Attributes
    ----------
    depth: how deep this prefix is nested; the state is kept at this depth and continues the one at depth - 1, if any.
    prompt: index of a prompt that begins with the prefix.
    start, stop: the range of that prompt's tokens. Padding after them is removed before the state is used.
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
    """Continues from a shared state with one prompt's own tokens, up to the rows that it runs together with others.

    Attributes
    ----------
    depth: of the state, -1 for none.
    place: position among the prompts that finish together.
    prompt: the prompt's index.
    start: number of tokens in the state.
    stop: number of tokens before the rows that run together with others; `start` if the prompt runs none alone.
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
    """Finishes several prompts in one decode, each from where its `LeadStep` left it.

    Attributes
    ----------
    length: rows of each prompt, padded after its last token.
    prompts: the prompts' indices, in the order of their places.
    starts: number of tokens of each prompt before these rows.
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
    """The steps up to and including one `EndStep`. Given the states, a context can run them without earlier spans.

    Attributes
    ----------
    states: the shared states that the steps continue from, outermost first.
    steps: in order; only the last is an `EndStep`.
    """

    states: tuple[SharedStep, ...]
    steps: tuple[Step, ...]

    @property
    def prompts(self) -> tuple[int, ...]:
        """Indices of the prompts that the span finishes."""
        last = self.steps[-1]
        assert isinstance(last, EndStep)
        return last.prompts


def cut_into_spans(steps: Sequence[Step]) -> list[Span]:
    """Cuts one context's steps into spans, in order. The last step must be an `EndStep`."""
    spans: list[Span] = []
    shared: list[SharedStep] = []  # the states in memory, by depth
    states: tuple[SharedStep, ...] = ()
    waiting: list[Step] = []
    for step in steps:
        waiting.append(step)
        if isinstance(step, SharedStep):
            shared[step.depth :] = [step]
        elif isinstance(step, EndStep):
            spans.append(Span(states, tuple(waiting)))
            states, waiting = tuple(shared), []
    return spans
