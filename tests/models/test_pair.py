"""The bundled pair is what its card says, measured by edgecal itself through llama.cpp; the guide quotes a true run."""

import re

import numpy as np
import pytest
from support.pages import ROOT, code_block

import edgecal
from edgecal.metrics import compute_ece, softmax_probs

MODELS = ROOT / "models"


PAIR = [MODELS / f"edgecal-tiny-{role}-Q8_0.gguf" for role in ("base", "chat")]


def test_figures_of_the_pair():
    prompts = edgecal.load_prompts(MODELS / "questions/test.jsonl")
    logits = edgecal.capture(*PAIR, prompts, layers=False).logits
    ece, hits, choices = {}, {}, {}
    for role, final in (("base", logits.base_final), ("chat", logits.chat_final)):
        probs = softmax_probs(final, logits.n_choices)
        choices[role] = probs.argmax(axis=1)
        hits[role] = choices[role] == logits.labels
        ece[role] = compute_ece(probs.max(axis=1), hits[role])
    assert ece["base"] <= 0.04
    assert ece["chat"] >= 0.10
    assert 0.10 <= np.mean(choices["base"] != choices["chat"]) <= 0.40
    gain = hits["chat"].astype(float) - hits["base"]
    assert gain.mean() + 1.96 * gain.std() / np.sqrt(len(gain)) >= 0  # not significantly less accurate


def test_the_guide_shows_what_the_demo_prints():
    temperature, low, high = re.search(
        r"temperature +([\d.]+) +\(95% interval ([\d.]+) to ([\d.]+)\)", code_block("demo")
    ).groups()
    result = edgecal.fit(*PAIR, MODELS / "questions/unlabelled.jsonl")
    assert result.temperature == pytest.approx(float(temperature), rel=0.01)
    assert result.interval == pytest.approx((float(low), float(high)), rel=0.02)
    assert result.choice_mass["base"] > 0.99 and result.choice_mass["chat"] > 0.99
    assert result.warnings == []
