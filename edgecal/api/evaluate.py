"""`edgecal.evaluate`: judges one model's accuracy and calibration on labelled questions, as it is and with a
temperature."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgecal.api.extra_runs import DEFAULT_EFFECT_SAMPLE, measure_effects
from edgecal.api.progress import OnProgress, Progress, on_observe
from edgecal.api.provenance import describe_model, describe_runtime, model_name
from edgecal.api.questions import PathLike, PromptSource, QuestionOptions, load_questions, run_those_that_fit
from edgecal.errors import InputError
from edgecal.results import EvalResult

if TYPE_CHECKING:
    from edgecal.pair.model_capture import ModelCapture
    from edgecal.pair.run import RunOptions
    from edgecal.prompts import PromptPair
    from edgecal.results.judging import Bootstrap

__all__ = ["LEVEL", "check_bootstrap", "describe_bootstrap", "evaluate"]

LEVEL = 0.95


def evaluate(
    model: PathLike,
    data: PromptSource,
    *,
    temperature: float | None = None,
    questions: QuestionOptions | None = None,
    n_bootstrap: int = 1000,
    effect_sample: int = DEFAULT_EFFECT_SAMPLE,
    run: RunOptions | None = None,
    on_progress: OnProgress | None = None,
) -> EvalResult:
    """Judges one model on questions with answers.

    Parameters
    ----------
    model: a GGUF file; of a split model the first shard.
    data: files or folders (see `edgecal.data`), or records (see `fit`).
    temperature: what to divide the logits by for the figures "after"; None takes the file's
        `edgecal.temperature`, and without one there are no such figures.
    questions: how questions are read and put; its seed also draws the resamples.
    n_bootstrap: resamples of the intervals; 0 gives none.
    effect_sample: questions on which the parts of the prompting are tried alone, 0 for none.
    run, on_progress: as in `fit`.

    Returns
    -------
    Figures with intervals before and after, overall and by subject, and what pictures need.

    Raises
    ------
    InputError: a file, a row (if `questions.strict`) or an option is wrong, or no question has an answer.
    ModelError: the model could not be run.
    """
    from edgecal.evaluation.baselines import judge_logits
    from edgecal.evaluation.judged_sets import judge_parts, list_wrong, picture_judged
    from edgecal.evaluation.verdict import write_evaluation
    from edgecal.gguf.model_checks import check_model
    from edgecal.gguf.shards import find_shards
    from edgecal.pair.model_capture import warn_of_mass
    from edgecal.pair.pair_capture import warn_of_repeats
    from edgecal.pair.run import RunOptions, capture_model
    from edgecal.stamping.record import baked_temperature, read_calibration, read_doubts

    check_bootstrap(n_bootstrap)
    if temperature is not None and not (math.isfinite(temperature) and temperature > 0):
        raise InputError(f"the temperature is {temperature}, expected a finite number above 0")
    asked, run_options = questions or QuestionOptions(), run or RunOptions()
    shards = find_shards(Path(model))
    check_model(shards.header)
    record = read_calibration(shards.header)
    baked = baked_temperature(shards.header)
    source: Literal["option", "file", "baked"] | None
    source = "option" if temperature is not None else "file" if record is not None else None
    if baked is not None and temperature is None:
        source = "baked"  # the weights are divided already
    elif temperature is None and record is not None:
        temperature = record.temperature
    loaded = load_questions(data, asked, chat_header=shards.header, labelled=True)
    path = str(shards.path)

    def observe_chat(stage: str, pairs: Sequence[PromptPair]) -> ModelCapture:
        return capture_model(
            path,
            "model",
            [pair.chat for pair in pairs],
            layers=False,
            options=run_options,
            on_progress=on_observe(on_progress, stage),
        )

    loaded, seen = run_those_that_fit(
        loaded,
        lambda given: observe_chat("run", given.pairs),
        [(path, "model", lambda given: given.chat)],
        strict=asked.strict,
        options=run_options,
    )
    mass = {"model": seen.choice_mass}
    effects, remarks = measure_effects(
        loaded, mass, effect_sample, lambda pairs: {"model": observe_chat("effects", pairs).choice_mass}
    )
    if on_progress is not None:
        on_progress(Progress("judge"))
    n_choices, labels = loaded.n_choices, loaded.labels
    before = judge_logits(seen.final_logits, n_choices, labels)
    after = None if temperature is None else judge_logits(seen.final_logits, n_choices, labels, temperature)
    figures, subject_rows = judge_parts(
        before, after, loaded.subjects, n_bootstrap=n_bootstrap, level=LEVEL, seed=asked.seed
    )
    name = model_name(shards)
    return EvalResult(
        verdict=write_evaluation(
            name,
            figures["before"],
            figures["after"],
            figures["difference"],
            temperature,
            n_questions=len(labels),
            baked=baked,
        ),
        model=describe_model(shards, seen),
        data=loaded.describe(asked),
        prompting={
            **loaded.describe_prompting(),
            "choice_mass": {"model": float(seen.choice_mass.mean())},
            "effects": effects,
        },
        temperature={"value": temperature, "source": source},
        figures=figures,
        subjects=subject_rows,
        plots=picture_judged(None, before, after),
        wrong=list_wrong(loaded.describe_pairs(), before, after),
        bootstrap=describe_bootstrap(n_bootstrap, asked.seed),
        runtime=describe_runtime(seen, run_options.settings),
        warnings=[
            *([] if source == "option" else read_doubts(shards.header)),
            *loaded.warnings(),
            *remarks,
            *warn_of_repeats(loaded.chat),
            *warn_of_mass("the model", seen, loaded.chat, divided=baked is not None),
        ],
    )


def check_bootstrap(n_bootstrap: int) -> None:
    """Raises InputError unless the number of resamples is 0 or enough for an interval."""
    from edgecal.api.fit import MIN_BOOTSTRAP

    if n_bootstrap != 0 and n_bootstrap < MIN_BOOTSTRAP:
        raise InputError(
            f"an interval needs at least {MIN_BOOTSTRAP} resamples (0 for no intervals), got {n_bootstrap}"
        )


def describe_bootstrap(n_bootstrap: int, seed: int) -> Bootstrap:
    """How the intervals were made."""
    from edgecal.evaluation.judged_sets import SUBJECT_BOOTSTRAP

    n_by_subject = min(n_bootstrap, SUBJECT_BOOTSTRAP)
    return {"n": n_bootstrap, "n_by_subject": n_by_subject, "level": LEVEL, "seed": seed}
