"""Builds the tree of the prefixes that prompts share, without prefixes whose state is not worth keeping."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

__all__ = ["Node", "build_tree", "count_distinct", "n_common"]

IsWorth = Callable[[int, int], bool]


@dataclass
class Node:
    """A prefix that several prompts share.

    Attributes
    ----------
    n_tokens: its length; 0 for the root.
    prompt: index of one of the prompts that begin with it.
    prompts: indices of the prompts that share no longer prefix.
    children: longer prefixes that begin with it.
    """

    n_tokens: int
    prompt: int
    prompts: list[int] = field(default_factory=list)
    children: list[Node] = field(default_factory=list)

    def all_prompts(self) -> Iterator[int]:
        """Yields the prompts of this node and of all nodes below it, in the tree's order."""
        waiting = [self]
        while waiting:
            node = waiting.pop()
            yield from node.prompts
            waiting.extend(reversed(node.children))


def build_tree(bodies: Sequence[NDArray[np.int32]], step: int, is_worth: IsWorth) -> Node:
    """Builds the tree of some token sequences.

    Parameters
    ----------
    bodies: the part of each prompt that may be shared; an empty array for a prompt that shares nothing.
    step: the lengths of shared prefixes are multiples of this.
    is_worth: whether a prefix becomes a node, given its length beyond its parent's and the number of prompts and longer
        prefixes that continue from it.

    Returns
    -------
    The root; every index is in the tree exactly once. The tree's shape does not depend on the order of `bodies`; equal
    sequences keep that order.
    """
    order = sorted(range(len(bodies)), key=lambda index: _sort_key(bodies[index]))
    open_nodes = [Node(0, order[0] if order else -1)]
    previous: int | None = None
    for index in order:
        shared = 0 if previous is None else n_common(bodies[previous], bodies[index]) // step * step
        while open_nodes[-1].n_tokens > shared:
            closed = open_nodes.pop()
            if open_nodes[-1].n_tokens < shared:
                open_nodes.append(Node(shared, closed.prompt))
            _attach(open_nodes[-1], closed, is_worth)
        if open_nodes[-1].n_tokens < shared:
            last = open_nodes[
                -1
            ].prompts.pop()  # the previous prompt, because no node was closed since it was added
            open_nodes.append(Node(shared, last, [last]))
        open_nodes[-1].prompts.append(index)
        previous = index
    while len(open_nodes) > 1:
        closed = open_nodes.pop()
        _attach(open_nodes[-1], closed, is_worth)
    return open_nodes[0]


def count_distinct(prompts: Sequence[NDArray[np.int32]]) -> int:
    """Counts the tokens that differ in themselves or in the tokens before them: the fewest that a causal model can
    run."""
    ordered = sorted(prompts, key=_sort_key)
    repeated = sum(n_common(a, b) for a, b in pairwise(ordered))
    return sum(map(len, prompts)) - repeated


def _attach(parent: Node, node: Node, is_worth: IsWorth) -> None:
    if is_worth(node.n_tokens - parent.n_tokens, len(node.prompts) + len(node.children)):
        parent.children.append(node)
    else:
        parent.prompts.extend(node.prompts)
        parent.children.extend(node.children)


def _sort_key(tokens: NDArray[np.int32]) -> bytes:
    return np.asarray(tokens, dtype=">u4").tobytes()  # big-endian bytes sort like the numbers


def n_common(a: NDArray[np.int32], b: NDArray[np.int32]) -> int:
    n = min(len(a), len(b))
    differ = np.flatnonzero(a[:n] != b[:n])
    return int(differ[0]) if len(differ) else n
