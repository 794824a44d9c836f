"""The folders are the architecture: imports go downwards only, and what is heavy is loaded late."""

import ast
import json
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import edgecal

PACKAGE = Path(edgecal.__file__).parent
ROOT = Path(__file__).parents[1]

# What each part may import from the rest of the package. A part is a folder or a module directly in edgecal/.
MAY_IMPORT = {
    "errors": set(),
    "version": set(),
    "architectures": {"errors"},
    "results": set(),
    "jit": set(),
    "atomic_write": {"errors"},
    "gguf": {"errors", "results", "version", "architectures"},
    "cache": {"errors"},
    "prompts": {"errors", "results"},
    "decisions": {"errors", "prompts"},
    "calibration": {"errors", "jit", "results"},
    "metrics": {"errors"},
    "data": {"errors", "prompts"},
    "lens": {"errors", "architectures", "jit", "gguf"},
    "llama": {"errors", "architectures", "prompts"},
    "worker": {"errors"},
    "pair": {
        "errors",
        "results",
        "architectures",
        "gguf",
        "prompts",
        "cache",
        "calibration",
        "lens",
        "llama",
        "worker",
    },
    "stamping": {"errors", "version", "results", "gguf", "decisions"},
    "baking": {
        "errors",
        "results",
        "version",
        "architectures",
        "gguf",
        "lens",
        "llama",
        "stamping",
        "worker",
    },
    "runtime": {
        "errors",
        "results",
        "architectures",
        "gguf",
        "cache",
        "prompts",
        "decisions",
        "metrics",
        "llama",
        "worker",
        "stamping",
    },
    "evaluation": {"errors", "results", "decisions", "calibration", "metrics"},
    "report": {"errors", "results", "metrics", "atomic_write"},
    "api": {
        "errors",
        "atomic_write",
        "version",
        "results",
        "architectures",
        "gguf",
        "prompts",
        "decisions",
        "cache",
        "data",
        "calibration",
        "metrics",
        "lens",
        "llama",
        "worker",
        "pair",
        "evaluation",
        "stamping",
        "baking",
        "runtime",
    },
    "cli": {
        "errors",
        "atomic_write",
        "version",
        "results",
        "api",
        "gguf",
        "prompts",
        "decisions",
        "cache",
        "llama",
        "report",
        "stamping",
        "baking",
        "runtime",
    },
}
ONLY_IN = {
    "click": {"cli"},
    "gguf": set(),  # gguf-py is there for tests, benchmarks and training only
    "rich": {"cli"},
    "textual": {"cli"},
    "llama_cpp": {"llama", "runtime"},
    "jinja2": {"prompts", "decisions", "report"},
    "matplotlib": {"report"},
    "msgspec": {"results", "report"},
    "numba": {"jit", "calibration", "lens"},
    "psutil": {"llama"},
    "pyarrow": {"data"},
    "sqlite3": {"cache"},
}


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(PACKAGE)
        part = relative.parts[0].removesuffix(".py")
        if part not in ("__init__", "__main__", "_native"):
            yield part, path


def imports(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            if node.module == "edgecal":
                yield from (f"edgecal.{alias.name}" for alias in node.names)


def imported_modules(path, names):
    """The modules of the package that a file imports anywhere, for types only included."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in names)
        elif isinstance(node, ast.ImportFrom) and node.module in names:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in names else node.module


def test_no_module_imports_itself_by_way_of_others():
    """Not even the package's front, which offers what the modules behind it make."""
    path_of = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        path_of[".".join(parts).removesuffix(".__init__")] = path
    graph = {name: set(imported_modules(path, path_of)) - {name} for name, path in path_of.items()}
    assert not [name for name, found in graph.items() if "edgecal" in found]
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


def test_every_part_is_known():
    assert {part for part, _ in modules()} == set(MAY_IMPORT)


@pytest.mark.parametrize(
    "path", [pytest.param((part, path), id=str(path.relative_to(PACKAGE))) for part, path in modules()]
)
def test_imports_go_downwards(path):
    part, path = path
    for name in imports(path):
        first, *rest = name.split(".")
        if first == "edgecal" and rest:
            assert rest[0] in MAY_IMPORT[part] | {part}, f"{part} must not import {name}"
        if first in ONLY_IN:
            assert part in ONLY_IN[first], f"{part} must not import {first}"


def test_the_engine_for_edits_in_place_has_two_doors():
    inside = PACKAGE / "gguf/inplace"
    used = set()
    for path in (path for _, path in modules() if inside not in path.parents):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("edgecal.gguf.inplace"):
                used |= {alias.name for alias in node.names}
    assert used == {"edit_in_place", "recover"}


@pytest.mark.parametrize(
    "statement", ["import edgecal", "import edgecal.cli.commands", "import edgecal.gguf"]
)
def test_importing_is_light(statement):
    code = f"{statement}\nimport sys, json\nprint(json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    loaded = {name.split(".")[0] for name in json.loads(out)}
    assert not loaded & {
        "numba",
        "llama_cpp",
        "matplotlib",
        "jinja2",
        "pyarrow",
        "rich",
        "textual",
        "msgspec",
        "gguf",
        "scipy",
        "torch",
    }


def test_public_names():
    assert sorted(edgecal.__all__) == [
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
    assert all(hasattr(edgecal, name) for name in edgecal.__all__)


def test_the_version_is_said_once():
    assert f'version = "{edgecal.__version__}"' in (ROOT / "pyproject.toml").read_text("utf-8")
    assert f"## {edgecal.__version__}" in (ROOT / "CHANGELOG.md").read_text("utf-8")
