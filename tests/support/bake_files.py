"""Small files that can be baked, in many shapes, put together byte by byte; llama.cpp would not run them."""

from __future__ import annotations

import struct
from pathlib import Path

from support.gguf_files import bare_tensor, key, raw_gguf, write_bytes

from edgecal.gguf.values import Value, ValueType

__all__ = ["CALIBRATED", "NORM", "SHAPES", "STAMPED", "bakeable", "write_split"]

NORM = struct.pack("<4f", 1.0, -0.3, 1e-41, 2e38)  # an odd number, a subnormal, a large one
NESTED = Value.array(
    ValueType.ARRAY, [Value.array(ValueType.STRING, ["", "é"]), Value.array(ValueType.UINT8, [])]
)
FIRST = [
    key("general.architecture", Value.string("llama")),
    key("empty.text", Value.string("")),
    key("nested", NESTED),
    key(b"not \xff utf-8", Value(ValueType.STRING, b"\x01\0\0\0\0\0\0\0\xfe")),
    key("tokens", Value.array(ValueType.STRING, [f"t{i}" for i in range(2000)])),
]
CALIBRATED = [
    key("edgecal.method", Value.string("daca")),
    key("edgecal.temperature", Value.float32(2.5)),
    key("edgecal.interval", Value.array(ValueType.FLOAT32, [2.0, 3.0])),
]
STAMPED = [
    *CALIBRATED,
    key("general.sampling.temp", Value.float32(2.5)),
    key("edgecal.previous.sampling.temp", Value.float32(0.6)),
]
LAST = [key("last", Value.of(ValueType.FLOAT64, float("nan")))]


def bakeable(
    keys: list[bytes] | None = None,
    *,
    version: int = 3,
    alignment: int = 32,
    padding: bytes = b"\0",
    tail: bytes = b"",
    first: bool = False,
    gap: bytes = b"\xee",
) -> bytes:
    """A file with a norm, a head and two other tensors; `gap` fills the space between tensors."""
    keys = [*FIRST, *(CALIBRATED if keys is None else keys), *LAST]
    if alignment != 32:
        keys.insert(2, key("general.alignment", Value.uint32(alignment)))
    sizes = {"blk.0.w": (4, 4), "output_norm.weight": (4,), "output.weight": (4, 3), "odd": (5,)}
    if first:
        sizes = {"output_norm.weight": (4,), "output.weight": (4, 3)}
    infos, data = [], b""
    for name, ne in sizes.items():
        data += gap * (-len(data) % alignment)
        infos.append(bare_tensor(name, ne, offset=len(data)))
        n = ne[0] * (ne[1] if len(ne) > 1 else 1)
        data += NORM if "norm" in name else bytes(range(1, 1 + 4 * n))
    return raw_gguf(keys, infos, data + tail, version=version, alignment=alignment, padding=padding)


SHAPES: dict[str, bytes] = {
    "calibrated": bakeable(),
    "version 2": bakeable(version=2),
    "alignment 1": bakeable(alignment=1),
    "alignment 8": bakeable(alignment=8),
    "alignment 4096": bakeable(alignment=4096, gap=b"\0"),
    "odd padding": bakeable(padding=b"\xab"),
    "a tail": bakeable(tail=b"whatever follows"),
    "norm first": bakeable(first=True),
    "stamped": bakeable(STAMPED),
    "stamped, no author's temperature": bakeable(STAMPED[:-1]),
    "author's temperature as another type": bakeable(
        [
            *CALIBRATED,
            key("general.sampling.temp", Value.float32(2.5)),
            key("edgecal.previous.sampling.temp", Value.float32(0.5)),
            key("edgecal.previous.sampling.original", Value.of(ValueType.FLOAT64, 0.5)),
        ]
    ),
    "author's temperature untouched": bakeable(
        [*CALIBRATED, key("general.sampling.temp", Value.float32(0.7))]
    ),
    "author's temperature is 1": bakeable([*CALIBRATED, key("general.sampling.temp", Value.float32(1.0))]),
    "sampling key first": bakeable([STAMPED[-2], STAMPED[-1], *CALIBRATED]),
    "only the temperature": bakeable([key("edgecal.temperature", Value.float32(0.75))]),
}


def write_split(folder: Path) -> Path:
    """A calibrated model in three files, its norm in the second; the path of the first."""
    tensors = [("blk.0.w", (4, 4)), ("output_norm.weight", (4,)), ("output.weight", (4, 3))]
    for index, (name, ne) in enumerate(tensors):
        keys = [
            key("split.no", Value.of(ValueType.UINT16, index)),
            key("split.count", Value.of(ValueType.UINT16, 3)),
        ]
        keys.append(key("split.tensors.count", Value.of(ValueType.INT32, 3)))
        data = NORM if "norm" in name else bytes(range(4 * ne[0] * ne[1]))
        raw = raw_gguf([*FIRST, *CALIBRATED, *keys] if index == 0 else keys, [bare_tensor(name, ne)], data)
        write_bytes(folder / f"m-{index + 1:05d}-of-00003.gguf", raw)
    return folder / "m-00001-of-00003.gguf"
