"""edgecal: honest confidence for local language models, without labels and without a GPU.

    import edgecal
    result = edgecal.fit("model-base.gguf", "model-chat.gguf", "questions.jsonl")
    print(result.temperature, result.interval)

    judged = edgecal.evaluate("model-chat.gguf", "questions-with-answers.jsonl", temperature=result.temperature)
    print(judged.verdict)

    with edgecal.load("model-chat.calibrated.gguf") as model:
        print(model.choose("Which planet is largest?", ["Mars", "Jupiter", "Venus"]).confidence)

Importing the package is light: numba, llama.cpp and the rest are loaded by the functions that need them.
"""

from typing import TYPE_CHECKING, Any

from edgecal.errors import (
    EdgecalError,
    InputError,
    ModelError,
    NotIdentifiedError,
    OutputError,
    UnsettledError,
    UnsettledWarning,
)
from edgecal.version import __version__

if TYPE_CHECKING:
    from edgecal.api.capture import capture
    from edgecal.api.compare import compare
    from edgecal.api.compare_requests import compare_requests
    from edgecal.api.doctor import doctor
    from edgecal.api.evaluate import evaluate
    from edgecal.api.evaluate_requests import evaluate_requests
    from edgecal.api.fit import OutputOptions, fit
    from edgecal.api.fit_requests import fit_requests
    from edgecal.api.label import label
    from edgecal.api.label_session import LabelSession
    from edgecal.api.plan import plan
    from edgecal.api.progress import Progress
    from edgecal.api.project import fit_projection
    from edgecal.api.questions import QuestionOptions, load_prompts, read_questions
    from edgecal.baking.bake import bake, unbake
    from edgecal.calibration import Method
    from edgecal.decisions import Choice, Decision, DecisionOptions, Decisions, Noul, Score
    from edgecal.llama.settings import CaptureSettings
    from edgecal.pair.run import RunOptions
    from edgecal.prompts import PromptTemplate, Question
    from edgecal.results import (
        BakeResult,
        CompareResult,
        DoctorResult,
        EditResult,
        EvalResult,
        FitResult,
        LabelResult,
        PlanResult,
        ProjectionResult,
        QuestionsResult,
        RequestCompareResult,
        RequestFitResult,
        ShowResult,
        StampResult,
        UnbakeResult,
    )
    from edgecal.runtime import Threshold, threshold_for
    from edgecal.runtime.load import load
    from edgecal.stamping.edit import stamp, strip
    from edgecal.stamping.shown import show

__all__ = [
    "BakeResult",
    "CaptureSettings",
    "Choice",
    "CompareResult",
    "Decision",
    "DecisionOptions",
    "Decisions",
    "DoctorResult",
    "EdgecalError",
    "EditResult",
    "EvalResult",
    "FitResult",
    "InputError",
    "LabelResult",
    "LabelSession",
    "Method",
    "ModelError",
    "NotIdentifiedError",
    "Noul",
    "OutputError",
    "OutputOptions",
    "PlanResult",
    "Progress",
    "ProjectionResult",
    "PromptTemplate",
    "Question",
    "QuestionOptions",
    "QuestionsResult",
    "RequestCompareResult",
    "RequestFitResult",
    "RunOptions",
    "Score",
    "ShowResult",
    "StampResult",
    "Threshold",
    "UnbakeResult",
    "UnsettledError",
    "UnsettledWarning",
    "__version__",
    "bake",
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
    "load",
    "load_prompts",
    "plan",
    "read_questions",
    "show",
    "stamp",
    "strip",
    "threshold_for",
    "unbake",
]


# Where the names are that live neither in `edgecal.results` (those that end with Result) nor in `edgecal.api`.
_HOMES = {
    "Choice": "edgecal.decisions",
    "Decision": "edgecal.decisions",
    "DecisionOptions": "edgecal.decisions",
    "Decisions": "edgecal.decisions",
    "Noul": "edgecal.decisions",
    "Score": "edgecal.decisions",
    "PromptTemplate": "edgecal.prompts",
    "Question": "edgecal.prompts",
    "Threshold": "edgecal.runtime",
    "bake": "edgecal.baking.bake",
    "load": "edgecal.runtime",
    "show": "edgecal.stamping.shown",
    "stamp": "edgecal.stamping.edit",
    "strip": "edgecal.stamping.edit",
    "threshold_for": "edgecal.runtime",
    "unbake": "edgecal.baking.bake",
}


def __getattr__(name: str) -> Any:
    """Loads what needs numpy when it is first asked for; `edgecal show` never does."""
    if name not in __all__:
        raise AttributeError(f"module 'edgecal' has no attribute {name!r}")
    from importlib import import_module

    home = _HOMES.get(name, "edgecal.results" if name.endswith("Result") else "edgecal.api")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
