"""`edgecal.fit_requests`: fits a temperature for each type and size of question from requests without labels.

Each question is asked in all of its orders of both models, the labels' forms are summed and the orders averaged at
every layer alike, and the fit sees the result: the logits that `decide` divides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgecal.api.asked import Asked, ask, average_all, describe_requests, find_rows, run_fitting
from edgecal.api.fit import LEVEL, MIN_BOOTSTRAP, OutputOptions, on_bytes, open_pair, plan_file
from edgecal.api.progress import OnProgress, Progress, on_observe
from edgecal.api.provenance import describe_run, describe_runtime, files_sha256
from edgecal.api.requests import RequestSource, read_requests, request_files
from edgecal.errors import InputError, NotIdentifiedError, UnsettledError
from edgecal.results import RequestFitResult

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgecal.calibration import ChoiceLogits, Method
    from edgecal.data import SkippedRow
    from edgecal.decisions import DecisionOptions
    from edgecal.gguf.shards import ShardSet
    from edgecal.pair.model_capture import ModelCapture
    from edgecal.pair.pair_capture import PairCapture
    from edgecal.pair.run import RunOptions
    from edgecal.results.requests import FittedGroup, NoulBias

__all__ = ["fit_requests"]

_SAMPLE = 64  # questions that tell whether the base model needs worked examples
_METHODS = ("dual-align", "daca", "naive", "process")
_ADVICE = "another base model may settle it; --unsettled writes it all the same, marked so"
_MASS_ADVICE = "try another --readout or --template, or another base model"


def fit_requests(
    base: str | Path,
    chat: str | Path,
    requests: RequestSource,
    *,
    method: Method | str = "dual-align",
    decisions: DecisionOptions | None = None,
    shots: int | None = None,
    limit: int | None = None,
    seed: int = 0,
    strict: bool = False,
    run: RunOptions | None = None,
    output: OutputOptions | None = None,
    n_bootstrap: int = 1000,
    on_progress: OnProgress | None = None,
) -> RequestFitResult:
    """Fits a temperature for each type of question, and for each type and number of options, that requests hold.

    Parameters
    ----------
    base, chat: GGUF files; of a split model the first shard.
    requests: files (`-` is standard input), requests as dicts, or `Request` objects; see `edgecal.api.requests`. Their
        order does not matter. An "answer" beside a question is a label: it checks the temperatures, and gives yes/no
        questions scale and bias, but no label-free fit sees it.
    method: "dual-align", "daca", "naive" or "process"; a `Method` also says which variant.
    decisions: how questions are asked: readout ("labels" or "letters"), orders and templates. What it leaves open is
        as the chat model's file says, else the default. The base model is asked in plain text.
    shots: worked examples that the base model is shown before each question, 0 to 4; None: 4 if it has too little of
        its probability on the labels without them, else 0. See `edgecal.api.yardstick`.
    limit: draw this many questions, by `seed`; None takes all.
    seed: of that draw, of the resamples and of the folds of labels.
    strict: a request that breaks the format's rules, or a question that does not fit a model, is an error.
    run: how models are run, and whether their outputs are cached.
    output: where the temperatures are written; None writes nothing. Its sampling key is not used.
    n_bootstrap: resamples of the intervals.
    on_progress: called now and then.

    Returns
    -------
    The result. Only groups that are settled are written, unless `output` says otherwise.

    Raises
    ------
    InputError: a file, a request or an option is wrong; nothing was run or written.
    ModelError: a model could not be run, or the lens does not fit it.
    UnsettledError: no group is settled; nothing was written. Its `warnings` are the reasons, one line each, its
        `result` what would have been returned.
    OutputError: the file could not be written; what was there is intact.
    """
    from edgecal.api.yardstick import MAX_SHOTS, YardstickPrompting
    from edgecal.calibration import Method
    from edgecal.decisions import DecisionOptions, DecisionPrompting
    from edgecal.pair.run import RunOptions
    from edgecal.stamping.changes import decision_edits
    from edgecal.stamping.decision_record import DecisionRecord, read_temperatures
    from edgecal.stamping.edit import write_calibrated
    from edgecal.stamping.fit_record import decisions_of_result

    chosen = Method.of(method)
    if chosen.name not in _METHODS:
        raise InputError(
            f"method {chosen.name} does not fit requests, which have no labels to rely on; expected one of "
            f"{', '.join(_METHODS)}"
        )
    if n_bootstrap < MIN_BOOTSTRAP:
        raise InputError(f"an interval needs at least {MIN_BOOTSTRAP} resamples, got {n_bootstrap}")
    if limit is not None and limit < 1:
        raise InputError(f"the limit of questions must be at least 1, got {limit}")
    if not 0 <= seed < 2**64:
        raise InputError(f"the seed is {seed}, expected 0 to 2^64 - 1")
    if not isinstance(requests, (str, Path, dict)):
        requests = list(requests)  # an iterator can be read only once
    options, output = run or RunOptions(), output or OutputOptions()
    base_shards, chat_shards = open_pair(base, chat, force_baked=output.force_baked)
    way = (decisions or DecisionOptions()).for_file(read_temperatures(chat_shards.header))
    if way.readout == "texts":
        raise InputError(
            'a fit reads labels, and the readout "texts" has none; fit with the readout "labels" or "letters"'
        )
    prompting = DecisionPrompting.for_file(way, chat_shards.header)
    read = read_requests(requests, strict=strict)

    def ask_with(n_shots: int) -> tuple[list[Asked], list[SkippedRow]]:
        yardstick = YardstickPrompting(prompting, way.template, n_shots)
        promptings = {"base": yardstick, "chat": prompting}
        return ask(read.questions, promptings, way, limit=limit, seed=seed, strict=strict)

    drawn, skipped = ask_with(shots or 0)
    named = [path for path in (way.template, way.chat_template) if isinstance(path, (str, Path))]
    inputs = [*base_shards.paths, *request_files(requests), *(Path(path) for path in named if _is_file(path))]
    plan = plan_file(chat_shards, output, inputs)
    if plan is not None:  # refuses a file whose keys cannot be replaced now rather than after the run
        decision_edits(chat_shards.header, DecisionRecord(), force_baked=output.force_baked)
    if shots is None:
        used = 0 if _is_yardstick(drawn, base_shards, chosen, options, on_progress) else MAX_SHOTS
        drawn, skipped = ask_with(used) if used else (drawn, skipped)
    else:
        used = shots
    asked, captured, misfits = _run(
        drawn, base_shards, chat_shards, chosen, options, strict=strict, on_progress=on_progress
    )
    if on_progress is not None:
        on_progress(Progress("fit"))
    merged = _merge(asked, captured, way)
    groups, bias, share_at_bound = _fit_groups(merged, chosen, n_bootstrap, seed)
    lens_errors = {
        role: one.lens_error
        for role, one in (("base", captured.base), ("chat", captured.chat))
        if one.lens_error is not None
    }
    all_skipped = [*read.skipped, *skipped, *misfits]
    chat_template = prompting.chat_template
    remarks = [
        *read.warnings(),
        *(f"skipped: {row.reason}" for row in [*skipped, *misfits]),
        *([] if chat_template is None or chat_template.warning is None else [chat_template.warning]),
        *captured.warnings(yardstick=False),
    ]
    result = RequestFitResult(
        groups=groups,
        noul_bias=bias,
        method=chosen.name,
        variant=chosen.variant,
        readout=str(way.readout),
        orders=str(way.orders),
        shots=used,
        prompt_sha256=prompting.sha256,
        requests=describe_requests(read, asked, all_skipped, limit),
        output=None,
        siblings=[],
        bootstrap={"n": n_bootstrap, "level": LEVEL, "seed": seed, "share_at_bound": share_at_bound},
        models={
            "base": {
                **describe_run(base_shards, captured.base),
                "sha256": files_sha256(base_shards, options.cache_folder, on_bytes(on_progress, "hash")),
            },
            "chat": describe_run(chat_shards, captured.chat),
        },
        lens=lens_errors or None,
        runtime=describe_runtime(captured.chat, captured.settings),
        warnings=list(dict.fromkeys(remarks)),
    )
    reasons = [f"{group['name']}: {reason}" for group in groups for reason in group["reasons"]]
    usable = [
        group
        for group in groups
        if group["temperature"] is not None and (group["settled"] or output.unsettled)
    ]
    if not usable:
        raise UnsettledError(
            "no temperature of any type is settled, and nothing was written"
            + ("" if output.unsettled else "; --unsettled writes those that were found, marked so"),
            reasons,
            result,
        )
    if plan is None:
        return result
    siblings = write_calibrated(
        chat_shards,
        plan,
        decisions_of_result(result.to_dict(), "the fit", unsettled=output.unsettled),
        force_baked=output.force_baked,
        on_progress=on_bytes(on_progress, "write"),
    )
    return replace(result, output=str(plan.path), siblings=siblings)


def _is_yardstick(
    asked: Sequence[Asked],
    base: ShardSet,
    method: Method,
    options: RunOptions,
    on_progress: OnProgress | None,
) -> bool:
    """Whether the base model, without examples, puts enough of its probability on the labels of some questions."""
    from edgecal.calibration import doubt_mass
    from edgecal.pair.run import capture_model

    def capture(those: Sequence[Asked]) -> ModelCapture:
        return capture_model(
            str(base.path),
            "base",
            [one.prompts["base"][0] for one in those],
            layers=method.needs_layers,  # so that the run takes them from the cache
            options=options,
            on_progress=on_observe(on_progress),
        )

    paths = {"base": str(base.path)}
    _, seen, _ = run_fitting(asked[:_SAMPLE], capture, paths, strict=False, options=options)
    return not doubt_mass(float(seen.choice_mass.mean()))


def _run(
    asked: Sequence[Asked],
    base: ShardSet,
    chat: ShardSet,
    method: Method,
    options: RunOptions,
    *,
    strict: bool,
    on_progress: OnProgress | None,
) -> tuple[list[Asked], PairCapture, list[SkippedRow]]:
    """Runs both models over the questions that fit them; returns these, the capture of all of their prompts, and the
    others."""
    from edgecal.pair.compatibility import check_pair
    from edgecal.pair.pair_capture import capture_pair

    pair_warnings = check_pair(base, chat, layers=method.needs_layers)

    def capture(those: Sequence[Asked]) -> PairCapture:
        return capture_pair(
            str(base.path),
            str(chat.path),
            [prompt for one in those for prompt in one.prompts["base"]],
            chat_prompts=[prompt for one in those for prompt in one.prompts["chat"]],
            layers=method.needs_layers,
            options=options,
            pair_warnings=pair_warnings,
            on_progress=on_observe(on_progress),
        )

    paths = {"base": str(base.path), "chat": str(chat.path)}
    return run_fitting(asked, capture, paths, strict=strict, options=options)


@dataclass(frozen=True, eq=False)
class _Merged:
    """The questions that were run, their orders averaged.

    Attributes
    ----------
    asked: n questions.
    logits: of each question's options in the order given: the mean over its orders of their log-probabilities.
    masses: float64 [n], by role: mean over the orders of the probability of all labels.
    captured: of all prompts; `rows` says which are a question's.
    """

    asked: Sequence[Asked]
    logits: ChoiceLogits
    masses: dict[str, NDArray[np.float64]]
    captured: PairCapture
    rows: Sequence[range]


def _merge(asked: Sequence[Asked], captured: PairCapture, way: DecisionOptions) -> _Merged:
    from edgecal.calibration import ChoiceLogits

    flat = captured.logits
    rows = find_rows(asked, flat.chat_final, way)
    answers = [one.question.answer for one in asked]
    logits = ChoiceLogits(
        base_final=average_all(asked, rows, flat.base_final),
        chat_final=average_all(asked, rows, flat.chat_final),
        base_layers=None if flat.base_layers is None else average_all(asked, rows, flat.base_layers),
        chat_layers=None if flat.chat_layers is None else average_all(asked, rows, flat.chat_layers),
        n_choices=np.array([one.n_options for one in asked], dtype=np.int32),
        labels=np.array([-1 if answer is None else answer for answer in answers], dtype=np.int32),
    )
    masses = {
        role: np.array([seen.choice_mass[those.start : those.stop].mean() for those in rows])
        for role, seen in (("base", captured.base), ("chat", captured.chat))
    }
    return _Merged(asked, logits, masses, captured, rows)


def _fit_groups(
    merged: _Merged, method: Method, n_bootstrap: int, seed: int
) -> tuple[list[FittedGroup], NoulBias | None, float]:
    """Every group's fit, that of yes/no questions by their labels, and the largest share of refits at a bound."""
    from edgecal.decisions import TYPES, bucket_of
    from edgecal.decisions.temperatures import BUCKETS

    members: dict[str, list[int]] = {}
    for kind in TYPES:
        members[kind] = [at for at, one in enumerate(merged.asked) if one.kind == kind]
        for bucket, _, _ in BUCKETS if kind != "noul" else ():  # of one size, so that their type says it all
            members[f"{kind}.{bucket}"] = [
                at for at in members[kind] if bucket_of(merged.asked[at].n_options) == bucket
            ]
    found = [
        _fit_group(merged, name, rows, method, n_bootstrap, seed) for name, rows in members.items() if rows
    ]
    groups = [group for group, _ in found]
    bias = None
    for group in groups:
        if group["name"] == "noul":
            bias = _fit_bias(merged, group, members["noul"], n_bootstrap, seed)
    return groups, bias, max(share for _, share in found)


def _fit_group(
    merged: _Merged, name: str, rows: list[int], method: Method, n_bootstrap: int, seed: int
) -> tuple[FittedGroup, float]:
    from edgecal.calibration import check_labels, find_doubts, fit_bracket, fit_temperature
    from edgecal.calibration.method import MIN_EXAMPLES
    from edgecal.pair.model_capture import rather_says

    logits = merged.logits.take(rows)
    mass = {role: float(of_all[rows].mean()) for role, of_all in merged.masses.items()}
    bracket = fit_bracket(logits, n_bootstrap=n_bootstrap, seed=seed, level=LEVEL)
    temperature, interval, check, share_at_bound = None, None, None, 0.0
    reasons: list[str] = []
    if len(rows) < MIN_EXAMPLES:
        reasons = [
            f"{len(rows)} questions are too few to determine a temperature, which takes at least {MIN_EXAMPLES}: give "
            "more requests"
        ]
    else:
        prompts = [at for row in rows for at in merged.rows[row]]
        rather = rather_says(merged.captured.base.ordered(prompts))
        reasons += find_doubts(bracket, mass["base"], rather, _MASS_ADVICE, _ADVICE)
        try:
            fitted = fit_temperature(logits, method, n_bootstrap=n_bootstrap, seed=seed, level=LEVEL)
        except NotIdentifiedError as error:
            reasons.insert(0, str(error))
        else:
            temperature, interval = fitted.temperature, list(fitted.interval)
            share_at_bound = fitted.share_at_bound
            check = check_labels(logits, temperature, n_bootstrap=n_bootstrap, seed=seed)
            if check is not None and check.harmful:
                reasons.append(check.explain(anchor=False))
    return {
        "name": name,
        "n_questions": len(rows),
        "n_labelled": int((logits.labels >= 0).sum()),
        "temperature": temperature,
        "interval": interval,
        "source": "prompts",
        "agreement_rate": float(logits.agreement.mean()),
        "choice_mass": {"base": mass["base"], "chat": mass["chat"]},
        "bracket": bracket.to_dict(),
        "harmful": None if check is None else check.harmful,
        "label_check": None if check is None else check.to_dict(),
        "settled": not reasons,
        "reasons": reasons,
    }, share_at_bound


def _fit_bias(
    merged: _Merged, group: FittedGroup, rows: list[int], n_bootstrap: int, seed: int
) -> NoulBias | None:
    """Scale and bias of yes/no questions; where held-out labels show that they help, `group` becomes theirs."""
    from edgecal.calibration import fit_platt

    rival = group["temperature"] if group["settled"] else None
    found = fit_platt(merged.logits.take(rows), rival or 1.0, n_bootstrap=n_bootstrap, seed=seed)
    if found is None:
        return None
    if found.is_better:
        group |= {
            "temperature": found.temperature,
            "interval": list(found.interval),
            "source": "labels",
            "harmful": None,
            "label_check": None,
            "settled": True,
            "reasons": [],
        }
    return {
        "temperature": found.temperature,
        "interval": list(found.interval),
        "bias": found.bias,
        "bias_interval": list(found.bias_interval),
        "n_labels": found.n_labelled,
        "gain": found.trial.gain,
        "gain_interval": [found.trial.low, found.trial.high],
        "used": found.is_better,
    }


def _is_file(path: str | Path) -> bool:
    try:
        return Path(path).is_file()
    except (OSError, ValueError):  # a template's text is no path
        return False
