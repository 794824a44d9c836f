"""What a model said about prompts, stored by content, so that the same question is not computed twice.

A key is a digest and a value is a few named arrays; no text of a model or a prompt is stored but what the context
names. The bytes of a value, little-endian: number of arrays u16; for each the length of its name u8, the name, its type
u8, its number of dimensions u8, dimensions u32; then the elements of all, in the same order, in C order. The store has
checked them against a digest before they are unpacked.
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
    """The arrays kept for one context; a context manager. Threads may share it.

    All contexts' stores in a folder together take at most `max_bytes` bytes: stores that were used longest ago are
    removed for it, whole, at the opening of another and after each write to it. A store that has reached the bound
    alone takes nothing more.

    Several processes may read and write one store at once. No method fails or waits for long because of the
    cache: what cannot be read is not there, what cannot be written is not kept.

    Parameters
    ----------
    folder: of the cache; made for this user alone if it is not there. None keeps nothing.
    context: everything that influences the numbers, the digest of the model first. Contexts that differ in any
        name, value or type of value share nothing. `edgecal cache` shows "model" as the model's name.
    max_bytes: see above.
    lock_timeout_s: how long to wait, in seconds, while another process writes; if it takes longer the store is
        not used any more.

    Attributes
    ----------
    warning: one line on why the store is not used, or not as it was; None as long as nothing is wrong.
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
        """The store's file."""
        return self._store.path

    @property
    def warning(self) -> str | None:
        return self._store.warning

    def close(self) -> None:
        """Closes the file; afterwards nothing is found and nothing kept."""
        self._store.close()

    def read(self, keys: Sequence[bytes]) -> list[dict[str, Array] | None]:
        """The arrays kept under each key, exactly as they were written, None where there are none."""
        return [None if body is None else unpack_arrays(body) for body in self._store.read(keys)]

    def write(self, items: Iterable[tuple[bytes, Mapping[str, Array]]]) -> None:
        """Keeps (key, named arrays) pairs, all of them or, should the process be killed, none.

        Arrays are float32, float64 or int32, of any shape. What is there under the same key is replaced, unless
        it has more arrays. TypeError: another element type.
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
            return  # somebody has cleared the cache meanwhile
        if is_full:
            self._store.stop_writing(
                f"{path.parent}: the cache for this model and these settings is full ({self._max_bytes} bytes) and "
                "keeps nothing more; edgecal cache clear empties it"
            )


Array = npt.NDArray[Any]

_DTYPES = tuple(np.dtype(code) for code in ("<f4", "<f8", "<i4"))


def pack_arrays(arrays: Mapping[str, Array]) -> bytes:
    """Arrays of float32, float64 or int32, of any shape and order, as bytes.

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
    """What `pack_arrays` packed: new arrays in C order, of the machine's own byte order, that may be written to."""
    (count,) = struct.unpack_from("<H", packed)
    at = 2
    found = []
    for _ in range(count):
        n_name = packed[at]
        name = packed[at + 1 : at + 1 + n_name].decode()
        at += 1 + n_name
        code, n_dims = packed[at], packed[at + 1]
        shape = struct.unpack_from(f"<{n_dims}I", packed, at + 2)
        at += 2 + 4 * n_dims
        found.append((name, _DTYPES[code], shape))
    arrays = {}
    for name, dtype, shape in found:
        n_elements = int(np.prod(shape, dtype=np.int64))
        flat = np.frombuffer(packed, dtype, n_elements, at)
        arrays[name] = flat.reshape(shape).astype(dtype.newbyteorder("="))
        at += n_elements * dtype.itemsize
    return arrays
