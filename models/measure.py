"""What a pair does on questions, as llama.cpp computes it from the GGUF files.

Each prompt is decoded alone, without flash attention. It knows the letters' tokens only through llama.cpp's own
tokenization. Bootstrap intervals are 95 % percentile intervals over questions.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray
from world import INSTRUCTION, LETTERS, render

Floats = NDArray[np.float64]
N_BINS = 10
N_BOOTSTRAP = 2000


@dataclass(frozen=True)
class Answers:
    """One model on n questions: choice probabilities [n, most choices] padded with 0, and the letters' mass [n]."""

    probs: Floats
    mass: Floats
    token_ids: list[list[int]]

    @property
    def confidence(self) -> Floats:
        """The largest choice probability, [n]."""
        best: Floats = self.probs.max(axis=1)
        return best


def read_questions(path: Path) -> list[dict[str, Any]]:
    """The rows of a question file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def prompt_of(question: dict[str, Any]) -> str:
    """A question's text as a model gets it."""
    return INSTRUCTION + render(question["question"], question["choices"])


def tokenize(vocab: ctypes.c_void_p, text: str) -> list[int]:
    """llama.cpp's ids of `text`, with the begin token if the file asks for one."""
    data = text.encode()
    ids = (llama_cpp.llama_token * (len(data) + 8))()
    n = llama_cpp.llama_tokenize(vocab, data, len(data), ids, len(ids), True, False)
    if n < 0:
        raise ValueError(f"a prompt of {len(data)} bytes gave {-n} tokens")
    return list(ids[:n])


def run(path: Path, questions: Sequence[dict[str, Any]], n_threads: int = 1) -> Answers:
    """Ask the model at `path` all questions."""
    silence()
    llama_cpp.llama_backend_init()
    model_params = llama_cpp.llama_model_default_params()
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), model_params)
    if not model:
        raise RuntimeError(f"llama.cpp could not load {path}")
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = 256
    params.n_threads = params.n_threads_batch = n_threads
    params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context = llama_cpp.llama_init_from_model(model, params)
    try:
        return _run(model, context, questions)
    finally:
        llama_cpp.llama_free(context)
        llama_cpp.llama_model_free(model)


def _run(model: ctypes.c_void_p, context: ctypes.c_void_p, questions: Sequence[dict[str, Any]]) -> Answers:
    vocab = llama_cpp.llama_model_get_vocab(model)
    n_vocab = llama_cpp.llama_vocab_n_tokens(vocab)
    memory = llama_cpp.llama_get_memory(context)
    widest = max(len(q["choices"]) for q in questions)
    probs, mass = np.zeros((len(questions), widest)), np.zeros(len(questions))
    tokens = []
    for i, question in enumerate(questions):
        prompt = prompt_of(question)
        ids = tokenize(vocab, prompt)
        letters = [_last_token(vocab, prompt, ids, letter) for letter in LETTERS[: len(question["choices"])]]
        llama_cpp.llama_memory_clear(memory, False)
        row = (llama_cpp.llama_token * len(ids))(*ids)
        if llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(row, len(ids))) != 0:
            raise RuntimeError(f"llama.cpp could not decode question {question['id']}")
        logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, -1), (n_vocab,)).astype(
            np.float64
        )
        p = np.exp(logits - logits.max())
        p = (p / p.sum())[letters]
        mass[i] = p.sum()
        probs[i, : len(letters)] = p / p.sum()
        tokens.append(ids)
    return Answers(probs, mass, tokens)


def _last_token(vocab: ctypes.c_void_p, prompt: str, ids: list[int], letter: str) -> int:
    longer = tokenize(vocab, f"{prompt} {letter}")
    if longer[:-1] != ids:
        raise ValueError(f"' {letter}' is not one token after the prompt")
    return longer[-1]


@llama_cpp.llama_log_callback
def _drop(level: int, text: bytes, user_data: ctypes.c_void_p) -> None:
    """Take llama.cpp's log and drop it."""


def silence() -> None:
    """Let llama.cpp say nothing on stderr."""
    llama_cpp.llama_log_set(_drop, ctypes.c_void_p(0))


def ece(confidence: Floats, correct: Floats, n_bins: int = N_BINS) -> float:
    """Expected calibration error with bins (0, 1/n], ..., ((n-1)/n, 1]; both arguments [n]."""
    bins = np.clip(np.ceil(confidence * n_bins) - 1, 0, n_bins - 1).astype(int)
    gap = np.bincount(bins, weights=confidence - correct, minlength=n_bins)
    return float(np.abs(gap).sum() / len(confidence))


def interval(statistic: Callable[[NDArray[np.int64]], float], n: int, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of a statistic of row indices [n]."""
    rng = np.random.default_rng(seed)
    low, high = np.quantile([statistic(rng.integers(0, n, n)) for _ in range(N_BOOTSTRAP)], [0.025, 0.975])
    return float(low), float(high)


def figures(base: Answers, chat: Answers, labels: NDArray[np.int64]) -> dict[str, tuple[float, float, float]]:
    """Each figure with its 95 % interval. `labels` [n] are indices of the right choices."""
    n = len(labels)
    everyone = np.arange(n)
    found: dict[str, tuple[float, float, float]] = {}

    def add(name: str, statistic: Callable[[NDArray[np.int64]], float]) -> None:
        found[name] = (statistic(everyone), *interval(statistic, n))

    right = {}
    for name, answers in (("base", base), ("chat", chat)):
        right[name] = correct = (answers.probs.argmax(1) == labels).astype(np.float64)
        nll = -np.log(np.maximum(answers.probs[everyone, labels], 1e-300))
        confidence, mass = answers.confidence, answers.mass
        add(f"accuracy {name}", lambda i, c=correct: float(c[i].mean()))
        add(f"confidence {name}", lambda i, c=confidence: float(c[i].mean()))
        add(f"ECE {name}", lambda i, a=confidence, c=correct: ece(a[i], c[i]))
        add(f"NLL {name}", lambda i, x=nll: float(x[i].mean()))
        add(f"letter mass {name}", lambda i, x=mass: float(x[i].mean()))
    gain = right["chat"] - right["base"]
    apart = (base.probs.argmax(1) != chat.probs.argmax(1)).astype(np.float64)
    add("accuracy chat - base", lambda i: float(gain[i].mean()))
    add("disagreement", lambda i: float(apart[i].mean()))
    return found


def table(found: dict[str, tuple[float, float, float]]) -> str:
    """The figures as a Markdown table."""
    lines = ["| figure | value | 95 % interval |", "|---|---|---|"]
    lines += [f"| {name} | {v:.4f} | {low:.4f} to {high:.4f} |" for name, (v, low, high) in found.items()]
    return "\n".join(lines)
