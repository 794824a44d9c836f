"""Keeps llama-cpp-python from compiling a file's chat templates before anybody wants one.

It compiles all of them whenever it loads a model, by a Jinja that knows less than the one that the templates were
written for; one that it cannot compile would keep a model from loading whose template nobody asks for. Knows that
one habit of llama-cpp-python. edgecal's own chat templates are in `edgecal.prompts.chat`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from importlib import import_module
from typing import Any

from edgecal.errors import InputError

__all__ = ["templates_uncompiled"]

_lock = threading.Lock()


@contextmanager
def templates_uncompiled() -> Iterator[None]:
    """Within it, a `llama_cpp.Llama` that is made compiles a chat template only when a chat is asked for.

    The chat then raises InputError if it cannot be compiled.
    """
    formats: Any = import_module("llama_cpp.llama_chat_format")
    with _lock:
        formatter = formats.Jinja2ChatFormatter
        formats.Jinja2ChatFormatter = partial(_Deferred, formatter)
        try:
            yield
        finally:
            formats.Jinja2ChatFormatter = formatter


class _Deferred:
    """A chat formatter that is made when it is first used."""

    def __init__(self, formatter: Callable[..., Any], **arguments: Any) -> None:
        self._formatter = formatter
        self._arguments = arguments

    @cached_property
    def _handler(self) -> Callable[..., Any]:
        try:
            handler: Callable[..., Any] = self._formatter(**self._arguments).to_chat_handler()
        except Exception as error:
            said = " ".join(str(error).split()) or type(error).__name__
            raise InputError(
                f"llama-cpp-python cannot compile the file's chat template ({said}); give a chat_format, or use "
                'chat_template="own" of edgecal\'s methods'
            ) from None
        return handler

    def to_chat_handler(self) -> Callable[..., Any]:
        """What a chat is given to."""
        return lambda *given, **named: self._handler(*given, **named)
