"""`edgecal export --to llama-decision`: a chat model becomes a decision model for llama.cpp itself.

llama.cpp's mode "openjev" reads the letters' logits after a template that the file holds, and divides them by the
temperatures in the file. Here the template is made from the file's own chat template and edgecal's prompt, and tried:
on made-up questions, the text that it renders must become exactly the tokens that edgecal sends with the readout
"letters" in one order. `edgecal.stamping.decision_export` says which keys this writes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecal.decisions import LETTERS, Choice, DecisionOptions, DecisionPrompting, Noul, Question, Score
from edgecal.decisions.llama_cpp import render_systemone, systemone_template
from edgecal.decisions.prompting import PLAIN_ENDING
from edgecal.errors import InputError
from edgecal.gguf.header import Header, read_header
from edgecal.gguf.model_checks import check_model
from edgecal.gguf.shards import find_shards
from edgecal.prompts.chat_template import ChatTemplate, special_tokens
from edgecal.stamping.decision_export import check_can_export
from edgecal.stamping.edit import Edit, Place, plan_decision_export

if TYPE_CHECKING:
    from edgecal.llama.tokenizer import Tokenizer

__all__ = ["Systemone", "make_systemone", "plan_llama_decision"]

_USER = "What-the-user-says"

# A mark that opens or closes a block of thoughts.
_THOUGHT = re.compile(r"[<\[](?P<end>/?)(?P<tag>[^<>\[\]/\s]*think[^<>\[\]/\s]*)[>\]]", re.IGNORECASE)


@dataclass(frozen=True)
class Systemone:
    """A template for llama.cpp's decision mode.

    Attributes
    ----------
    template: its Jinja text.
    prompt_sha256: of edgecal's template and the chat template that it is made from.
    reasons: what speaks against using it, one line each.
    warnings: one line each.
    """

    template: str
    prompt_sha256: str
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]


def plan_llama_decision(
    file: str | Path, place: Place, *, unsettled: bool = False, timeout_s: float | None = None
) -> Edit:
    """Plans to write what makes llama.cpp's decision mode ask and answer as edgecal does.

    Parameters
    ----------
    file: a GGUF file; of a split model the first shard.
    place: where the result is written.
    unsettled: write it even if something speaks against its temperatures.
    timeout_s: how long llama.cpp may show no sign of life; None is the worker's default.

    Raises
    ------
    InputError: the file is a decision model of another kind, its tokenizer or its chat template does not fit
        llama.cpp's mode (the message says why), its keys make no sense, or the output is not allowed.
    UnsettledError: something speaks against its temperatures; `warnings` say what.
    ModelError: llama.cpp cannot load the vocabulary.
    """
    from edgecal.worker import run_in_worker
    from edgecal.worker.process import DEFAULT_TIMEOUT_S

    shards = find_shards(file)
    check_model(shards.header)
    check_can_export(shards)
    made = run_in_worker(
        "edgecal.runtime.llama_decision:make_systemone",
        str(shards.path),
        what=f"the model {shards.path}",
        timeout_s=DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s,
    )
    assert isinstance(made, Systemone)
    return plan_decision_export(
        shards,
        place,
        made.template,
        prompt_sha256=made.prompt_sha256,
        reasons=made.reasons,
        warnings=made.warnings,
        unsettled=unsettled,
    )


def make_systemone(path: str, report: Callable[[Any], None]) -> Systemone:
    """Makes and tries the template for a model, of which only the vocabulary is loaded; runs in the worker.

    Raises
    ------
    InputError: a letter is not one token; the chat template cannot be used, or changes what the user says; or the
        tokens would not be edgecal's.
    """
    from edgecal.llama.model import Model
    from edgecal.llama.tokenizer import Tokenizer

    header = read_header(path)
    prompting = DecisionPrompting.for_file(DecisionOptions(readout="letters"), header)
    chat = prompting.chat_template
    with Model(path, vocab_only=True) as model:
        report("loaded")
        tokenizer = Tokenizer(model.vocab, model.n_vocab, path)
        _check_letters(tokenizer)
        before, after = ("", PLAIN_ENDING) if chat is None else _around(chat)
        template = _with_bos(header, prompting, tokenizer, before, after)
        spelled = _find_spelled(template, tokenizer)
    reasons, warnings = [], []
    if chat is not None and chat.thought is not None:
        reasons.append(
            f"its chat template leaves a block of thoughts open ({chat.thought}) even where none are wanted, so the "
            "model was trained to think before it answers; the block would be closed at once"
        )
    elif chat is not None and chat.warning is not None:
        warnings.append(chat.warning)
    if spelled:
        warnings.append(
            f"{path}: llama.cpp will take {', '.join(map(repr, spelled[:3]))} in a request for a control token"
        )
    return Systemone(template, prompting.sha256, tuple(reasons), tuple(warnings))


def _check_letters(tokenizer: Tokenizer) -> None:
    owner: dict[int, str] = {}
    for letter in LETTERS:
        token = tokenizer.token_alone(letter)
        if token is None or token in owner:
            why = "is not one token" if token is None else f"is the same token as {owner[token]!r}"
            raise InputError(
                f"{tokenizer.model_name}: the letter {letter!r} {why} in its vocabulary, so llama.cpp's decision mode "
                "cannot read it; edgecal decide can"
            )
        owner[token] = letter


def _around(chat: ChatTemplate) -> tuple[str, str]:
    """What a chat template puts before and after what the user says."""
    text = chat.render([{"role": "user", "content": _USER}])
    if text.count(_USER) != 1:
        raise InputError(
            f"{chat.name}: shows what the user says {text.count(_USER)} times, expected once; llama.cpp's decision "
            "mode cannot be told that"
        )
    before, _, after = text.partition(_USER)
    thoughts = list(_THOUGHT.finditer(after))
    if thoughts and not (thoughts[-1]["end"] or "END" in thoughts[-1]["tag"]):
        raise InputError(
            f"{chat.name}: leaves a block of thoughts open ({thoughts[-1][0]}), so the next token is no answer; "
            "give the file another chat template with edgecal set"
        )
    return before, after


def _with_bos(
    header: Header, prompting: DecisionPrompting, tokenizer: Tokenizer, before: str, after: str
) -> str:
    """The template that gives edgecal's tokens. llama.cpp adds no BOS, so its text begins the template if need be."""
    name = f"the template for {header.path}"
    wanted = []
    for state, question in _probes():
        order = range(len(question.keys))
        wanted.append(tokenizer.prompt_tokens(prompting.render(state, question, order, name).prompt).tolist())
    for bos in dict.fromkeys(("", special_tokens(header)[0])):
        template = systemone_template(prompting.source, bos + before, after, list(tokenizer.marks.values()))
        found = [
            tokenizer.tokenize_as_given(render_systemone(template, state, question, name))
            for state, question in _probes()
        ]
        if found == wanted:
            return template
    raise InputError(
        f"{header.path}: its chat template does not insert what the user says as it is, or its tokenizer adds a token "
        "that no text spells, so llama.cpp's decision mode would be sent other tokens than edgecal sends"
    )


def _probes() -> Iterator[tuple[Any, Question]]:
    """Made-up requests of all kinds. None has a text that could be a control token."""
    yield "It rains.", Noul("Is it dry?")
    yield " \n It rains.\r\n\n ", Noul("Is it dry? ", true="No rain {{ at }} all.\n")
    yield (
        {"b": [1, 2.5, -0.25, None, True, {"é": 'ü \\ "q"'}], "a": ""},
        Noul(["Is it", "dry?"], false={"x": 1}),
    )
    yield (
        ["a", {"role": "user", "content": "Hi"}],
        Choice("Which?", {"zeta": None, "Alpha Beta": "first\n", "c": {"k": 3}}),
    )
    yield (
        "日本語 text 🙂 'quoted'",
        Choice({"ask": "Which?"}, {f"option {index}": None for index in range(52)}),
    )
    yield "", Score(None, ["low", {"text": "mid"}, ["high"]])
    yield "x", Score("How much?", [str(level) for level in range(10)])


def _find_spelled(template: str, tokenizer: Tokenizer) -> list[str]:
    """The control tokens that a request can still spell."""
    marks = tokenizer.marks

    def counts(state: str) -> Counter[int]:
        text = render_systemone(template, state, Noul("Is it?"), "a template")
        return Counter(token for token in tokenizer.tokenize_as_given(text) if token in marks)

    more = counts("\n".join(marks.values())) - counts("")
    return [marks[token] for token in more]
