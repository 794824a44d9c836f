"""Text that knows which of its parts come from data (a question, its options, ...) and which from a template.

The tokenizer needs to know: what people ask must never become a control token, while a template may well spell one. A
template is a mere function here, from the texts of some fields to a text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from edgecal.errors import InputError

__all__ = ["TracedText", "join", "trace"]

Span = tuple[int, int]
Rendering = Callable[[Sequence[str]], str]

# Private-use characters, which no filter of a template treats like letters or white space.
_PRIVATE = range(0xF0000, 0x10FFFE)

# Every control token of every known vocabulary has one of these characters in it.
_SUSPICIOUS = re.compile(r"[<>\[\]{}|\uff5c]")


@dataclass(frozen=True)
class TracedText:
    """A text, and which parts of it come from data.

    Attributes
    ----------
    text: the text.
    data: [start, stop), in characters, of each part that comes from data, ascending and without overlap.
    """

    text: str
    data: tuple[Span, ...] = ()

    @classmethod
    def of_data(cls, text: str) -> TracedText:
        """A text all of which comes from data."""
        return cls(text, ((0, len(text)),))

    def cut(self, start: int, stop: int | None = None) -> TracedText:
        """The part from `start` to `stop`; None is the end."""
        stop = len(self.text) if stop is None else stop
        inside = ((max(first, start) - start, min(last, stop) - start) for first, last in self.data)
        return TracedText(self.text[start:stop], tuple(span for span in inside if span[0] < span[1]))

    def change(self, change: Callable[[str], str]) -> str:
        """The text with every part that comes from data changed."""
        pieces, at = [], 0
        for start, stop in self.data:
            pieces += [self.text[at:start], change(self.text[start:stop])]
            at = stop
        return "".join([*pieces, self.text[at:]])

    def __add__(self, other: TracedText | str) -> TracedText:
        return join([self, other])


def join(parts: Iterable[TracedText | str]) -> TracedText:
    """Texts one after another; nothing of a plain str comes from data."""
    texts: list[str] = []
    data: list[Span] = []
    length = 0
    for part in parts:
        if isinstance(part, TracedText):
            data += [(length + start, length + stop) for start, stop in part.data]
            part = part.text
        texts.append(part)
        length += len(part)
    return TracedText("".join(texts), tuple(data))


def trace(render: Rendering, fields: Sequence[TracedText], name: str, what: str) -> TracedText:
    """Renders a template and finds which parts of the result come from its fields' data.

    The fields are rendered once more with other characters in place of the data's, except white space, which templates
    trim: wherever these come out, the data are in the text. If the template changes some of the data's characters (to
    upper case, say), the data are put between two marks instead. If neither works for all fields at once, each field
    is tried by itself. The text itself is always that of the first rendering.

    Parameters
    ----------
    render: the template, from the fields' texts to a text.
    fields: the template's fields.
    name, what: the template's name, and what is rendered, for messages.

    Raises
    ------
    InputError: as `render`; or the template changes data that may spell a control token beyond recognition.
    """
    text = render([field.text for field in fields])
    everywhere = range(len(fields))
    data = _find(render, fields, everywhere, text)
    if data is None:
        found: list[Span] = []
        for index in everywhere:
            spans = _find(render, fields, [index], text)
            if spans is None:
                _check_harmless(fields[index], name, what)
            found += spans or ()
        data = _united(found)
    return TracedText(text, data)


def _find(
    render: Rendering, fields: Sequence[TracedText], marked: Sequence[int], text: str
) -> tuple[Span, ...] | None:
    """Where the marked fields' data are in the text, or None if that cannot be found out."""
    used = set(text).union(*(field.text for field in fields))
    for find in (_by_other_characters, _by_marks):
        spans = find(render, fields, marked, text, used)
        if spans is not None:
            return spans
    return None


def _by_other_characters(
    render: Rendering, fields: Sequence[TracedText], marked: Sequence[int], text: str, used: set[str]
) -> tuple[Span, ...] | None:
    of_data = {
        char
        for index in marked
        for start, stop in fields[index].data
        for char in fields[index].text[start:stop]
    }
    characters = "".join(sorted(char for char in of_data if not char.isspace()))
    others = _unused(len(characters), used)
    if not characters or others is None:
        return None if characters else ()
    there, back = str.maketrans(characters, others), str.maketrans(others, characters)
    said = _render_changed(render, fields, marked, lambda part: part.translate(there))
    if said is None or said.translate(back) != text:
        return None
    other = f"[{others}]"
    return tuple(found.span() for found in re.finditer(rf"{other}+(?:\s+{other}+)*", said))


def _by_marks(
    render: Rendering, fields: Sequence[TracedText], marked: Sequence[int], text: str, used: set[str]
) -> tuple[Span, ...] | None:
    marks = _unused(2, used)
    if marks is None:
        return None
    left, right = marks[0], marks[1]
    # White space at the ends stays outside the marks, for templates that trim.
    said = _render_changed(
        render,
        fields,
        marked,
        lambda part: part.replace(bare, f"{left}{bare}{right}") if (bare := part.strip()) else part,
    )
    if said is None or said.replace(left, "").replace(right, "") != text:
        return None
    spans: list[Span] = []
    opened: int | None = None
    for n_before, found in enumerate(re.finditer(f"[{left}{right}]", said)):
        at = found.start() - n_before
        if (opened is None) != (found[0] == left):
            return None
        if opened is None:
            opened = at
        else:
            spans.append((opened, at))
            opened = None
    return None if opened is not None else tuple(spans)


def _render_changed(
    render: Rendering, fields: Sequence[TracedText], marked: Sequence[int], change: Callable[[str], str]
) -> str | None:
    try:
        return render([f.change(change) if index in marked else f.text for index, f in enumerate(fields)])
    except InputError:  # a template may refuse the changed text
        return None


def _unused(n: int, used: set[str]) -> str | None:
    """n characters that are not used, or None if there are not as many."""
    found = "".join(islice((char for char in map(chr, _PRIVATE) if char not in used), n))
    return found if len(found) == n else None


def _united(spans: Sequence[Span]) -> tuple[Span, ...]:
    united: list[Span] = []
    for start, stop in sorted(spans):
        if united and start <= united[-1][1]:
            united[-1] = (united[-1][0], max(stop, united[-1][1]))
        else:
            united.append((start, stop))
    return tuple(united)


def _check_harmless(field: TracedText, name: str, what: str) -> None:
    for start, stop in field.data:
        if found := _SUSPICIOUS.search(field.text, start, stop):
            raise InputError(
                f"{name}: changes a text of {what} so much that it cannot be found in the prompt, and its "
                f"{found[0]!r} may be part of a control token; the template must insert the text unchanged"
            )
