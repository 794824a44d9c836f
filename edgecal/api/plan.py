"""`edgecal.plan`: what a fit would cost, before it is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecal.api.capture import settle_run
from edgecal.api.misfits import run_those_that_fit
from edgecal.api.progress import OnProgress, on_observe
from edgecal.api.questions import PathLike, PromptSource, QuestionOptions, load_questions
from edgecal.result import PlanResult

if TYPE_CHECKING:
    from edgecal.api.loaded import LoadedQuestions
    from edgecal.llama.settings import CaptureSettings
    from edgecal.prompts import Prompt, PromptTemplate

__all__ = ["plan"]


def plan(
    base: PathLike,
    chat: PathLike,
    prompts: PromptSource | None = None,
    *,
    method: str = "dual-align",
    template: PathLike | PromptTemplate | None = None,
    limit: int | None = None,
    seed: int = 0,
    format: str | None = None,
    mapping: Mapping[str, object] | None = None,
    strict: bool = False,
    subjects: Sequence[str] = (),
    shots: int = 0,
    shots_from: PathLike | None = None,
    chat_template: PathLike | None = None,
    settings: CaptureSettings | None = None,
    timeout_s: float | None = None,
    cache: bool = True,
    on_progress: OnProgress | None = None,
) -> PlanResult:
    """Tokens, time and memory that running all questions would take; each model is loaded and probed for a moment.

    Parameters are as in `fit`.

    Raises
    ------
    InputError, ModelError: as `fit`.
    """
    from edgecal.calibration import Method
    from edgecal.gguf import find_shards
    from edgecal.pair.check import check_not_itself, check_pair
    from edgecal.pair.run import plan_model

    layers = Method(method).needs_layers
    options = settle_run(settings, timeout_s, cache)
    base_shards, chat_shards = find_shards(Path(base)), find_shards(Path(chat))
    check_not_itself(base_shards, chat_shards)
    warnings = check_pair(base_shards, chat_shards, layers=layers)
    questions = QuestionOptions(
        template=template,
        limit=limit,
        seed=seed,
        format=format,
        mapping=mapping,
        strict=strict,
        subjects=subjects,
        shots=shots,
        shots_from=shots_from,
        chat_template=chat_template,
    )
    loaded = load_questions(prompts, questions, chat_header=chat_shards.header)
    sides: list[tuple[str, str, Callable[[LoadedQuestions], Sequence[Prompt]]]] = [
        (str(base_shards.path), "base", lambda questions: questions.base),
        (str(chat_shards.path), "chat", lambda questions: questions.chat),
    ]

    def plan_models(questions: LoadedQuestions) -> dict[str, dict[str, Any]]:
        show = on_observe(on_progress)
        return {
            role: {
                "path": path,
                **asdict(
                    plan_model(path, role, given(questions), layers=layers, options=options, on_progress=show)
                ),
            }
            for path, role, given in sides
        }

    loaded, models = run_those_that_fit(loaded, plan_models, sides, strict=strict, options=options)
    return PlanResult(
        n_questions=len(loaded.pairs),
        data=loaded.describe(questions, with_answers=False),
        models=models,
        seconds=sum(model["seconds"] for model in models.values()),
        settings=options.settings.describe(),
        warnings=[*loaded.warnings(), *warnings],
    )
