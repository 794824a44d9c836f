"""The settings with which llama.cpp runs, as one frozen value. Importing this module does not import llama.cpp.

With the defaults, a prompt's results depend, bit for bit, only on the model, the prompt's tokens and these settings. So
no setting is ever chosen by timing.
"""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgecal.errors import InputError

__all__ = ["CaptureSettings", "count_physical_cores"]

# llama.cpp's limits on the sequences of a context and on threads; it crashes beyond them.
MAX_SEQUENCES = 256
MAX_THREADS = 512


def count_physical_cores() -> int:
    """Counts the physical cores that this process may use, at least 1.

    Two hardware threads of one core share its arithmetic units, and llama.cpp's threads wait for each other,
    so more than one thread per core does not help. Where the system does not distinguish cores from hardware threads,
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
    n_threads: most threads of llama.cpp, by default one per physical core; fewer compute while other programs want
        the processors (see `machine`).
    n_batch: most tokens of a decode; at least n_ubatch.
    n_ubatch: most tokens that llama.cpp computes at once (a micro-batch); edgecal's decodes are no larger.
    n_seq_max: most sequences of a context: shared prefixes and prompts together.
    share: compute shared prefixes once, and finish several prompts in one decode. This changes no bit of any prompt's
        results; False is for measuring what it saves.
    flash_attn: llama.cpp's fused attention, which is faster for long prompts. Off by default, because its sums depend
        on how tokens are batched.
    kv_unified: one cache for all sequences instead of a stream for each. Off by default, because a prompt's results
        then depend on where the other sequences lie in the cache.
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
        """Whether a prompt's results depend, bit for bit, only on the model and the prompt's tokens."""
        return not (self.flash_attn or self.kv_unified)

    def describe(self) -> dict[str, Any]:
        """Returns the settings as plain values, to be recorded with results."""
        return asdict(self)
