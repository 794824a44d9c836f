"""Shares prompts out among decodes: a pure function of their lengths and the settings.

Does not know tokens, models or llama.cpp. Why prompts share a decode only with others of the same length, and
by default not at all: `CaptureSettings.pack`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgecal.llama.settings import CaptureSettings

__all__ = ["PackedContext", "decode_cuts", "pack_prompts"]

# llama.cpp rounds a sequence's cache up to a multiple of this.
_CACHE_STEP = 256

# Tokens that the last decode takes over so as not to be shorter than this.
_TAIL_TOKENS = 8


@dataclass(frozen=True)
class PackedContext:
    """A context and the prompts that it runs.

    Attributes
    ----------
    n_ctx_seq: tokens that each sequence's cache holds.
    n_seq_max: sequences.
    groups: prompts (by index) that are in memory together, group by group; each has at most n_seq_max.
    """

    n_ctx_seq: int
    n_seq_max: int
    groups: tuple[tuple[int, ...], ...]


def pack_prompts(lengths: Sequence[int], settings: CaptureSettings) -> list[PackedContext]:
    """The contexts to make, one after the other, and what each runs.

    Every prompt is in exactly one group. A prompt's cache is the smallest power of two times 256 tokens that
    holds it, so that it never depends on other prompts (a few models scale positions by the size of the cache).
    Shorter prompts come first, equals in the order given. Packed prompts have the same length, so that
    llama.cpp cuts their decode evenly, and together fit one micro-batch; a longer prompt is alone.
    """
    by_size: dict[int, dict[int, list[int]]] = {}
    for length in sorted(set(lengths)):
        same = [index for index, each in enumerate(lengths) if each == length]
        by_size.setdefault(_cache_size(length), {})[length] = same
    contexts = []
    for size, by_length in by_size.items():
        groups: list[tuple[int, ...]] = []
        for length, same in by_length.items():
            together = _group_size(length, size, settings)
            groups.extend(tuple(same[at : at + together]) for at in range(0, len(same), together))
        contexts.append(PackedContext(size, max(map(len, groups)), tuple(groups)))
    return contexts


def decode_cuts(n_tokens: int, n_batch: int, n_ubatch: int) -> list[int]:
    """Where the tokens of one group are cut into decodes, ascending; empty when one decode holds them.

    Cuts are at multiples of n_ubatch, so that they cut no micro-batch that llama.cpp would not cut. A short
    last micro-batch is avoided, for llama.cpp multiplies few rows with other kernels than many (1 row with
    unquantized weights, less than 8 with some quantized ones): the last decode then takes over 8 tokens of
    the one before. Some kernels work on four rows at a time, counted from a micro-batch's first, so that
    number is a multiple of four. Thus a prompt's numbers do not depend on n_ubatch either, if that is a
    multiple of four and at least 16; but for models that sum in chunks (recurrent) or share rows out among
    experts.
    """
    step = n_ubatch * (n_batch // n_ubatch)
    cuts = list(range(step, n_tokens, step))
    rest = n_tokens % n_ubatch
    if 0 < rest < _TAIL_TOKENS and n_tokens > n_ubatch > _TAIL_TOKENS:
        tail = n_tokens - rest - _TAIL_TOKENS
        cuts = [cut for cut in cuts if cut < tail] + [tail]
    return cuts


def _cache_size(length: int) -> int:
    size = _CACHE_STEP
    while size < length:
        size *= 2
    return size


def _group_size(length: int, cache_size: int, settings: CaptureSettings) -> int:
    """Prompts of one length that share a decode. All caches together are at most n_seq_max smallest ones."""
    if not settings.pack:
        return 1
    fit_memory = settings.n_seq_max * _CACHE_STEP // cache_size
    fit_tokens = min(settings.n_ubatch, settings.n_batch) // length
    return max(1, min(settings.n_seq_max, fit_memory, fit_tokens))
