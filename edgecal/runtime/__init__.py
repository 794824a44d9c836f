"""Calibrated models in Python apps, and what other programs need to be told: `edgecal.load` and `edgecal export`.

`load` makes a `Model` (`calibrated_model`), a thin layer on `llama_cpp.Llama` that divides the logits
(`llama_logits`) by what the file says (`edgecal.stamping`) and returns plain values (`answer`). `ask_in_worker` asks
one question in a process of its own, `abstention` finds when to abstain, and `export_targets` writes for other
programs. Importing this package loads neither numpy nor llama.cpp.
"""

from edgecal.runtime.abstention import Threshold, threshold_for, threshold_from_eval
from edgecal.runtime.answer import Answer, GeneratedToken, Generation
from edgecal.runtime.calibrated_model import Model
from edgecal.runtime.load import load

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
