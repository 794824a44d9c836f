"""Turns a question into the text of a prompt, by a Jinja template in a sandbox.

Knows nothing of tokenizers: which token an option's letter becomes is resolved for each model later.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from edgecal.errors import InputError
from edgecal.prompts.model import Prompt, Question

__all__ = ["DEFAULT_TEMPLATE", "PromptTemplate"]

# The shape of DACA's first prompt: an instruction, the question, a line for each option, "Answer:".
DEFAULT_TEMPLATE = """\
Answer the following multiple-choice question. Give only the letter of the correct option.

{{ question }}
{% for choice in choices %}{{ choice.label }}: {{ choice.text }}
{% endfor %}Answer:"""

_MAX_PRODUCT = 1_000_000
_MAX_CHARACTERS = 1_000_000


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, without products and powers that would fill the memory."""

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


class PromptTemplate:
    """A compiled prompt template.

    The template sees `question` (text), `choices` (each with `.label`, a letter, and `.text`), `labels`
    (the letters) and `subject` (text or none). The model's next token after the rendered text is the answer,
    so a template ends where the letter would come. One newline at the end of the template is dropped, since
    editors add one.

    Parameters
    ----------
    source: the template's text.
    name: where it came from, for messages.

    Raises
    ------
    InputError: the template is not valid Jinja.
    """

    def __init__(self, source: str = DEFAULT_TEMPLATE, name: str = "the built-in template") -> None:
        self.source = source
        self.name = name
        environment = _Environment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=False)
        try:
            self._template = environment.from_string(source)
        except TemplateSyntaxError as error:
            raise InputError(f"{name}, line {error.lineno}: not a valid template: {error.message}") from None

    @classmethod
    def from_file(cls, path: str | Path) -> PromptTemplate:
        """Reads a template file (UTF-8).

        Raises
        ------
        InputError: the file cannot be read, is not UTF-8 or not valid Jinja.
        """
        try:
            source = Path(path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise InputError(f"{path}: the template is not UTF-8 text; save it as UTF-8") from None
        except (OSError, ValueError) as error:  # ValueError: a null character in the path
            reason = getattr(error, "strerror", error)
            raise InputError(f"{path}: the template cannot be read ({reason})") from None
        return cls(source, str(path))

    def render(self, question: Question) -> Prompt:
        """Renders one question.

        Returns
        -------
        A `Prompt` whose labels are the letters of the choices, with or without a leading space as each
        model's tokenizer has them.

        Raises
        ------
        InputError: the template fails on this question, or gives an empty or an absurdly long text.
        """
        choices = [
            {"label": label, "text": text}
            for label, text in zip(question.labels, question.choices, strict=True)
        ]
        try:
            text = self._template.render(
                question=question.question,
                choices=choices,
                labels=list(question.labels),
                subject=question.subject,
            )
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
            raise InputError(
                f"{self.name}: cannot render {question.source or 'a question'}: {error}"
            ) from None
        if not text.strip():
            raise InputError(f"{self.name}: gives an empty prompt for {question.source or 'a question'}")
        if len(text) > _MAX_CHARACTERS:
            raise InputError(
                f"{self.name}: gives {len(text)} characters for {question.source or 'a question'}, more than "
                f"{_MAX_CHARACTERS}"
            )
        return Prompt(
            text=text,
            labels=question.labels,
            labels_verbatim=False,
            answer=question.answer,
            subject=question.subject,
            source=question.source,
        )
