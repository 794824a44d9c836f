"""The network and its tokenizer as GGUF, and quantized copies of it by llama.cpp.

It does not know how the weights came about. Files hold no time stamps: the same weights give the same bytes.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
from bpe import BEGIN, END, merges
from measure import silence
from network import Network, Shape
from tokenizers import Tokenizer

LICENSE = "mit"
QUANTIZATIONS = {
    "Q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0,
    "Q4_K_M": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_K_M,
    "Q4_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0,
}
BLOCK_TENSORS = {
    "attn_norm.weight": "attn_norm",
    "attention.q.weight": "attn_q",
    "attention.k.weight": "attn_k",
    "attention.v.weight": "attn_v",
    "attention.output.weight": "attn_output",
    "ffn_norm.weight": "ffn_norm",
    "gate.weight": "ffn_gate",
    "up.weight": "ffn_up",
    "down.weight": "ffn_down",
}


def tensor_name(name: str) -> str:
    """llama.cpp's name of one of `Network`'s parameters."""
    if name == "embedding.weight":
        return "token_embd.weight"
    if name == "norm.weight":
        return "output_norm.weight"
    if name == "output.weight":
        return name
    _, il, rest = name.split(".", 2)
    return f"blk.{il}.{BLOCK_TENSORS[rest]}.weight"


def write_gguf(network: Network, tokenizer: Tokenizer, path: Path, finetune: str, description: str) -> None:
    """Write `network` with float16 matrices and float32 norms. `finetune` is "Base" or "Chat"."""
    shape: Shape = network.shape
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(f"edgecal tiny {finetune}")
    writer.add_basename("edgecal-tiny")
    writer.add_finetune(finetune)
    writer.add_size_label(f"{sum(p.numel() for p in network.parameters()) / 1e6:.1f}M")
    writer.add_description(description)
    writer.add_license(LICENSE)
    writer.add_languages(["en"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_context_length(shape.n_ctx)
    writer.add_embedding_length(shape.n_embd)
    writer.add_block_count(shape.n_layer)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.n_head)
    writer.add_head_count_kv(shape.n_head_kv)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.norm_eps)
    writer.add_vocab_size(shape.n_vocab)
    _add_tokenizer(writer, tokenizer)
    for name, value in network.state_dict().items():
        array = value.detach().float().numpy()
        writer.add_tensor(tensor_name(name), array.astype(np.float16) if array.ndim == 2 else array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer) -> None:
    vocab = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    begin, end = tokenizer.token_to_id(BEGIN), tokenizer.token_to_id(END)
    special = {begin, end}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([text for text, _ in vocab])
    writer.add_token_types(
        [gguf.TokenType.CONTROL if i in special else gguf.TokenType.NORMAL for _, i in vocab]
    )
    writer.add_token_merges(merges(tokenizer))
    writer.add_bos_token_id(begin)
    writer.add_eos_token_id(end)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)


def quantize(source: Path, target: Path, kind: str, n_threads: int = 2) -> None:
    """Let llama.cpp quantize `source` to `kind`, a key of `QUANTIZATIONS`."""
    silence()
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = QUANTIZATIONS[kind]
    params.nthread = n_threads
    code = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params))
    if code != 0:
        raise RuntimeError(f"llama.cpp could not quantize {source} to {kind}: code {code}")
