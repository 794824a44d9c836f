"""The models of `twins` in transformers, with the very weights of the GGUF, and their logits after each block.

transformers and torch are the extra `reference`; importing this module imports neither.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import gguf
import numpy as np
from support.tiny_models import FloatArray
from support.twins import TWINS, Twin, twin_path

__all__ = ["load_twin", "read_layers"]


def load_twin(name: str, *, left_out: str = r"(?!)", settings: dict[str, Any] | None = None) -> Any:
    """The model of transformers with the keys and tensors of `twin_path(name)`, in float32.

    To see what a part does: the tensors whose GGUF name matches `left_out` are made neutral (biases 0, norm
    weights 1), and `settings` replaces settings of the configuration. Raises where a tensor of the file goes
    nowhere or a parameter gets none.
    """
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)  # the matrices are tiny: two threads take twenty times longer on busy cores
    twin = TWINS[name]
    reader = gguf.GGUFReader(twin_path(name))
    tensors = {item.name: np.array(item.data) for item in reader.tensors}
    for key, data in tensors.items():
        if re.search(left_out, key):
            data[...] = 0 if key.endswith(".bias") else 1
    config = _configuration(twin, reader, settings or {})
    model: Any = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    if "output.bias" in tensors and model.lm_head.bias is None:
        model.lm_head.bias = torch.nn.Parameter(torch.zeros(config.vocab_size))
    parameters = _parameters(twin, model, tensors)
    model.load_state_dict({key: torch.tensor(data) for key, data in parameters.items()}, strict=True)
    return model


def read_layers(model: Any, prompts: Sequence[Sequence[int]]) -> tuple[FloatArray, FloatArray]:
    """What `model` would answer after each prompt if it stopped after each of its blocks.

    To stop, the blocks that follow are taken out of the model: its final norm, head and whatever it does to
    logits are its own code.

    Returns
    -------
    hidden: float32 [n, n_layer - 1, n_embd], the residual stream after each block but the last, which
        transformers shows behind the final norm only; logits: float32 [n, n_layer, n_vocab]. Both at the
        last token.
    """
    import torch

    base, blocks_name = model.base_model, _blocks_name(model)
    blocks = getattr(base, blocks_name)
    hidden, logits = [], []
    with torch.no_grad():
        for prompt in prompts:
            tokens = torch.tensor([list(prompt)])
            whole = model(tokens, use_cache=False, output_hidden_states=True)
            hidden.append([after[0, -1].numpy() for after in whole.hidden_states[1:-1]])
            answers = []
            for n_blocks in range(1, len(blocks)):
                setattr(base, blocks_name, blocks[:n_blocks])
                answers.append(model(tokens, use_cache=False).logits[0, -1].numpy())
            setattr(base, blocks_name, blocks)
            logits.append([*answers, whole.logits[0, -1].numpy()])
    return np.array(hidden), np.array(logits)


def _blocks_name(model: Any) -> str:
    return "h" if hasattr(model.base_model, "h") else "layers"


def _configuration(twin: Twin, reader: gguf.GGUFReader, changes: dict[str, Any]) -> Any:
    import transformers

    def key(name: str, default: Any = None) -> Any:
        found = reader.fields.get(f"{twin.spec.arch}.{name}")
        return default if found is None else found.contents()

    head_dim = key("attention.key_length", key("embedding_length") // key("attention.head_count"))
    settings = {
        "vocab_size": key("vocab_size"),
        "hidden_size": key("embedding_length"),
        "intermediate_size": key("feed_forward_length"),
        "num_hidden_layers": key("block_count"),
        "num_attention_heads": key("attention.head_count"),
        "num_key_value_heads": key("attention.head_count_kv"),
        "head_dim": head_dim,
        "max_position_embeddings": key("context_length"),
        "rms_norm_eps": key("attention.layer_norm_rms_epsilon"),
        "layer_norm_eps": key("attention.layer_norm_epsilon"),
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": key("rope.freq_base", 10000.0),
            "partial_rotary_factor": key("rope.dimension_count") / head_dim,
        },
        "tie_word_embeddings": twin.spec.tied,
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id")),
        **{setting: key(name) for setting, name in twin.keys.items()},
        **twin.settings,
        **changes,
    }
    return getattr(transformers, twin.config)(**settings)


def _parameters(twin: Twin, model: Any, tensors: dict[str, FloatArray]) -> dict[str, FloatArray]:
    """A GGUF's tensors under the names and in the layout of transformers."""
    base, blocks = model.base_model_prefix, _blocks_name(model)
    modules = {f"{base}.{module}": names for module, names in twin.ends.items()}
    modules["lm_head"] = "token_embd" if twin.spec.tied else "output"
    for il in range(twin.spec.n_layer):
        for module, names in twin.blocks.items():
            modules[f"{base}.{blocks}.{il}.{module}"] = " ".join(f"blk.{il}.{name}" for name in names.split())
    parameters, used = {}, set()
    for module, names in modules.items():
        for kind in ("weight", "bias"):
            parts = [f"{name}.{kind}" for name in names.split()]
            if not tensors.keys() & set(parts):
                continue
            used.update(parts)
            data = [_converted(twin, model.config, part, tensors[part]) for part in parts]
            if ".experts." in module:  # a parameter itself: [expert, rows, columns]
                parameters[module] = np.concatenate(data, axis=1)
            elif type(model.get_submodule(module)).__name__ == "Conv1D" and kind == "weight":
                parameters[f"{module}.{kind}"] = np.concatenate(data).T
            else:
                parameters[f"{module}.{kind}"] = np.concatenate(data)
    assert used == tensors.keys(), f"these go nowhere: {sorted(tensors.keys() - used)}"
    return parameters


def _converted(twin: Twin, config: Any, name: str, data: FloatArray) -> FloatArray:
    if name.endswith("norm.weight"):
        return data - np.float32(twin.norm_offset)
    rotated = re.search(r"\.attn_([qk])\.", name)
    if twin.permuted and rotated:
        n_head = config.num_attention_heads if rotated[1] == "q" else config.num_key_value_heads
        return data.reshape(n_head, -1, 2, *data.shape[1:]).swapaxes(1, 2).reshape(data.shape)
    return data
