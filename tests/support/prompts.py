"""Prompts made in the test run."""

from __future__ import annotations

import json

import numpy as np


def random_token_prompts(n, *, seed, n_choices=4, length=24, n_vocab=300, answers=False):
    """Records of the token form with random ids, and a label each if `answers`."""
    rng = np.random.default_rng(seed)
    records = []
    for _ in range(n):
        choices = rng.choice(np.arange(10, n_vocab), n_choices, replace=False)
        record = {
            "tokens": rng.integers(
                10, n_vocab, rng.integers(length // 2, length + 1) if length < 1000 else length
            ).tolist(),
            "choice_tokens": choices.tolist(),
        }
        if answers:
            record["answer"] = int(rng.integers(n_choices))
        records.append(record)
    return records


def write_json_lines(path, records):
    """Writes records as JSON Lines."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return path
