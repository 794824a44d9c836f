"""The tree of shared beginnings, against sets of tuples."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from edgecal.llama.prefix_tree import Node, build_tree, count_distinct

Tokens = NDArray[np.int32]


def always(length: int, n_users: int) -> bool:
    return True


def spares_much(length: int, n_users: int) -> bool:
    return length >= 8 and (n_users - 1) * length >= 24


def random_bodies(rng: np.random.Generator, *, most: int = 40) -> list[Tokens]:
    """Few kinds of tokens and many copied beginnings, so that all that can be shared is; some empty, some equal."""
    bodies: list[Tokens] = []
    for _ in range(int(rng.integers(1, most))):
        old = bodies[int(rng.integers(len(bodies)))] if bodies else np.empty(0, dtype=np.int32)
        kept = old[: int(rng.integers(len(old) + 1))] if rng.random() < 0.7 else old[:0]
        more = rng.integers(0, 3, int(rng.integers(0, 30)) if rng.random() < 0.8 else 0)
        bodies.append(np.concatenate([kept, more]).astype(np.int32))
    return bodies


def nodes(root: Node) -> Iterator[tuple[Node, Node | None]]:
    """Every node with its parent; the root's is None."""
    waiting: list[tuple[Node, Node | None]] = [(root, None)]
    while waiting:
        node, parent = waiting.pop()
        yield node, parent
        waiting.extend((child, node) for child in node.children)


def beginning(node: Node, bodies: Sequence[Tokens]) -> tuple[int, ...]:
    return tuple(bodies[node.prompt][: node.n_tokens].tolist())


def common(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))


@pytest.mark.parametrize("seed", range(40))
def test_laws(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bodies = random_bodies(rng)
    step, least, least_spared = (int(rng.choice(each)) for each in ([1, 4, 5], [1, 8], [0, 24]))

    def is_worth(length: int, n_users: int) -> bool:
        return length >= least and (n_users - 1) * length >= least_spared

    root = build_tree(bodies, step, is_worth)
    assert root.n_tokens == 0
    assert sorted(index for node, _ in nodes(root) for index in node.prompts) == list(range(len(bodies)))
    assert sorted(root.all_prompts()) == list(range(len(bodies)))
    for node, parent in nodes(root):
        below = list(node.all_prompts())
        for index in below:  # everything below a node begins with it
            assert tuple(bodies[index][: node.n_tokens].tolist()) == beginning(node, bodies)
        if parent is None:
            continue
        assert node.n_tokens % step == 0 and node.prompt in below
        assert is_worth(node.n_tokens - parent.n_tokens, len(node.prompts) + len(node.children))


@pytest.mark.parametrize("step", [1, 4])
@pytest.mark.parametrize("seed", range(20))
def test_every_shared_beginning_is_found(seed: int, step: int) -> None:
    """Where every state is worth its while, the nodes are exactly where two prompts part."""
    bodies = random_bodies(np.random.default_rng([seed, 1]))
    plain = [tuple(body.tolist()) for body in bodies]
    parted = {a[: common(a, b) // step * step] for a, b in itertools.combinations(plain, 2)} - {()}
    root = build_tree(bodies, step, always)
    found = [beginning(node, bodies) for node, parent in nodes(root) if parent is not None]
    assert len(found) == len(set(found))
    assert set(found) == parted
    for node, parent in nodes(
        root
    ):  # each prompt is held by the longest of its beginnings, each node's parent too
        for index in node.prompts:
            holders = [p for p in parted if plain[index][: len(p)] == p]
            assert len(beginning(node, bodies)) == max(map(len, holders), default=0)
        if parent is not None:
            above = [p for p in parted if len(p) < node.n_tokens and beginning(node, bodies)[: len(p)] == p]
            assert parent.n_tokens == max(map(len, above), default=0)


def shape(node: Node, bodies: Sequence[Tokens]) -> object:
    prompts = sorted(tuple(bodies[index].tolist()) for index in node.prompts)
    return node.n_tokens, prompts, [shape(child, bodies) for child in node.children]


@pytest.mark.parametrize("seed", range(20))
def test_the_order_given_does_not_matter(seed: int) -> None:
    rng = np.random.default_rng([seed, 2])
    bodies = random_bodies(rng)
    turned = [bodies[index] for index in rng.permutation(len(bodies))]
    assert shape(build_tree(bodies, 4, spares_much), bodies) == shape(
        build_tree(turned, 4, spares_much), turned
    )


def test_equals_keep_the_order_given() -> None:
    same = np.arange(40, dtype=np.int32)
    root = build_tree([same[:9], same, same.copy(), same[:9], same.copy()], 4, spares_much)
    assert root.prompts == [0, 3] and [child.prompts for child in root.children] == [[1, 2, 4]]


def test_nothing_and_empty() -> None:
    empty = np.empty(0, dtype=np.int32)
    assert build_tree([], 4, spares_much) == Node(0, -1)
    assert build_tree([empty, empty], 4, spares_much) == Node(0, 0, [0, 1])
    assert count_distinct([]) == count_distinct([empty, empty]) == 0


@pytest.mark.parametrize("seed", range(30))
def test_distinct_tokens_are_distinct_beginnings(seed: int) -> None:
    bodies = random_bodies(np.random.default_rng([seed, 3]))
    assert count_distinct(bodies) == len(
        {tuple(body[: at + 1].tolist()) for body in bodies for at in range(len(body))}
    )


def test_token_ids_of_every_size() -> None:
    """Sorting compares numbers, not their bytes as they lie in memory."""
    ids = [1, 255, 256, 257, 65535, 65536, 2**24, 2**31 - 1]
    bodies = [np.full(30, token, dtype=np.int32) for token in ids[::-1] for _ in range(2)]
    root = build_tree(bodies, 4, spares_much)
    assert [int(bodies[child.prompt][0]) for child in root.children] == ids
    assert count_distinct(bodies) == 30 * len(ids)


@pytest.mark.parametrize("n", [100, 2000])
def test_thousands_inside_each_other(n: int) -> None:
    """Every prompt begins with the whole of the one before: neither recursion nor a square of the depth."""
    longest = np.arange(8 * n, dtype=np.int32)
    bodies = [longest[: 8 * (at + 1)] for at in range(n)]
    start = time.process_time()
    root = build_tree(bodies, 4, spares_much)
    assert count_distinct(bodies) == 8 * n
    assert list(root.all_prompts()) == list(range(n))
    assert time.process_time() - start < 5  # seconds; it takes about half of one, most of it reading tokens
    depths = []
    node = root
    while node.children:
        (node,) = node.children
        depths.append(node.n_tokens)
    assert len(depths) > n / 4 and depths[-1] > 8 * (n - 5) and (np.diff(depths) >= 8).all()
