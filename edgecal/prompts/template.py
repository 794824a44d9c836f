"""Turns a question into the text of a prompt, by a Jinja template in a sandbox, after worked examples if wanted.

Knows nothing of tokenizers: which token an option's letter becomes is resolved for each model later. Nor of
how worked examples are chosen.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, meta

from edgecal.errors import InputError
from edgecal.prompts.model import Prompt, Question
from edgecal.prompts.opening import find_opening, follows_directly
from edgecal.prompts.sandbox import MAX_CHARACTERS, Sandbox, compile_template, render_template
from edgecal.prompts.traced import Traced, join, trace

__all__ = ["DEFAULT_TEMPLATE", "PromptTemplate"]

# The shape of DACA's first prompt: an instruction, the question, a line for each option, "Answer:".
DEFAULT_TEMPLATE = """\
Answer the following multiple-choice question. Give only the letter of the correct option.

{{ question }}
{% for choice in choices %}{{ choice.label }}: {{ choice.text }}
{% endfor %}Answer:"""

_KEPT_TEXTS = 4096

# The texts of a question beside its choices.
_TEXTS = ("question", "subject", "passage")
_EMPTY_LINE = re.compile(r"\n[ \t]*\n")


class PromptTemplate:
    """A compiled prompt template.

    The template sees `question` (text), `choices` (each with `.label`, a letter, and `.text`), `labels`
    (the letters), `subject` (text or none) and `passage` (text, empty where there is none). A template that
    never names `passage` gets it in `question`, before the question and an empty line. The model's next token
    after the rendered text is the answer, so a template ends where the letter would come. One newline at the
    end of the template is dropped, since editors add one.

    A template describes one question and needs to know nothing of worked examples. Its instruction is its
    first paragraphs, each followed by an empty line, as far as they are the same whatever the question is
    (subject and number of options may be named). With worked examples the instruction is said once, at the
    top; the rest is said for each example with its letter, and last for the question itself. The letter comes
    after a space, or directly where the text ends in white space or leaves something open (a bracket, a
    quote, `**`, a tag), which then is closed; an empty line follows.

    Parameters
    ----------
    source: the template's text.
    name: where it came from, for messages.
    path: the file that it was read from, or None.

    Attributes
    ----------
    source, name, path: as given.

    Raises
    ------
    InputError: the template is not valid Jinja.
    """

    def __init__(
        self,
        source: str = DEFAULT_TEMPLATE,
        name: str = "the built-in template",
        path: Path | None = None,
    ) -> None:
        self.source = source
        self.name = name
        self.path = path
        sandbox = Sandbox(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=False)
        self._template = compile_template(sandbox, source, name)
        self._puts_passage = "passage" in meta.find_undeclared_variables(sandbox.parse(source))
        # The same worked examples stand before most questions of a subject.
        self._text = lru_cache(maxsize=_KEPT_TEXTS)(self._trace)
        self._instructions: dict[tuple[str | None, int, bool], str] = {}

    def render(self, question: Question, shots: Sequence[Question] = ()) -> Prompt:
        """Renders one question, after worked examples if there are any.

        Parameters
        ----------
        question: the question that the model is to answer.
        shots: questions with answers, shown before it in this order.

        Returns
        -------
        A `Prompt` whose labels are the letters of the choices, with or without a leading space as each
        model's tokenizer has them.

        Raises
        ------
        InputError: the template fails on one of the questions, or gives an empty or an absurdly long text; a
            worked example has no answer.
        """
        instruction, body = self.split(question) if shots else (Traced(""), self._text(question))
        whole = join([instruction, *(self.worked(shot) for shot in shots), body])
        if len(whole.text) > MAX_CHARACTERS:
            raise InputError(
                f"{self.name}: gives {len(whole.text)} characters for {_where(question)} with {len(shots)} worked "
                f"examples, more than {MAX_CHARACTERS}"
            )
        return Prompt(
            text=whole.text,
            data=whole.data,
            labels=question.labels,
            labels_verbatim=False,
            answer=question.answer,
            subject=question.subject,
            source=question.source,
        )

    def split(self, question: Question) -> tuple[Traced, Traced]:
        """The instruction, which may be empty, and the rest of a question's text; joined they are all of it."""
        whole = self._text(question)
        instruction = self._instruction(question)
        # A template may have another instruction for some questions; those keep theirs beside the question.
        at = len(instruction) if whole.text.startswith(instruction) else 0
        return whole.cut(0, at), whole.cut(at)

    def worked(self, shot: Question) -> Traced:
        """A worked example: the question's text without the instruction, its letter and an empty line."""
        if shot.answer is None:
            raise InputError(f"{_where(shot)}: has no answer, so it cannot be a worked example")
        body = self.split(shot)[1]
        letter = shot.labels[shot.answer]
        space = "" if follows_directly(body.text) else " "
        return body + f"{space}{letter}{find_opening(body.text)[1]}\n\n"

    def _instruction(self, question: Question) -> str:
        """What two questions of a kind without anything in common have in common, up to the last empty line."""
        n_choices, has_passage = len(question.choices), question.passage is not None
        key = (question.subject, n_choices, has_passage)
        if key not in self._instructions:
            texts = [
                self._text(
                    Question(
                        mark * 3,
                        tuple(f"{mark}{index}" for index in range(n_choices)),
                        subject=question.subject,
                        passage=mark * 4 if has_passage else None,
                    )
                ).text
                for mark in ("x", "y")
            ]
            n_same = next((at for at, (x, y) in enumerate(zip(*texts, strict=False)) if x != y), 0)
            ends = [match.end() for match in _EMPTY_LINE.finditer(texts[0][:n_same])]
            self._instructions[key] = texts[0][: ends[-1]] if ends else ""
        return self._instructions[key]

    def _trace(self, question: Question) -> Traced:
        names = [name for name in _TEXTS if getattr(question, name) is not None]
        texts = [*(getattr(question, name) for name in names), *question.choices]

        def render(texts: Sequence[str]) -> str:
            changed: dict[str, Any] = dict(zip(names, texts, strict=False))
            return self._render(replace(question, **changed, choices=tuple(texts[len(names) :])))

        return trace(render, [Traced.of_data(text) for text in texts], self.name, _where(question))

    def _render(self, question: Question) -> str:
        passage, text = question.passage or "", question.question
        values = {
            "question": f"{passage}\n\n{text}" if passage and not self._puts_passage else text,
            "passage": passage,
            "choices": [
                {"label": label, "text": text}
                for label, text in zip(question.labels, question.choices, strict=True)
            ],
            "labels": list(question.labels),
            "subject": question.subject,
        }
        return render_template(self._template, values, self.name, _where(question))


def _where(question: Question) -> str:
    return question.source or "a question"
