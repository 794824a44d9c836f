"""What capturing costs: the hook against plain decoding of the same tokens, on a random model of real shape.

Usage: python bench/capture_overhead.py WORK_FOLDER [--json FILE] [--repetitions N] [--threads N] [--vocab N]

Writes, into WORK_FOLDER, random-weight GGUF files with the shape of a model of half a billion parameters
(24 blocks of 896, feed-forward 4864, 14 heads and 2 key-value heads, tied head) in two quantizations, and keeps
them for the next time. The vocabulary is smaller than such a model's 151,936 by default, to spare the disk; a
smaller head makes plain decoding cheaper, so that the ratio here is, if anything, too high.

For each: both ways of running share one loaded model and decode the same tokens in the same packing through
llama.cpp's C API, in contexts that differ in nothing but the hook. The measured rounds are interleaved (plain,
capture, capture, plain, ...), so that a busy machine slows both. Prints the median of the rounds' ratios and
their spread, in wall time and in processor time (the steadier of the two on a busy machine, with one thread),
and whether all logits have the same bits. Wanted: a ratio of at most 1.02.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import gguf
import numpy as np
from gguf import quants

from edgecal.llama.context import Context, TokenBatch
from edgecal.llama.library import describe_llama_cpp, system_info
from edgecal.llama.model import Model
from edgecal.llama.settings import CaptureSettings, count_physical_cores

N_LAYER, N_EMBD, N_FF, N_HEAD, N_HEAD_KV = 24, 896, 4864, 14, 2
WANTED_RATIO = 1.02
# Prompts per decode, tokens per prompt.
PACKINGS = ("1x120", "4x120", "16x30")


def write_model(path: Path, quantization: str, n_vocab: int) -> None:
    """A random model; written beside and renamed, so that an interrupted run leaves no half of one."""
    kind = gguf.GGMLQuantizationType[quantization]
    rng = np.random.default_rng(0)
    partial = path.with_suffix(".partial")
    writer = gguf.GGUFWriter(partial, "qwen2")
    writer.add_context_length(4096)
    writer.add_embedding_length(N_EMBD)
    writer.add_block_count(N_LAYER)
    writer.add_feed_forward_length(N_FF)
    writer.add_head_count(N_HEAD)
    writer.add_head_count_kv(N_HEAD_KV)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(n_vocab)

    def add_matrix(name: str, n_out: int, n_in: int) -> None:
        data = rng.standard_normal((n_out, n_in), dtype=np.float32) * np.float32(n_in**-0.5)
        writer.add_tensor(name, quants.quantize(data, kind), raw_dtype=kind)

    def add_vector(name: str, size: int, centre: float) -> None:
        writer.add_tensor(name, (centre + 0.1 * rng.standard_normal(size)).astype(np.float32))

    n_kv = N_EMBD // N_HEAD * N_HEAD_KV
    add_matrix("token_embd.weight", n_vocab, N_EMBD)
    add_vector("output_norm.weight", N_EMBD, 1.0)
    for il in range(N_LAYER):
        add_vector(f"blk.{il}.attn_norm.weight", N_EMBD, 1.0)
        add_vector(f"blk.{il}.ffn_norm.weight", N_EMBD, 1.0)
        for name, size in (("q", N_EMBD), ("k", n_kv), ("v", n_kv)):
            add_matrix(f"blk.{il}.attn_{name}.weight", size, N_EMBD)
            add_vector(f"blk.{il}.attn_{name}.bias", size, 0.0)
        add_matrix(f"blk.{il}.attn_output.weight", N_EMBD, N_EMBD)
        add_matrix(f"blk.{il}.ffn_gate.weight", N_FF, N_EMBD)
        add_matrix(f"blk.{il}.ffn_up.weight", N_FF, N_EMBD)
        add_matrix(f"blk.{il}.ffn_down.weight", N_EMBD, N_FF)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.replace(path)


def make_batch(n_prompts: int, n_tokens: int, n_vocab: int) -> TokenBatch:
    rng = np.random.default_rng(1)
    wanted = np.full((n_prompts, n_tokens), -1, dtype=np.int32)
    wanted[:, -1] = np.arange(n_prompts)
    return TokenBatch(
        tokens=rng.integers(0, n_vocab, n_prompts * n_tokens).astype(np.int32),
        positions=np.tile(np.arange(n_tokens, dtype=np.int32), n_prompts),
        seq_ids=np.repeat(np.arange(n_prompts, dtype=np.int32), n_tokens),
        wanted=wanted.reshape(-1),
    )


def measure(model: Model, n_prompts: int, n_tokens: int, settings: CaptureSettings, repetitions: int) -> dict:
    """Seconds of each round, plain and with the hook, for one packing."""
    batch = make_batch(n_prompts, n_tokens, model.n_vocab)
    hidden = np.empty((n_prompts, model.n_layer, model.n_embd), dtype=np.float32)
    captured = np.zeros((n_prompts, model.n_layer), dtype=np.uint8)
    logits = {way: np.empty((n_prompts, model.n_vocab), dtype=np.float32) for way in ("plain", "capture")}
    seconds: dict[str, list[float]] = {"plain": [], "capture": []}
    cpu_seconds: dict[str, list[float]] = {"plain": [], "capture": []}
    sizes = {"n_ctx_seq": 256, "n_seq_max": n_prompts}
    identical = True
    with (
        Context(model, settings, hidden=False, **sizes) as plain,
        Context(model, settings, hidden=True, **sizes) as hooked,
    ):

        def decode(way: str) -> tuple[float, float]:
            context = plain if way == "plain" else hooked
            context.clear()
            arrays = (None, None) if way == "plain" else (hidden, captured)
            hidden.fill(np.nan)
            captured.fill(0)
            start, cpu_start = time.perf_counter(), time.process_time()
            context.decode(batch, logits[way], *arrays)
            return time.perf_counter() - start, time.process_time() - cpu_start

        for round_number in range(-1, repetitions):
            order = ("plain", "capture") if round_number % 2 else ("capture", "plain")
            for way in order:
                wall_s, cpu_s = decode(way)
                if round_number >= 0:  # the first round warms up
                    seconds[way].append(wall_s)
                    cpu_seconds[way].append(cpu_s)
                assert way == "plain" or (captured.all() and np.isfinite(hidden).all())
            identical = identical and logits["plain"].tobytes() == logits["capture"].tobytes()
    ratios = np.array(seconds["capture"]) / np.array(seconds["plain"])
    cpu_ratios = np.array(cpu_seconds["capture"]) / np.array(cpu_seconds["plain"])
    low, median, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    cpu_low, cpu_median, cpu_high = np.quantile(cpu_ratios, [0.25, 0.5, 0.75])
    return {
        "n_prompts": n_prompts,
        "n_tokens": n_tokens,
        "plain_s": float(np.median(seconds["plain"])),
        "tokens_per_s": n_prompts * n_tokens / float(np.median(seconds["plain"])),
        "ratio_median": float(median),
        "ratio_quartiles": [float(low), float(high)],
        "cpu_ratio_median": float(cpu_median),
        "cpu_ratio_quartiles": [float(cpu_low), float(cpu_high)],
        "logits_identical": identical,
        "repetitions": repetitions,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost of capturing hidden states, against plain decoding.")
    parser.add_argument("work_folder", type=Path)
    parser.add_argument("--json", type=Path, help="also write the results here")
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--threads", type=int, default=count_physical_cores())
    parser.add_argument("--vocab", type=int, default=32768)
    parser.add_argument("--quantization", nargs="+", default=["Q4_0", "Q8_0"])
    parser.add_argument("--packing", nargs="+", default=PACKINGS, help="prompts x tokens of a decode")
    arguments = parser.parse_args()
    arguments.work_folder.mkdir(parents=True, exist_ok=True)
    settings = CaptureSettings(n_threads=arguments.threads, pack=True)
    print(f"{describe_llama_cpp()}; {system_info()}; {arguments.threads} threads")
    results = []
    for quantization in arguments.quantization:
        path = arguments.work_folder / f"half-billion-{quantization}-{arguments.vocab}.gguf"
        if not path.exists():
            print(f"writing {path}")
            write_model(path, quantization, arguments.vocab)
        with Model(path) as model:
            for n_prompts, n_tokens in (map(int, packing.split("x")) for packing in arguments.packing):
                result = measure(model, n_prompts, n_tokens, settings, arguments.repetitions)
                results.append({"quantization": quantization, **result})
                low, high = result["ratio_quartiles"]
                cpu_low, cpu_high = result["cpu_ratio_quartiles"]
                print(
                    f"{quantization} {n_prompts:2d} x {n_tokens:3d} tokens: plain "
                    f"{result['tokens_per_s']:6.1f} tokens/s, capture/plain {result['ratio_median']:.4f} "
                    f"(quartiles {low:.4f} to {high:.4f}), in processor time {result['cpu_ratio_median']:.4f} "
                    f"({cpu_low:.4f} to {cpu_high:.4f}), "
                    f"logits {'identical' if result['logits_identical'] else 'DIFFERENT'}",
                    flush=True,
                )
    worst = max(result["cpu_ratio_median"] for result in results)
    print(f"worst median ratio in processor time: {worst:.4f} (wanted: at most {WANTED_RATIO})")
    if arguments.json is not None:
        record = {
            "llama_cpp": describe_llama_cpp(),
            "system": system_info(),
            "n_threads": arguments.threads,
            "n_vocab": arguments.vocab,
            "results": results,
        }
        arguments.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
