"""Runs the stages together: fit, label, plan, capture, evaluate, compare and doctor, with their options.

These functions call the mathematics and llama.cpp but contain neither, and print nothing; the command line is a thin
layer on top. Importing them loads no llama.cpp, numba or matplotlib.
"""

from edgecal.api.capture import capture
from edgecal.api.compare import compare
from edgecal.api.compare_requests import compare_requests
from edgecal.api.doctor import doctor
from edgecal.api.evaluate import evaluate
from edgecal.api.evaluate_requests import evaluate_requests
from edgecal.api.fit import OutputOptions, fit
from edgecal.api.fit_requests import fit_requests
from edgecal.api.label import DEFAULT_RATIO, label
from edgecal.api.label_session import LabelSession
from edgecal.api.plan import plan
from edgecal.api.progress import Progress
from edgecal.api.project import fit_projection
from edgecal.api.questions import QuestionOptions, load_prompts, read_questions
from edgecal.calibration import Method
from edgecal.llama.settings import CaptureSettings
from edgecal.pair.run import RunOptions

__all__ = [
    "DEFAULT_RATIO",
    "CaptureSettings",
    "LabelSession",
    "Method",
    "OutputOptions",
    "Progress",
    "QuestionOptions",
    "RunOptions",
    "capture",
    "compare",
    "compare_requests",
    "doctor",
    "evaluate",
    "evaluate_requests",
    "fit",
    "fit_projection",
    "fit_requests",
    "label",
    "load_prompts",
    "plan",
    "read_questions",
]
