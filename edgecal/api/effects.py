"""What each part of the prompting does to the choice mass, on a sample of the questions.

Knows what was asked for and how to ask otherwise; models are run by whoever calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgecal.errors import InputError

if TYPE_CHECKING:
    from edgecal.api.loaded import LoadedQuestions
    from edgecal.prompts import PromptPair
    from edgecal.results.questions import Effect

__all__ = ["DEFAULT_EFFECT_SAMPLE", "Masses", "measure_effects"]

DEFAULT_EFFECT_SAMPLE = 64

Masses = Mapping[str, npt.NDArray[np.float64]]


def measure_effects(
    loaded: LoadedQuestions,
    masses: Masses,
    n_sample: int,
    run: Callable[[Sequence[PromptPair]], Masses],
) -> tuple[list[Effect], list[str]]:
    """Mean choice mass with the plainest prompt, with each deviation from it alone, and with all that was asked for.

    Parameters
    ----------
    loaded: the questions and how they were put.
    masses: each model's choice mass on all of them, float64 [n], by role.
    n_sample: questions to try the other prompts on, the first in canonical order; 0 switches this off.
    run: gives each model's choice mass for further prompts; called once at most.

    Returns
    -------
    Entries with `name`, `n` and `choice_mass` (by role), none where nothing deviates from the plainest prompt; and a
    warning if one of the other prompts does not fit a model, so that only what was asked for is told.
    """
    from edgecal.prompts import ChatTemplate, Prompting, PromptTemplate, resolve_template

    if n_sample < 0:
        raise InputError(f"the sample for the effects of prompting must be 0 or more, got {n_sample}")
    asked, default = loaded.prompting, resolve_template()

    def ask(
        template: PromptTemplate = default, n_shots: int = 0, chat_template: ChatTemplate | None = None
    ) -> Prompting:
        return Prompting(
            template, n_shots=n_shots, chat_template=chat_template, seed=asked.seed, pool=asked.pool
        )

    parts = []
    if asked.template.source != default.source:
        parts.append((asked.template.name, ask(template=asked.template)))
    if asked.n_shots:
        parts.append(
            (f"{asked.n_shots} worked example{'s' if asked.n_shots > 1 else ''}", ask(n_shots=asked.n_shots))
        )
    if asked.chat_template is not None:
        parts.append(("chat template", ask(chat_template=asked.chat_template)))
    n = min(n_sample, len(loaded.pairs))
    if not parts or n == 0:
        return [], []
    variants = [("the default template, nothing else", ask()), *(parts if len(parts) > 1 else [])]
    records = loaded.records
    prompts = [pair for _, variant in variants for pair in variant.render(records)[:n]]
    effects: list[Effect] = []
    warnings = []
    try:
        found = run(prompts)
    except InputError as error:
        warnings.append(f"the effects of the prompting were not measured: {error}")
    else:
        for i, (name, _) in enumerate(variants):
            means = {role: float(mass[i * n : (i + 1) * n].mean()) for role, mass in found.items()}
            effects.append({"name": name, "n": n, "choice_mass": means})
    together = ", ".join(name for name, _ in parts)
    effects.append(
        {
            "name": f"as asked: {together}",
            "n": n,
            "choice_mass": {role: float(mass[:n].mean()) for role, mass in masses.items()},
        }
    )
    return effects, warnings
