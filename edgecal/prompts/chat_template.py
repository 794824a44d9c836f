"""A chat model's own template: from a conversation to the text that the model was trained to continue.

Templates are Jinja as transformers and llama.cpp take it, with the same options, functions and sandbox, so that those
in GGUF files work. Rendering never looks at a clock. The caller passes in what the model file's header says.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

from edgecal.errors import InputError
from edgecal.prompts.jinja_sandbox import Sandbox, compile_template, read_source, render_template
from edgecal.prompts.traced_text import TracedText, trace

__all__ = [
    "OWN_CHAT_TEMPLATE",
    "TEMPLATE_KEY",
    "ChatTemplate",
    "HeaderLike",
    "resolve_chat_template",
    "special_tokens",
]

OWN_CHAT_TEMPLATE = "own"
TEMPLATE_KEY = "tokenizer.chat_template"

# The date for templates that ask for today's: the one that Llama 3's templates use where there is no clock.
_TODAY = datetime.datetime(2024, 7, 26)

# An opened block of thoughts at the end of a text: <think>, [THINK], <seed:think>, <|START_THINKING|>, ...
_OPEN_THOUGHT = re.compile(
    r"(?P<left>[<\[])(?!/)(?P<tag>(?!\W*END)[^<>\[\]/\s]*think[^<>\[\]/\s]*)(?P<right>[>\]])(?P<end>\s*)\Z",
    re.IGNORECASE,
)

# Stand for a question and an answer in the conversations by which a template is probed.
_QUESTION, _ANSWER = "Which-of-these-is-it", "This-stands-for-the-answer"

Message = dict[str, str]

_GENERATION_TAGS = {"generation"}


class HeaderLike(Protocol):
    """The part of a GGUF file's header that is needed here."""

    @property
    def path(self) -> Path: ...

    def get(self, key: str, /) -> Any: ...


class _Generation(Extension):
    """`{% generation %}`, by which transformers marks what the assistant said. Only its content matters here."""

    tags = _GENERATION_TAGS

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """A compiled chat template, rendered with the assistant's turn opened.

    It sees what transformers passes in: `messages`, `add_generation_prompt`, `bos_token`, `eos_token`,
    `raise_exception`, `strftime_now` and `tojson`; `tools` and `documents` are none, `enable_thinking` and `thinking`
    are false. `strftime_now` always says 26 July 2024, since a prompt must not change overnight.

    The next token is to be the answer. So if the template does not open the assistant's turn up to its answer, the text
    is completed by what the template itself puts between an earlier question and its answer; and if it opens a block of
    thoughts, that is closed.

    Parameters
    ----------
    source: the template's text.
    bos_token, eos_token: the texts of these tokens, empty where there is none.
    name: its origin, for messages.

    Attributes
    ----------
    completion: what is added to the template's own text; usually empty.
    thought: the mark that opens a block of thoughts, which `completion` closes; usually None.
    warning: what is added and why, in one line, or None.

    Raises
    ------
    InputError: it is not valid Jinja, fails on a plain conversation, or does not open the assistant's turn and shows no
        way to complete it.
    """

    def __init__(self, source: str, *, bos_token: str = "", eos_token: str = "", name: str) -> None:
        self.source = source
        self.name = name
        sandbox = Sandbox(
            trim_blocks=True,
            lstrip_blocks=True,
            autoescape=False,
            extensions=["jinja2.ext.loopcontrols", _Generation],
        )
        sandbox.filters["tojson"] = _to_json
        sandbox.globals["raise_exception"] = _raise_exception
        sandbox.globals["strftime_now"] = _TODAY.strftime
        self._template = compile_template(sandbox, source, name)
        self._values = {
            "bos_token": bos_token,
            "eos_token": eos_token,
            "tools": None,
            "documents": None,
            "enable_thinking": False,
            "thinking": False,
        }
        self.thought: str | None = None
        self.completion, self.warning = self._find_completion()

    def render(self, messages: Sequence[Message], what: str = "a conversation") -> str:
        """The conversation as text, up to where the assistant's answer begins.

        Parameters
        ----------
        messages: each with "role" ("user" and "assistant" in turns; the first and the last are the user's) and
            "content".
        what: what is rendered, for messages.

        Raises
        ------
        InputError: the template refuses the conversation, fails, or renders nothing or far too much.
        """
        return self._render(messages, True, what) + self.completion

    def trace(self, turns: Sequence[TracedText], what: str = "a conversation") -> TracedText:
        """The same for turns that know which of their parts come from data; the first and the last are the user's.

        Raises
        ------
        InputError: as `render` and `traced_text.trace`.
        """

        def render(texts: Sequence[str]) -> str:
            roles = ("user", "assistant")
            return self.render(
                [{"role": roles[at % 2], "content": text} for at, text in enumerate(texts)], what
            )

        return trace(render, turns, self.name, what)

    def _render(self, messages: Sequence[Message], opened: bool, what: str) -> str:
        values = {**self._values, "messages": [dict(m) for m in messages], "add_generation_prompt": opened}
        return render_template(self._template, values, self.name, what)

    def _find_completion(self) -> tuple[str, str | None]:
        question = [{"role": "user", "content": _QUESTION}]
        opened = self._render(question, True, "a plain question")
        if _QUESTION not in opened:
            raise InputError(f"{self.name}: the chat template leaves out what the user says")
        if thought := _OPEN_THOUGHT.search(opened):
            self.thought = thought[0].strip()
            return _closing(thought), (
                f"{self.name}: opens a block of thoughts ({self.thought}); it is closed at once, so that the "
                "answer comes next"
            )
        closed = self._render(question, False, "a plain question")
        answered = self._render(
            [*question, {"role": "assistant", "content": _ANSWER}], False, "a question and an answer"
        )
        before, found, _ = answered.partition(_ANSWER)
        between = before[len(opened) :].rstrip(" ") if found and before.startswith(opened) else ""
        if between.strip():
            return between, (
                f"{self.name}: does not open the assistant's turn up to its answer; {between!r}, which stands "
                "before its answers, is added"
            )
        # The answer may follow directly ("[/INST]"), or the template may open a turn in any case.
        opens = before.startswith(opened.rstrip()) or answered.endswith(opened.partition(_QUESTION)[2])
        if opened == closed and not (found and opens):
            raise InputError(
                f"{self.name}: does not open the assistant's turn (add_generation_prompt changes nothing); "
                "give another template: --chat-template FILE"
            )
        return "", None


def resolve_chat_template(chosen: str | Path | None, header: HeaderLike | None) -> ChatTemplate | None:
    """The chat template that a user means, in Python and by `--chat-template` alike.

    Parameters
    ----------
    chosen: None is no template, for plain text. The str "own" (`OWN_CHAT_TEMPLATE`) is the template in the model's
        file; a file of that name is reached as "./own" or `Path("own")`. Any other str, and every path object, is the
        path of a Jinja file in UTF-8. `~` is not expanded.
    header: that of the chat model, which also holds the texts of its special tokens.

    Raises
    ------
    InputError: the model's file holds no chat template; the file named cannot be read, is a folder or is not UTF-8; no
        header is given; and as `ChatTemplate`.
    """
    if chosen is None:
        return None
    if header is None:
        raise InputError("a chat template needs a chat model, since it uses that model's special tokens")
    if chosen == OWN_CHAT_TEMPLATE:
        name, source = f"the chat template of {header.path}", header.get(TEMPLATE_KEY)
        if not isinstance(source, str) or not source.strip():
            raise InputError(
                f"{header.path}: holds no chat template; give one as a file: --chat-template FILE"
            )
    else:
        expected = f'"{OWN_CHAT_TEMPLATE}" (the one in the model\'s file), or the path of a Jinja file'
        name, source = str(chosen), read_source(chosen, "chat template", expected)
    bos_token, eos_token = special_tokens(header)
    return ChatTemplate(source, bos_token=bos_token, eos_token=eos_token, name=name)


def special_tokens(header: HeaderLike) -> tuple[str, str]:
    """The texts of a GGUF file's BOS and EOS tokens; empty where the file names none."""
    tokens = header.get("tokenizer.ggml.tokens")
    texts = []
    for key in ("tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"):
        index = header.get(key)
        known = isinstance(tokens, list) and isinstance(index, int) and 0 <= index < len(tokens)
        texts.append(str(tokens[index]) if known else "")
    return texts[0], texts[1]


def _closing(thought: re.Match[str]) -> str:
    """The text that closes an empty block of thoughts, as models that can answer without thinking write it."""
    tag = thought["tag"]
    start = "" if thought["end"] and "\n" not in thought["end"] else "\n"
    closing = tag.replace("START", "END") if "START" in tag else f"/{tag}"
    return f"{start}{thought['left']}{closing}{thought['right']}\n\n"


def _to_json(value: Any, indent: int | None = None, **options: Any) -> str:
    """JSON without the escapes for HTML of Jinja's own filter."""
    known = {key: options[key] for key in ("separators", "sort_keys", "ensure_ascii") if key in options}
    return json.dumps(value, indent=indent, **{"ensure_ascii": False, **known})


def _raise_exception(message: object) -> None:
    raise TemplateError(f"the template says: {message}")
