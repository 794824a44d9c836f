"""`edgecal.plan`: estimates what a fit would cost, before it is run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgecal.api.labels import add_labels
from edgecal.api.progress import OnProgress, on_observe
from edgecal.api.provenance import describe_settings
from edgecal.api.questions import PathLike, PromptSource, QuestionOptions, load_questions, run_those_that_fit
from edgecal.results import PlanResult

if TYPE_CHECKING:
    from edgecal.api.questions import LoadedQuestions
    from edgecal.calibration import Method
    from edgecal.pair.run import RunOptions
    from edgecal.prompts import Prompt
    from edgecal.results.fitting import PlannedModels

__all__ = ["plan"]


def plan(
    base: PathLike,
    chat: PathLike,
    prompts: PromptSource | None = None,
    *,
    method: Method | str = "dual-align",
    labels: PromptSource | None = None,
    questions: QuestionOptions | None = None,
    run: RunOptions | None = None,
    on_progress: OnProgress | None = None,
) -> PlanResult:
    """Tokens, time and memory that running all questions would take; each model is loaded and probed for a moment.

    Parameters are as in `fit`.

    Raises
    ------
    InputError, ModelError: as `fit`.
    """
    from edgecal.calibration import Method
    from edgecal.gguf.shards import find_shards
    from edgecal.pair.compatibility import check_not_itself, check_pair
    from edgecal.pair.run import RunOptions, plan_model

    chosen = Method.of(method)
    layers = chosen.needs_layers
    asked, options = questions or QuestionOptions(), run or RunOptions()
    base_shards, chat_shards = find_shards(Path(base)), find_shards(Path(chat))
    check_not_itself(base_shards, chat_shards)
    warnings = check_pair(base_shards, chat_shards, layers=layers)
    loaded = load_questions(prompts, asked, chat_header=chat_shards.header)
    loaded = add_labels(loaded, chosen, labels, asked)
    sides: list[tuple[str, str, Callable[[LoadedQuestions], Sequence[Prompt]]]] = [
        (str(base_shards.path), "base", lambda given: given.base),
        (str(chat_shards.path), "chat", lambda given: given.chat),
    ]

    def plan_models(given: LoadedQuestions) -> PlannedModels:
        show = on_observe(on_progress)
        base, chat = (
            plan_model(path, role, prompts_of(given), layers=layers, options=options, on_progress=show)
            for path, role, prompts_of in sides
        )
        return {"base": base, "chat": chat}

    loaded, models = run_those_that_fit(loaded, plan_models, sides, strict=asked.strict, options=options)
    return PlanResult(
        n_questions=len(loaded.pairs),
        data=loaded.describe(asked, with_answers=False),
        models=models,
        seconds=models["base"]["seconds"] + models["chat"]["seconds"],
        settings=describe_settings(options.settings),
        warnings=[*loaded.warnings(), *warnings],
    )
