"""How a typed question is put to a model: one template, in a turn of the model's own chat template or as plain text.

The state comes first, so that a model reads it once for all questions about it. A question's id is never in the text.
The template is Jinja in the sandbox and with the options of chat templates, and is written so that llama.cpp's own
Jinja renders it to the same text (`edgecal export --to llama-decision`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined

from edgecal.decisions.labels import WORDS, Readout, find_labels, forms_of, two_letter_labels
from edgecal.decisions.llama_cpp import write_as_llama_cpp
from edgecal.decisions.options import AUTO_CHAT_TEMPLATE, DEFAULT_READOUT, DecisionOptions
from edgecal.decisions.questions import NONE_OF_THE_ABOVE, Choice, Noul, Question, write_value
from edgecal.errors import InputError
from edgecal.prompts.chat_template import (
    OWN_CHAT_TEMPLATE,
    TEMPLATE_KEY,
    ChatTemplate,
    HeaderLike,
    resolve_chat_template,
)
from edgecal.prompts.jinja_sandbox import Sandbox, compile_template, read_source, render_template
from edgecal.prompts.records import Prompt
from edgecal.prompts.traced_text import TracedText, trace

__all__ = [
    "DEFAULT_DECISION_TEMPLATE",
    "PLAIN_ENDING",
    "DecisionPrompt",
    "DecisionPrompting",
    "resolve_decision_template",
]

# llama.cpp passes no labels and no `answer`, so the template has a default for both.
DEFAULT_DECISION_TEMPLATE = """\
{% set letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz" %}
{% macro text(value) %}{{ value if value is string else value | tojson }}{% endmacro %}
Read the state, then answer the question about it.

State:
{{ text(state) }}

{% if instructions %}
Question: {{ text(instructions) }}
{% endif %}
{% for option in options %}
{% set name = ("yes" if option.key == "true" else "no") if type == "noul" else option.key %}
{% set line = text(option.description) if type == "score" else name %}
{% set more = " - " ~ text(option.description) if option.description and type != "score" else "" %}
{% if answer is defined and answer == "word" %}
{{ line }}{{ more }}
{% elif answer is defined and answer == "text" %}
- {{ line }}{{ more }}
{% else %}
{{ option.label | default(letters[loop.index0]) }}: {{ line }}{{ more }}
{% endif %}
{% endfor %}

{% if answer is defined and answer == "word" %}
Answer with {{ options[0].label }} or {{ options[1].label }} only.
{%- elif answer is defined and answer == "text" %}
Answer with the text of one of these options only.
{%- else %}
Answer with the letter of one of these options only.
{%- endif %}"""

# Follows the template's text where there is no chat template, so that the answer comes next.
PLAIN_ENDING = "\nAnswer:"


@dataclass(frozen=True)
class DecisionPrompt:
    """A question as one model is asked it, in one order of its options.

    Attributes
    ----------
    prompt: its text, labels and their forms; with the readout "texts" without labels.
    order: the option's index for every place in the prompt; the last index is that of "none of the above", if asked.
    texts: each place's own text, which the readout "texts" scores.
    """

    prompt: Prompt
    order: tuple[int, ...]
    texts: tuple[str, ...]


class DecisionPrompting:
    """One way of asking, the same for all questions.

    The template sees `state`, `instructions` (texts; the latter may be none), `type` ("noul", "choice", "score"),
    `options` (each with `.key`, `.description` (text or none) and `.label`) and `answer`: "letter", "word" (a noul, by
    the words yes and no) or "text". After its text comes the answer.

    Parameters
    ----------
    template: Jinja text, the path of a Jinja file, or None for `DEFAULT_DECISION_TEMPLATE`.
    chat_template: the model's, or None for plain text.
    readout: how answers are read (see `labels`).
    two_letter: labels for more than 52 options (see `labels.two_letter_labels`).

    Raises
    ------
    InputError: the template is not valid Jinja, or leaves out the state, the instructions or an option.
    """

    def __init__(
        self,
        template: str | Path | None = None,
        *,
        chat_template: ChatTemplate | None = None,
        readout: Readout = "labels",
        two_letter: Sequence[str] = (),
    ) -> None:
        self.source, self.name = resolve_decision_template(template)
        self.chat_template = chat_template
        self.readout = readout
        self.two_letter = tuple(two_letter)
        sandbox = Sandbox(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
        self._template = compile_template(sandbox, self.source, self.name)
        self._check()

    @classmethod
    def for_file(cls, options: DecisionOptions, header: HeaderLike) -> DecisionPrompting:
        """The way in which options ask the model of a file.

        Parameters
        ----------
        options: with the readout decided (see `DecisionOptions.for_file`).
        header: the file's; its own chat template is taken if `options` say so, and its tokens give the labels of two
            letters.

        Raises
        ------
        InputError: a template cannot be found or used.
        """
        chosen = options.chat_template
        if chosen == AUTO_CHAT_TEMPLATE:
            chosen = OWN_CHAT_TEMPLATE if header.get(TEMPLATE_KEY) else None
        tokens = header.get("tokenizer.ggml.tokens")
        return cls(
            options.template,
            chat_template=resolve_chat_template(chosen, header),
            readout=options.readout or DEFAULT_READOUT,
            two_letter=two_letter_labels([tokens]) if isinstance(tokens, list) else (),
        )

    @cached_property
    def sha256(self) -> str:
        """SHA-256 (hex) of the template and the chat template."""
        chat = self.chat_template
        parts = [self.source, "" if chat is None else chat.source + "\0" + chat.completion]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def n_places(self, question: Question) -> int:
        """How many options the model is shown, "none of the above" included."""
        return len(question.keys) + (isinstance(question, Choice) and question.none_of_the_above)

    def render(self, state: Any, question: Question, order: Sequence[int], where: str = "") -> DecisionPrompt:
        """Renders a question about a state with its options in an order.

        Parameters
        ----------
        state: text, dict or list.
        question: one that `parse_question` has checked.
        order: of its options, `n_places` of them.
        where: the question's origin, for messages.

        Raises
        ------
        InputError: the template fails, a text is too long, or there are no labels for so many options.
        """
        keys, descriptions = list(question.keys), list(question.descriptions)
        if self.n_places(question) > len(keys):
            keys.append(NONE_OF_THE_ABOVE)
            descriptions.append(None)
        texts = [
            _own_text(question, key, description) for key, description in zip(keys, descriptions, strict=True)
        ]
        if isinstance(question, Noul) and self.readout == "labels":
            labels = tuple(WORDS[index] for index in order)
        else:
            labels = find_labels(len(keys), self.two_letter, where or "the question")
        traced = self._trace(state, question, keys, descriptions, order, labels, where or "the question")
        forms = tuple(forms_of(label, labels, self.readout) for label in labels)
        prompt = Prompt(
            text=traced.text,
            data=traced.data,
            labels=() if self.readout == "texts" else labels,
            labels_verbatim=False,
            label_forms=forms if self.readout == "labels" else None,
            labels_alone=self.readout == "letters",
            source=where,
        )
        return DecisionPrompt(prompt, tuple(order), tuple(texts[index] for index in order))

    def probes(self, state: Any, where: str = "") -> tuple[Prompt, Prompt]:
        """Two questions about a state that share no words, one of them without instructions. The tokens that both begin
        with are those of every question about it."""
        first, second = (
            self.render(state, question, (0, 1), where).prompt
            for question in (Choice("000", {"0000": None, "00000": None}), Noul(true="xxx", false="xx"))
        )
        return first, second

    def _trace(
        self,
        state: Any,
        question: Question,
        keys: Sequence[str],
        descriptions: Sequence[Any],
        order: Sequence[int],
        labels: Sequence[str],
        where: str,
    ) -> TracedText:
        write = write_as_llama_cpp if self.readout == "letters" else write_value
        names = list(keys) if isinstance(question, Choice) else []
        said = [None if value is None else write(value) for value in descriptions]
        described = [index for index, text in enumerate(said) if text is not None]
        instructions = [] if question.instructions is None else [write(question.instructions)]
        fields = [write(state), *instructions, *names, *(said[index] or "" for index in described)]

        def render(texts: Sequence[str]) -> str:
            rest = list(texts)
            values: dict[str, Any] = {"type": question.type, "answer": self._answer(question)}
            values["state"] = rest.pop(0)
            values["instructions"] = rest.pop(0) if instructions else None
            shown = [rest.pop(0) for _ in names] or list(keys)
            told: list[str | None] = [None] * len(keys)
            for index in described:
                told[index] = rest.pop(0)
            values["options"] = [
                {"key": shown[index], "description": told[index], "label": label}
                for index, label in zip(order, labels, strict=True)
            ]
            return render_template(self._template, values, self.name, where)

        traced = trace(render, [TracedText.of_data(text) for text in fields], self.name, where)
        if self.chat_template is None:
            return traced + PLAIN_ENDING
        return self.chat_template.trace([traced], where)

    def _answer(self, question: Question) -> str:
        if self.readout == "texts":
            return "text"
        return "word" if isinstance(question, Noul) and self.readout == "labels" else "letter"

    def _check(self) -> None:
        probe = Choice("x-ask", {"x-one": "x-first", "x-two": None})
        text = self.render("x-state", probe, (0, 1), "a made-up question").prompt.text or ""
        for part, what in (("x-state", "the state"), ("x-ask", "the instructions"), ("x-two", "the options")):
            if part not in text:
                raise InputError(f"{self.name}: leaves out {what}, so the model would answer without it")


def resolve_decision_template(chosen: str | Path | None) -> tuple[str, str]:
    """A decision template's text and its origin, for messages.

    Parameters
    ----------
    chosen: None is `DEFAULT_DECISION_TEMPLATE`; a str with Jinja in it is the template; any other str, and every path
        object, is the path of a Jinja file in UTF-8.

    Raises
    ------
    InputError: the file cannot be read, or has no Jinja in it.
    """
    if chosen is None:
        return DEFAULT_DECISION_TEMPLATE, "the decision template"
    if isinstance(chosen, str) and ("{{" in chosen or "{%" in chosen):
        return chosen, "the template"
    source = read_source(chosen, "decision template", "Jinja text, or the path of a Jinja file")
    if "{{" not in source:
        raise InputError(
            f"{chosen}: has no Jinja in it, so every prompt would be the same text; write {{{{ state }}}}"
        )
    return source, str(chosen)


def _own_text(question: Question, key: str, description: Any) -> str:
    if question.type == "noul":
        return WORDS[0] if key == "true" else WORDS[1]
    return write_value(description) if question.type == "score" else key
