"""Defines the shape of every result once: as Python values, as JSON and as a published schema.

A result's parts are TypedDicts, so that `--json` prints what the code holds and mypy checks; `schema` makes the JSON
Schema of `edgecal schema` from the same types.
"""

from edgecal.results.fitting import DoctorResult, FitResult, PlanResult, ProjectionResult
from edgecal.results.judging import CompareResult, EvalResult
from edgecal.results.labelling import LabelResult
from edgecal.results.model_files import BakeResult, EditResult, ShowResult, StampResult, UnbakeResult
from edgecal.results.questions import QuestionsResult
from edgecal.results.requests import RequestCompareResult, RequestFitResult

__all__ = [
    "BakeResult",
    "CompareResult",
    "DoctorResult",
    "EditResult",
    "EvalResult",
    "FitResult",
    "LabelResult",
    "PlanResult",
    "ProjectionResult",
    "QuestionsResult",
    "RequestCompareResult",
    "RequestFitResult",
    "ShowResult",
    "StampResult",
    "UnbakeResult",
]
