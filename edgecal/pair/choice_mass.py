"""Warns of a model that puts little of its probability on the choices, and suggests a remedy.

Whether a fit is refused for that reason is decided in `calibration`.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgecal.pair.model_capture import ModelCapture
from edgecal.prompts import Prompt, holds_worked_examples

__all__ = ["mass_remedy", "rather_says", "warn_of_mass"]

_LEAST = 0.5


def rather_says(capture: ModelCapture) -> str:
    """Returns a clause, to be appended, on how often a model prefers a token that is none of the choices; empty if
    never."""
    if not capture.n_outside:
        return ""
    often = f", most often {capture.outside_token!r}" if capture.outside_token is not None else ""
    n_prompts = len(capture.choice_mass)
    return f" and would rather say something else on {capture.n_outside} of {n_prompts} prompts{often}"


def mass_remedy(prompts: Sequence[Prompt]) -> str:
    """Returns advice that makes a base model put more probability on the choices. Worked examples are advised only if
    these prompts do not have them yet."""
    are_rendered = _are_rendered(prompts)
    if 2 * sum(map(holds_worked_examples, prompts)) > len(prompts):
        other = (
            "try more of them (--shots) or another --template"
            if are_rendered
            else "try labels that the model tends to answer with"
        )
        return (
            f"the prompts already have worked examples, so {other}, fit on gold answers (--method ts), or take "
            "another base model"
        )
    where = "before each question (--shots 5)" if are_rendered else "in the prompts"
    return f"worked examples {where} usually help"


def warn_of_mass(
    name: str, capture: ModelCapture, prompts: Sequence[Prompt], *, divided: bool = False
) -> list[str]:
    """Returns one warning if a model puts little probability on the choices or mostly prefers another token.

    `divided`: the weights contain a temperature, which spreads probability over the whole vocabulary. Then only the
    most probable token counts.
    """
    mass = float(capture.choice_mass.mean())
    if (divided or mass >= _LEAST) and 2 * capture.n_outside <= len(capture.choice_mass):
        return []
    hint = "another --template" if _are_rendered(prompts) else "other labels, or prompts that ask for them"
    return [
        f"{name} puts only {mass:.1%} of its probability on the choice tokens{rather_says(capture)}; its confidence "
        f"among the choices may mean little (try {hint})"
    ]


def _are_rendered(prompts: Sequence[Prompt]) -> bool:
    """Whether most prompts were rendered with a template. Options such as --shots and --template do not apply to
    ready-made prompts."""
    return 2 * sum(not prompt.labels_verbatim for prompt in prompts) > len(prompts)
