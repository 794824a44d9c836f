"""Titles and explanations of methods and ablations, for people who have not read the papers.

A name that is not listed is shown as it is.
"""

from __future__ import annotations

__all__ = [
    "ABLATIONS",
    "EFFECTS",
    "METHODS",
    "SCALINGS",
    "method_title",
]


# Title for tables and pictures, and what the method does.
METHODS = {
    "plm": ("Base model", "the model before post-training, as it is"),
    "polm": ("Chat model", "the model as delivered, uncalibrated"),
    "vanilla": ("Chat model", "the model as delivered, uncalibrated"),
    "verbalized": ("Verbalized", "the chat model is asked to state how sure it is"),
    "cape": ("CAPE", "averages over permuted options"),
    "internal-consistency": ("Internal consistency", "how many of its own layers agree with the answer"),
    "basecal-reeval": (
        "BaseCal-ReEval",
        "the base model's probability of the chat model's answer; needs both models",
    ),
    "basecal-proj": (
        "BaseCal-Proj",
        "the same without running the base model: mapped linearly from the chat model's last hidden state",
    ),
    "naive": ("Naive", "matches the base model's distribution on every question"),
    "daca": ("DACA", "matches the base model only where both choose alike"),
    "process": ("Process only", "matches how settled the layers are where the two models differ"),
    "dual-align": ("Dual-Align", "DACA's part and the process part together"),
    "anchored": ("Anchored", "unlabelled questions and a few right answers together"),
    "ts": (
        "Temperature scaling",
        "fitted on the right answers: the goal that methods without labels approach",
    ),
}

ABLATIONS = {
    "tau_scope": "Which layers the temperature divides",
    "ise": "What is averaged in the stability entropy",
    "combine": "How the two losses are combined",
    "losses": "Which loss is used: outputs only, process only, or both",
    "lambda": "How much the process loss weighs (combined as a sum)",
    "prompts": "How many prompts are used for the fit",
}

EFFECTS = {
    "zero-shot": "Questions alone",
    "few-shot": "With worked examples",
    "chat-template": "In the chat model's own template",
}

SCALINGS = {
    "none": "as it is",
    "temperature": "one temperature",
    "subject": "a temperature for each subject",
    "bias": "a temperature, and a bias for each label",
    "vector": "a scale and a bias for each label",
}


def method_title(name: str) -> str | None:
    """A known method's title, or None."""
    return METHODS[name][0] if name in METHODS else None
