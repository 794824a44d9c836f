"""How llama.cpp is run, as one frozen value. Importing this imports no llama.cpp.

With the defaults a prompt's numbers depend on the model, its tokens and these settings only, bit for bit.
Knows nothing of models or prompts. No setting is ever chosen by a clock.
"""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgecal.errors import InputError

__all__ = ["CaptureSettings", "count_physical_cores"]

# llama.cpp's own limits on sequences in a context and on threads; more crash it.
MAX_SEQUENCES = 256
MAX_THREADS = 512


def count_physical_cores() -> int:
    """Physical cores that this process may use, at least 1.

    Two hardware threads of one core share its arithmetic units, and llama.cpp's threads wait for each other,
    so one thread per core is the most that helps. Where the system does not tell cores from hardware threads,
    every processor counts as a core.
    """
    available = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    if available is None:
        import psutil

        return max(1, psutil.cpu_count(logical=False) or os.cpu_count() or 1)
    cores = set()
    for cpu in available:
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            text = siblings.read_text(encoding="ascii").strip()
        except OSError:
            text = str(cpu)
        cores.add(re.split(r"[,-]", text)[0])
    return max(1, len(cores))


@dataclass(frozen=True)
class CaptureSettings:
    """How llama.cpp is run.

    Attributes
    ----------
    n_threads: threads of llama.cpp at most, by default one per physical core; fewer compute while other programs want
        the processors (see `neighbours`).
    n_batch: tokens that one decode may hold; at least n_ubatch.
    n_ubatch: tokens that llama.cpp computes at once (a micro-batch), at most; a decode has as many or fewer.
    n_seq_max: sequences that a context may hold: shared beginnings and prompts together.
    share: compute what prompts begin with in common once, and let several end in one decode. It
        changes no bit of any prompt's numbers; False is for measuring what it spares.
    flash_attn: llama.cpp's fused attention, which is quicker for long prompts. Off by default: its sums depend on
        how tokens are batched.
    kv_unified: one cache for all sequences instead of a stream for each. Off by default: what a prompt gets
        then depends on where the others lie.
    """

    n_threads: int = field(default_factory=count_physical_cores)
    n_batch: int = 2048
    n_ubatch: int = 512
    n_seq_max: int = 14
    share: bool = True
    flash_attn: bool = False
    kv_unified: bool = False

    def __post_init__(self) -> None:
        for name in ("n_threads", "n_batch", "n_ubatch", "n_seq_max"):
            value = getattr(self, name)
            if value < 1:
                raise InputError(f"{name} must be at least 1, got {value}")
        if self.n_threads > MAX_THREADS:
            raise InputError(f"n_threads must be at most {MAX_THREADS}, got {self.n_threads}")
        if self.n_seq_max > MAX_SEQUENCES:
            raise InputError(f"n_seq_max must be at most {MAX_SEQUENCES}, got {self.n_seq_max}")
        if self.n_seq_max < 2:
            raise InputError(f"n_seq_max must be at least 2, got {self.n_seq_max}")
        if self.n_ubatch % 4 or self.n_ubatch < 16:
            raise InputError(
                f"n_ubatch must be a multiple of 4 and at least 16, got {self.n_ubatch}; llama.cpp computes rows in "
                "fours"
            )
        if self.n_ubatch > self.n_batch:
            raise InputError(f"n_ubatch must be at most n_batch, {self.n_batch}, got {self.n_ubatch}")

    @property
    def is_exact(self) -> bool:
        """Whether a prompt's numbers depend, bit for bit, on nothing but the model and its tokens."""
        return not (self.flash_attn or self.kv_unified)

    def describe(self) -> dict[str, Any]:
        """The settings as plain values, to be recorded with what they made."""
        return asdict(self)
