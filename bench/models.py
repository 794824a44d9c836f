"""Random-weight GGUF files of real dimensions, made in seconds by writing random quantized blocks.

    python bench/models.py WORK_FOLDER [--source SOURCE] [--shape 0.1B 0.5B 1B] [--kind Q4_0 Q8_0 BF16 Q4_K]

No float is ever quantized: a block's scale is a constant with a random sign, its quants are random bytes, and the
constant makes the weights' spread n_in ** -0.5, so that activations keep their size through the blocks. What such a
model says means nothing; what it takes to run is what a real one takes. Tensor types are those that llama.cpp's own
quantization gives: the tied head Q6_K (Q8_0 where rows are no multiple of 256), Q4_K rows of such a length Q5_0.

The tokenizer is Qwen2's, all 151,936 tokens: its keys are copied from the vocabulary file in llama.cpp's source, which
llama-cpp-python's source distribution carries (SOURCE: that archive or folder; without it pip fetches it).
"""

from __future__ import annotations

import argparse
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from edgecal.gguf.header import read_header
from edgecal.gguf.values import Value

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/tools"))  # what builds llama.cpp's programs also finds its source

WORK = ROOT / "build/bench"
_ALIGNMENT = 32
_PIECE_BYTES = 1 << 26  # made and written at a time
_N_VALUES = 1 << 16  # different values in a tensor of floats


@dataclass(frozen=True)
class Shape:
    """What a model of the architecture qwen2 is made of; the head is tied to the token embeddings."""

    n_layer: int
    n_embd: int
    n_ff: int
    n_head: int
    n_head_kv: int
    n_vocab: int = 151_936

    @property
    def n_kv(self) -> int:
        return self.n_embd // self.n_head * self.n_head_kv

    @property
    def n_block_weights(self) -> int:
        """Weights that every token meets: those of the blocks, not of the head."""
        each = self.n_embd * (2 * self.n_embd + 2 * self.n_kv + 3 * self.n_ff)
        return self.n_layer * each

    def tensors(self, kind: str) -> Iterator[tuple[str, tuple[int, ...], str]]:
        """Name, numpy shape and type of every tensor."""
        head = "Q6_K" if kind.startswith("Q4") else kind
        yield "token_embd.weight", (self.n_vocab, self.n_embd), _fitting(head, self.n_embd)
        yield "output_norm.weight", (self.n_embd,), "F32"
        for il in range(self.n_layer):
            block = f"blk.{il}."
            for name, n_out, n_in in (
                ("attn_q", self.n_embd, self.n_embd),
                ("attn_k", self.n_kv, self.n_embd),
                ("attn_v", self.n_kv, self.n_embd),
                ("attn_output", self.n_embd, self.n_embd),
                ("ffn_gate", self.n_ff, self.n_embd),
                ("ffn_up", self.n_ff, self.n_embd),
                ("ffn_down", self.n_embd, self.n_ff),
            ):
                yield f"{block}{name}.weight", (n_out, n_in), _fitting(kind, n_in)
                if name[-2:] in ("_q", "_k", "_v"):
                    yield f"{block}{name}.bias", (n_out,), "F32"
            yield f"{block}attn_norm.weight", (self.n_embd,), "F32"
            yield f"{block}ffn_norm.weight", (self.n_embd,), "F32"


# 0.5B is Qwen2.5-0.5B; 1B has the blocks of Llama 3.2 1B.
SHAPES = {
    "0.1B": Shape(12, 512, 1536, 8, 2),
    "0.5B": Shape(24, 896, 4864, 14, 2),
    "1B": Shape(16, 2048, 8192, 32, 8),
}


def make_model(work: Path, shape: str, kind: str, source: Path | None = None) -> Path:
    """The random model of this shape and kind in the work folder, made if it is not there yet."""
    path = work / f"random-{shape}-{kind}.gguf"
    if not path.exists():
        work.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")  # an interrupted run leaves no half of a model
        _write(partial, SHAPES[shape], kind, find_vocabulary(work, source))
        partial.replace(path)
    return path


def find_vocabulary(work: Path, source: Path | None) -> Path:
    """llama.cpp's file with Qwen2's tokenizer and nothing else."""
    from building import find_source

    return find_source(source, work) / "models/ggml-vocab-qwen2.gguf"


def _write(path: Path, shape: Shape, kind: str, vocabulary: Path) -> None:
    keys = _keys(shape, vocabulary)
    tensors = list(shape.tensors(kind))
    infos, offset = [], 0
    for name, dims, type_name in tensors:
        infos.append(
            _string(name)
            + struct.pack(f"<I{len(dims)}Q", len(dims), *reversed(dims))
            + struct.pack("<IQ", GGMLQuantizationType[type_name], offset)
        )
        offset += _padded(_count_bytes(dims, type_name))
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(keys)) + b"".join(keys) + b"".join(infos)
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        file.write(head + bytes(_padded(len(head)) - len(head)))
        for name, dims, type_name in tensors:
            n_bytes = _count_bytes(dims, type_name)
            for piece in _make_tensor(name, dims, type_name, rng):
                file.write(piece)
            file.write(bytes(_padded(n_bytes) - n_bytes))


def _keys(shape: Shape, vocabulary: Path) -> list[bytes]:
    """Sizes of our own, and the tokenizer's keys byte for byte."""
    sizes: dict[str, Value] = {
        "general.architecture": Value.string("qwen2"),
        "general.name": Value.string("random weights"),
        "qwen2.block_count": Value.uint32(shape.n_layer),
        "qwen2.context_length": Value.uint32(32_768),
        "qwen2.embedding_length": Value.uint32(shape.n_embd),
        "qwen2.feed_forward_length": Value.uint32(shape.n_ff),
        "qwen2.attention.head_count": Value.uint32(shape.n_head),
        "qwen2.attention.head_count_kv": Value.uint32(shape.n_head_kv),
        "qwen2.rope.freq_base": Value.float32(1e6),
        "qwen2.attention.layer_norm_rms_epsilon": Value.float32(1e-6),
    }
    keys = [_string(name) + struct.pack("<I", value.type) + value.raw for name, value in sizes.items()]
    header = read_header(vocabulary)
    with vocabulary.open("rb") as file:
        for name, entry in header.entries.items():
            if name.startswith("tokenizer."):
                file.seek(entry.start)
                keys.append(file.read(entry.end - entry.start))
    return keys


def _make_tensor(
    name: str, dims: tuple[int, ...], type_name: str, rng: np.random.Generator
) -> Iterator[bytes]:
    if name.endswith(".bias"):
        yield (0.1 * rng.standard_normal(dims)).astype(np.float32).tobytes()
    elif name.endswith("norm.weight"):
        yield (1 + 0.1 * rng.standard_normal(dims)).astype(np.float32).tobytes()
    else:
        # Token embeddings, which are the head too, are as wide as every other row.
        yield from _make_rows(dims, type_name, dims[-1] ** -0.5, rng)


def _make_rows(
    dims: tuple[int, ...], type_name: str, spread: float, rng: np.random.Generator
) -> Iterator[bytes]:
    size, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[type_name]]
    n_blocks = dims[0] * dims[1] // size
    step = _PIECE_BYTES // block_bytes
    values = _float_values(type_name, spread, rng) if size == 1 else None
    for start in range(0, n_blocks, step):
        n = min(step, n_blocks - start)
        if values is not None:
            yield values[np.frombuffer(rng.bytes(2 * n), dtype=np.uint16)].tobytes()
        else:
            blocks = np.frombuffer(bytearray(rng.bytes(n * block_bytes)), np.uint8).reshape(n, block_bytes)
            _set_scales(blocks, type_name, spread, rng)
            yield blocks.tobytes()


def _float_values(type_name: str, spread: float, rng: np.random.Generator) -> np.ndarray:
    values = (spread * rng.standard_normal(_N_VALUES)).astype(np.float32)
    if type_name == "BF16":
        return (values.view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(np.float16) if type_name == "F16" else values


def _set_scales(blocks: np.ndarray, type_name: str, spread: float, rng: np.random.Generator) -> None:
    """Scales that give random quants this spread, with random signs: quants are not symmetric round zero, and a mean
    that all weights share would grow from block to block."""
    signs = rng.choice(np.array([-1, 1]), len(blocks))
    levels = {"Q4_0": 16, "Q5_0": 32, "Q8_0": 256, "Q4_K": 16, "Q6_K": 64}[type_name]
    scale = signs * spread / np.sqrt((levels**2 - 1) / 12)
    if type_name in ("Q4_0", "Q5_0", "Q8_0"):
        blocks[:, :2] = _halves(scale)
    elif (
        type_name == "Q4_K"
    ):  # all eight 6-bit scales and minima are 32; the minimum is the middle of the quants
        blocks[:, 0:2], blocks[:, 2:4] = _halves(scale / 32), _halves(scale / 32 * (levels - 1) / 2)
        blocks[:, 4:12], blocks[:, 12:16] = 0xA0, 0
    else:  # Q6_K: 16 scales of 8 bits
        blocks[:, 192:208], blocks[:, 208:210] = 32, _halves(scale / 32)


def _halves(scale: np.ndarray) -> np.ndarray:
    return scale.astype("<f2").view(np.uint8).reshape(-1, 2)


def _fitting(kind: str, n_in: int) -> str:
    """K-quants have blocks of 256; shorter rows get what llama.cpp's quantization gives them instead."""
    return {"Q4_K": "Q5_0", "Q6_K": "Q8_0"}.get(kind, kind) if n_in % 256 else kind


def _count_bytes(dims: tuple[int, ...], type_name: str) -> int:
    size, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[type_name]]
    return int(np.prod(dims)) // size * block_bytes


def _padded(n_bytes: int) -> int:
    return -(-n_bytes // _ALIGNMENT) * _ALIGNMENT


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work_folder", type=Path, nargs="?", default=WORK)
    parser.add_argument("--source", type=Path)
    parser.add_argument("--shape", nargs="+", default=["0.5B"], choices=SHAPES)
    parser.add_argument("--kind", nargs="+", default=["Q4_0"])
    arguments = parser.parse_args()
    for shape in arguments.shape:
        for kind in arguments.kind:
            path = make_model(arguments.work_folder, shape, kind, arguments.source)
            print(f"{path}: {path.stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
