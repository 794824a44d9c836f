"""`edgecal.evaluate_requests`: judges one model's answers to typed questions, as they are and with the file's
temperatures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgecal.api.asked import (
    Asked,
    ask,
    average,
    average_all,
    compute_sha256,
    find_rows,
    run_fitting,
    tell_skipped,
)
from edgecal.api.evaluate import LEVEL, check_bootstrap, describe_bootstrap
from edgecal.api.progress import OnProgress, Progress, on_observe
from edgecal.api.provenance import describe_model, describe_runtime, model_name
from edgecal.api.requests import RequestSource, read_requests
from edgecal.errors import InputError
from edgecal.results import EvalResult

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgecal.decisions import DecisionOptions
    from edgecal.pair.model_capture import ModelCapture
    from edgecal.pair.run import RunOptions
    from edgecal.results.judging import AskedQuestion

__all__ = ["evaluate_requests"]

_SHOWN_SKIPPED = 20


def evaluate_requests(
    model: str | Path,
    requests: RequestSource,
    *,
    temperature: float | None = None,
    decisions: DecisionOptions | None = None,
    limit: int | None = None,
    seed: int = 0,
    strict: bool = False,
    n_bootstrap: int = 1000,
    run: RunOptions | None = None,
    on_progress: OnProgress | None = None,
) -> EvalResult:
    """Judges one model's answers to typed questions whose right answers are known.

    Parameters
    ----------
    model: a GGUF file; of a split model the first shard.
    requests: files (`-` is standard input), requests as dicts, or `Request` objects; see `edgecal.api.requests`. Of
        their questions those with an "answer" are judged: true or false, an option's name, a level's number.
    temperature: what all logits are divided by for the figures "after"; None takes the file's temperatures, by type
        and number of options, and without any there are no such figures.
    decisions: how questions are asked: readout ("labels" or "letters"), orders and templates. What it leaves open is as
        the file says, else the default. Each question is asked in at least two orders, to see whether its answer
        depends on them; figures are of the orders that were asked for.
    limit: draw this many questions, by `seed`; None takes all.
    seed: of that draw and of the resamples.
    strict: a request that breaks the format's rules, or a question that has no answer or does not fit the model, is an
        error.
    n_bootstrap: resamples of the intervals; 0 gives none.
    run, on_progress: as in `fit`.

    Returns
    -------
    Figures with intervals before and after, overall and by type, and in `typed` label mass, order flips and cost.

    Raises
    ------
    InputError: a file, a request (if `strict`) or an option is wrong, or no question has an answer.
    ModelError: the model could not be run.
    """
    from edgecal.data import SkippedRow
    from edgecal.decisions import DecisionOptions, DecisionPrompting, UsedTemperature
    from edgecal.evaluation.judged_sets import judge_parts, list_wrong, picture_judged
    from edgecal.evaluation.typed_groups import group_names, judge_groups, judge_typed
    from edgecal.evaluation.verdict import write_evaluation
    from edgecal.gguf.model_checks import check_model
    from edgecal.gguf.shards import find_shards
    from edgecal.pair.model_capture import warn_of_mass
    from edgecal.pair.run import RunOptions, capture_model
    from edgecal.stamping.decision_record import doubts_of_groups, read_temperatures
    from edgecal.stamping.record import baked_temperature

    check_bootstrap(n_bootstrap)
    if temperature is not None and not (math.isfinite(temperature) and temperature > 0):
        raise InputError(f"the temperature is {temperature}, expected a finite number above 0")
    if limit is not None and limit < 1:
        raise InputError(f"the limit of questions must be at least 1, got {limit}")
    if not 0 <= seed < 2**64:
        raise InputError(f"the seed is {seed}, expected 0 to 2^64 - 1")
    run_options = run or RunOptions()
    shards = find_shards(Path(model))
    check_model(shards.header)
    own = read_temperatures(shards.header)
    baked = baked_temperature(shards.header)
    way = (decisions or DecisionOptions()).for_file(own)
    if way.readout == "texts":
        raise InputError(
            'labels are judged, and the readout "texts" has none; evaluate with the readout "labels" or "letters"'
        )
    prompting = DecisionPrompting.for_file(way, shards.header)
    read = read_requests(requests, strict=strict)
    labelled = [one for one in read.questions if one.answer is not None]
    unlabelled = [
        SkippedRow(one.source, "there is no answer") for one in read.questions if one.answer is None
    ]
    if unlabelled and (strict or not labelled):
        raise InputError(
            f'{unlabelled[0].where}: there is no "answer", and judging needs one: true or false, the name of an '
            "option, or the number of a level"
        )
    asked, unasked = ask(
        labelled, {"model": prompting}, way, limit=limit, seed=seed, strict=strict, least_orders=2
    )

    def capture(those: Sequence[Asked]) -> ModelCapture:
        return capture_model(
            str(shards.path),
            "model",
            [prompt for one in those for prompt in one.prompts["model"]],
            layers=False,
            options=run_options,
            on_progress=on_observe(on_progress, "run"),
        )

    asked, seen, misfits = run_fitting(
        asked, capture, {"model": str(shards.path)}, strict=strict, options=run_options
    )
    if on_progress is not None:
        on_progress(Progress("judge"))
    rows = find_rows(asked, seen.final_logits, way)
    starts = [those.start for those in rows]
    counts = [len(those) for those in rows]
    logits = average_all(asked, rows, seen.final_logits)
    n_choices = np.array([one.n_options for one in asked], dtype=np.int32)
    labels = np.array([one.question.answer for one in asked], dtype=np.int32)
    kinds = [one.kind for one in asked]
    if temperature is None:
        has_any = bool(own.typed) or (own.general is not None and baked is None)
        used = [own.find(one.kind, one.n_options) for one in asked]
    else:
        has_any, used = True, [UsedTemperature(temperature)] * len(asked)
    before = judge_typed(logits, n_choices, labels, [UsedTemperature()] * len(asked))
    after = judge_typed(logits, n_choices, labels, used) if has_any else None
    figures, by_type = judge_parts(before, after, kinds, n_bootstrap=n_bootstrap, level=LEVEL, seed=seed)
    assert seen.token_counts is not None
    first_tokens = seen.token_counts[starts, 0]
    label_mass = np.array([seen.choice_mass[those.start : those.stop].mean() for those in rows])
    groups = judge_groups(
        group_names(kinds, n_choices),
        used if has_any else None,
        label_mass,
        np.array([_flips(one, seen.final_logits[start:]) for start, one in zip(starts, asked, strict=True)]),
        np.array(counts),
        first_tokens + [seen.token_counts[those.start + 1 : those.stop, 1].sum() for those in rows],
        first_tokens,
        n_bootstrap=n_bootstrap,
        level=LEVEL,
        seed=seed,
    )
    source: Literal["option", "file", "baked"] | None
    source = "option" if temperature is not None else "file" if has_any else None
    if baked is not None and not has_any:
        source = "baked"
    found = {one.temperature for one in used} if has_any else set()
    single = found.pop() if len(found) == 1 else None
    skipped = [*read.skipped, *unlabelled, *unasked, *misfits]
    chat = prompting.chat_template
    prompts = [prompt for one in asked for prompt in one.prompts["model"]]
    return EvalResult(
        verdict=write_evaluation(
            model_name(shards),
            figures["before"],
            figures["after"],
            figures["difference"],
            single,
            n_questions=len(asked),
            baked=baked,
            several=has_any and single is None,
        ),
        model=describe_model(shards, seen),
        data={
            "files": list(read.files),
            "formats": ["requests"] * len(read.files),
            "decisions": [],
            "n_read": len(read.requests) + len(read.skipped),
            "n_questions": len(asked),
            "n_skipped": len(skipped),
            "skipped": [{"where": row.where, "reason": row.reason} for row in skipped[:_SHOWN_SKIPPED]],
            "sha256": compute_sha256(asked),
            "limit": limit,
            "seed": seed,
            "subjects": None,
        },
        prompting={
            "template": prompting.name,
            "shots": 0,
            "chat_template": None if chat is None else chat.name,
            "choice_mass": {"model": float(label_mass.mean())},
            "effects": [],
        },
        temperature={"value": single, "source": source},
        typed={
            "readout": str(way.readout),
            "orders": str(way.orders),
            "prompt_sha256": prompting.sha256,
            "groups": groups,
        },
        figures=figures,
        subjects=by_type,
        plots=picture_judged(None, before, after),
        wrong=list_wrong([_describe(one) for one in asked], before, after),
        bootstrap=describe_bootstrap(n_bootstrap, seed),
        runtime=describe_runtime(seen, run_options.settings),
        warnings=list(
            dict.fromkeys(
                [
                    *([] if temperature is not None else doubts_of_groups(shards.header)),
                    *(one.doubt for one in used if has_any and one.doubt is not None),
                    *read.warnings(),
                    *tell_skipped([*unlabelled, *unasked, *misfits]),
                    *([] if chat is None or chat.warning is None else [chat.warning]),
                    *warn_of_mass("the model", seen, prompts, divided=baked is not None),
                ]
            )
        ),
    )


def _flips(one: Asked, by_place: NDArray[np.float32]) -> bool:
    """Whether the likeliest option differs between the orders; `by_place` as for `average`."""
    answers = {
        int(average([order], by_place[at : at + 1])[: one.n_options].argmax())
        for at, order in enumerate(one.orders)
    }
    return len(answers) > 1


def _describe(one: Asked) -> AskedQuestion:
    """The question for people."""
    from edgecal.decisions.questions import write_value

    question = one.question.question
    parts = [one.question.state, question.instructions]
    options = [
        key if description is None else f"{key}: {write_value(description)}"
        for key, description in zip(question.keys, question.descriptions, strict=True)
    ]
    return {
        "where": one.question.source,
        "subject": question.type,
        "question": "\n\n".join(write_value(part) for part in parts if part is not None),
        "choices": options,
    }
