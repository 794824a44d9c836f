"""Made-up choice logits of a base and a chat model, as adjustable as the tests need."""

import numpy as np

from edgecal.calibration import ChoiceLogits


def make_choice_logits(n, n_layer, k, *, seed=0, noise=0.6, sharpness=2.5, layers=True, labels=True):
    """n prompts; k an int, or a pair (low, high) for ragged choices; the chat model is `sharpness` too sure."""
    rng = np.random.default_rng(seed)
    low, high = (k, k) if isinstance(k, int) else k
    n_choices = rng.integers(low, high + 1, size=n)
    truth = rng.normal(size=(n, high)) * 1.5
    depth = np.linspace(1.0, 0.1, n_layer)[::-1][None, :, None]  # layer by layer clearer, fully at the last
    base = truth[:, None, :] * depth + rng.normal(size=(n, n_layer, high)) * 0.3
    chat = sharpness * (truth[:, None, :] * depth + rng.normal(size=(n, n_layer, high)) * noise)
    probs = np.exp(truth) * (np.arange(high) < n_choices[:, None])
    cumulative = np.cumsum(probs / probs.sum(axis=1, keepdims=True), axis=1)
    answers = np.minimum((rng.uniform(size=(n, 1)) > cumulative).sum(axis=1), n_choices - 1)
    return ChoiceLogits(
        base_final=base[:, -1].astype(np.float32),
        chat_final=chat[:, -1].astype(np.float32),
        base_layers=base.astype(np.float32) if layers else None,
        chat_layers=chat.astype(np.float32) if layers else None,
        n_choices=n_choices.astype(np.int32),
        labels=answers.astype(np.int32) if labels else np.full(n, -1, dtype=np.int32),
    )


def rebuild(data, **changes):
    """A copy of `data` with some arrays replaced."""
    names = ("base_final", "chat_final", "base_layers", "chat_layers", "n_choices", "labels")
    return ChoiceLogits(**{name: changes.get(name, getattr(data, name)) for name in names})


def change_logits(data, change):
    """A copy of `data` with `change(array)` in place of each of the chat model's arrays."""
    return rebuild(
        data,
        chat_final=change(data.chat_final),
        chat_layers=None if data.chat_layers is None else change(data.chat_layers),
    )


_MASK = 2**64 - 1


def _twin_mix(z):
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _MASK
    return z ^ (z >> 31)


def twin_counts(n, seed, resample):
    """How often the bootstrap's resample holds each of n prompts, in whole numbers of Python's own."""
    gamma = 0x9E3779B97F4A7C15
    key = _twin_mix((_twin_mix((seed + gamma) & _MASK) + resample * gamma) & _MASK)
    counts = np.zeros(n, dtype=np.int32)
    for j in range(n):
        counts[(_twin_mix((key + j * gamma) & _MASK) >> 32) * n >> 32] += 1
    return counts
