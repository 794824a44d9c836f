"""The mathematics of edgecal: choice logits of two models in, one temperature with its interval out.

Pure functions of arrays. Knows nothing of files, prompts' texts, llama.cpp or the command line.
Importing it loads NumPy only; numba is loaded by the first fit.
"""

from edgecal.calibration.bracket import Bracket, fit_bracket
from edgecal.calibration.choice_logits import ChoiceLogits
from edgecal.calibration.examples import foresee_lack
from edgecal.calibration.fit import TemperatureFit, evaluate_loss, fit_temperature
from edgecal.calibration.harm import LabelCheck, check_labels, doubt_mass, find_doubts, is_hopeless
from edgecal.calibration.method import METHODS, Method
from edgecal.calibration.search import TAU_MAX, TAU_MIN
from edgecal.calibration.sequential import DEFAULT_TOLERANCE, AdaptivePlan, Look, Step, draw_order

__all__ = [
    "DEFAULT_TOLERANCE",
    "METHODS",
    "TAU_MAX",
    "TAU_MIN",
    "AdaptivePlan",
    "Bracket",
    "ChoiceLogits",
    "LabelCheck",
    "Look",
    "Method",
    "Step",
    "TemperatureFit",
    "check_labels",
    "doubt_mass",
    "draw_order",
    "evaluate_loss",
    "find_doubts",
    "fit_bracket",
    "fit_temperature",
    "foresee_lack",
    "is_hopeless",
]
