"""One fitted temperature, against the published DACA optimisation; and a fit with 1,000 refits of 10,000 prompts.

    python bench/fit.py [--json FILE] [--repetitions N] [--logits FILE] [--epochs N] [--learning-rate X]

The peer is our own writing of what DACA (arXiv 2505.16690) describes: Adam, 400 epochs, shuffled batches of 256,
one unconstrained temperature that starts at 1, the Kullback-Leibler divergence of the base model's distribution
from the chat model's on agreement examples, averaged over the batch with the disagreements as zeros. Once in plain
NumPy with the gradient written out, once in PyTorch where it is installed. The data are tensors already, batches
are taken by index: nothing of a data loader is in the peer's time. Of the optimiser's settings the step size is
the one that we have no source for; 0.05 is assumed, and any that reaches the optimum takes the same time.

Both sides get the same arrays: the choice logits of the bundled pair on the test questions, captured once by this
script, or those of --logits (an .npz with base_final and chat_final [n, k] and n_choices [n]). Each side of the
comparison runs in a process of its own with one thread, PyTorch's fastest for batches of this size; the refits take
every core. Compilation and the first run are not counted. `same optimum` compares the peer's temperature, averaged
over the steps of its last epoch, and both losses.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
BATCH = 256
WANTED_RATIO = 1000.0
WANTED_S = 0.5
N_PROMPTS, N_LAYER, N_CHOICES, N_RESAMPLES = 10_000, 32, 4, 1_000
OURS_PER_PEER = 5  # our runs in a repetition: they are short


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--logits", type=Path, help="captured choice logits instead of the bundled pair's")
    parser.add_argument("--epochs", type=int, default=400)
    parser.add_argument("--learning-rate", type=float, default=0.05)
    parser.add_argument("--side", choices=["ours", "numpy", "pytorch", "refits"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side is not None:
        print(json.dumps(run_side(arguments)))
        return
    with tempfile.TemporaryDirectory(prefix="edgecal-bench-") as work:
        if arguments.logits is None:
            arguments.logits = Path(work) / "logits.npz"
            capture_bundled_pair(arguments.logits)
        results = compare(arguments)
        results["refits"] = time_refits(arguments)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", "utf-8")


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    peers = ["numpy"] + (["pytorch"] if importlib.util.find_spec("torch") else [])
    results: dict[str, Any] = {"epochs": arguments.epochs, "learning_rate": arguments.learning_rate}
    ours = ask("ours", arguments)
    print(
        f"fit of {ours['n_prompts']:,} prompts: ours {1e3 * statistics.median(ours['seconds']):.2f} ms "
        f"({1e3 * min(ours['seconds']):.2f} to {1e3 * max(ours['seconds']):.2f}), "
        f"tau {ours['tau']:.6f}, loss {ours['loss']:.9f}",
        flush=True,
    )
    results["ours"] = ours
    for peer in peers:
        theirs = ask(peer, arguments)
        ratios = sorted(t / o for t, o in zip(theirs["seconds"], ours["seconds"], strict=True))
        same = abs(theirs["tau"] / ours["tau"] - 1.0) < 0.01 and theirs["loss"] < ours["loss"] * 1.001 + 1e-9
        print(
            f"Adam in {peer}: {statistics.median(theirs['seconds']):.2f} s, tau {theirs['tau']:.6f}, loss "
            f"{theirs['loss']:.9f} ({'same optimum' if same else 'ANOTHER OPTIMUM'}); ours is "
            f"{statistics.median(ratios):,.0f} x faster (from {ratios[0]:,.0f} to {ratios[-1]:,.0f}; "
            f"wanted: at least {WANTED_RATIO:,.0f})",
            flush=True,
        )
        results[peer] = {**theirs, "ratios": ratios, "ratio_median": statistics.median(ratios), "same": same}
    return results


def time_refits(arguments: argparse.Namespace) -> dict[str, Any]:
    refits = ask("refits", arguments)
    for name, seconds in refits["seconds"].items():
        print(
            f"fit and {N_RESAMPLES:,} refits of {N_PROMPTS:,} prompts x {N_LAYER} layers x {N_CHOICES} choices, "
            f"{name}: {statistics.median(seconds):.3f} s ({min(seconds):.3f} to {max(seconds):.3f})"
        )
    print(f"wanted: below {WANTED_S} s; peak memory of the process {refits['peak_bytes'] / 2**20:.0f} MiB")
    return refits


def ask(side: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """What `run_side` gives, from a process of its own."""
    command = [sys.executable, __file__, "--side", side, "--logits", arguments.logits]
    command += ["--repetitions", arguments.repetitions, "--epochs", arguments.epochs]
    command += ["--learning-rate", arguments.learning_rate]
    run = subprocess.run([str(item) for item in command], check=True, stdout=subprocess.PIPE, text=True)
    answer: dict[str, Any] = json.loads(run.stdout)
    return answer


def run_side(arguments: argparse.Namespace) -> dict[str, Any]:
    if arguments.side == "refits":
        return run_refits(arguments.repetitions)
    with np.load(arguments.logits) as file:
        base, chat, n_choices = file["base_final"], file["chat_final"], file["n_choices"]
    if arguments.side == "ours":
        return run_ours(base, chat, n_choices, arguments.repetitions)
    base, chat = fill_padding(base), fill_padding(chat)
    optimise = optimise_numpy if arguments.side == "numpy" else optimise_pytorch
    seconds, tau = [], 1.0
    for repetition in range(arguments.repetitions):
        began = time.perf_counter()
        tau = optimise(base, chat, arguments.epochs, arguments.learning_rate, seed=repetition)
        seconds.append(time.perf_counter() - began)
    return {"seconds": seconds, "tau": tau, "loss": loss_at(base, chat, tau)}


def run_ours(base: np.ndarray, chat: np.ndarray, n_choices: np.ndarray, repetitions: int) -> dict[str, Any]:
    import numba

    from edgecal.calibration import ChoiceLogits, Method, fit_temperature

    numba.set_num_threads(1)
    logits = ChoiceLogits(base, chat, None, None, n_choices, np.full(len(base), -1))
    seconds, tau = [], 1.0
    for repetition in range(-1, repetitions):
        began = time.perf_counter()
        for _ in range(OURS_PER_PEER):
            tau = fit_temperature(logits, Method("daca"), n_bootstrap=0).temperature
        if repetition >= 0:
            seconds.append((time.perf_counter() - began) / OURS_PER_PEER)
    loss = loss_at(fill_padding(base), fill_padding(chat), tau)
    return {"seconds": seconds, "tau": tau, "loss": loss, "n_prompts": len(base)}


def run_refits(repetitions: int) -> dict[str, Any]:
    """Seconds of fit and refits after compilation, for the default, every method and both scopes of tau."""
    from edgecal.calibration import ChoiceLogits, Method, fit_temperature

    rng = np.random.default_rng(0)
    truth = rng.normal(size=(N_PROMPTS, 1, N_CHOICES)) * 1.5
    depth = np.linspace(0.1, 1.0, N_LAYER)[None, :, None]
    shape = (N_PROMPTS, N_LAYER, N_CHOICES)
    base = (truth * depth + rng.normal(size=shape) * 0.3).astype(np.float32)
    chat = (2.5 * (truth * depth + rng.normal(size=shape))).astype(np.float32)
    logits = ChoiceLogits(
        base_final=base[:, -1],
        chat_final=chat[:, -1],
        base_layers=base,
        chat_layers=chat,
        n_choices=np.full(N_PROMPTS, N_CHOICES),
        labels=(truth[:, 0] + rng.gumbel(size=(N_PROMPTS, N_CHOICES))).argmax(axis=1),
    )
    methods = [Method(), Method("daca"), Method("naive"), Method("ts"), Method("process")]
    methods += [
        Method(ise=ise, tau_scope=scope, combine=combine)
        for ise in ("mixture", "mean")
        for scope in ("all", "final")
        for combine in ("stratified", "divergence", "sum")
    ]
    seconds: dict[str, list[float]] = {}
    for method in methods:
        name = f"{method.name} {' '.join(f'{k}={v}' for k, v in method.variant.items() if v is not None)}".strip()
        seconds[name] = []
        for repetition in range(-1, repetitions):
            began = time.perf_counter()
            fit_temperature(logits, method, n_bootstrap=N_RESAMPLES)
            if repetition >= 0:
                seconds[name].append(time.perf_counter() - began)
    return {"seconds": seconds, "peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


def optimise_numpy(base: np.ndarray, chat: np.ndarray, epochs: int, rate: float, seed: int) -> float:
    target = softmax(base.astype(np.float64))
    agree = (base.argmax(axis=1) == chat.argmax(axis=1)).astype(np.float64)
    z = chat.astype(np.float64)
    rng = np.random.default_rng(seed)
    tau, first, second, step, path = 1.0, 0.0, 0.0, 0, [1.0]
    for _ in range(epochs):
        order = rng.permutation(len(z))
        path = []
        for start in range(0, len(z), BATCH):
            rows = order[start : start + BATCH]
            probs = softmax(z[rows] / tau)
            # d KL / d tau = - sum (p - target) z / tau^2
            slope = -(((probs - target[rows]) * z[rows]).sum(axis=1) * agree[rows]).mean() / tau**2
            step += 1
            first = 0.9 * first + 0.1 * slope
            second = 0.999 * second + 0.001 * slope * slope
            tau -= rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
            path.append(float(tau))
    return statistics.fmean(path)


def optimise_pytorch(base: np.ndarray, chat: np.ndarray, epochs: int, rate: float, seed: int) -> float:
    import torch

    torch.set_num_threads(1)  # its fastest: the tensors are small
    torch.manual_seed(seed)
    target = torch.softmax(torch.from_numpy(base), dim=1)
    z = torch.from_numpy(chat)
    agree = (torch.from_numpy(base).argmax(dim=1) == z.argmax(dim=1)).float()
    tau = torch.nn.Parameter(torch.ones(1))
    adam = torch.optim.Adam([tau], lr=rate)
    path = [1.0]
    for _ in range(epochs):
        path = []
        for rows in torch.randperm(len(z)).split(BATCH):
            adam.zero_grad()
            divergence = torch.nn.functional.kl_div(
                torch.log_softmax(z[rows] / tau, dim=1), target[rows], reduction="none"
            ).sum(dim=1)
            (divergence * agree[rows]).mean().backward()
            adam.step()
            path.append(float(tau.detach()))
    return statistics.fmean(path)


def loss_at(base: np.ndarray, chat: np.ndarray, tau: float) -> float:
    """Mean Kullback-Leibler divergence over the agreement examples, in nats."""
    agree = base.argmax(axis=1) == chat.argmax(axis=1)
    p, q = softmax(base[agree].astype(np.float64)), softmax(chat[agree].astype(np.float64) / tau)
    some = p > 0.0
    return float((p[some] * np.log(p[some] / q[some])).sum() / len(p))


def softmax(z: np.ndarray) -> np.ndarray:
    powers = np.exp(z - z.max(axis=1, keepdims=True))
    probs: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return probs


def fill_padding(logits: np.ndarray) -> np.ndarray:
    """Questions with fewer choices than others: a logit that gives the missing ones no probability."""
    return np.where(np.isfinite(logits), logits, np.float32(-1e4))


def capture_bundled_pair(path: Path) -> None:
    import edgecal

    models = ROOT / "models"
    prompts = edgecal.load_prompts(models / "questions" / "test.jsonl")
    base, chat = (models / f"edgecal-tiny-{who}-Q8_0.gguf" for who in ("base", "chat"))
    logits = edgecal.capture(base, chat, prompts, layers=False).logits
    np.savez(path, base_final=logits.base_final, chat_final=logits.chat_final, n_choices=logits.n_choices)


if __name__ == "__main__":
    main()
