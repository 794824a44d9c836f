"""Sharing prompts out among decodes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from edgecal.errors import InputError
from edgecal.llama.packing import decode_cuts, pack_prompts
from edgecal.llama.settings import CaptureSettings, count_physical_cores


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_every_prompt_is_run_once_and_fits(seed: int, pack: bool) -> None:
    rng = np.random.default_rng(seed)
    lengths = [
        int(n) for n in rng.choice([1, 2, 7, 7, 30, 255, 256, 257, 600, 5000], int(rng.integers(1, 80)))
    ]
    settings = CaptureSettings(n_seq_max=int(rng.integers(1, 20)), n_ubatch=64, n_batch=128, pack=pack)
    contexts = pack_prompts(lengths, settings)
    groups = [group for context in contexts for group in context.groups]
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    for context in contexts:
        for group in context.groups:
            assert len(group) <= context.n_seq_max <= settings.n_seq_max
            assert len({lengths[index] for index in group}) == 1
            assert all(lengths[index] <= context.n_ctx_seq for index in group)
            assert len(group) == 1 or len(group) * lengths[group[0]] <= settings.n_ubatch
    assert pack or all(len(group) == 1 for group in groups)


def test_a_cache_depends_on_its_own_prompt_only() -> None:
    settings = CaptureSettings()
    sizes = {}
    for context in pack_prompts([3, 256, 257, 512, 513, 4000], settings):
        sizes.update({index: context.n_ctx_seq for group in context.groups for index in group})
    assert sizes == {0: 256, 1: 256, 2: 512, 3: 512, 4: 1024, 5: 4096}
    assert [context.n_ctx_seq for context in pack_prompts([3], settings)] == [256]


@pytest.mark.parametrize("n_ubatch", [1, 3, 8, 9, 16, 18, 64])
@pytest.mark.parametrize("n_batch", [64, 100, 128])
def test_cuts(n_ubatch: int, n_batch: int) -> None:
    for n_tokens in range(1, 300):
        edges = [0, *decode_cuts(n_tokens, n_batch, n_ubatch), n_tokens]
        assert all(0 < b - a <= n_batch for a, b in itertools.pairwise(edges))
        assert all(edge % n_ubatch == 0 for edge in edges[1:-2])
        if n_tokens >= 8 and n_ubatch >= 16:
            sizes = [b - a for a, b in itertools.pairwise(edges)]
            assert all(size % n_ubatch == 0 or size % n_ubatch >= 8 for size in sizes)
            assert n_ubatch % 4 or all(edge % 4 == 0 for edge in edges[:-1])


def test_settings_are_checked_and_described() -> None:
    for name in ("n_threads", "n_batch", "n_ubatch", "n_seq_max"):
        with pytest.raises(InputError, match=f"{name} must be at least 1"):
            CaptureSettings(**{name: 0})
    with pytest.raises(InputError, match="at most 256"):
        CaptureSettings(n_seq_max=257)
    with pytest.raises(InputError, match="n_ubatch must be at most n_batch"):
        CaptureSettings(n_batch=64, n_ubatch=65)
    described = CaptureSettings(n_threads=3).describe()
    assert described["n_threads"] == 3 and described["kv_unified"] is False
    assert CaptureSettings().n_threads == count_physical_cores() >= 1
