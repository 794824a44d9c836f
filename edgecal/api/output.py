"""Where a fitted temperature is written, as one value. Knows no files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["OutputOptions"]


@dataclass(frozen=True)
class OutputOptions:
    """Where `edgecal.fit` writes the temperature, and what it may write. With the defaults it writes nothing.

    Attributes
    ----------
    path: the file to write: a copy of the chat model that holds the temperature; None writes none.
    in_place: write the temperature into the chat model's own file instead.
    force: overwrite a file that is at `path` already.
    sampling_key: also set `general.sampling.temp`, the key that llama.cpp's programs sample with.
    force_baked: fit even if the chat model already has a temperature baked in (see `edgecal bake`).
    unsettled: return, and write, also a temperature that is unsettled or harmful; the file is marked so. Without it
        such a run ends with an `UnsettledError`, as soon as it is clear that no more prompts would settle it.
    """

    path: str | Path | None = None
    in_place: bool = False
    force: bool = False
    sampling_key: bool = True
    force_baked: bool = False
    unsettled: bool = False

    @property
    def writes(self) -> bool:
        """Whether a file is written at all."""
        return self.path is not None or self.in_place
