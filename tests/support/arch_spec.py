"""What a row of the tables of tiny models says, and the keys that many rows share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

N_VOCAB = 544
N_EMBD = 64
N_HEAD = 4


@dataclass(frozen=True)
class ArchSpec:
    """One architecture: its keys without the prefix `<arch>.`, and what differs from the usual.

    Attributes
    ----------
    norm: "rms" or "layer", the kind of the final norm.
    n_layer: blocks in the file, of which the last `n_extra` guess tokens after the next one and are not run;
        n_loops: how often the others are.
    node, n_streams, by_stream: what the graph calls the residual stream after a block, and how it lies in the
        tensor: the streams of a token side by side, or all tokens of a stream. node None: there is no such name.
    lens: whether the last block's stream alone becomes the logits.
    last_keeps_all_rows: the last block's tensor holds every token of the micro-batch, not just the rows whose
        logits are wanted.
    mixes_sequences: llama.cpp goes wrong where tokens of several prompts lie in one micro-batch; adds_up_by_cuts:
        its sums depend on how tokens are cut into micro-batches.
    drop, keep: patterns of tensors to leave out and not to leave out whatever else is said.
    tied: no output.weight.
    logit_spread: about the standard deviation of the logits before any transform of them.
    plain_keys: keys that have no prefix.
    extra_tensors: ggml sizes of tensors that llama.cpp does not name, because it never makes them itself.
    """

    arch: str
    norm: str = "rms"
    n_layer: int = 3
    n_extra: int = 0
    n_loops: int = 1
    node: str | None = "l_out"
    n_streams: int = 1
    by_stream: bool = False
    lens: bool = True
    keys: dict[str, Any] = field(default_factory=dict)
    drop: str = r"^$"
    tied: bool = False
    last_keeps_all_rows: bool = False
    mixes_sequences: bool = False
    adds_up_by_cuts: bool = False
    logit_spread: float = 3.0
    n_vocab: int = N_VOCAB
    keep: str = r"^$"
    plain_keys: dict[str, Any] = field(default_factory=dict)
    extra_tensors: dict[str, list[int]] = field(default_factory=dict)

    @property
    def nodes(self) -> dict[str, Any]:
        """Where `tiny_run.run` is to look."""
        return {"node": self.node, "n_streams": self.n_streams, "by_stream": self.by_stream}

    @property
    def n_blocks(self) -> int:
        """Blocks whose outputs can be seen."""
        return (self.n_layer - self.n_extra) * self.n_loops


MOE = {
    "expert_count": 4,
    "expert_used_count": 2,
    "expert_feed_forward_length": 64,
    "expert_shared_feed_forward_length": 64,
    "expert_shared_count": 1,
    "expert_gating_func": 1,
}

SSM = {
    "ssm.conv_kernel": 4,
    "ssm.inner_size": 2 * N_EMBD,
    "ssm.state_size": 16,
    "ssm.time_step_rank": 4,
    "ssm.group_count": 1,
}

SSM2 = {**SSM, "ssm.group_count": 2}

DELTA_NET = {
    "rope.dimension_sections": [4, 2, 2, 0],
    "ssm.conv_kernel": 4,
    "ssm.inner_size": 64,
    "ssm.state_size": 16,
    "ssm.time_step_rank": 4,
    "ssm.group_count": 2,
    "full_attention_interval": 2,
}

MLA = {  # multi-head latent attention: one key-value head of rank 32 and 8 rotated dimensions
    "attention.head_count_kv": 1,
    "attention.q_lora_rank": 32,
    "attention.kv_lora_rank": 32,
    "attention.key_length": 40,
    "attention.value_length": 32,
    "attention.key_length_mla": 24,
    "attention.value_length_mla": 16,
    "rope.dimension_count": 8,
}

OPEN_MLA = {  # the same with keys and values of every head in the cache
    **MLA,
    "attention.head_count_kv": N_HEAD,
    "attention.key_length": 24,
    "attention.value_length": 16,
}

QKV_BIAS = r"attn_(q|k|v|qkv|output)\.bias|ffn_\w+\.bias"


def hybrid(n_layer: int) -> dict[str, Any]:
    """No heads, which is a recurrent state, in block 1."""
    heads = [0 if il == 1 else N_HEAD for il in range(n_layer)]
    return {"attention.head_count": heads, "attention.head_count_kv": heads}


def hybrid_mla(n_layer: int) -> dict[str, Any]:
    """The same for models that say it with the heads of keys and values only, of which the others have one."""
    heads = [0 if il == 1 else 1 for il in range(n_layer)]
    return {"attention.head_count_kv": heads}


SIGMOID_MOE = {**MOE, "expert_gating_func": 2, "leading_dense_block_count": 1, "expert_weights_norm": True}

KDA = {"kda.head_dim": 16, "kda.gate_lower_bound": -5.0, "ssm.conv_kernel": 4}

SWA = {"attention.sliding_window": 64, "attention.sliding_window_pattern": [1, 0, 1]}

INDEXER = {  # picks the tokens that attention sees: as many as there are
    "attention.indexer.head_count": 4,
    "attention.indexer.key_length": 64,
    "attention.indexer.top_k": 1024,
}

WKV = {
    "embedding_length": 128,
    "attention.head_count": 0,
    "attention.head_count_kv": 0,
    "wkv.head_size": 64,
    "time_mix_extra_dim": 8,
    "time_decay_extra_dim": 8,
    "token_shift_count": 2,
}

WKV7 = {
    "embedding_length": 128,
    "attention.head_count": 0,
    "attention.head_count_kv": 0,
    "wkv.head_size": 64,
    "attention.decay_lora_rank": 8,
    "attention.iclr_lora_rank": 8,
    "attention.value_residual_mix_lora_rank": 8,
    "attention.gate_lora_rank": 8,
    "token_shift_count": 2,
}

MROPE = {"rope.dimension_sections": [4, 2, 2, 0]}

# The epsilon is large so that it shows.
STREAMS = {
    "hyper_connection.count": 4,
    "hyper_connection.sinkhorn_iterations": 2,
    "hyper_connection.epsilon": 0.05,
}

# Tensors of a block behind the trunk, for architectures that llama.cpp does not make such blocks of.
EXTRA = {
    "blk.3.nextn.eh_proj.weight": [2 * N_EMBD, N_EMBD],
    "blk.3.nextn.enorm.weight": [N_EMBD],
    "blk.3.nextn.hnorm.weight": [N_EMBD],
    "blk.3.nextn.shared_head_norm.weight": [N_EMBD],
}
