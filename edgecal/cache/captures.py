"""Stores a model's captures of prompts by content, so that no prompt is run twice under the same conditions.

A key is a digest and a value is a few named arrays; of texts only those in the context are stored, never a prompt.
A value is encoded in little-endian bytes: number of arrays u16; for each array the length of its name u8, the name,
its type u8, number of dimensions u8 and dimensions u32; then the elements of all arrays, in the same order, in C order.
The store verifies a checksum of these bytes before they are unpacked.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecal.cache.folder import MAX_CACHE_BYTES, Context, remove_least_used, store_path
from edgecal.cache.store import LOCK_TIMEOUT_S, CheckedStore

__all__ = ["Array", "CaptureCache", "pack_arrays", "unpack_arrays"]


class CaptureCache:
    """The cached arrays of one context; a context manager. Threads may share it.

    The stores of all contexts in a folder together take at most `max_bytes` bytes: opening a store and each write to
    it remove the least recently used others, each as a whole. A store that reaches the limit alone takes no more
    values.

    Several processes may read and write one store at once. No method fails or waits for long because of the
    cache: a value that cannot be read counts as missing, one that cannot be written is dropped.

    Parameters
    ----------
    folder: of the cache; if missing, it is created for this user only. None disables the cache.
    context: everything that influences the numbers, the digest of the model first. Contexts that differ in any
        name, value or type of value share nothing. `edgecal cache` shows "model" as the model's name.
    max_bytes: see above.
    lock_timeout_s: how long to wait, in seconds, while another process writes; after that this run no longer uses
        the store.

    Attributes
    ----------
    warning: one line that says why the store is not used, is no longer written or was recreated; None if all is well.
    """

    def __init__(
        self,
        folder: Path | None,
        context: Context,
        *,
        max_bytes: int = MAX_CACHE_BYTES,
        lock_timeout_s: float = LOCK_TIMEOUT_S,
    ) -> None:
        about = json.dumps(dict(context), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
        path = None if folder is None else store_path(folder, sha256(about).hexdigest())
        self._max_bytes = max_bytes
        self._store = CheckedStore(path, about, lock_timeout_s=lock_timeout_s)
        self._make_room()

    def __enter__(self) -> CaptureCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def path(self) -> Path | None:
        """The store's file; None without a folder."""
        return self._store.path

    @property
    def warning(self) -> str | None:
        return self._store.warning

    def close(self) -> None:
        """Closes the file; afterwards every lookup misses and writes do nothing."""
        self._store.close()

    def read(self, keys: Sequence[bytes]) -> list[dict[str, Array] | None]:
        """Returns the arrays stored under each key, exactly as written, or None."""
        return [None if body is None else unpack_arrays(body) for body in self._store.read(keys)]

    def write(self, items: Iterable[tuple[bytes, Mapping[str, Array]]]) -> None:
        """Stores (key, named arrays) pairs: all of them or, if the process is killed, none.

        Arrays are float32, float64 or int32, of any shape. They replace those under the same key, unless those are
        more. TypeError: another element type.
        """
        if not self._store.is_writable:
            return
        self._store.write((key, len(arrays), pack_arrays(arrays)) for key, arrays in items)
        self._make_room()

    def _make_room(self) -> None:
        path = self._store.path
        if path is None or not self._store.is_writable:
            return
        remove_least_used(path.parent, self._max_bytes, keep=path)
        try:
            is_full = path.stat().st_size >= self._max_bytes
        except OSError:
            return  # another process has cleared the cache meanwhile
        if is_full:
            self._store.stop_writing(
                f"{path.parent}: the cache for this model and these settings is full ({self._max_bytes} bytes) and "
                "takes no more prompts; edgecal cache clear empties it"
            )


Array = npt.NDArray[Any]

_DTYPES = tuple(np.dtype(code) for code in ("<f4", "<f8", "<i4"))


def pack_arrays(arrays: Mapping[str, Array]) -> bytes:
    """Encodes arrays of float32, float64 or int32, of any shape and memory order, as bytes.

    TypeError: another element type. ValueError: a name of more than 255 bytes.
    """
    head, body = [struct.pack("<H", len(arrays))], []
    for name, array in arrays.items():
        dtype = array.dtype.newbyteorder("<")
        if dtype not in _DTYPES:
            raise TypeError(f"{name!r} is an array of {array.dtype}, expected float32, float64 or int32")
        raw = name.encode()
        if len(raw) > 255:
            raise ValueError(f"the name {name[:40]!r}... is {len(raw)} bytes long, at most 255 are allowed")
        head.append(struct.pack("<B", len(raw)) + raw)
        head.append(struct.pack(f"<BB{array.ndim}I", _DTYPES.index(dtype), array.ndim, *array.shape))
        body.append(array.astype(dtype, copy=False).tobytes())
    return b"".join(head + body)


def unpack_arrays(packed: bytes) -> dict[str, Array]:
    """Decodes the bytes of `pack_arrays`: new writable arrays in C order and the machine's own byte order."""
    (count,) = struct.unpack_from("<H", packed)
    offset = 2
    heads = []
    for _ in range(count):
        n_name = packed[offset]
        name = packed[offset + 1 : offset + 1 + n_name].decode()
        offset += 1 + n_name
        code, n_dims = packed[offset], packed[offset + 1]
        shape = struct.unpack_from(f"<{n_dims}I", packed, offset + 2)
        offset += 2 + 4 * n_dims
        heads.append((name, _DTYPES[code], shape))
    arrays = {}
    for name, dtype, shape in heads:
        n_elements = int(np.prod(shape, dtype=np.int64))
        flat = np.frombuffer(packed, dtype, n_elements, offset)
        arrays[name] = flat.reshape(shape).astype(dtype.newbyteorder("="))
        offset += n_elements * dtype.itemsize
    return arrays
