"""Captures a pair with edgecal and stores what both models said as one file of the benchmark, `NAME.npz`.

| array | | |
|---|---|---|
| `base_final`, `chat_final` | float32 [n, K] | llama.cpp's logits of the choices, padded with -inf |
| `base_layers`, `chat_layers` | float16 [n, L, K] | by the logit lens, to 1/64 nat; the last layer is `final` |
| `n_choices`, `labels` | int8 [n] | |
| `probs` | float32 [n, K] | known probability of each choice; only where it is known |
| `subjects` | int8 [n] | index into `subject_names` (text) |
| `base_mass`, `chat_mass` | float32 [n] | probability of all choices together |
| `base_hidden`, `chat_hidden` | float16 [m, n_embd] | last hidden states of the first m = min(n, 500), to 8 bits (*) |
| `base_free`, `chat_free` | float32 [c, K] | logits on prompts without content |
| `free_subjects` | int8 [c] | which subject each of those stands for; only where there are several |
| `base_rotated`, `chat_rotated` | float32 [m, K, K] | of the first m questions with options turned round (below) |
| `meta` | text | JSON: name, kind, base, recipe, settings, SHA-256 of both files, n_embd, n_layer, edgecal |

(*) not in every file: of the pairs with one base, which would repeat its states, some hold them.

`rotated[i, r, j]` is the logit of option j of question i (numbered as in `final`) when the option at place p is number
(p + r) modulo k, its number of options; rows r >= k are -inf, row 0 is `final`.

It knows nothing of how the models were made, and needs no PyTorch. The same models give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from factory.recipe import Made, PairRecipe
from numpy.typing import NDArray

import edgecal
from edgecal.prompts import Prompt

N_HIDDEN = 500  # questions of which hidden states and rotations are kept
# Rounded, so that the files are small: what is not known to so many places need not be kept to them.
STEP_LAYERS, STEP_FURTHER = 2.0**-6, 2.0**-10  # logits of the layers; rotated and without content
BITS_HIDDEN = 8  # significant bits, as in bfloat16


def store_pair(target: Path, recipe: PairRecipe, made: Made, n_threads: int = 1) -> None:
    """Capture both models and write `target`, whole or not at all."""
    arrays, n_embd = capture_arrays(made, n_threads)
    meta = {
        "name": recipe.name,
        "kind": recipe.kind,
        "base": recipe.base,
        "recipe": recipe.words,
        "settings": recipe.settings,
        "base_sha256": _sha256(made.base),
        "chat_sha256": _sha256(made.chat),
        "n_embd": n_embd,
        "n_layer": int(arrays["base_layers"].shape[1]),
        "edgecal": edgecal.__version__,
    }
    arrays["meta"] = np.array(json.dumps(meta, ensure_ascii=False))
    check_arrays(arrays)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    with partial.open("wb") as file:
        np.savez_compressed(file, **arrays)
    partial.replace(target)


def read_meta(path: Path) -> dict[str, Any]:
    """The description that a stored pair holds."""
    with np.load(path) as stored:
        meta: dict[str, Any] = json.loads(str(stored["meta"]))
    return meta


def is_stored(path: Path, recipe: PairRecipe) -> bool:
    """Whether `path` holds this pair, made with these settings."""
    return path.exists() and read_meta(path)["settings"] == json.loads(json.dumps(recipe.settings))


def capture_arrays(made: Made, n_threads: int = 1) -> tuple[dict[str, NDArray[Any]], int]:
    """Every array of the file but `meta`, and the size of a hidden state."""
    evaluation = made.evaluation
    run = edgecal.RunOptions(settings=edgecal.CaptureSettings(n_threads=n_threads))
    prompts = load_in_order(evaluation.records)
    captured = edgecal.capture(made.base, made.chat, prompts, hidden=True, run=run)
    logits = captured.logits
    n, k_max = logits.base_final.shape
    names = sorted({str(record["subject"]) for record in evaluation.records})
    arrays: dict[str, NDArray[Any]] = {
        "n_choices": logits.n_choices.astype(np.int8),
        "labels": logits.labels.astype(np.int8),
        "subjects": np.array([names.index(str(r["subject"])) for r in evaluation.records], np.int8),
        "subject_names": np.array(names),
    }
    if evaluation.probs is not None:
        arrays["probs"] = evaluation.probs.astype(np.float32)
    for role, final, layers, one in (
        ("base", logits.base_final, logits.base_layers, captured.base),
        ("chat", logits.chat_final, logits.chat_layers, captured.chat),
    ):
        assert layers is not None and one.last_hidden is not None
        arrays[f"{role}_final"] = final
        arrays[f"{role}_layers"] = round_to(layers, STEP_LAYERS).astype(np.float16)
        arrays[f"{role}_mass"] = one.choice_mass.astype(np.float32)
        if evaluation.hidden:
            mantissa, exponent = np.frexp(one.last_hidden[:N_HIDDEN])
            hidden = np.ldexp(round_to(mantissa, 2.0**-BITS_HIDDEN), exponent)
            arrays[f"{role}_hidden"] = hidden.astype(np.float16)
    n_embd = captured.base.last_hidden.shape[1]

    rotated = rotate(evaluation.records[:N_HIDDEN]) if evaluation.rotate else []
    if not rotated and not evaluation.free:
        return arrays, n_embd
    further = load_in_order([*evaluation.free, *(record for _, _, record in rotated)])
    said = edgecal.capture(made.base, made.chat, further, layers=False, run=run).logits
    n_free = len(evaluation.free)
    for role, final in (("base", said.base_final), ("chat", said.chat_final)):
        final = round_to(final, STEP_FURTHER)
        final = np.pad(final, ((0, 0), (0, k_max - final.shape[1])), constant_values=-np.inf)
        if n_free:
            arrays[f"{role}_free"] = final[:n_free].astype(np.float32)
        if rotated:
            whole = np.full((min(n, N_HIDDEN), k_max, k_max), -np.inf, np.float32)
            whole[:, 0] = arrays[f"{role}_final"][: len(whole)]
            for (i, r, record), row in zip(rotated, final[n_free:], strict=True):
                k = len(record["choices"])
                whole[i, r, (np.arange(k) + r) % k] = row[:k]
            arrays[f"{role}_rotated"] = whole
    if evaluation.free_subjects is not None:
        arrays["free_subjects"] = np.array([names.index(s) for s in evaluation.free_subjects], np.int8)
    return arrays, n_embd


def round_to(values: NDArray[np.float32], step: float) -> NDArray[np.float32]:
    """The nearest multiples of `step`, a power of two; infinities stay."""
    rounded: NDArray[np.float32] = np.round(values / np.float32(step)) * np.float32(step)
    return rounded


def load_in_order(records: Sequence[Mapping[str, Any]]) -> list[Prompt]:
    """The prompts of records, in their own order; `edgecal.load_prompts` sorts by content."""
    prompts = edgecal.load_prompts(list(records))
    if len(prompts) != len(records):
        raise ValueError(f"{len(records)} records gave {len(prompts)} prompts")
    return sorted(prompts, key=lambda prompt: int(prompt.source.rsplit(" ", 1)[1]))


def rotate(records: Sequence[Mapping[str, Any]]) -> list[tuple[int, int, dict[str, Any]]]:
    """(question, rotation from 1, record): the option at place p is the former number (p + rotation) modulo K."""
    return [
        (i, r, {"question": record["question"], "choices": turned(record["choices"], r)})
        for i, record in enumerate(records)
        for r in range(1, len(record["choices"]))
    ]


def turned(choices: Sequence[str], r: int) -> list[str]:
    """The choices from number r on, then those before it."""
    return [*choices[r:], *choices[:r]]


def check_file(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a stored pair, once they are known to fit together; a ValueError says what does not."""
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    check_arrays(arrays)
    name = json.loads(str(arrays["meta"]))["name"]
    if name != path.stem:
        raise ValueError(f"{path} holds the pair {name}")
    return arrays


def check_arrays(arrays: Mapping[str, NDArray[Any]]) -> None:
    """Shapes, dtypes, padding and ranges, as this module's table states them; ValueError otherwise."""
    n, k_max = arrays["base_final"].shape
    meta = json.loads(str(arrays["meta"]))
    n_layer, n_embd, m = meta["n_layer"], meta["n_embd"], min(n, N_HIDDEN)
    expected: dict[str, tuple[type, tuple[int, ...]]] = {
        "n_choices": (np.int8, (n,)),
        "labels": (np.int8, (n,)),
        "subjects": (np.int8, (n,)),
    }
    for role in ("base", "chat"):
        expected[f"{role}_final"] = (np.float32, (n, k_max))
        expected[f"{role}_layers"] = (np.float16, (n, n_layer, k_max))
        expected[f"{role}_mass"] = (np.float32, (n,))
        if f"{role}_hidden" in arrays:
            expected[f"{role}_hidden"] = (np.float16, (m, n_embd))
        if f"{role}_rotated" in arrays:
            expected[f"{role}_rotated"] = (np.float32, (m, k_max, k_max))
        if f"{role}_free" in arrays:
            expected[f"{role}_free"] = (np.float32, (len(arrays[f"{role}_free"]), k_max))
    if "probs" in arrays:
        expected["probs"] = (np.float32, (n, k_max))
    if "free_subjects" in arrays:
        expected["free_subjects"] = (np.int8, (len(arrays["base_free"]),))
    for name, (dtype, shape) in expected.items():
        found = arrays[name]
        if found.dtype != dtype or found.shape != shape:
            raise ValueError(f"{name} is {found.dtype} {found.shape}, expected {np.dtype(dtype)} {shape}")
    if unknown := set(arrays) - set(expected) - {"meta", "subject_names"}:
        raise ValueError(f"unknown arrays: {', '.join(sorted(unknown))}")
    _check_values(arrays, k_max)


def _check_values(arrays: Mapping[str, NDArray[Any]], k_max: int) -> None:
    n_choices, labels, subjects = arrays["n_choices"], arrays["labels"], arrays["subjects"]
    real = np.arange(k_max) < n_choices[:, None]
    for name in ("base_final", "chat_final", "base_layers", "chat_layers"):
        wanted = real[:, None] if arrays[name].ndim == 3 else real
        finite, padded = np.isfinite(arrays[name]), np.isneginf(arrays[name])
        if not np.array_equal(finite, np.broadcast_to(wanted, finite.shape)) or not (finite | padded).all():
            raise ValueError(f"{name} is not finite where there is a choice, and -inf elsewhere")
    if labels.min() < 0 or (labels >= n_choices).any() or n_choices.min() < 2:
        raise ValueError("a label is not one of its question's choices")
    if subjects.min() < 0 or subjects.max() >= len(arrays["subject_names"]):
        raise ValueError("a subject has no name")
    if "probs" in arrays:
        probs = arrays["probs"]
        if (probs[~real] != 0).any() or (probs < 0).any() or (np.abs(probs.sum(axis=1) - 1) > 1e-5).any():
            raise ValueError("probs do not sum to 1 over the choices")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
