"""Low-rank post-training of a real GGUF model in PyTorch, on the CPU: supervised or by preferences.

The network is transformers' own, filled from the GGUF file and rounded to bfloat16; the low-rank change is peft's, in
float32. The loss is on the label's token alone, so that the output matrix is needed at each prompt's last token only.
Tokens come from llama.cpp. Batches hold prompts of about the same length. One thread computes, a checkpoint is written
about once a minute, and a training that was stopped goes on from it with the same result. It knows no tasks.
"""

from __future__ import annotations

import json
import random
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import torch
import torch.nn.functional as F
from factory.lowrank import Floats, Training
from factory.real_data import Row
from measure import silence, tokenize
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict

CHECKPOINT_S = 60.0
# transformers' matrices and llama.cpp's; llama.cpp stores some architectures' queries and keys in another row order.
MATRICES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


@dataclass(frozen=True)
class Example:
    """Token ids of a prompt, and of each label; `answer` is the right label's index."""

    ids: tuple[int, ...]
    label_ids: tuple[int, ...]
    answer: int


def encode(path: Path, rows: Sequence[Row]) -> list[Example]:
    """The rows in the tokens of the GGUF model at `path`.

    Raises
    ------
    ValueError: a label is not one token after its prompt.
    """
    silence()
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    vocab = llama_cpp.llama_model_get_vocab(model)
    try:
        examples = []
        for row in rows:
            ids = tokenize(vocab, row.prompt)
            label_ids = []
            for label in row.labels:
                whole = tokenize(vocab, row.prompt + label)
                if whole[:-1] != ids:
                    raise ValueError(f"{label!r} is not one token of {path.name} after {row.prompt[-40:]!r}")
                label_ids.append(whole[-1])
            examples.append(Example(tuple(ids), tuple(label_ids), row.answer))
        return examples
    finally:
        llama_cpp.llama_model_free(model)


def load_network(path: Path, kept: Path, dtype: torch.dtype = torch.bfloat16) -> Any:
    """transformers' network with the weights of the GGUF model at `path`, frozen.

    kept: a folder where the converted weights stay, since the conversion takes most of a minute.
    """
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    if not (kept / "model.safetensors").exists():
        network = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
        del network.config.quantization_config
        network.config.save_pretrained(kept)
        state = network.state_dict()
        if network.config.tie_word_embeddings:
            del state["lm_head.weight"]
        partial = kept / "model.partial"
        save_file({k: v.contiguous() for k, v in state.items()}, partial, metadata={"format": "pt"})
        partial.replace(kept / "model.safetensors")
    network = AutoModelForCausalLM.from_pretrained(kept, dtype=dtype)
    network.requires_grad_(False)
    return network


def last_logits(network: Any, examples: Sequence[Example]) -> torch.Tensor:
    """Logits [n, n_vocab] of the token after each prompt, float32. Shorter prompts are filled up on the right."""
    longest = max(len(e.ids) for e in examples)
    ids = torch.tensor([[*e.ids, *[0] * (longest - len(e.ids))] for e in examples])
    last = torch.tensor([len(e.ids) - 1 for e in examples])
    hidden = network.model(input_ids=ids, use_cache=False).last_hidden_state
    logits: torch.Tensor = network.lm_head(hidden[torch.arange(len(examples)), last])
    return logits.float()


def batches(examples: Sequence[Example], training: Training, seed: str) -> Iterator[list[int]]:
    """Indices of each step's examples, all epochs: in random order, yet of about the same length within a batch."""
    rng = random.Random(f"batches {seed}")
    n = training.n_rows
    for _ in range(training.n_epochs):
        order = rng.sample(range(len(examples)), len(examples))
        found = []
        for start in range(0, len(order), 8 * n):
            some = sorted(order[start : start + 8 * n], key=lambda i: len(examples[i].ids))
            found += [some[i : i + n] for i in range(0, len(some), n)]
        rng.shuffle(found)
        yield from found


def label_logits(network: Any, examples: Sequence[Example], n_rows: int = 32) -> list[Floats]:
    """Each example's logits of its labels, float32 [K], without gradients."""
    found: list[Floats] = [np.zeros(0, np.float32)] * len(examples)
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].ids))
    with torch.no_grad():
        for start in range(0, len(order), n_rows):
            some = order[start : start + n_rows]
            logits = last_logits(network, [examples[i] for i in some])
            for row, i in enumerate(some):
                found[i] = logits[row, list(examples[i].label_ids)].numpy()
    return found


def post_train(
    path: Path,
    kept: Path,
    examples: Sequence[Example],
    training: Training,
    folder: Path,
    seed: str,
    report: Callable[[str], None] = print,
) -> dict[str, Floats]:
    """Finds the change of the model at `path`, as `lowrank.write_with_update` wants it.

    folder: where the checkpoint and `training.json` (settings, losses, seconds) are; a training that ended there is
    read, one that was interrupted goes on. kept: as in `load_network`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / "update.npz"
    if done.exists():
        with np.load(done) as stored:
            return dict(stored)
    torch.set_num_threads(1)
    torch.manual_seed(random.Random(seed).randrange(2**31))
    base = load_network(path, kept)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        network = get_peft_model(
            base,
            LoraConfig(
                r=training.rank,
                lora_alpha=training.alpha,
                lora_dropout=0.0,
                target_modules=[name.split(".")[1] for name in MATRICES],
            ),
        )
    weights = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=training.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    steps = list(batches(examples, training, seed))
    state: dict[str, Any] = {"step": 0, "seconds": 0.0, "losses": []}
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        stored = torch.load(checkpoint, weights_only=True)
        set_peft_model_state_dict(network, stored["network"])
        optimizer.load_state_dict(stored["optimizer"])
        state = stored["state"]
        report(f"going on from step {state['step']} of {len(steps)}")
    started = time.monotonic() - state["seconds"]
    # Autocast would keep the first step's copy of every trained weight.
    with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
        reference = None
        if training.kind == "dpo":
            with network.disable_adapter():
                reference = label_logits(base, examples)
            report(f"the base model's preferences took {time.monotonic() - started - state['seconds']:.0f} s")
        saved = time.monotonic()
        for step in range(state["step"], len(steps)):
            some = [examples[i] for i in steps[step]]
            log_probs = last_logits(base, some).log_softmax(-1)
            known = [reference[i] for i in steps[step]] if reference is not None else None
            loss = compute_loss(log_probs, some, known, training)
            warm = min(1.0, (step + 1) / max(1.0, 0.05 * len(steps)))
            for group in optimizer.param_groups:
                group["lr"] = training.learning_rate * warm * (1 - step / len(steps))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            state["losses"].append(round(loss.item(), 4))
            state["step"] = step + 1
            state["seconds"] = time.monotonic() - started
            if step % 10 == 9 or step + 1 == len(steps):
                mean = np.mean(state["losses"][-10:])
                report(f"step {step + 1}/{len(steps)}  loss {mean:.4f}  {state['seconds']:.0f} s")
            if time.monotonic() - saved > CHECKPOINT_S and step + 1 < len(steps):
                whole = {
                    "network": get_peft_model_state_dict(network),
                    "optimizer": optimizer.state_dict(),
                    "state": state,
                }
                torch.save(whole, folder / "checkpoint.partial")
                (folder / "checkpoint.partial").replace(checkpoint)
                saved = time.monotonic()
    update = gather(get_peft_model_state_dict(network), training, base.config)
    about = {"training": asdict(training), "seed": seed, "n_examples": len(examples), **state}
    (folder / "training.json").write_text(json.dumps(about), encoding="utf-8")
    with (folder / "update.partial").open("wb") as file:
        np.savez(file, **update)
    (folder / "update.partial").replace(done)
    checkpoint.unlink(missing_ok=True)
    return update


def compute_loss(
    log_probs: torch.Tensor,
    examples: Sequence[Example],
    reference: Sequence[Floats] | None,
    training: Training,
) -> torch.Tensor:
    """The mean loss of a batch from log-probabilities [n, n_vocab]; `reference`: the base's label logits for "dpo"."""
    rows = torch.arange(len(examples))
    right = torch.tensor([e.label_ids[e.answer] for e in examples])
    supervised = F.nll_loss(log_probs, right)
    if training.kind == "sft":
        return supervised
    assert reference is not None
    rivals, before = [], []
    for example, known in zip(examples, reference, strict=True):
        wrong = max((i for i in range(len(known)) if i != example.answer), key=lambda i: known[i])
        rivals.append(example.label_ids[wrong])
        before.append(float(known[example.answer] - known[wrong]))
    margin = log_probs[rows, right] - log_probs[rows, torch.tensor(rivals)] - torch.tensor(before)
    return -F.logsigmoid(training.beta * margin).mean() + training.anchor * supervised


def gather(state: dict[str, torch.Tensor], training: Training, config: Any) -> dict[str, Floats]:
    """peft's change under llama.cpp's names and in its order of rows, alpha / rank included."""
    update: dict[str, Floats] = {}
    for key, value in state.items():
        if ".lora_A." not in key:
            continue
        path = key.split("model.layers.", 1)[1].split(".lora_A.", 1)[0]
        il, matrix = path.split(".", 1)
        name = f"blk.{il}.{MATRICES[matrix]}.weight"
        out = state[key.replace(".lora_A.", ".lora_B.")].float().numpy() * (training.alpha / training.rank)
        n_head = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(
            MATRICES[matrix]
        )
        if config.model_type == "llama" and n_head:
            out = permute_rows(out, n_head)
        update[name + ".a"] = np.ascontiguousarray(out)
        update[name + ".b"] = np.ascontiguousarray(value.float().numpy().T)
    return update


def permute_rows(weights: Floats, n_head: int) -> Floats:
    """Rows of queries or keys in llama.cpp's order for the llama architecture, as its converter permutes them."""
    n_rows, n_columns = weights.shape
    return (
        weights.reshape(n_head, 2, n_rows // n_head // 2, n_columns).swapaxes(1, 2).reshape(n_rows, n_columns)
    )
