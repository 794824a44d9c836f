"""Renders a question, after worked examples if wanted, to the text of a prompt, by a Jinja template; and the built-in
templates.

The built-in templates are ways in which people put the same multiple-choice question, so that the effect of the wording
can be seen. Each ends where the letter comes: after a word and a colon, or after an opening bracket. A passage comes
before its question, by the rule for templates that do not name it; only `question-answer` names it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, meta

from edgecal.errors import InputError
from edgecal.prompts.jinja_sandbox import (
    MAX_CHARACTERS,
    Sandbox,
    compile_template,
    read_source,
    render_template,
)
from edgecal.prompts.records import Prompt, Question
from edgecal.prompts.traced_text import TracedText, join, trace

__all__ = [
    "DEFAULT_TEMPLATE",
    "TEMPLATES",
    "PromptTemplate",
    "find_opening",
    "follows_directly",
    "resolve_template",
]

# The form of DACA's first prompt: an instruction, the question, a line for each option, "Answer:".
DEFAULT_TEMPLATE = """\
Answer the following multiple-choice question. Give only the letter of the correct option.

{{ question }}
{% for choice in choices %}{{ choice.label }}: {{ choice.text }}
{% endfor %}Answer:"""

_CACHED_TEXTS = 4096

# The texts of a question beside its choices.
_TEXTS = ("question", "subject", "passage")
_EMPTY_LINE = re.compile(r"\n[ \t]*\n")


class PromptTemplate:
    """A compiled prompt template.

    The template sees `question` (text), `choices` (each with `.label`, a letter, and `.text`), `labels` (the
    letters), `subject` (text or none) and `passage` (text, empty where there is none). If a template never names
    `passage`, the passage is put into `question`, before the question and an empty line. The model's next token after
    the rendered text is the answer, so a template ends where the letter would come. One newline at the end of the
    template is dropped, since editors add one.

    A template describes one question; worked examples need nothing in it. Its instruction is its first paragraphs, as
    far as they are the same for all questions (of one subject and number of options) and each ends in an empty line.
    With worked examples the instruction comes once, at the top; the rest is repeated for each example with its
    letter, and last for the question itself. The letter follows a space; or it follows directly where the text ends
    in white space or leaves something open (a bracket, a quote, `**`, a tag), which then is closed. An empty line
    ends an example.

    Parameters
    ----------
    source: the template's text.
    name: its origin, for messages.
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
        # Most questions of a subject have the same worked examples.
        self._text = lru_cache(maxsize=_CACHED_TEXTS)(self._trace)
        self._instructions: dict[tuple[str | None, int, bool], str] = {}

    def render(self, question: Question, shots: Sequence[Question] = ()) -> Prompt:
        """Renders one question, after its worked examples.

        Parameters
        ----------
        question: the question that the model is to answer.
        shots: questions with answers, shown before it in this order.

        Returns
        -------
        A `Prompt` whose labels are the choices' letters.

        Raises
        ------
        InputError: the template fails on one of the questions, or renders an empty or absurdly long text; or a worked
            example has no answer.
        """
        instruction, body = self.split(question) if shots else (TracedText(""), self._text(question))
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
            inclusion_probability=question.inclusion_probability,
        )

    def split(self, question: Question) -> tuple[TracedText, TracedText]:
        """The instruction, which may be empty, and the rest of a question's text."""
        whole = self._text(question)
        instruction = self._instruction(question)
        # A template may have another instruction for some questions, which then stays in their text.
        at = len(instruction) if whole.text.startswith(instruction) else 0
        return whole.cut(0, at), whole.cut(at)

    def worked(self, shot: Question) -> TracedText:
        """A worked example: the question's text without the instruction, its answer's letter, and an empty line."""
        if shot.answer is None:
            raise InputError(f"{_where(shot)}: has no answer, so it cannot be a worked example")
        body = self.split(shot)[1]
        letter = shot.labels[shot.answer]
        space = "" if follows_directly(body.text) else " "
        return body + f"{space}{letter}{find_opening(body.text)[1]}\n\n"

    def _instruction(self, question: Question) -> str:
        """The common beginning of the texts of two made-up questions that share no words, up to its last empty line."""
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

    def _trace(self, question: Question) -> TracedText:
        names = [name for name in _TEXTS if getattr(question, name) is not None]
        texts = [*(getattr(question, name) for name in names), *question.choices]

        def render(texts: Sequence[str]) -> str:
            changed: dict[str, Any] = dict(zip(names, texts, strict=False))
            return self._render(replace(question, **changed, choices=tuple(texts[len(names) :])))

        return trace(render, [TracedText.of_data(text) for text in texts], self.name, _where(question))

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


TEMPLATES: dict[str, str] = {
    # An instruction, the question, "A: ..." lines, "Answer:".
    "default": DEFAULT_TEMPLATE,
    # Everything is named: "Passage:" where there is one, "Question:", "A: ..." lines, "Answer:".
    "question-answer": """\
Read the question and its options, then reply with the letter of the one correct option and nothing else.

{% if passage %}Passage: {{ passage }}

{% endif %}Question: {{ question }}
{% for choice in choices %}{{ choice.label }}: {{ choice.text }}
{% endfor %}Answer:""",
    # No instruction at all.
    "plain": """\
{{ question }}
{% for choice in choices %}{{ choice.label }}. {{ choice.text }}
{% endfor %}Answer:""",
    # The heading of an exam, which names the subject where there is one.
    "subject": """\
Multiple-choice questions{% if subject %} about {{ subject | replace("_", " ") }}{% endif %}, \
each followed by its answer.

{{ question }}
{% for choice in choices %}{{ choice.label }}. {{ choice.text }}
{% endfor %}Answer:""",
    # Letters in brackets, the last of which is left open.
    "bracketed": """\
Choose the correct option for this question.

{{ question }}
{% for choice in choices %}({{ choice.label }}) {{ choice.text }}
{% endfor %}Answer: (""",
    # As few words as there can be, the options in one line.
    "brief": """\
{{ question }} {% for choice in choices %}{{ choice.label }}) {{ choice.text }}{{ "" if loop.last else "; " }}\
{% endfor %}
Correct letter:""",
}

_EXPECTED = (
    f"a built-in template's name ({', '.join(TEMPLATES)}), Jinja text such as {{{{ question }}}}, or the path of a "
    "Jinja file"
)


def resolve_template(chosen: str | Path | PromptTemplate | None = None) -> PromptTemplate:
    """The prompt template that a user means, in Python and by `--template` alike.

    The first rule that applies decides, so that no file in the working folder changes what a name or a text means,
    and a mistyped name is refused instead of becoming the text of every prompt.

    1. A `PromptTemplate` is used as it is, even if it never mentions the question.
    2. None is "default".
    3. A str that names a built-in template (`TEMPLATES`) is that template. A file of the same name is reached as
       "./plain" or `Path("plain")`.
    4. A str with Jinja in it (`{{` or `{%`) is the template's source.
    5. Any other str, and every path object, is the path of a Jinja file in UTF-8. The file is read at each call. `~` is
       not expanded.

    Raises
    ------
    InputError: no rule applies (the message lists the built-in names); the file cannot be read, is a folder, is not
        UTF-8, or has no Jinja in it; or the template is not valid Jinja.
    """
    if isinstance(chosen, PromptTemplate):
        return chosen
    if chosen is None:
        chosen = "default"
    if isinstance(chosen, str) and chosen in TEMPLATES:
        return _compile(TEMPLATES[chosen], chosen)
    if isinstance(chosen, str) and _holds_jinja(chosen):
        return _compile(chosen, "the template")
    source = read_source(chosen, "template", _EXPECTED)
    if not _holds_jinja(source):
        raise InputError(
            f"{chosen}: the template has no Jinja in it, so every prompt would be the same text; write "
            "{{ question }} where the question belongs, or give another file"
        )
    return PromptTemplate(source, str(chosen), Path(chosen))


def _holds_jinja(text: str) -> bool:
    return "{{" in text or "{%" in text


# Compiling takes 2 ms, which an app that asks one question after another would notice.
@lru_cache(maxsize=32)
def _compile(source: str, name: str) -> PromptTemplate:
    return PromptTemplate(source, name)


_CLOSINGS = {
    "(": ")", "[": "]", "{": "}", "“": "”", "‘": "’", "„": "“", "«": "»", "‹": "›",
    "（": "）", "［": "］", "｛": "｝", "【": "】", "〔": "〕", "「": "」", "『": "』", "《": "》", "〈": "〉",
}  # fmt: skip

# These marks both open and close; what precedes them tells which.
_QUOTE = re.compile(r"[\"'`]\Z")
_EMPHASIS = re.compile(r"\*{1,3}\Z")
_TAG = re.compile(r"<(?P<name>[A-Za-z][\w.-]*)>\Z")
_BEFORE_A_QUOTE = (":", "=", ",", "：", "，")


def find_opening(text: str) -> tuple[str, str]:
    """What a text leaves open at its very end, and what closes it, such as `("(", ")")` or `("<b>", "</b>")`.

    A straight quote or asterisks open if nothing, white space or something open precedes them, and a quote also after
    `:`, `=` or `,`. Both texts are empty where nothing is open.
    """
    if text[-1:] in _CLOSINGS:
        return text[-1], _CLOSINGS[text[-1]]
    if tag := _TAG.search(text):
        return tag[0], f"</{tag['name']}>"
    mark = _QUOTE.search(text) or _EMPHASIS.search(text)
    if mark is None:
        return "", ""
    before = text[: mark.start()]
    after_sign = before.endswith(_BEFORE_A_QUOTE) and "*" not in mark[0]
    opens = not before or before[-1].isspace() or after_sign or find_opening(before)[0]
    return (mark[0], mark[0]) if opens else ("", "")


def follows_directly(text: str) -> bool:
    """Whether the next word follows this text without a space: after white space, after something open, and after the
    wide punctuation of East Asian scripts."""
    return text[-1:].isspace() or bool(find_opening(text)[0]) or _is_wide_punctuation(text[-1:])


def _is_wide_punctuation(character: str) -> bool:
    return (
        character != ""
        and unicodedata.east_asian_width(character) in ("W", "F")
        and unicodedata.category(character).startswith("P")
    )
