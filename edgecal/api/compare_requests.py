"""`edgecal.compare_requests`: what label sums, orders and temperatures bring on a pair's own typed questions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgecal.api.asked import Asked, ask, average_all, describe_requests, find_rows, run_fitting, tell_skipped
from edgecal.api.fit import on_bytes
from edgecal.api.progress import OnProgress, Progress, on_observe
from edgecal.api.provenance import describe_run, describe_runtime, files_sha256
from edgecal.api.requests import RequestSource, read_requests
from edgecal.errors import InputError, ModelError
from edgecal.results import RequestCompareResult

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgecal.calibration import ChoiceLogits, Method
    from edgecal.decisions import DecisionOptions
    from edgecal.pair.pair_capture import PairCapture
    from edgecal.pair.run import RunOptions
    from edgecal.results.requests import ComparedGroup

__all__ = ["compare_requests"]


def compare_requests(
    base: str | Path,
    chat: str | Path,
    requests: RequestSource,
    *,
    method: Method | str = "dual-align",
    decisions: DecisionOptions | None = None,
    n_splits: int = 5,
    fit_share: float = 0.3,
    limit: int | None = None,
    seed: int = 0,
    strict: bool = False,
    shots: int | None = None,
    run: RunOptions | None = None,
    on_progress: OnProgress | None = None,
) -> RequestCompareResult:
    """Compares ways of asking typed questions, and temperatures for them, type by type.

    Parameters
    ----------
    base, chat, requests, decisions, limit, seed, strict, run, on_progress: as in `fit_requests`; questions with
        an "answer" are used, each asked in at least two orders.
    shots: as in `fit_requests`, but None is 4 in any case.
    method: "dual-align", "daca", "naive" or "process", beside "daca" and supervised scaling ("ts").
    n_splits, fit_share: as in `compare`: temperatures are fitted on a share of a type's questions and judged on the
        rest; nothing but "ts" sees an answer.

    Raises
    ------
    InputError: a file, a request or an option is wrong, or no question has an answer; nothing was run.
    ModelError: a model could not be run.
    """
    from edgecal.api.yardstick import MAX_SHOTS, YardstickPrompting
    from edgecal.calibration import Method
    from edgecal.data import SkippedRow
    from edgecal.decisions import TYPES, DecisionOptions, DecisionPrompting
    from edgecal.evaluation.splits import make_splits
    from edgecal.evaluation.typed_rows import compare_ways
    from edgecal.gguf.shards import find_shards
    from edgecal.pair.compatibility import check_not_itself
    from edgecal.pair.run import RunOptions
    from edgecal.stamping.decision_record import read_temperatures
    from edgecal.stamping.record import check_not_baked

    chosen = Method.of(method)
    if chosen.name not in ("dual-align", "daca", "naive", "process"):
        raise InputError(
            f"method {chosen.name} is no label-free method; expected dual-align, daca, naive or process"
        )
    if n_splits < 1:
        raise InputError(f"the number of splits must be at least 1, got {n_splits}")
    if limit is not None and limit < 1:
        raise InputError(f"the limit of questions must be at least 1, got {limit}")
    make_splits(2, range(seed, seed + n_splits), fit_share)  # refuses a share or a seed before the run
    options = run or RunOptions()
    base_shards, chat_shards = find_shards(Path(base)), find_shards(Path(chat))
    check_not_itself(base_shards, chat_shards)
    for shards in (base_shards, chat_shards):
        check_not_baked(shards.header, "comparing methods on it")
    own = read_temperatures(chat_shards.header)
    way = (decisions or DecisionOptions()).for_file(own)
    if way.readout == "texts":
        raise InputError('labels are compared, and the readout "texts" has none; use "labels" or "letters"')
    prompting = DecisionPrompting.for_file(way, chat_shards.header)
    read = read_requests(requests, strict=strict)
    labelled = [one for one in read.questions if one.answer is not None]
    unlabelled = [
        SkippedRow(one.source, "there is no answer") for one in read.questions if one.answer is None
    ]
    if not labelled or (strict and unlabelled):
        raise InputError(f'{unlabelled[0].where}: there is no "answer", and judging needs one')
    promptings: dict[str, DecisionPrompting] = {
        "base": YardstickPrompting(prompting, way.template, MAX_SHOTS if shots is None else shots),
        "chat": prompting,
    }
    asked, unasked = ask(labelled, promptings, way, limit=limit, seed=seed, strict=strict, least_orders=2)
    paths = {"base": str(base_shards.path), "chat": str(chat_shards.path)}
    asked, (captured, no_layers), misfits = run_fitting(
        asked,
        lambda those: _capture(paths, those, options, on_progress),
        paths,
        strict=strict,
        options=options,
    )
    bare = _capture_bare(paths["chat"], asked, options, on_progress)
    if on_progress is not None:
        on_progress(Progress("judge"))
    logits = _merge(asked, captured, way)
    sums = _ways(asked, captured.logits.chat_final)
    used = [own.find(one.kind, one.n_options) for one in asked] if own.general or own.typed else None
    groups: list[ComparedGroup] = []
    few = []
    for kind in TYPES:
        those = np.array([at for at, one in enumerate(asked) if one.kind == kind], dtype=np.int64)
        if len(those) < 2:
            few += [f"{kind}: one question cannot be split, so it is left out"] * len(those)
            continue
        splits = make_splits(len(those), range(seed, seed + n_splits), fit_share)
        plain_logits = bare[kind]
        bares = (
            (plain_logits, plain_logits)
            if isinstance(plain_logits, str)
            else _ways([asked[at] for at in those], plain_logits)
        )
        rows = compare_ways(
            logits.take(those),
            {"bare": bares[0], "sums": sums[0][those], "orders": bares[1], "sums-orders": sums[1][those]},
            None if used is None else [used[at] for at in those],
            splits,
            chosen,
            no_layers,
        )
        groups.append({"name": kind, "n_questions": len(those), "rows": rows})
    skipped = [*read.skipped, *unlabelled, *unasked, *misfits]
    return RequestCompareResult(
        groups=groups,
        readout=str(way.readout),
        orders=str(way.orders),
        prompt_sha256=prompting.sha256,
        requests=describe_requests(read, asked, skipped, limit),
        n_splits=n_splits,
        fit_share=fit_share,
        seed=seed,
        models={
            "base": {
                **describe_run(base_shards, captured.base),
                "sha256": files_sha256(base_shards, options.cache_folder, on_bytes(on_progress, "hash")),
            },
            "chat": describe_run(chat_shards, captured.chat),
        },
        runtime=describe_runtime(captured.chat, captured.settings),
        warnings=list(
            dict.fromkeys(
                [
                    *read.warnings(),
                    *tell_skipped([*unlabelled, *unasked, *misfits]),
                    *few,
                    *captured.warnings(yardstick=False),
                ]
            )
        ),
    )


def _capture(
    paths: dict[str, str], asked: Sequence[Asked], options: RunOptions, on_progress: OnProgress | None
) -> tuple[PairCapture, str | None]:
    """Both models' logits, with layers if these can be compared, else with the reason why not."""
    from edgecal.api.capture import capture

    def capture_with(layers: bool) -> PairCapture:
        prompts = {role: [prompt for one in asked for prompt in one.prompts[role]] for role in paths}
        return capture(
            paths["base"],
            paths["chat"],
            prompts["base"],
            chat_prompts=prompts["chat"],
            layers=layers,
            run=options,
            on_progress=on_progress,
        )

    try:
        return capture_with(True), None
    except (InputError, ModelError) as error:
        # An error that is not about the layers comes up again without them, and the second run raises it.
        return capture_with(False), str(error)


def _capture_bare(
    path: str, asked: Sequence[Asked], options: RunOptions, on_progress: OnProgress | None
) -> dict[str, NDArray[np.float32] | str]:
    """The chat model's logits of the bare labels by type of question, float32 [n_prompts, k], or why there are none."""
    from edgecal.pair.run import capture_model

    found: dict[str, NDArray[np.float32] | str] = {}
    for kind in dict.fromkeys(one.kind for one in asked):
        prompts = [
            replace(prompt, labels_alone=True, source="")
            for one in asked
            if one.kind == kind
            for prompt in one.prompts["chat"]
        ]
        try:
            seen = capture_model(
                path,
                "chat",
                prompts,
                layers=False,
                options=options,
                on_progress=on_observe(on_progress, "permute"),
            )
        except InputError as error:
            found[kind] = str(error).removeprefix(": ")
        else:
            found[kind] = seen.final_logits
    return found


def _merge(asked: Sequence[Asked], captured: PairCapture, way: DecisionOptions) -> ChoiceLogits:
    """Both models' logits as `decide` divides them."""
    from edgecal.calibration import ChoiceLogits

    flat = captured.logits
    rows = find_rows(asked, flat.chat_final, way)
    return ChoiceLogits(
        base_final=average_all(asked, rows, flat.base_final),
        chat_final=average_all(asked, rows, flat.chat_final),
        base_layers=None if flat.base_layers is None else average_all(asked, rows, flat.base_layers),
        chat_layers=None if flat.chat_layers is None else average_all(asked, rows, flat.chat_layers),
        n_choices=np.array([one.n_options for one in asked], dtype=np.int32),
        labels=np.array([one.question.answer for one in asked], dtype=np.int32),
    )


def _ways(
    asked: Sequence[Asked], by_place: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits in the order given, and averaged over all orders that were run; `by_place` of all prompts."""
    starts = np.cumsum([0, *(len(one.orders) for one in asked)]).tolist()
    first = [range(start, start + 1) for start in starts[:-1]]
    every = [range(start, end) for start, end in itertools.pairwise(starts)]
    return average_all(asked, first, by_place), average_all(asked, every, by_place)
