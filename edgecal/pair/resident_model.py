"""The model that this process has loaded, kept for the next call. For worker processes, which end with all they hold.

Knows one model at a time, by its path and what the file was when it was loaded.
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

_read: dict[str, tuple[object, ShardSet]] = {}  # of the last path asked for


def read_shards(path: str) -> ShardSet:
    """The headers of a model's files, which are read again only when a file has changed."""
    from edgecal.gguf.shards import find_shards

    read = _read.get(path)
    if read is None or read[0] is None or read[0] != identify_files(read[1].paths):
        shards = find_shards(Path(path))
        read = identify_files(shards.paths), shards
        _read.clear()
        _read[path] = read
    return read[1]


def wants_repacking(path: str) -> bool:
    """Whether llama.cpp is to keep the weights in the order of its own kernels, as it does by default.

    Not for Q4_K on processors with AVX-512 VNNI, where the kernels for weights as they lie in the file took two thirds
    of the time (docs/log.md). A pure function of the file and the processor, both of which are recorded.
    """
    from edgecal.llama.library import system_info

    n_bytes: Counter[str] = Counter()
    for header in read_shards(path).headers:
        for tensor in header.tensors.values():
            n_bytes[tensor.type_name] += tensor.n_bytes or 0
    return not (n_bytes["Q4_K"] > n_bytes["Q4_0"] and "AVX512_VNNI = 1" in system_info())


def find_stream(path: str) -> ResidualStream:
    """Where llama.cpp's graph of a model file has the residual stream. ModelError: the file does not say."""
    header = read_shards(path).header
    return stream_of(header.architecture or "", header.get, path)


class _ResidentModel:
    def __init__(self) -> None:
        self._model: Model | None = None
        self._identity: object = None

    def holds(self, path: str) -> bool:
        """Whether the file is loaded as it is now."""
        return self._model is not None and self._identity == _identify(path)

    @contextlib.contextmanager
    def model(self, path: str, report: Callable[[CaptureProgress], None]) -> Iterator[Model]:
        """The loaded file, which stays loaded; whatever was loaded before is let go."""
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
