"""Tiny GGUF models with random weights, written in the test run: nothing is downloaded, all is seeded.

- `write_tiny_llama`: a llama-architecture model with a real tokenizer, any quantization, any metadata.
- `write_tiny_pair`: a base model and a perturbed, more confident chat model of the same shape.
- `write_tiny_arch` (in `tiny_archs`): one of many other architectures.
- `tiny_folder`: a folder that lives as long as the test run, for models that several tests share.

Norm weights are not 1, biases not 0 and logits not flat, so that a mistake in reading any of them shows.
The same arguments give the same bytes; each tensor's numbers depend on the seed and its name only.
"""

from __future__ import annotations

import atexit
import shutil
import struct
import tempfile
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray
from support.ggml_types import TYPE_IDS, quantize_rows
from support.tiny_vocab import CHAT_TEMPLATE, CHAT_TOKENS, TinyVocab, bpe_vocab, spm_vocab

from edgecal.gguf.tensors import GGML_TYPES

FloatArray = NDArray[np.float32]

__all__ = [
    "n_vocab_of",
    "quantize",
    "tiny_folder",
    "write_gguf",
    "write_tiny_llama",
    "write_tiny_pair",
]


@cache
def tiny_folder() -> Path:
    """A folder for models that tests share; removed when the test process ends."""
    folder = Path(tempfile.mkdtemp(prefix="edgecal-tiny-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def normal(seed: int, name: str, *shape: int) -> FloatArray:
    """Standard normal numbers that depend on the seed, the name and the shape only."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return rng.standard_normal(shape, dtype=np.float32)


def quantize(data: FloatArray, name: str) -> tuple[NDArray[Any], str]:
    """Rows of `data` in the ggml type `name` (e.g. "Q4_K"), by ggml's own quantizer, and the name of their type.

    F32, F16 and BF16 are casts; rows that the type's blocks do not divide stay F16.
    """
    if name == "F32":
        return data, name
    if name == "F16" or data.shape[-1] % GGML_TYPES[TYPE_IDS[name]].block_elements:
        return data.astype(np.float16), "F16"
    return quantize_rows(data, name), name


def _add_value(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        (writer.add_uint32 if value >= 0 else writer.add_int32)(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, np.ndarray):
        assert value.dtype == np.uint64
        writer.add_key_value(key, value.tolist(), gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.UINT64)
    else:
        writer.add_array(key, value)


def write_gguf(
    path: Path | str,
    arch: str,
    metadata: dict[str, Any],
    tensors: dict[str, FloatArray],
    *,
    types: dict[str, str] | None = None,
    split_max_tensors: int = 0,
) -> Path:
    """Write a GGUF from float32 tensors; `types` maps a tensor's name to its ggml type (default F32).

    Metadata: bool, int (UINT32, negative INT32), float (FLOAT32), str, list, array of UINT64; None leaves the key out.
    With `split_max_tensors` the file is split, and the first shard's path is returned.
    """
    path = Path(path)
    writer = gguf.GGUFWriter(path, arch, split_max_tensors=split_max_tensors)
    for key, value in metadata.items():
        if value is not None:
            _add_value(writer, key, value)
    unnamed = {}
    for name, data in tensors.items():
        raw, kind = quantize(data, (types or {}).get(name, "F32"))
        if kind not in gguf.GGMLQuantizationType.__members__:
            unnamed[name] = (TYPE_IDS[kind], data.shape[-1])
            raw, kind = raw.view(np.int8), "I8"
        writer.add_tensor(name, raw, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if not split_max_tensors:
        _name_types(path, unnamed)
        return path
    assert not unnamed, f"{sorted(unnamed)}: types that gguf-py lacks are for files that are not split"
    return next(iter(sorted(path.parent.glob(f"{path.stem}-00001-of-*.gguf"))))


def _name_types(path: Path, types: dict[str, tuple[int, int]]) -> None:
    """Give tensors that were written as bytes the type (an id, and numbers per row) that gguf-py has no name for."""
    if not types:
        return
    data = bytearray(path.read_bytes())
    for name, (type_id, n_per_row) in types.items():
        entry = struct.pack("<Q", len(name)) + name.encode()
        at = data.index(entry) + len(entry)
        (n_dims,) = struct.unpack_from("<I", data, at)
        struct.pack_into("<Q", data, at + 4, n_per_row)
        struct.pack_into("<I", data, at + 4 + 8 * n_dims, type_id)
    path.write_bytes(data)


def _vocabulary(
    vocab: str | TinyVocab, n_vocab: int | None, extra: tuple[str, ...]
) -> tuple[TinyVocab | None, int]:
    if isinstance(vocab, str):
        if vocab == "none":
            return None, n_vocab or 256
        vocab = {"bpe": bpe_vocab, "spm": spm_vocab}[vocab]()
    vocab = vocab.extended(extra)
    if n_vocab is None:
        n_vocab = -(-len(vocab) // 32) * 32
    return vocab.padded(n_vocab), n_vocab


def n_vocab_of(vocab: str | TinyVocab, extra_tokens: tuple[str, ...] = ()) -> int:
    """The vocabulary size that `write_tiny_llama` takes by default."""
    return _vocabulary(vocab, None, extra_tokens)[1]


def llama_tensors(
    seed: int,
    *,
    n_layer: int,
    n_embd: int,
    n_head: int,
    n_head_kv: int,
    n_ff: int,
    n_vocab: int,
    tied: bool,
    logit_spread: float,
) -> dict[str, FloatArray]:
    """Random llama weights; the final logits get a standard deviation of about `logit_spread`."""
    head_dim = n_embd // n_head

    def matrix(name: str, n_out: int, n_in: int, gain: float = 1.0) -> None:
        tensors[name] = normal(seed, name, n_out, n_in) * np.float32(gain / np.sqrt(n_in))

    def norm(name: str) -> None:
        tensors[name] = 1 + np.float32(0.3) * normal(seed, name, n_embd)

    tensors: dict[str, FloatArray] = {}
    matrix("token_embd.weight", n_vocab, n_embd, logit_spread if tied else np.sqrt(n_embd))
    norm("output_norm.weight")
    if not tied:
        matrix("output.weight", n_vocab, n_embd, logit_spread)
    for il in range(n_layer):
        norm(f"blk.{il}.attn_norm.weight")
        matrix(f"blk.{il}.attn_q.weight", n_embd, n_embd, 1.5)
        matrix(f"blk.{il}.attn_k.weight", head_dim * n_head_kv, n_embd, 1.5)
        matrix(f"blk.{il}.attn_v.weight", head_dim * n_head_kv, n_embd)
        matrix(f"blk.{il}.attn_output.weight", n_embd, n_embd)
        norm(f"blk.{il}.ffn_norm.weight")
        matrix(f"blk.{il}.ffn_gate.weight", n_ff, n_embd)
        matrix(f"blk.{il}.ffn_up.weight", n_ff, n_embd)
        matrix(f"blk.{il}.ffn_down.weight", n_embd, n_ff)
    return tensors


def _llama_metadata(
    tensors: dict[str, FloatArray], n_layer: int, n_head: int, n_head_kv: int, n_ctx_train: int
) -> dict[str, Any]:
    n_vocab, n_embd = tensors["token_embd.weight"].shape
    return {
        "general.name": "Tiny Llama",
        "llama.block_count": n_layer,
        "llama.context_length": n_ctx_train,
        "llama.embedding_length": n_embd,
        "llama.feed_forward_length": tensors["blk.0.ffn_up.weight"].shape[0],
        "llama.attention.head_count": n_head,
        "llama.attention.head_count_kv": n_head_kv,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": n_embd // n_head,
        "llama.vocab_size": n_vocab,
    }


_FILE_TYPES = {
    "F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q4_K": 15, "Q6_K": 18,
    "BF16": 32,
}  # fmt: skip


def _write_llama(
    path: Path | str,
    tensors: dict[str, FloatArray],
    metadata: dict[str, Any],
    vocab: TinyVocab | None,
    quantization: str,
    head_quantization: str | None,
    chat_template: str | None,
    overrides: dict[str, Any] | None,
    split_max_tensors: int,
) -> Path:
    metadata = {**metadata, "general.file_type": _FILE_TYPES.get(quantization, 1024)}
    metadata.update(vocab.metadata() if vocab else {"tokenizer.ggml.model": "none"})
    metadata["tokenizer.chat_template"] = chat_template
    metadata.update(overrides or {})
    head = "output.weight" if "output.weight" in tensors else "token_embd.weight"
    types = {name: quantization for name, data in tensors.items() if data.ndim > 1}
    if head_quantization is not None:
        types[head] = head_quantization
    return write_gguf(path, "llama", metadata, tensors, types=types, split_max_tensors=split_max_tensors)


def write_tiny_llama(
    path: Path | str,
    *,
    seed: int,
    n_layer: int = 4,
    n_embd: int = 64,
    n_head: int = 4,
    n_head_kv: int | None = None,
    n_ff: int | None = None,
    vocab: str | TinyVocab = "bpe",
    n_vocab: int | None = None,
    quantization: str = "F32",
    head_quantization: str | None = None,
    tied: bool = False,
    logit_spread: float = 3.0,
    n_ctx_train: int = 2048,
    chat_template: str | None = None,
    extra_tokens: tuple[str, ...] = (),
    metadata: dict[str, Any] | None = None,
    split_max_tensors: int = 0,
) -> Path:
    """Write a random llama model to `path` and return the path (of the first shard if split).

    - `vocab`: "bpe", "spm", "none" (token ids only; llama.cpp aborts if asked to tokenize) or a `TinyVocab`.
      `n_vocab` pads it with unused tokens (default: to a multiple of 32); `extra_tokens` adds control tokens.
    - `quantization`: ggml type of all matrices; `head_quantization` that of the output head alone (the
      embedding when `tied`). K-quants want `n_embd` and `n_ff` in multiples of 256, others of 32.
    - `logit_spread`: about the standard deviation of the final logits over the vocabulary.
    - `metadata` overrides or adds keys; None removes one.
    """
    n_head_kv = n_head_kv or n_head
    words, n_vocab = _vocabulary(vocab, n_vocab, extra_tokens)
    tensors = llama_tensors(
        seed, n_layer=n_layer, n_embd=n_embd, n_head=n_head, n_head_kv=n_head_kv, n_ff=n_ff or 2 * n_embd,
        n_vocab=n_vocab, tied=tied, logit_spread=logit_spread,
    )  # fmt: skip
    keys = _llama_metadata(tensors, n_layer, n_head, n_head_kv, n_ctx_train)
    template = chat_template
    return _write_llama(
        path, tensors, keys, words, quantization, head_quantization, template, metadata, split_max_tensors
    )


def write_tiny_pair(
    base_path: Path | str,
    chat_path: Path | str,
    *,
    seed: int,
    n_layer: int = 4,
    n_embd: int = 64,
    n_head: int = 4,
    n_ff: int | None = None,
    vocab: str | TinyVocab = "bpe",
    quantization: str = "F32",
    tied: bool = False,
    logit_spread: float = 2.0,
    perturbation: float = 0.1,
    sharpening: float = 2.0,
    extra_tokens: tuple[str, ...] = CHAT_TOKENS,
    chat_template: str | None = CHAT_TEMPLATE,
    base_metadata: dict[str, Any] | None = None,
    chat_metadata: dict[str, Any] | None = None,
) -> tuple[Path, Path]:
    """Write a base model and a chat model made from it; return both paths.

    The chat model's matrices are the base's plus `perturbation` times noise of the same scale, its final
    norm is `sharpening` times as large (so its logits are too), and its vocabulary has `extra_tokens` at
    the end, which the base lacks. With the defaults the two decide alike on most prompts, not on all.
    """
    base_words, n_base = _vocabulary(vocab, None, ())
    if base_words is None:
        extra_tokens = ()
        chat_words, n_chat = None, n_base
    else:
        chat_words = base_words.extended(extra_tokens)
        n_chat = len(chat_words)
    shape = {"n_layer": n_layer, "n_embd": n_embd, "n_head": n_head, "n_head_kv": n_head}
    base = llama_tensors(
        seed, **shape, n_ff=n_ff or 2 * n_embd, n_vocab=n_base, tied=tied, logit_spread=logit_spread
    )
    chat: dict[str, FloatArray] = {}
    for name, data in base.items():
        noise = normal(seed + 1_000_003, name, *data.shape)
        chat[name] = data + noise * np.float32(perturbation * data.std()) if data.ndim > 1 else data
    chat["output_norm.weight"] = base["output_norm.weight"] * np.float32(sharpening)
    for name in ("token_embd.weight", "output.weight"):
        if name in chat and n_chat > n_base:
            added = normal(seed + 2_000_003, name, n_chat - n_base, n_embd) * base[name].std()
            chat[name] = np.concatenate([chat[name], added])
    for path, tensors, words, template, override, title in (
        (base_path, base, base_words, None, base_metadata, "Tiny Llama Base"),
        (chat_path, chat, chat_words, chat_template, chat_metadata, "Tiny Llama Chat"),
    ):
        keys = {**_llama_metadata(tensors, n_layer, n_head, n_head, 2048), "general.name": title}
        _write_llama(path, tensors, keys, words, quantization, None, template, override, 0)
    return Path(base_path), Path(chat_path)
