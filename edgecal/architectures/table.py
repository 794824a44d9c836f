"""The table: for every family of architectures, how the residual stream becomes logits.

One formula covers all of them, in this order: `x = scale * (head . norm(merge(h)) + bias)`, and with a soft cap c
`c * tanh(x / c)`. Each family is a row of parameters; the only part that parameters cannot express is the `merge` of
several streams, a function in `edgecal.lens.stream_merge`. llama.cpp's `src/models/<architecture>.cpp` is the reference
for each row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

__all__ = ["FAMILIES", "REFUSALS", "Family", "GetKey", "Merge", "family_of", "refusal_of", "why_no_layers"]

# Returns the value of a metadata key, None if it is missing.
GetKey: TypeAlias = Callable[[str], Any]

Merge: TypeAlias = Literal["sigmoid", "mean", "gated", "altup"]


@dataclass(frozen=True)
class Family:
    """How the architectures of one family end.

    Attributes
    ----------
    norm: kind of the final norm. "by key": RMSNorm if the file has a nonzero RMS epsilon. None: no separate norm
        follows the blocks (the merge includes one).
    norm_tensor: name of its weight, without ".weight"; None if it has none.
    reads_eps: false where llama.cpp fails to read the norm's epsilon, so that it is zero.
    head_bias: whether llama.cpp adds `output.bias` if the file has one.
    head_scale: whether llama.cpp multiplies an NVFP4 head by `output.scale`, which it loads for every architecture.
    scale: how `<architecture>.logit_scale` acts on the logits; "256 / width" is a fixed factor that needs no key;
        None: the key is not read.
    scale_default: the value if the key is missing, a number or "256 / width"; None: no scale.
    soft_cap: "read": the cap is in `<architecture>.final_logit_softcapping`; "fixed": it is `cap_default`, whatever
        the file says; None: no cap.
    cap_default: the cap if the key is missing or not read.
    node: the graph's name for the residual stream after a block.
    merge: how a block's several streams become one, see `edgecal.lens.stream_merge`.
    may_share: false where llama.cpp's numbers for a prompt depend on which prompts share its batch or on where its
        tokens are split into micro-batches, so that every prompt must be run alone.
    embeds_input: false where the embedding that llama.cpp outputs for a token is not the head's input.
    is_known: false for an architecture that is not in the table.
    """

    norm: Literal["rms", "layer", "by key"] | None = "rms"
    norm_tensor: str | None = "output_norm"
    reads_eps: bool = True
    head_bias: bool = True
    head_scale: bool = True
    scale: Literal["multiplies", "divides", "256 / width"] | None = None
    scale_default: float | Literal["256 / width"] | None = None
    soft_cap: Literal["read", "fixed"] | None = None
    cap_default: float | None = None
    node: str = "l_out"
    merge: Merge | None = None
    may_share: bool = True
    embeds_input: bool = True
    is_known: bool = True


def _rows(*rows: tuple[str, Family]) -> dict[str, Family]:
    return {name: family for names, family in rows for name in names.split()}


FAMILIES: dict[str, Family] = _rows(
    # RMSNorm and a head, nothing else. Some have only the norm's weight, some a head bias too.
    (
        """
        afmoe apertus arcee arctic baichuan bailingmoe bailingmoe2 bitnet chatglm deci deepseek dots1 ernie4_5
        ernie4_5-moe exaone exaone-moe exaone4 falcon-h1 gemma glm4 glm4moe gpt-oss grovemoe hunyuan-dense
        hunyuan-moe hunyuan_vl hy_v3 internlm2 jamba llama llama4 maincoder mamba mamba2 maple mellum mimo2
        minimax-m2 minimax-m3 mistral3 nanbeige olmo2 olmoe openelm paddleocr pangu-embedded phi3 phimoe plamo
        plamo3 plm qwen qwen2 qwen2moe qwen3 qwen35 qwen35moe qwen3moe qwen3next qwen3vl qwen3vlmoe refact
        seed_oss smallthinker smollm3 step35 xverse
        """,
        Family(),
    ),
    # llama.cpp loads the scale of an NVFP4 head and never uses it.
    (
        """
        bailingmoe3 deepseek2 deepseek2-ocr deepseek32 dots3note glm-dsa kimi-k3 kimi-linear laguna mistral4
        spark2_5
        """,
        Family(head_scale=False),
    ),
    # llama.cpp loads the bias and never adds it.
    ("qwen2vl", Family(reads_eps=False, head_bias=False)),
    # The graph has another name for the stream.
    ("nemotron_h nemotron_h_moe", Family(node="nemotron_h_block_out")),
    # llama.cpp mixes up the tokens of different sequences in a micro-batch.
    ("plamo2", Family(node="ffn_residual", may_share=False)),
    # For a micro-batch of several sequences the first two store wrong states; the last accumulates across sequences.
    ("arwkv7 rwkv6qwen2 minimax-01", Family(may_share=False)),
    # The converter gave the final norm the name that the embedding's norm has elsewhere. For embeddings llama.cpp
    # builds another graph, without a head, whose numbers differ.
    ("lfm2 lfm2moe", Family(norm_tensor="token_embd_norm", embeds_input=False)),
    ("hrm_text", Family(norm_tensor=None)),
    ("talkie", Family(norm_tensor=None, head_scale=False, scale="multiplies")),
    # LayerNorm
    (
        """
        bloom codeshell dbrx falcon gpt2 gptneox jais jais2 mpt nemotron orion phi2 rwkv6 rwkv7 stablelm starcoder
        starcoder2
        """,
        Family("layer"),
    ),
    ("olmo", Family("layer", norm_tensor=None)),
    # Logit scale
    ("command-r cohere2", Family("layer", scale="multiplies")),
    ("cohere2moe", Family("by key", head_scale=False, scale="multiplies")),
    ("granite granite_swa granitehybrid granitemoe graniteswitch", Family(scale="divides")),
    ("minicpm", Family(scale="divides", scale_default="256 / width")),
    ("minicpm3", Family(scale="256 / width")),
    # Soft cap
    ("gemma2 gemma4", Family(soft_cap="read", cap_default=30.0)),
    ("gemma3", Family(soft_cap="read")),
    ("gemma3n", Family(soft_cap="fixed", cap_default=30.0, merge="altup")),
    # Both: the cap follows the scale.
    ("grok", Family(scale="multiplies", scale_default=0.5773502691896257, soft_cap="read")),
    ("muse-glimmer", Family(scale="multiplies", soft_cap="read", cap_default=30.0)),
    # Several streams. In deepseek4 a copied state is taken not when it is copied but when the copy is first used.
    ("deepseek4", Family(head_scale=False, node="l_last", merge="sigmoid", may_share=False)),
    ("hy_v4", Family(head_scale=False, merge="sigmoid")),
    ("glm5-next", Family(head_scale=False, merge="mean")),
    ("qwen4exp", Family(None, None, node="l_last", merge="gated")),
)

_UNKNOWN = Family("by key", is_known=False)

_NOT_CAUSAL = "it does not predict one next token from the tokens before it"
_ENCODER = "it is an encoder, which gives embeddings or classes and no next token"
_EMBEDS = "it is made for embeddings and attends to later tokens, so it predicts no next token"
_DIFFUSION = "it fills in masked tokens by diffusion instead of predicting the next one"
_DRAFTS = "it only drafts for another model, whose logits count"
_AUDIO = "its output is audio, not text"
_VISION = "it turns pictures or sound into embeddings for another model"

# Architectures that edgecal cannot calibrate, with the reason.
REFUSALS: dict[str, str] = {
    name: reason
    for names, reason in (
        (
            "bert eurobert jina-bert-v2 jina-bert-v3 modern-bert neo-bert nomic-bert nomic-bert-moe t5encoder",
            _ENCODER,
        ),
        ("gemma-embedding llama-embed", _EMBEDS),
        ("dream llada llada-moe rnd1", _DIFFUSION),
        ("t5", f"{_NOT_CAUSAL}: it is an encoder with a decoder"),
        ("dflash eagle3 gemma4-assistant", _DRAFTS),
        ("pockettts qwen3tts wavtokenizer-dec", _AUDIO),
        ("clip", _VISION),
        (
            "cogvlm",
            "llama.cpp returns the logits of its first tokens instead of the requested ones",
        ),
        (
            "chameleon",
            "llama.cpp masks the logits of its picture tokens in one prompt of a decode and not in the others",
        ),
        ("gptj", "llama.cpp knows the name but cannot run it"),
    )
    for name in names.split()
}


def family_of(architecture: str) -> Family:
    """The row of an architecture (`general.architecture`). One that is not in the table is assumed to end in a norm
    and a head, with `is_known` false."""
    return FAMILIES.get(architecture, _UNKNOWN)


def refusal_of(architecture: str) -> str | None:
    """Why edgecal cannot calibrate an architecture; None if it can."""
    return REFUSALS.get(architecture)


def why_no_layers(architecture: str, get: GetKey) -> str | None:
    """Why the layers of a file cannot be read, although its logits can; None if no reason is known.

    `get` returns the value of a metadata key, None if it is missing.
    """
    if architecture == "hrm_text":
        return (
            "it runs its blocks several times over two states and the head reads only one of them, so most of its "
            "layers do not lead to the logits"
        )
    if architecture == "step35":
        return (
            "llama.cpp's graph renames the outputs of its blocks, the last one's to a name without its number"
        )
    if architecture == "kimi-k3" and get("kimi-k3.attn_res.block_size") != 0:
        return (
            "its logits also depend on the embedding and the outputs of earlier blocks, which it stores, so no "
            "block's output alone determines them"
        )
    return None
