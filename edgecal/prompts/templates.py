"""The built-in prompt templates by name.

They are five ways in which people put the same multiple-choice question, so that the effect of the wording can
be seen. Each ends where the letter comes: after a word and a colon, or after an opening bracket. A passage comes before
its question, by the rule for templates that do not name it; only `question-answer` gives it a name.
"""

from __future__ import annotations

from pathlib import Path

from edgecal.errors import InputError
from edgecal.prompts.template import DEFAULT_TEMPLATE, PromptTemplate

__all__ = ["TEMPLATES", "find_template"]

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


def find_template(name_or_path: str | Path) -> PromptTemplate:
    """A built-in template by its name, or else the template in a file.

    Raises
    ------
    InputError: it is neither; or the file cannot be read or is not valid Jinja.
    """
    name = str(name_or_path)
    if name in TEMPLATES:
        return PromptTemplate(TEMPLATES[name], name)
    try:
        is_file = Path(name).exists()
    except (OSError, ValueError):  # a null character, or a name that is too long
        is_file = False
    if not is_file:
        raise InputError(
            f"{name}: neither a template file nor a built-in template; those are {', '.join(TEMPLATES)}"
        )
    return PromptTemplate.from_file(name)
