"""Jinja in a sandbox, for templates from strangers: they reach nothing outside, and can neither render nor read
anything huge. Chat templates travel inside model files, so they are no more trustworthy than the files are.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Template, TemplateError, TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from edgecal.errors import InputError

__all__ = ["MAX_CHARACTERS", "Sandbox", "compile_template", "read_source", "render_template"]

MAX_CHARACTERS = 1_000_000
_MAX_PRODUCT = 1_000_000


class Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, without products and powers so large that they would fill the memory."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        sizes = [
            abs(v) if isinstance(v, (int, float)) else len(v)
            for v in (left, right)
            if hasattr(v, "__len__") or isinstance(v, (int, float))
        ]
        too_large = sizes and (
            max(sizes) > _MAX_PRODUCT or (len(sizes) == 2 and sizes[0] * sizes[1] > _MAX_PRODUCT)
        )
        if too_large or (operator == "**" and sizes and sizes[-1] > 64):
            raise TemplateError(f"a result of '{operator}' is too large")
        return super().call_binop(context, operator, left, right)


def read_source(path: str | Path, what: str, expected: str) -> str:
    """The text of a template's file: UTF-8, with or without a byte order mark.

    Parameters
    ----------
    path: the user's path. `~` is not expanded, as nowhere in edgecal.
    what: what the file should hold ("template"), for messages.
    expected: what the user may give, for messages.

    Raises
    ------
    InputError: it is not a path; the file cannot be read, is not UTF-8, or is longer than any prompt may be.
    """
    if not isinstance(path, (str, os.PathLike)):  # open() would take a number for an open file
        raise InputError(f"the {what} is {path!r:.200}; give {expected}")
    try:
        with Path(path).open(encoding="utf-8-sig") as file:
            text = file.read(MAX_CHARACTERS + 1)
    except UnicodeDecodeError:
        raise InputError(f"{path}: the {what} is not UTF-8 text; save it as UTF-8") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, "strerror", error)
        home = "; ~ is not expanded, so write out the path" if str(path).startswith("~") else ""
        raise InputError(
            f"the {what} is {str(path)!r:.200}, which cannot be read as a file ({reason}); give {expected}{home}"
        ) from None
    if len(text) > MAX_CHARACTERS:
        raise InputError(
            f"{path}: the {what} is longer than {MAX_CHARACTERS} characters, so this is another file; give {expected}"
        )
    return text


def compile_template(sandbox: Sandbox, source: str, name: str) -> Template:
    """Compiles a template. Raises InputError, with `name` and the line, if it is not valid Jinja."""
    try:
        return sandbox.from_string(source)
    except TemplateSyntaxError as error:
        raise InputError(
            f"{name}, line {error.lineno}: not a valid template: {_one_line(error.message or '')}"
        ) from None
    except (RecursionError, MemoryError, OverflowError, ValueError, SyntaxError) as error:
        raise InputError(f"{name}: not a valid template: {_one_line(str(error))}") from None


def render_template(template: Template, values: Mapping[str, Any], name: str, what: str) -> str:
    """Renders a compiled template.

    Parameters
    ----------
    template, values: as Jinja takes them.
    name, what: the template's name, and what is rendered, for messages.

    Raises
    ------
    InputError: the template fails, or renders an empty, absurdly long or not valid text.
    """
    pieces: list[str] = []
    n_characters = 0
    try:
        for piece in template.generate(values):
            pieces.append(piece)
            n_characters += len(piece)
            if n_characters > MAX_CHARACTERS:
                raise TemplateError(f"the text is longer than {MAX_CHARACTERS} characters")
    except (
        TemplateError,
        TypeError,
        ValueError,
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        MemoryError,
    ) as error:
        reason = _one_line(str(error)) or type(error).__name__
        raise InputError(f"{name}: cannot render {what}: {reason}") from None
    text = "".join(pieces)
    if not text.strip():
        raise InputError(f"{name}: renders an empty prompt for {what}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(
            f"{name}: renders half of a surrogate pair for {what}, which is not valid text"
        ) from None
    return text


def _one_line(text: str) -> str:
    return " ".join(text.split())
