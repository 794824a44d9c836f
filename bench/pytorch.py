"""Whole capture against PyTorch: the same architecture, weights and prompts in transformers, hidden states on, batched.

    python bench/pytorch.py [WORK_FOLDER] [--json FILE] [--repetitions N] [--quick] [--batch N]

Needs `pip install torch==2.13.0 transformers`, which edgecal does not. The GGUF's weights are dequantized into a
Qwen2 model of transformers, float32 and bfloat16, each without and with a prefix cache of its own (what a subject's
prompts share is run once, and its past_key_values are reused). Prompts of similar length share a batch; the head is
applied to the last token of each prompt only; of the hidden states those of the last token are kept. Loading is not
timed on either side. Wanted, for 5-shot prompts without prefix cache: at least 5 times faster than float32, at least 2
times faster than bfloat16, at most half the memory; all else is shown whatever it is.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from questions import PromptSet, make_sets
from sides import checked_tokens, deviation, read_prompts, write_prompts
from timing import (
    BENCH,
    Ratio,
    Taken,
    finish,
    make_parser,
    middle,
    pair,
    peak_bytes,
    report,
    run_side,
    say_machine,
    skip,
    take_in_turn,
)

from edgecal.gguf.header import read_header
from models import SHAPES, Shape, find_vocabulary, make_model

WANTED = {"float32": 5.0, "bfloat16": 2.0}
WANTED_MEMORY = 0.5
ALLOWED_DEVIATION = 0.5  # llama.cpp also rounds activations to 8 bits, which random weights magnify
INSTALL = "pip install torch==2.13.0 transformers"
_ROWS = 2048  # dequantized at a time
_MODULES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def main() -> None:
    parser = make_parser(__doc__, repetitions=3)
    parser.add_argument("--shape", default="0.5B", choices=SHAPES)
    parser.add_argument("--kind", default="Q4_0")
    parser.add_argument("--batch", type=int, default=4, help="prompts that PyTorch runs at once")
    parser.add_argument(
        "--prompts", type=int, nargs=2, default=[32, 20], metavar="N", help="0-shot and 5-shot"
    )
    parser.add_argument("--subjects", type=int, default=2, help="of the 5-shot prompts")
    arguments = parser.parse_args()
    for module in ("torch", "transformers"):
        if importlib.util.find_spec(module) is None:
            skip(f"{module} is not installed: {INSTALL}")
    if arguments.quick:
        arguments.shape, arguments.prompts, arguments.repetitions = "0.1B", [6, 4], 1
    work: Path = arguments.work_folder
    model = make_model(work, arguments.shape, arguments.kind, arguments.source)
    say_machine(arguments.threads)
    n_zero, n_five = arguments.prompts
    sets = make_sets(
        find_vocabulary(work, arguments.source),
        n_zero=n_zero,
        n_five=n_five,
        n_permuted=1,
        n_subjects=arguments.subjects,
    )[:2]
    ratios: list[Ratio] = []
    times: dict[str, list[Taken]] = {}
    for prompt_set in sets:
        path = write_prompts(work / "pytorch-prompts.jsonl", prompt_set.tokens)
        group = len(prompt_set.tokens) // (arguments.subjects if prompt_set.name == "5-shot" else 1)
        threads = ["--threads", arguments.threads]
        ours = ["ours", model, path, *threads, "--settings", arguments.settings]
        torch_options = [*threads, "--batch", arguments.batch, "--group", group]
        sides = {"ours": partial(run_side, BENCH / "sides.py", *ours)}
        for dtype in WANTED:
            command = [BENCH / "pytorch.py", "--side", model, path, arguments.shape, dtype, *torch_options]
            sides[dtype] = partial(run_side, *command)
            sides[f"{dtype}, prefix cache"] = partial(run_side, *command, "--cache")
        taken = take_in_turn(sides, arguments.repetitions, warm_up=not arguments.quick)
        ratios += compare(prompt_set, taken)
        times |= {f"{prompt_set.name}, {way}": runs for way, runs in taken.items()}
    finish(
        arguments.json,
        ratios,
        times,
        model=model.name,
        n_threads=arguments.threads,
        batch=arguments.batch,
        settings=arguments.settings,
    )


def compare(prompt_set: PromptSet, taken: dict[str, list[Taken]]) -> list[Ratio]:
    print(prompt_set.describe())
    ours, found = taken["ours"], []
    for way, runs in taken.items():
        rate, peak = prompt_set.n_tokens / middle(runs), max(run.peak_bytes for run in runs)
        print(f"  {way}: {middle(runs):.2f} s, {rate:.0f} tokens/s, peak {peak / 1e6:.0f} MB", end="")
        if way == "ours":
            print()
            continue
        off = deviation(ours[0].said["logits"], runs[0].said["logits"])
        print(f", logits differ from ours by {off:.1%} of their spread")
        assert off < ALLOWED_DEVIATION, "not the same model"
        judged = prompt_set.name == "5-shot" and way in WANTED
        time_ratio = pair(
            f"{prompt_set.name}, {way} / ours, time",
            runs,
            ours,
            wanted=("at least", WANTED[way]) if judged else None,
        )
        memory_ratio = pair(
            f"{prompt_set.name}, ours / {way}, peak memory",
            ours,
            runs,
            wanted=("at most", WANTED_MEMORY) if judged else None,
            of=lambda run: run.peak_bytes,
        )
        found += [time_ratio, memory_ratio]
        print(f"    {time_ratio}\n    {memory_ratio}", flush=True)
    return found


def run_torch(
    path: Path, prompts: list[np.ndarray], shape: Shape, arguments: argparse.Namespace
) -> dict[str, Any]:
    """The peer's side: seconds, and the logits that `sides` prints too."""
    import torch

    torch.set_num_threads(arguments.threads)
    model = load(path, shape, getattr(torch, arguments.dtype))
    ids = torch.from_numpy(checked_tokens(shape.n_vocab))
    seen: dict[int, list[float]] = {}
    with torch.inference_mode():
        model(torch.zeros((1, 8), dtype=torch.long))  # what PyTorch sets up at first use is not counted
        began = time.perf_counter()
        for prefix, indices in groups(prompts, arguments.group, cached=arguments.cache):
            cache = None
            if prefix:
                first = torch.from_numpy(prompts[indices[0]][:prefix]).long()[None]
                cache = model.model(first, use_cache=True, output_hidden_states=True).past_key_values
            for start in range(0, len(indices), arguments.batch):
                batch = indices[start : start + arguments.batch]
                rests = [torch.from_numpy(prompts[index][prefix:]).long() for index in batch]
                past = None
                if cache is not None:
                    past = copy.deepcopy(cache)
                    past.batch_repeat_interleave(len(batch))
                # Padding is behind the last token, where causal attention does not look.
                out = model.model(
                    torch.nn.utils.rnn.pad_sequence(rests, batch_first=True),
                    past_key_values=past,
                    use_cache=past is not None,
                    output_hidden_states=True,
                )
                rows, lasts = torch.arange(len(batch)), torch.tensor([len(rest) - 1 for rest in rests])
                hidden = torch.stack([layer[rows, lasts] for layer in out.hidden_states], dim=1).float()
                logits = model.lm_head(out.last_hidden_state[rows, lasts]).float()
                assert torch.isfinite(hidden).all()
                seen.update(zip(batch, logits[:, ids].tolist(), strict=True))
        time_s = time.perf_counter() - began
    return {"time_s": time_s, "peak_bytes": peak_bytes(), "logits": [seen[at] for at in range(len(prompts))]}


def groups(prompts: list[np.ndarray], size: int, *, cached: bool) -> Iterator[tuple[int, list[int]]]:
    """Length of the shared prefix (0 without cache) and the prompts of each group, long ones last."""
    for start in range(0, len(prompts), size if cached else len(prompts)):
        indices = list(range(len(prompts)))[start : start + size] if cached else list(range(len(prompts)))
        prefix = 0
        if cached:
            shortest = min(len(prompts[index]) for index in indices) - 1
            table = np.stack([prompts[index][:shortest] for index in indices])
            different = np.flatnonzero((table != table[0]).any(axis=0))
            prefix = int(different[0]) if len(different) else shortest
        yield prefix, sorted(indices, key=lambda index: len(prompts[index]))


def load(path: Path, shape: Shape, dtype: Any) -> Any:
    """A transformers model with the file's weights, dequantized piece by piece."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM
    from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding

    config = Qwen2Config(
        vocab_size=shape.n_vocab,
        hidden_size=shape.n_embd,
        intermediate_size=shape.n_ff,
        num_hidden_layers=shape.n_layer,
        num_attention_heads=shape.n_head,
        num_key_value_heads=shape.n_head_kv,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_theta": 1e6, "rope_type": "default"},
        tie_word_embeddings=True,
    )
    with torch.device("meta"):  # no memory for random weights that are overwritten
        model = Qwen2ForCausalLM(config).to(dtype)
    model = model.to_empty(device="cpu").eval()
    model.tie_weights()
    model.model.rotary_emb = Qwen2RotaryEmbedding(config)
    header, left = read_header(path), dict(model.named_parameters())
    with path.open("rb") as file, torch.no_grad():
        for name, info in header.tensors.items():
            file.seek(info.data_offset)
            kind = gguf.GGMLQuantizationType(info.type_id)
            target = left.pop(_parameter(name)).view(-1, info.ne[0])
            assert info.n_bytes is not None, info.type_name
            row_bytes = info.n_bytes // len(target)
            for start in range(0, len(target), _ROWS):  # so that the peak is the model's, not the loading's
                part = target[start : start + _ROWS]
                raw = np.frombuffer(bytearray(file.read(len(part) * row_bytes)), dtype=np.uint8)
                values = gguf.quants.dequantize(raw.reshape(len(part), row_bytes), kind)
                part.copy_(torch.from_numpy(values))
    assert not left, f"no weights for {list(left)}"
    return model


def _parameter(name: str) -> str:
    if name in ("token_embd.weight", "output_norm.weight"):
        return {"t": "model.embed_tokens.weight", "o": "model.norm.weight"}[name[0]]
    _, il, module, what = name.split(".")
    return f"model.layers.{il}.{_MODULES[module]}.{what}"


def side() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", action="store_true")
    parser.add_argument("model", type=Path)
    parser.add_argument("prompts", type=Path)
    parser.add_argument("shape")
    parser.add_argument("dtype")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--group", type=int)
    parser.add_argument("--cache", action="store_true")
    arguments = parser.parse_args()
    report(**run_torch(arguments.model, read_prompts(arguments.prompts), SHAPES[arguments.shape], arguments))


if __name__ == "__main__":
    import sys

    side() if "--side" in sys.argv else main()
