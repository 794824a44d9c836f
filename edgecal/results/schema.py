"""Makes the published JSON Schema of what each command prints with `--json` from the result types.

Types and ranges come from the annotations, descriptions from the docstrings, so that nothing is repeated. The types are
rebuilt as msgspec structs on the way: these refuse unknown keys, and distinguish a key that may be left out from one
that may be null.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints, is_typeddict

import msgspec

from edgecal.results import deciding, fitting, judging, labelling, model_files, questions, requests
from edgecal.results.printed import NotRequired, Range, is_printed

__all__ = ["PRINTED", "describe_keys", "make_schema", "struct_of"]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"

# What each command prints: one JSON object of one of these types. `questions` and `decide` print one on each line.
PRINTED: dict[str, tuple[type, ...]] = {
    "ask": (model_files.AnswerShown,),
    "bake": (model_files.BakeResult,),
    "cache": (model_files.CacheShown, model_files.CacheCleared),
    "compare": (judging.CompareResult, requests.RequestCompareResult),
    "decide": (deciding.DecisionsShown, deciding.RefusalShown),
    "diff": (model_files.FilesCompared,),
    "doctor": (fitting.DoctorResult,),
    "eval": (judging.EvalResult,),
    "export": (model_files.Sidecar, model_files.EditResult),
    "fit": (fitting.FitResult, fitting.PlanResult, requests.RequestFitResult),
    "label": (labelling.LabelResult,),
    "project": (fitting.ProjectionResult,),
    "questions": (questions.QuestionLine, questions.PromptLine, questions.TokensLine),
    "set": (model_files.EditResult,),
    "show": (model_files.ShowResult,),
    "stamp": (model_files.StampResult,),
    "strip": (model_files.EditResult,),
    "unbake": (model_files.UnbakeResult,),
    "unset": (model_files.EditResult,),
}


def make_schema(command: str | None = None) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of what a command prints with --json; of all commands by default.

    A shape is closed, so that unknown keys are refused, except where names are data (figures, metadata keys).
    """
    commands = list(PRINTED) if command is None else [command]
    built: dict[type, Any] = {}
    types = {shape: struct_of(shape, built, closed=True) for name in commands for shape in PRINTED[name]}
    refs, definitions = msgspec.json.schema_components(list(types.values()), ref_template="#/$defs/{name}")
    ref_of = dict(zip(types, refs, strict=True))

    def any_of(shapes: tuple[type, ...]) -> dict[str, Any]:
        found = [ref_of[shape] for shape in shapes]
        return found[0] if len(found) == 1 else {"anyOf": found}

    if command is not None:
        about = {"title": f"edgecal {command} --json", **any_of(PRINTED[command])}
    else:
        about = {
            "title": "What edgecal's commands print with --json",
            "anyOf": [{"$ref": f"#/$defs/edgecal {name}"} for name in commands],
        }
        definitions |= {f"edgecal {name}": any_of(PRINTED[name]) for name in commands}
    return {"$schema": _DIALECT, **about, "$defs": dict(sorted(definitions.items()))}


def struct_of(
    shape: type,
    built: dict[type, Any],
    *,
    closed: bool,
    absent: Mapping[tuple[type, str], Callable[[], Any]] | None = None,
) -> Any:
    """A msgspec struct with the keys of a TypedDict or dataclass, nested ones included.

    Parameters
    ----------
    built: structs made so far, by shape; this adds to it.
    closed: refuse keys that the shape does not name.
    absent: for shapes that are read back, defaults of missing keys, by shape and key; a key that may be null may then
        be missing too.
    """

    def convert(hint: Any) -> Any:
        origin, arguments = get_origin(hint), get_args(hint)
        if origin is Annotated:
            inner, bounds = arguments
            return Annotated[convert(inner), msgspec.Meta(**_bounds(bounds))]
        if is_typeddict(hint) or is_dataclass(hint):
            return struct_of(hint, built, closed=closed, absent=absent)
        if origin is Literal or not arguments:
            return hint
        if origin in (list, dict, tuple):
            return origin[tuple(convert(argument) for argument in arguments)]
        return reduce(or_, [convert(argument) for argument in arguments])

    if shape not in built:
        about, texts = describe_keys(shape)
        fields: list[Any] = []
        for key, hint in _keys(shape).items():
            needed = get_origin(hint) is not NotRequired and key in getattr(
                shape, "__required_keys__", (key,)
            )
            hint = get_args(hint)[0] if get_origin(hint) is NotRequired else hint
            kind: Any = Annotated[convert(hint), msgspec.Meta(description=texts.get(key))]
            if not needed:
                fields.append((key, kind | msgspec.UnsetType, msgspec.UNSET))
            elif absent is not None and (shape, key) in absent:
                fields.append((key, kind, msgspec.field(default_factory=absent[shape, key])))
            elif absent is not None and type(None) in get_args(hint):
                fields.append((key, kind, None))
            else:
                fields.append((key, kind))
        built[shape] = msgspec.defstruct(
            shape.__name__, fields, kw_only=True, forbid_unknown_fields=closed, namespace={"__doc__": about}
        )
    return built[shape]


def _keys(shape: type) -> dict[str, Any]:
    fields = getattr(shape, "__dataclass_fields__", {})
    return {
        key: hint
        for key, hint in get_type_hints(shape, include_extras=True).items()
        if not key.startswith("__") and (key not in fields or is_printed(fields[key]))
    }


def _bounds(bounds: Range) -> dict[str, Any]:
    known = {name: value for name, value in bounds._asdict().items() if value is not None}
    if (length := known.pop("length", None)) is not None:
        known |= {"min_length": length, "max_length": length}
    return known


def describe_keys(shape: type) -> tuple[str, dict[str, str]]:
    """The descriptions in a shape's docstring: of the whole, and of each key, those of its bases included.

    Before Python 3.12 a TypedDict does not remember its bases; they are the shapes all of whose keys it has, with the
    same types.
    """
    about, texts = _read_docstring(shape)
    keys = _keys(shape)
    for base in filter(is_dataclass, shape.__mro__[1:]):
        texts = _read_docstring(base)[1] | texts
    bases = [base for base in _SHAPES if base is not shape and _keys(base).items() <= keys.items()]
    for base in sorted(bases, key=lambda base: len(_keys(base)), reverse=True):
        texts = _read_docstring(base)[1] | texts
    return about, texts


def _read_docstring(shape: type) -> tuple[str, dict[str, str]]:
    text = (inspect.getdoc(shape) or "").replace("\nAttributes\n----------", "")
    about, *lines = re.split(r"\n(?=\w+(?:, \w+)*: )", text)
    texts: dict[str, str] = {}
    for line in lines:
        names, said = line.split(": ", 1)
        said = re.sub(r"\bNone\b", "null", " ".join(said.split())).rstrip(".")
        texts |= dict.fromkeys(names.split(", "), said)
    return " ".join(about.split()), texts


_SHAPES = [
    shape
    for module in (model_files, fitting, judging, labelling, questions, deciding, requests)
    for shape in vars(module).values()
    if is_typeddict(shape)
]
