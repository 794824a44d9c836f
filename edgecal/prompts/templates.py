"""The built-in prompt templates, and which template a user means by a name, a text or a file.

The built-in ones are ways in which people put the same multiple-choice question, so that the effect of the wording can
be seen. Each ends where the letter comes: after a word and a colon, or after an opening bracket. A passage comes before
its question, by the rule for templates that do not name it; only `question-answer` gives it a name.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from edgecal.errors import InputError
from edgecal.prompts.sandbox import read_source
from edgecal.prompts.template import DEFAULT_TEMPLATE, PromptTemplate

__all__ = ["TEMPLATES", "resolve_template"]

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
    """The prompt template that a user means, wherever one is asked for: in Python, and by `--template`.

    The first rule that applies decides. So no file in the working folder changes what a name or a text means, and a
    mistyped name is refused instead of becoming the text of every prompt.

    1. A `PromptTemplate` is taken as it is, also one that never mentions the question.
    2. None is "default".
    3. A str that is the name of a built-in template (`TEMPLATES`) is that template. A file of the same name is reached
       as "./plain" or `Path("plain")`.
    4. A str with Jinja in it (`{{` or `{%`) is the template's source.
    5. Any other str, and every path object, is the path of a file with Jinja in it, in UTF-8. The file is read at each
       call. `~` is not expanded.

    Raises
    ------
    InputError: nothing applies (the message lists the built-in names); the file cannot be read, is a folder, not UTF-8
        or without Jinja; or the template is not valid Jinja.
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
