"""How llama.cpp's own decision mode (type "openjev") is made to ask as edgecal does: the template for a model's file.

llama.cpp renders `tokenizer.chat_template.systemone`, tokenizes the text (it adds no BOS, and every special token that
the text spells becomes that token), and reads the logits of the letters. So everything around our own template, which
the model's chat template or tokenizer would add, is written into that template as it stands. Such texts are string
expressions, since Jinja drops some line breaks of plain text.

Its Jinja writes numbers with six digits; the readout "letters" writes them alike (`write_as_llama_cpp`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from edgecal.decisions.questions import Question
from edgecal.prompts.jinja_sandbox import Sandbox, compile_template, render_template

__all__ = ["break_marks", "render_systemone", "systemone_template", "write_as_llama_cpp"]

_ESCAPES = {
    "\\": "\\\\",
    '"': '\\"',
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\b": "\\b",
    "\f": "\\f",
    "\v": "\\v",
}

_MAX_INT64, _MAX_UINT64 = 2**63 - 1, 2**64 - 1

# More control tokens that differ in a number alone than this (<unused0> ... <unused6241>) are told by its first digit.
_FEW = 10


def write_as_llama_cpp(value: Any) -> str:
    """What `edgecal.decisions.questions.write_value` writes, with numbers as llama.cpp's Jinja has them.

    A float has six digits and no trailing ".0" (C++'s default); an integer beyond 64 bits becomes a float, one beyond
    63 bits wraps around.
    """
    return value if isinstance(value, str) else _json(value)


def _json(value: Any) -> str:
    if value is None or isinstance(value, (str, bool)):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, int) and -_MAX_INT64 - 1 <= value <= _MAX_UINT64:
        return str(value if value <= _MAX_INT64 else value - _MAX_UINT64 - 1)
    if isinstance(value, (int, float)):
        return f"{float(value):g}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_json(str(name))}: {_json(item)}" for name, item in value.items()) + "}"
    return "[" + ", ".join(map(_json, value)) + "]"


def systemone_template(source: str, before: str, after: str, marks: Sequence[str]) -> str:
    """The Jinja template by which llama.cpp asks a model as edgecal does with the readout "letters" in one order.

    Parameters
    ----------
    source: a decision template.
    before, after: what stands around its text: BOS, the chat template's text, the ending of a plain prompt.
    marks: the texts of the vocabulary's control tokens. Where a request spells one, it gets a space after its first
        character, since llama.cpp would take it for the token itself; any other text is left as it is.
    """
    content = "{% set content %}" + source.removesuffix("\n") + "{% endset %}"
    filters = "".join(
        f" | replace({_literal(text)}, {_literal(broken)})" for text, broken in break_marks(marks)
    )
    return "".join(
        [content, *(f"{{{{ {text} }}}}" for text in (_literal(before), "content" + filters, _literal(after)))]
    )


def break_marks(marks: Sequence[str]) -> list[tuple[str, str]]:
    """What is to be replaced in a text so that it spells no control token: pairs (text, text with a space in it).

    Tokens that differ in a number alone are told by its first digit if they are many. A token of one character cannot
    be broken and is left out.
    """
    texts: dict[str, None] = {}

    def stem(mark: str) -> str:
        return mark[: next((at for at, char in enumerate(mark) if char in "0123456789"), len(mark))]

    # Longest first, since the space in a token must not keep a longer one from being found.
    for start, group in groupby(sorted((mark for mark in marks if len(mark) > 1), key=stem), key=stem):
        found = list(group)
        few = len(found) <= _FEW or len(start) < 2
        texts.update(dict.fromkeys(found if few else sorted({mark[: len(start) + 1] for mark in found})))
    return [(text, f"{text[0]} {text[1:]}") for text in sorted(texts, key=lambda text: (-len(text), text))]


def render_systemone(template: str, state: Any, question: Question, name: str) -> str:
    """The text that llama.cpp makes of a template of `systemone_template`, without running llama.cpp.

    Raises
    ------
    InputError: the template is not valid Jinja or fails; `name` names it.
    """
    sandbox = Sandbox(trim_blocks=True, lstrip_blocks=True, autoescape=False)
    sandbox.filters["tojson"] = _json
    values = {
        "id": "q",
        "type": question.type,
        "state": state,
        "instructions": question.instructions,
        "options": [
            {"key": key, "description": description}
            for key, description in zip(question.keys, question.descriptions, strict=True)
        ],
        "images": [],
    }
    return render_template(compile_template(sandbox, template, name), values, name, "a made-up question")


def _literal(text: str) -> str:
    return '"' + "".join(_ESCAPES.get(char, char) for char in text) + '"'
