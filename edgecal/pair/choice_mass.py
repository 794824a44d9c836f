"""What is said of a model that puts little of its probability on the choices, and what would mend that.

Knows what a model was asked and what it said. Whether a fit is refused for it is not decided here.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgecal.pair.model_capture import ModelCapture
from edgecal.prompts import Prompt, holds_worked_examples

__all__ = ["mass_remedy", "rather_says", "warn_of_mass"]

_LEAST = 0.5


def rather_says(seen: ModelCapture) -> str:
    """What a model would rather say than a choice, as the end of a clause; empty if nothing."""
    if not seen.n_outside:
        return ""
    often = f", most often {seen.outside_token!r}" if seen.outside_token is not None else ""
    return (
        f" and would rather say something else on {seen.n_outside} of {len(seen.choice_mass)} prompts{often}"
    )


def mass_remedy(prompts: Sequence[Prompt]) -> str:
    """What makes a base model say one of the choices, if these are what it was given: what they have is not advised."""
    are_ours = _are_ours(prompts)
    if 2 * sum(map(holds_worked_examples, prompts)) > len(prompts):
        have = "there are worked examples before the questions already, so "
        other = (
            "try more of them (--shots) or another --template"
            if are_ours
            else "try option labels that it says by itself"
        )
        return f"{have}{other}, fit on answers (--method ts), or take another base model"
    where = "before each question (--shots 5)" if are_ours else "in the prompts"
    return f"worked examples {where} usually mend that"


def warn_of_mass(
    name: str, seen: ModelCapture, prompts: Sequence[Prompt], *, divided: bool = False
) -> list[str]:
    """One warning if a model would rather say something else than a choice, else none.

    `divided`: a temperature is in the weights, which spreads probability over the whole vocabulary; then only what
    the model would say first counts.
    """
    mass = float(seen.choice_mass.mean())
    if (divided or mass >= _LEAST) and 2 * seen.n_outside <= len(seen.choice_mass):
        return []
    hint = "another --template" if _are_ours(prompts) else "other labels, or prompts that ask for them"
    return [
        f"{name} puts only {mass:.1%} of its probability on the choice tokens{rather_says(seen)}; its confidence among "
        f"the choices may mean little (try {hint})"
    ]


def _are_ours(prompts: Sequence[Prompt]) -> bool:
    """Whether most were rendered with a template; what came as a ready-made prompt takes no --shots and no
    --template."""
    return 2 * sum(not prompt.labels_verbatim for prompt in prompts) > len(prompts)
