"""How a fit of requests asks the base model: in plain text, where need be after a few worked examples.

Many base models that are asked out of the blue go on with something else than a label, and are no yardstick then: Gemma
3 270M has 0.16 to 0.23 of its probability on the labels, after two examples 0.90 to 0.93. A model that answers without
them is better asked without. The examples are fixed, of other matters, and show yes as often as no. The labels are
always summed over their forms, also where the chat model's bare letters alone are read, since plain text goes on with a
space before the letter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from edgecal.decisions import Choice, DecisionPrompt, DecisionPrompting, Noul, Question
from edgecal.decisions.labels import forms_of
from edgecal.errors import InputError

__all__ = ["MAX_SHOTS", "YardstickPrompting"]

# State, question, and index of the right option.
_WORKED: Final[tuple[tuple[str, Question, int], ...]] = (
    ("The parcel came two days late and the box was torn.", Noul("Did the parcel come on time?"), 1),
    (
        "Our cat sleeps all day.",
        Choice("Which animal is it about?", {"a dog": None, "a bird": None, "a cat": None}),
        2,
    ),
    ("The water boils and the kettle whistles.", Noul("Is the water hot?"), 0),
    (
        "A cup of tea costs 2 euros, a cake 4.",
        Choice("Which is cheaper?", {"the tea": None, "the cake": None}),
        0,
    ),
)
MAX_SHOTS: Final = len(_WORKED)


class YardstickPrompting(DecisionPrompting):
    """Asks in plain text, as the chat model is asked in its turn, with worked examples before it.

    Parameters
    ----------
    chat: how the chat model is asked.
    template: the template that it is asked by.
    shots: worked examples, 0 to `MAX_SHOTS`.

    Raises
    ------
    InputError: the number is out of range.
    """

    def __init__(self, chat: DecisionPrompting, template: Any, shots: int) -> None:
        if not 0 <= shots <= MAX_SHOTS:
            raise InputError(f"the number of worked examples must be 0 to {MAX_SHOTS}, got {shots}")
        self._before = ""
        super().__init__(template, readout=chat.readout, two_letter=chat.two_letter)
        worked = []
        for state, question, answer in _WORKED[:shots]:
            prompt = super().render(state, question, range(len(question.keys))).prompt
            worked.append(f"{prompt.text} {(prompt.labels or ())[answer]}\n\n")
        self._before = "".join(worked)

    def render(self, state: Any, question: Question, order: Sequence[int], where: str = "") -> DecisionPrompt:
        """As `DecisionPrompting.render`, with the examples before it and the forms of each label."""
        made = super().render(state, question, order, where)
        prompt, n = made.prompt, len(self._before)
        labels = prompt.labels or ()
        return replace(
            made,
            prompt=replace(
                prompt,
                text=self._before + (prompt.text or ""),
                data=tuple((start + n, stop + n) for start, stop in prompt.data),
                label_forms=tuple(forms_of(label, labels, "labels") for label in labels),
                labels_alone=False,
            ),
        )
