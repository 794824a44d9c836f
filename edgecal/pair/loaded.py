"""The model that this process has loaded, kept for the next call. For worker processes, which end with all they hold.

Knows one model at a time, by its path and what the file was when it was loaded.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgecal.cache import identify_files
from edgecal.pair.observation import ObserveProgress

if TYPE_CHECKING:
    from edgecal.llama.model import Model

__all__ = ["LOADED"]


class _Loaded:
    def __init__(self) -> None:
        self._model: Model | None = None
        self._identity: object = None

    def holds(self, path: str) -> bool:
        """Whether the file is loaded as it is now."""
        return self._model is not None and self._identity == _identify(path)

    @contextlib.contextmanager
    def model(self, path: str, report: Callable[[ObserveProgress], None]) -> Iterator[Model]:
        """The loaded file, which stays loaded; whatever was loaded before is let go."""
        from edgecal.llama.model import Model

        if not self.holds(path):
            if self._model is not None:
                self._model.close()
                self._model = None
            identity = _identify(path)
            self._model = Model(
                path, on_progress=lambda share: report(ObserveProgress("load", 100 * share, 100))
            )
            self._identity = identity
        assert self._model is not None
        yield self._model


def _identify(path: str) -> object:
    return identify_files([Path(path)])


LOADED = _Loaded()
