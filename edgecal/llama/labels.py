"""Which single token each label is at the end of a prompt, and what to say where there is none.

Knows a tokenizer and a text's end. Does not know models, templates or where prompts come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgecal.errors import InputError
from edgecal.prompts.model import Prompt
from edgecal.prompts.opening import follows_directly

if TYPE_CHECKING:
    from edgecal.llama.vocabulary import Tokenizer

__all__ = ["PromptEnd"]


class PromptEnd:
    """The end of a prompt, where a label is to be the next token.

    Parameters
    ----------
    tokenizer: the model's.
    prompt, tokens: the prompt, which has a text, and its tokens as `tokenizer` has them.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Prompt, tokens: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._text = prompt.text or ""
        self._data = prompt.data
        self._tokens = list(tokens)
        self._source = prompt.source

    def find_letters(self, labels: Sequence[str]) -> list[int]:
        """The labels' tokens, with or without a leading space as the text and the tokenizer have them.

        Either form is one token for every label, the same form for all. Where the text says that a word
        follows directly (see `follows_directly`, or a special token such as the mark of the assistant's turn), the
        form without a space is tried first, else the one with it. A token counts if the tokenizer adds it to the
        unchanged tokens of the prompt; its own space after a special token (SentencePiece) may be in it.

        Some tokenizers would join a bracket or line ends with the letter. The prompt is tokenized without it, so
        the letter's own token is the one that can follow. Not so after a plain space: a space by itself stands
        before a word only in texts with two of them, so there it is the form with a space, if any.

        Raises
        ------
        InputError: there is no such form; the message has the first label that is to blame.
        """
        direct = follows_directly(self._text) or self._ends_in_mark()
        forms = ("", " ") if direct else (" ", "")
        after_space = self._text.endswith(" ")
        to_blame: list[str] = []
        for space in forms:
            joins = direct and not space and not after_space
            found = [self._find_letter(space + label, joins=joins) for label in labels]
            tokens = [token for token in found if token is not None]
            if len(tokens) == len(labels):
                return tokens
            to_blame.append(space + labels[found.index(None)])
        what_to_do = (
            "leave out the space at the end of the prompt, or use"
            if after_space
            else "use fewer choices, a template that ends where the letter comes, or"
        )
        raise InputError(
            f"{self._source}: the label {to_blame[0].strip()!r} is not one token after this prompt in "
            f"{self._tokenizer.model_name}: {to_blame[0]!r} becomes {self._describe(to_blame[0])}; "
            f"{what_to_do} another model"
        )

    def find_verbatim(self, labels: Sequence[str]) -> list[int]:
        """The labels' tokens by their exact texts.

        A label must be one token that the tokenizer adds to the unchanged tokens of the prompt or, where it
        would join the label with the prompt's end or put a space of its own before it, the token that it makes of
        the label elsewhere.

        Raises
        ------
        InputError: a label is none.
        """
        return [self._find_exact(label) for label in labels]

    def _ends_in_mark(self) -> bool:
        """Whether the last token is a special one; a letter that a vocabulary's maker added is no mark."""
        last = self._tokens[-1]
        return self._tokenizer.is_special(last) and not self._tokenizer.piece(last)[-1:].isalnum()

    def _find_letter(self, form: str, *, joins: bool) -> int | None:
        token = self._added(form, (form, f" {form}"))
        return self._tokenizer.token_of(form) if token is None and joins else token

    def _find_exact(self, label: str) -> int:
        token = self._added(label, (label,))
        if token is None:
            token = self._tokenizer.token_of(label)
        if token is not None:
            return token
        raise InputError(
            f"{self._source}: the label {label!r} is not one token after this prompt in "
            f"{self._tokenizer.model_name} (it becomes {self._describe(label)}); {self._find_remedy(label)}"
        )

    def _added(self, text: str, readings: tuple[str, ...]) -> int | None:
        """The one token that the tokenizer adds to the prompt's for this text, if it reads as one of these."""
        joint = self._tokenize(self._text + text)
        if joint[:-1] != self._tokens:
            return None
        # The reading is compared too: a tokenizer drops characters that its vocabulary lacks without a word.
        said = self._tokenizer.piece_bytes(joint[-1])
        return joint[-1] if said in [reading.encode() for reading in readings] else None

    def _find_remedy(self, label: str) -> str:
        bare = label.lstrip(" ")
        if bare and bare != label and not self._text.endswith(" "):
            spaced = self._text + label[: -len(bare)]
            end = PromptEnd(
                self._tokenizer,
                Prompt(text=spaced, source=self._source, data=self._data),
                self._tokenize(spaced),
            )
            if end._added(bare, (bare,)) is not None:
                return f"end the prompt with the space, and give the label as {bare!r}"
        return (
            'give each label as the text of a single token, such as " A", or the record as {"question": ..., '
            '"choices": [...]}: then the options may be texts of any length, and letters are put before them'
        )

    def _tokenize(self, text: str) -> list[int]:
        return self._tokenizer.tokenize(text, self._source, self._data)

    def _describe(self, label: str) -> str:
        joint = self._tokenize(self._text + label)
        common = 0
        while common < min(len(self._tokens), len(joint)) and joint[common] == self._tokens[common]:
            common += 1
        if common < len(self._tokens):
            return "tokens that also change the end of the prompt: " + self._names(joint[common:])
        n_added = len(joint) - common
        return f"{n_added} token{'' if n_added == 1 else 's'}: {self._names(joint[common:])}"

    def _names(self, tokens: Sequence[int]) -> str:
        shown = ", ".join(repr(self._tokenizer.piece(token)) for token in tokens[:6])
        return shown + (", ..." if len(tokens) > 6 else "") if shown else "nothing"
