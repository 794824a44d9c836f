"""Calibrated models in Python apps, and what other programs need to be told: `edgecal.load` and `edgecal export`.

A thin layer on `llama_cpp.Llama` that divides logits by what the file says. Does not fit, judge or write models.
Importing this package loads neither numpy, llama.cpp nor the rest of edgecal but its errors.

Modules: `answer` (what comes back), `options`, `logits` and `model` (llama.cpp),
`load`, `ask` (one question in a process of its own), `threshold` (when to abstain), `export` and `quoting` (other
programs).
"""

from edgecal.runtime.answer import Answer, GeneratedToken, Generation
from edgecal.runtime.load import load
from edgecal.runtime.model import Model
from edgecal.runtime.threshold import Threshold, threshold_for, threshold_from_eval

__all__ = [
    "Answer",
    "GeneratedToken",
    "Generation",
    "Model",
    "Threshold",
    "load",
    "threshold_for",
    "threshold_from_eval",
]
