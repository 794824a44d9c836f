"""Keeps this process's one loaded model for the next call, and the headers of its files.

For worker processes only: the model is freed when another one is loaded or the process ends.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgecal.architectures import ResidualStream, stream_of
from edgecal.cache import identify_files
from edgecal.pair.model_capture import CaptureProgress

if TYPE_CHECKING:
    from edgecal.gguf.shards import ShardSet
    from edgecal.llama.model import Model

__all__ = ["RESIDENT", "find_stream", "read_shards", "wants_repacking"]

# The last path read, with the files' identity and their headers.
_last_shards: dict[str, tuple[object, ShardSet]] = {}


def read_shards(path: str) -> ShardSet:
    """Returns the headers of a model's files; reads them again only when a file has changed."""
    from edgecal.gguf.shards import find_shards

    last = _last_shards.get(path)
    if last is None or last[0] is None or last[0] != identify_files(last[1].paths):
        shards = find_shards(Path(path))
        last = identify_files(shards.paths), shards
        _last_shards.clear()
        _last_shards[path] = last
    return last[1]


def wants_repacking(path: str) -> bool:
    """Whether llama.cpp should reorder ("repack") the weights for its kernels, as it does by default.

    Not for Q4_K on processors with AVX-512 VNNI, where the kernels for the file's own order took two thirds of the time
    (docs/log.md). The answer depends only on the file and the processor, both of which are recorded.
    """
    from edgecal.llama.library import system_info

    n_bytes: Counter[str] = Counter()
    for header in read_shards(path).headers:
        for tensor in header.tensors.values():
            n_bytes[tensor.type_name] += tensor.n_bytes or 0
    return not (n_bytes["Q4_K"] > n_bytes["Q4_0"] and "AVX512_VNNI = 1" in system_info())


def find_stream(path: str) -> ResidualStream:
    """Returns where llama.cpp's graph of a model file holds the residual stream. Raises ModelError if the file does not
    determine that."""
    header = read_shards(path).header
    return stream_of(header.architecture or "", header.get, path)


class _ResidentModel:
    def __init__(self) -> None:
        self._model: Model | None = None
        self._identity: object = None

    def holds(self, path: str) -> bool:
        """Whether the file is loaded and has not changed since."""
        return self._model is not None and self._identity == _identify(path)

    @contextlib.contextmanager
    def model(self, path: str, report: Callable[[CaptureProgress], None]) -> Iterator[Model]:
        """Yields the model of the file, which stays loaded; frees any other model first."""
        from edgecal.llama.model import Model

        if not self.holds(path):
            if self._model is not None:
                self._model.close()
                self._model = None
            identity = _identify(path)
            self._model = Model(
                path,
                repack=wants_repacking(path),
                on_progress=lambda share: report(CaptureProgress("load", 100 * share, 100)),
            )
            self._identity = identity
        assert self._model is not None
        yield self._model


def _identify(path: str) -> object:
    return identify_files([Path(path)])


RESIDENT = _ResidentModel()
