"""`edgecal fit` on pairs of many architectures: it finds a temperature or says that there is none, from logits that are
llama.cpp's own and layers that are what the blocks hand on."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from support.prompts import random_token_prompts, write_json_lines
from support.tiny_archs import ARCHS, write_tiny_arch
from support.tiny_run import run

import edgecal
from edgecal.gguf import find_shards
from edgecal.lens import project, read_head
from edgecal.llama.dequantize import dequantize_rows
from edgecal.llama.settings import CaptureSettings

NAMES = [
    *("qwen3", "llama-tied"),
    *("phi2", "gpt2"),  # LayerNorm and biases
    *("granite", "minicpm", "cohere2"),  # scales
    *("gemma2", "grok-cap"),  # soft caps
    *("mixtral", "glm4moe-mtp", "deepseek32"),  # experts, blocks behind the trunk, latent attention
    *("mamba2", "rwkv7", "arwkv7"),  # states
    *("nemotron_h", "kimi-linear", "qwen35", "plamo2"),  # states and attention
    "nanbeige-loops",
    *("gemma3n", "hy_v4", "qwen4exp"),  # several streams
]
N_PROMPTS = 60


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """For each name the running command and its folder, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        cache = tmp_path_factory.mktemp("cache")
        folders = {name: tmp_path_factory.mktemp(name) for name in NAMES}
        yield {
            name: (folder, cache, pool.submit(fit, folder, cache, name)) for name, folder in folders.items()
        }


def fit(folder, cache, name):
    base = write_tiny_arch(folder / "base.gguf", name, seed=1)
    chat = write_tiny_arch(folder / "chat.gguf", name, seed=1, perturbation=0.1, sharpness=2.0)
    data = write_json_lines(folder / "data.jsonl", records())
    arguments = ["fit", base, chat, "--data", data, "-t", "1", "--bootstrap", "100", "--json"]
    return subprocess.run(
        [sys.executable, "-m", "edgecal", *map(str, arguments)],
        env={**os.environ, "EDGECAL_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        timeout=120,
    )


def records():
    return random_token_prompts(N_PROMPTS, seed=4, length=12, n_choices=3)


@pytest.mark.parametrize("name", NAMES)
def test_fit(name, runs, monkeypatch):
    folder, cache, running = runs[name]
    done = running.result()
    assert done.returncode in (0, 4), done.stderr
    if done.returncode == 0:
        told = json.loads(done.stdout)
        assert told["interval"][0] < told["temperature"] < told["interval"][1]
    monkeypatch.setenv("EDGECAL_CACHE_DIR", str(cache))  # what the command ran is not run again
    settings = CaptureSettings(n_threads=1)
    paths = folder / "base.gguf", folder / "chat.gguf"
    captured = edgecal.capture(*paths, edgecal.load_prompts(records()), settings=settings)
    logits = captured.logits
    check(paths[0], name, captured.prompts, logits.base_final, logits.base_layers)
    check(paths[1], name, captured.prompts, logits.chat_final, logits.chat_layers)


def check(path, name, prompts, final, layers):
    """Final logits against llama.cpp's, and what earlier blocks give against the lens on what a plain run sees."""
    seen = run(path, [list(prompt.tokens) for prompt in prompts], **ARCHS[name].nodes)
    choices = np.array([prompt.choice_tokens for prompt in prompts], np.int32)
    spread = seen.logits.std()
    assert np.abs(final - np.take_along_axis(seen.logits, choices, 1)).max() < 1e-4 * spread
    head = read_head(find_shards(path), np.arange(seen.logits.shape[1], dtype=np.int32), dequantize_rows)
    expected = project(seen.hidden, head, choices)
    assert layers.shape == expected.shape
    assert np.abs(layers - expected).max() < 1e-4 * spread
