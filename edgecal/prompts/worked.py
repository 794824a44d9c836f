"""Whether a prompt holds worked examples already, whoever put them there.

A prompt ends with a cue (`Answer:`, `Sentiment:`, `Letter: (`, `=>`) behind which one of its labels is to come. In a
worked example the same cue stands before one of the labels. Knows nothing of templates and models.
"""

from __future__ import annotations

import re
from itertools import pairwise

from edgecal.prompts.model import Prompt

__all__ = ["holds_worked_examples"]

_CUES = (
    re.compile(r"\w+\W*\Z"),  # the last word and what follows it
    re.compile(r"[^\w\s]{2,}\s*\Z|[^\w\s\x00-\x7f]\s*\Z"),  # an arrow
)


def holds_worked_examples(prompt: Prompt) -> bool:
    """Whether one of the labels, or choice tokens, follows the prompt's cue earlier in it."""
    if prompt.tokens is not None:
        *before, cue = prompt.tokens
        choices = prompt.choice_tokens or ()
        return any(a == cue and b in choices for a, b in pairwise(before))
    text = prompt.text or ""
    labels = "|".join(re.escape(label.strip()) for label in prompt.labels or () if label.strip())
    cues = [found[0].rstrip() for cue in _CUES if (found := cue.search(text))]
    # a label that begins a longer word is none
    return bool(labels) and any(re.search(rf"{re.escape(cue)}\s*(?:{labels})(?!\w)", text) for cue in cues)
