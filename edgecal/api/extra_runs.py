"""What is done besides the main run over the questions: permuted options, stated confidence, mapped hidden states, and
other prompts on a sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edgecal.errors import InputError

if TYPE_CHECKING:
    from edgecal.api.questions import LoadedQuestions
    from edgecal.evaluation.comparison import Permuted, Projected, Stated
    from edgecal.evaluation.splits import Split
    from edgecal.pair.model_capture import CaptureProgress
    from edgecal.pair.pair_capture import PairCapture
    from edgecal.pair.run import RunOptions
    from edgecal.prompts import PromptPair
    from edgecal.results.judging import RunCost
    from edgecal.results.questions import Effect

__all__ = [
    "DEFAULT_EFFECT_SAMPLE",
    "Masses",
    "measure_effects",
    "run_permutations",
    "run_projection",
    "run_statements",
]

# If fewer than this share of the first answers hold a letter and a digit, the other questions are not asked.
_HOPE_AFTER = 64
_HOPE_SHARE = 0.25

RoleProgress = Callable[[str, "CaptureProgress"], None]


def run_permutations(
    path: str,
    loaded: LoadedQuestions,
    final_logits: npt.NDArray[np.float32],
    n_permutations: int,
    *,
    seed: int,
    options: RunOptions,
    on_progress: RoleProgress | None,
) -> Permuted:
    """The chat model's probabilities averaged over orders of the options, mapped back.

    The given order is not run again: its logits are `final_logits`, float32 [n, k_max]. A permuted question
    keeps the worked examples of the original.

    Raises
    ------
    ModelError: the model could not be run.
    """
    from edgecal.evaluation.baselines import average_permutations
    from edgecal.evaluation.comparison import Permuted
    from edgecal.metrics import softmax_probs
    from edgecal.pair.run import capture_model
    from edgecal.prompts import permute_question, reorder

    if n_permutations < 2:
        return Permuted(None, n_permutations, "not asked for (--permutations)")
    orders: list[tuple[int, ...]] = []
    owners: list[int] = []
    prompts = []
    for index, pair in enumerate(loaded.pairs):
        if pair.question is None:
            return Permuted(
                None, n_permutations, "a ready-made prompt has no options that could be put in another order"
            )
        for order in permute_question(pair.question, n_permutations, seed)[1:]:
            orders.append(order)
            owners.append(index)
            question = reorder(pair.question, order)
            prompts.append(loaded.prompting.render_question(question, pair.shots).chat)
    try:
        seen = capture_model(
            path,
            "chat",
            prompts,
            layers=False,
            options=options,
            on_progress=on_progress,
        )
    except InputError as error:  # another order of the options may have more tokens
        return Permuted(None, n_permutations, str(error))
    n, k_max = final_logits.shape
    further = np.full((len(prompts), k_max), -np.inf, dtype=np.float32)
    further[:, : seen.final_logits.shape[1]] = seen.final_logits
    n_choices = loaded.n_choices
    probs = np.concatenate(
        [softmax_probs(final_logits, n_choices), softmax_probs(further, n_choices[np.array(owners)])]
    )
    identities = [tuple(range(int(count))) for count in n_choices]
    return Permuted(
        average_permutations(probs, np.array([*range(n), *owners]), [*identities, *orders], n),
        1 + int(np.bincount(owners).max()),
        None,
        {"n_prompts": len(prompts), "n_tokens": seen.n_tokens},
    )


def run_projection(
    base_path: str,
    captured: PairCapture,
    splits: Sequence[Split],
    *,
    wanted: bool,
    no_layers: str | None,
    options: RunOptions,
) -> Projected:
    """Maps the chat model's last hidden states to the base model's logits, split by split. The map is fitted on the
    prompts that a split fits on, to what the base model's head says of its own states; no answer is seen and no prompt
    is run.

    Raises
    ------
    ModelError: the base model's head could not be read.
    """
    from edgecal.evaluation.comparison import Projected
    from edgecal.evaluation.linear_map import MIN_MAPPED, fit_linear_map
    from edgecal.pair.run import project_states
    from edgecal.pair.worker_project import pick

    if not wanted:
        return Projected(None, "not asked for (--no-projection)")
    base, chat = captured.base.last_hidden, captured.chat.last_hidden
    if base is None or chat is None:
        return Projected(None, no_layers or "there are no hidden states")
    if len(splits[0].fit) < MIN_MAPPED:
        return Projected(
            None,
            f"a map of hidden states needs at least {MIN_MAPPED} questions to fit on, got {len(splits[0].fit)}",
        )
    own = project_states(base_path, "base", captured.prompts, base, options=options)

    def mapped(split: Split) -> npt.NDArray[np.float32]:
        found = fit_linear_map(chat[split.fit], own.logits[split.fit])
        return pick(found(chat[split.judge]), own.columns[split.judge])

    return Projected([mapped(split) for split in splits])


def run_statements(
    path: str,
    loaded: LoadedQuestions,
    *,
    wanted: bool,
    options: RunOptions,
    on_progress: RoleProgress | None,
) -> Stated:
    """Asks the chat model for a letter and a probability, and reads both from what it says.

    If hardly any of the first answers can be understood, the other questions are not asked.

    Raises
    ------
    ModelError: the model could not be run.
    """
    from edgecal.evaluation.comparison import Stated
    from edgecal.pair.run import generate
    from edgecal.pair.worker_generate import GiveUp
    from edgecal.prompts import parse_verbalized, render_verbalized
    from edgecal.prompts.verbalized import (
        VERBALIZED_GIVE_UP_PATTERN,
        VERBALIZED_MAX_TOKENS,
        VERBALIZED_STOP_PATTERN,
    )

    if not wanted:
        return Stated((), "not asked for (--no-verbalized)")
    prompts = []
    for pair in loaded.pairs:
        if pair.question is None:
            return Stated((), "a ready-made prompt cannot be asked for a probability")
        prompts.append(render_verbalized(pair.question, loaded.prompting.chat_template))
    try:
        said = generate(
            path,
            "chat",
            prompts,
            max_tokens=VERBALIZED_MAX_TOKENS,
            stop_pattern=VERBALIZED_STOP_PATTERN,
            give_up=GiveUp(_HOPE_AFTER, VERBALIZED_GIVE_UP_PATTERN, _HOPE_SHARE),
            options=options,
            on_progress=on_progress,
        )
    except InputError as error:  # the longer prompt does not fit the model's context
        return Stated((), str(error))
    statements = [
        parse_verbalized(text, prompt.labels or ()) for text, prompt in zip(said.texts, prompts, strict=False)
    ]
    cost: RunCost = {
        "n_prompts": len(said.texts),
        "n_tokens": said.n_prompt_tokens,
        "n_generated": said.n_generated,
    }
    return Stated(statements, None, cost)


DEFAULT_EFFECT_SAMPLE = 64

Masses = Mapping[str, npt.NDArray[np.float64]]


def measure_effects(
    loaded: LoadedQuestions,
    masses: Masses,
    n_sample: int,
    run: Callable[[Sequence[PromptPair]], Masses],
) -> tuple[list[Effect], list[str]]:
    """Mean choice mass with the plainest prompt, with each option alone, and with all options that were asked for.

    Parameters
    ----------
    loaded: the questions and how they were prompted.
    masses: each model's choice mass on all of them, float64 [n], by role.
    n_sample: questions to try the other prompts on, the first in canonical order; 0 switches this off.
    run: gives each model's choice mass for further prompts; called once at most.

    Returns
    -------
    Entries with `name`, `n` and `choice_mass` (by role), none if the prompting is the plainest; and a warning if one of
    the other prompts does not fit a model, so that only the full prompting is reported.
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
