"""llama.cpp's cutting rules, as pure functions: laws, and a slow token-by-token twin.

That llama.cpp follows them is tested in test_llama_rows.py.
"""

from __future__ import annotations

import numpy as np
import pytest

from edgecal.errors import ModelError
from edgecal.llama.microbatch import Memory, SplitRule, split, split_rule

RULES = list(SplitRule)


def slow_equal(seq_ids: list[int], n_ubatch: int, sequential: bool) -> list[list[int]]:
    """Deals out one token of every chosen sequence at a time, marking tokens as used."""
    used = [False] * len(seq_ids)
    parts = []
    while not all(used):
        chosen: list[int] = []
        for token, sequence in enumerate(seq_ids):
            if used[token] or sequence in chosen:
                continue
            if sequential and chosen and chosen[-1] + 1 != sequence:
                continue
            chosen.append(sequence)
            if len(chosen) > n_ubatch:
                break
        dealt: dict[int, list[int]] = {sequence: [] for sequence in chosen}
        while True:
            following = {
                sequence: next((t for t, s in enumerate(seq_ids) if s == sequence and not used[t]), None)
                for sequence in chosen
            }
            if any(token is None for token in following.values()):
                break
            for sequence, token in following.items():
                assert token is not None
                dealt[sequence].append(token)
                used[token] = True
            if (len(dealt[chosen[0]]) + 1) * len(chosen) > n_ubatch:
                break
        parts.append([token for sequence in chosen for token in dealt[sequence]])
    return parts


def random_sequences(rng: np.random.Generator) -> list[int]:
    n_seqs = int(rng.integers(1, 7))
    ids = rng.permutation(n_seqs) if rng.random() < 0.3 else np.arange(n_seqs)
    tokens = np.repeat(ids, rng.integers(1, 12, n_seqs))
    return [int(token) for token in (rng.permutation(tokens) if rng.random() < 0.3 else tokens)]


@pytest.mark.parametrize("seed", range(60))
def test_laws_and_slow_twin(seed: int) -> None:
    rng = np.random.default_rng(seed)
    seq_ids = random_sequences(rng)
    is_output = [bool(flag) for flag in rng.random(len(seq_ids)) < 0.3]
    n_ubatch = int(rng.integers(1, 20))
    for rule in RULES:
        parts = split(seq_ids, is_output, n_ubatch, rule)
        flat = [token for part in parts for token in part.tokens]
        assert sorted(flat) == list(range(len(seq_ids)))
        for sequence in set(seq_ids):  # a sequence's tokens keep their order
            own = [token for token in flat if seq_ids[token] == sequence]
            assert own == sorted(own)
        for part in parts:
            assert 0 < len(part.tokens) <= n_ubatch + 1
            assert part.outputs == tuple(token for token in part.tokens if is_output[token])
        if rule is not SplitRule.SIMPLE:
            twin = slow_equal(seq_ids, n_ubatch, rule is SplitRule.EQUAL_SEQUENTIAL)
            assert [list(part.tokens) for part in parts] == twin


@pytest.mark.parametrize("rule", RULES)
def test_one_sequence_is_cut_alike_by_every_rule(rule: SplitRule) -> None:
    parts = split([3] * 10, [False] * 9 + [True], 4, rule)
    assert [part.tokens for part in parts] == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9)]
    assert [part.outputs for part in parts] == [(), (), (9,)]


def test_unequal_lengths() -> None:
    seq_ids = [0] * 5 + [1] * 9 + [2] * 13
    parts = split(seq_ids, [False] * 27, 512, SplitRule.EQUAL_SEQUENTIAL)
    assert [len(part.tokens) for part in parts] == [15, 8, 4]
    assert parts[0].tokens == (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 14, 15, 16, 17, 18)


def test_no_tokens() -> None:
    assert all(split([], [], 4, rule) == [] for rule in RULES)


def test_rules_of_contexts() -> None:
    for memory in Memory:
        assert split_rule(memory, n_seq_max=1, kv_unified=False) is SplitRule.SIMPLE
        assert split_rule(memory, n_seq_max=4, kv_unified=False) is SplitRule.EQUAL_SEQUENTIAL
    unified = {
        Memory.ATTENTION: SplitRule.SIMPLE,
        Memory.SLIDING: SplitRule.SIMPLE,
        Memory.RECURRENT: SplitRule.EQUAL_SEQUENTIAL,
        Memory.HYBRID: SplitRule.EQUAL,
    }
    for memory, rule in unified.items():
        assert split_rule(memory, n_seq_max=4, kv_unified=True) is rule
    with pytest.raises(ModelError, match="kv_unified=False or n_seq_max=1"):
        split_rule(Memory.OTHER, n_seq_max=4, kv_unified=True)
