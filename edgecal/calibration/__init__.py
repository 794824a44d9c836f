"""The mathematics of edgecal: fits one temperature, with its interval, to the choice logits of two models.

Pure functions of arrays; nothing here reads files or runs models. Importing the package loads NumPy only; the first
fit loads numba.
"""

from edgecal.calibration.anchored import AnchoredFit, fit_anchored
from edgecal.calibration.anchored_doubts import find_anchored_doubts
from edgecal.calibration.bracket import Bracket, fit_bracket
from edgecal.calibration.choice_logits import ChoiceLogits
from edgecal.calibration.harm import (
    LabelCheck,
    check_choices,
    check_labels,
    doubt_mass,
    find_doubts,
    is_hopeless,
)
from edgecal.calibration.method import METHODS, Method, foresee_lack
from edgecal.calibration.platt import PlattFit, fit_platt
from edgecal.calibration.scaling import Scaling, ScalingChoice, choose_scaling
from edgecal.calibration.search import TAU_MAX, TAU_MIN
from edgecal.calibration.sequential import DEFAULT_TOLERANCE, AdaptivePlan, Look, Step, draw_order
from edgecal.calibration.temperature_fit import TemperatureFit, evaluate_loss, fit_temperature

__all__ = [
    "DEFAULT_TOLERANCE",
    "METHODS",
    "TAU_MAX",
    "TAU_MIN",
    "AdaptivePlan",
    "AnchoredFit",
    "Bracket",
    "ChoiceLogits",
    "LabelCheck",
    "Look",
    "Method",
    "PlattFit",
    "Scaling",
    "ScalingChoice",
    "Step",
    "TemperatureFit",
    "check_choices",
    "check_labels",
    "choose_scaling",
    "doubt_mass",
    "draw_order",
    "evaluate_loss",
    "find_anchored_doubts",
    "find_doubts",
    "fit_anchored",
    "fit_bracket",
    "fit_platt",
    "fit_temperature",
    "foresee_lack",
    "is_hopeless",
]
