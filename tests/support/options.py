"""Options of `edgecal.fit` and its siblings by their own names, for tests that vary one at a time."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from edgecal import Method, OutputOptions, QuestionOptions, RunOptions

__all__ = ["grouped"]

_GROUPS = {"questions": QuestionOptions, "run": RunOptions, "output": OutputOptions}


def grouped(**options: Any) -> dict[str, Any]:
    """The same as keywords of `edgecal.fit`: `limit=5` as `questions=QuestionOptions(limit=5)`; `output` is a path."""
    found: dict[str, Any] = {}
    if "output" in options:
        options["path"] = options.pop("output")
    for name, group in _GROUPS.items():
        given = {item.name: options.pop(item.name) for item in fields(group) if item.name in options}
        if given:
            found[name] = group(**given)
    variant = {item.name: options.pop(item.name) for item in fields(Method)[1:] if item.name in options}
    if variant:
        found["method"] = Method(options.pop("method", "dual-align"), **variant)
    return {**found, **options}
