"""Verbalized confidence: asks a chat model for a letter and a probability, and reads both from its answer.

The form is that of Tian et al. 2023, "Just Ask for Calibration" (Verb. 1S top-1: guess and probability in one answer,
without reasoning), in words of our own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from edgecal.prompts.chat_template import ChatTemplate
from edgecal.prompts.question_templates import PromptTemplate
from edgecal.prompts.records import Prompt, Question
from edgecal.prompts.traced_text import TracedText

__all__ = [
    "VERBALIZED_GIVE_UP_PATTERN",
    "VERBALIZED_MAX_TOKENS",
    "VERBALIZED_STOP_PATTERN",
    "parse_verbalized",
    "render_verbalized",
]

_TEMPLATE = """\
Answer the following multiple-choice question, and say how sure you are. Reply with two short lines and nothing \
else: on the first the letter of the option that you take to be correct, on the second the probability that this \
letter is correct, in percent from 0 to 100. The form is:

Answer: <letter>
Probability: <number>%

{{ question }}
{% for choice in choices %}{{ choice.label }}: {{ choice.text }}
{% endfor %}"""

# The most tokens that an answer in this form takes, with room for a few more words.
VERBALIZED_MAX_TOKENS = 48

# Matches a text in which the answer is complete: a probability and what follows it, or a paragraph with a number.
VERBALIZED_STOP_PATTERN = r"(?is)(?:probability|confidence)\W{0,8}\d+(?:[.,]\d+)?\s*[^\d\s.,]|\d.*\n\s*\n"

# Matches a text that is worth parsing: one with a single letter and a digit.
VERBALIZED_GIVE_UP_PATTERN = r"(?s)\A(?=.*\b[A-Za-z]\b).*\d"

_THOUGHT_TAG = re.compile(
    r"[<\[](?P<end>/|\|?END_)?[^<>\[\]/\s]{0,20}think[^<>\[\]/\s]{0,20}[>\]]", re.IGNORECASE
)

# A single letter: no part of a word, nor of "e.g." or "I'm".
_LETTER = r"(?<![\w'’.])(?P<letter>[A-Za-z])(?![\w'’]|\.\w)"
_NAMED_LETTER = re.compile(
    r"\b(?:answer|option|choice|guess|letter)s?\b(?:\s+(?:is|would\s+be|should\s+be|to\s+pick|option))*"
    r"[^\w\n]{0,6}\n?[^\w\n]{0,6}" + _LETTER,
    re.IGNORECASE,
)
_FIRST_LETTER = re.compile(r"[^\w]{0,6}" + _LETTER)
_BRACKETED_LETTER = re.compile(r"[(\[]\s*" + _LETTER + r"\s*[)\]]")
_LONE_CAPITAL = re.compile(r"(?<![\w'’.])(?P<letter>[A-Z])(?![\w'’]|\.\w)")
# In "A good guess" and "I think" they are words; in "A is right" and "A with 60 %", letters.
_WORD_FOLLOWS = re.compile(r"[ \t]+(?!(?:is|with|because|since|at|seems|and|or)\b)[a-z]")
_ANOTHER_LETTER = re.compile(r"[\W_]{0,4}(?:\band\b|\bor\b|/|&)[\W_]{0,5}[A-Z](?![\w'’])")

# A number and its unit: percent, of a hundred, of ten, or none; no other fraction.
_NUMBER = re.compile(
    r"(?<![\w.,/])(?P<sign>[-−])?(?P<value>\d+(?:[.,]\d+)*|[.,]\d+)(?![\w])"
    r"(?P<unit>\s*(?:%|percent\b|per\s+cent\b)|\s*(?:/|out\s+of)\s*100?(?![\d.])%?)?(?!\s*/\s*\d)",
    re.IGNORECASE,
)
_CONFIDENCE_WORD = re.compile(
    r"\b(?:probabilit(?:y|ies)|confidence|confident|likelihood|certainty|certain|sure|chance)\b",
    re.IGNORECASE,
)
# "from 0 to 100" and "(0-1)" name the scale, not a value; "80-90" and "80 to 90" are two values.
_SCALE = re.compile(
    r"\(?\b(?:from\s+|between\s+)?0(?:\.0+)?\s*%?\s*(?:-|–|—|to|and)\s*(?:1(?:\.0+)?|100)\b(?![.,]?\d)\s*%?\)?",
    re.IGNORECASE,
)
_SPAN = re.compile(r"\d\s*%?\s*(?:-|–|—|\bto\b|\band\b)\s*\d", re.IGNORECASE)
_NEAR = 60  # most characters between a word for confidence and its number


def render_verbalized(question: Question, chat_template: ChatTemplate | None = None) -> Prompt:
    """A prompt that asks for a letter and a probability.

    Parameters
    ----------
    question: the question.
    chat_template: the chat model's. Without one, the plain text ends in "Answer:".

    Returns
    -------
    A prompt whose answer is to be generated as text, not read from the first token; the labels are the letters.

    Raises
    ------
    InputError: a template fails.
    """
    prompt = _template().render(question)
    text = prompt.text or ""
    if chat_template is None:
        return replace(prompt, text=f"{text}\nAnswer:")
    asked = TracedText(text, prompt.data).cut(0, len(text.rstrip()))
    said = chat_template.trace([asked], question.source or "a question")
    return replace(prompt, text=said.text, data=said.data)


def parse_verbalized(text: str, labels: Sequence[str]) -> tuple[int, float] | None:
    """Reads the letter and the probability from a model's answer.

    Thoughts in tags (`<think>`) are ignored. The letter is the one after a word such as "answer", else the first
    thing said, else the first in brackets, else the first single capital. It must be one of the labels. The number is
    the first one after a word such as "probability" or "confidence", else the only one with a percent sign, else the
    only one. Percent was asked for, so 2 to 100 are percents with or without the sign; without it, numbers up to 1
    are probabilities. "95/100" and "9 out of 10" are read too.

    Parameters
    ----------
    text: the generated text, without the prompt.
    labels: the letters of the options.

    Returns ------- (index of the letter, probability from 0 to 1), or None if either is missing, unclear (a range
    such as "80-90 %", two numbers) or impossible (a letter that is not an option, over 100, negative).
    """
    said = _without_thoughts(text)
    found = _find_letter(said)
    if found is None or _ANOTHER_LETTER.match(said, found.end("letter")):
        return None
    letters = [label.strip().upper() for label in labels]
    letter = found["letter"].upper()
    if letter not in letters:
        return None
    confidence = _find_confidence(said)
    return None if confidence is None else (letters.index(letter), confidence)


@cache
def _template() -> PromptTemplate:
    return PromptTemplate(_TEMPLATE, "the template for verbalized confidence")


def _without_thoughts(text: str) -> str:
    """The text outside thoughts, whose opening or closing tag may be missing."""
    outside: list[str] = []
    at = 0
    inside = False
    for tag in _THOUGHT_TAG.finditer(text):
        if tag["end"]:
            inside, at = False, tag.end()
        elif not inside:
            outside.append(text[at : tag.start()])
            inside = True
    return " ".join(outside if inside else [*outside, text[at:]])


def _find_letter(text: str) -> re.Match[str] | None:
    for found in _NAMED_LETTER.finditer(text):
        if found["letter"] not in "aiI" or not _WORD_FOLLOWS.match(text, found.end()):
            return found
    first = _FIRST_LETTER.match(text)
    others = (*_BRACKETED_LETTER.finditer(text), *_LONE_CAPITAL.finditer(text))
    for found in (first, *others) if first else others:
        if found["letter"] not in "AaIi" or not _WORD_FOLLOWS.match(text, found.end("letter")):
            return found
    return None


def _find_confidence(text: str) -> float | None:
    text = _SCALE.sub(" ", text)
    for word in _CONFIDENCE_WORD.finditer(text):
        number = _NUMBER.search(text, word.end(), word.end() + 2 * _NEAR)
        if number is not None and number.start() - word.end() <= _NEAR:
            return None if _starts_span(text, number) else _share(number)
    numbers = list(_NUMBER.finditer(text))
    if any(_starts_span(text, number) for number in numbers):
        return None
    marked = [number for number in numbers if number["unit"]]
    shares = {_share(number) for number in marked or numbers}
    return shares.pop() if len(shares) == 1 else None


def _starts_span(text: str, number: re.Match[str]) -> bool:
    return _SPAN.match(text, number.end("value") - 1) is not None


def _share(number: re.Match[str]) -> float | None:
    """The probability that a number states, or None."""
    digits = number["value"]
    if re.fullmatch(r"\d*[.,]\d+|\d+", digits) is None or re.fullmatch(r"\d+,\d{3}", digits):
        return None  # "1.2.3", or thousands
    value = float(digits.replace(",", "."))
    unit = "".join((number["unit"] or "").lower().split())
    if number["sign"] and value:
        return None
    if unit.startswith(("/", "outof")):
        value /= 100 if "100" in unit else 10
    elif unit or value > 1:
        value /= 100
    return value if value <= 1 else None
