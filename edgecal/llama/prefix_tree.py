"""The tree of what prompts begin with in common, cut where a shared state is worth keeping.

Token sequences are numbers here; does not know models, memory or llama.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

__all__ = ["Node", "build_tree", "count_distinct"]

IsWorth = Callable[[int, int], bool]


@dataclass
class Node:
    """A beginning that several prompts share, and what goes on from it.

    Attributes
    ----------
    n_tokens: its length; 0 for the root.
    prompt: one of the prompts that begin with it (by index).
    prompts: those that no longer beginning holds (by index).
    children: longer beginnings.
    """

    n_tokens: int
    prompt: int
    prompts: list[int] = field(default_factory=list)
    children: list[Node] = field(default_factory=list)

    def all_prompts(self) -> Iterator[int]:
        """Those of this node and of everything below it, in the tree's order."""
        waiting = [self]
        while waiting:
            node = waiting.pop()
            yield from node.prompts
            waiting.extend(reversed(node.children))


def build_tree(bodies: Sequence[NDArray[np.int32]], step: int, is_worth: IsWorth) -> Node:
    """The tree of some token sequences.

    Parameters
    ----------
    bodies: what of each prompt may be shared; an empty array for a prompt that shares nothing.
    step: lengths of shared beginnings are multiples of this.
    is_worth: whether to make a beginning a node, by how many tokens it is longer than the one that it goes on from,
        and by the number of prompts and longer beginnings that go on from it.

    Returns
    -------
    The root, which holds every index exactly once. Whatever the order given, the shape is the same; equals keep
    the order given.
    """
    order = sorted(range(len(bodies)), key=lambda index: _sort_key(bodies[index]))
    open_nodes = [Node(0, order[0] if order else -1)]
    previous: int | None = None
    for index in order:
        shared = 0 if previous is None else _n_common(bodies[previous], bodies[index]) // step * step
        while open_nodes[-1].n_tokens > shared:
            closed = open_nodes.pop()
            if open_nodes[-1].n_tokens < shared:
                open_nodes.append(Node(shared, closed.prompt))
            _attach(open_nodes[-1], closed, is_worth)
        if open_nodes[-1].n_tokens < shared:
            last = open_nodes[-1].prompts.pop()  # the previous one: nothing was closed since it was put there
            open_nodes.append(Node(shared, last, [last]))
        open_nodes[-1].prompts.append(index)
        previous = index
    while len(open_nodes) > 1:
        closed = open_nodes.pop()
        _attach(open_nodes[-1], closed, is_worth)
    return open_nodes[0]


def count_distinct(prompts: Sequence[NDArray[np.int32]]) -> int:
    """Tokens that differ in themselves or in what comes before them: the least that a causal model has to run."""
    ordered = sorted(prompts, key=_sort_key)
    repeated = sum(_n_common(a, b) for a, b in pairwise(ordered))
    return sum(map(len, prompts)) - repeated


def _attach(parent: Node, node: Node, is_worth: IsWorth) -> None:
    if is_worth(node.n_tokens - parent.n_tokens, len(node.prompts) + len(node.children)):
        parent.children.append(node)
    else:
        parent.prompts.extend(node.prompts)
        parent.children.extend(node.children)


def _sort_key(tokens: NDArray[np.int32]) -> bytes:
    return np.asarray(tokens, dtype=">u4").tobytes()  # compares as the numbers do


def _n_common(a: NDArray[np.int32], b: NDArray[np.int32]) -> int:
    n = min(len(a), len(b))
    differ = np.flatnonzero(a[:n] != b[:n])
    return int(differ[0]) if len(differ) else n
