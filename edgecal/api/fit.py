"""`edgecal.fit`: fits a temperature from two model files and some prompts, and writes it into a file if asked.

All stages meet here: prompts, pair check, capture, fit, file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecal.api.labels import add_labels
from edgecal.api.progress import OnProgress, Progress, on_observe
from edgecal.api.provenance import describe_run, describe_runtime, files_sha256
from edgecal.api.questions import (
    LoadedQuestions,
    PathLike,
    PromptSource,
    QuestionOptions,
    data_files,
    load_questions,
    run_those_that_fit,
)
from edgecal.errors import InputError, NotIdentifiedError, UnsettledError
from edgecal.results import FitResult

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgecal.api.adaptive import AdaptiveFit
    from edgecal.calibration import AdaptivePlan, ChoiceLogits, Look, Method
    from edgecal.gguf.output import OutputPlan
    from edgecal.gguf.shards import ShardSet
    from edgecal.pair.run import RunOptions
    from edgecal.results.fitting import AccuracyByRole, Adaptive, Anchoring, EceByState
    from edgecal.results.questions import DataRead

__all__ = [
    "DEFAULT_TOLERANCE",
    "LEVEL",
    "MIN_BOOTSTRAP",
    "OutputOptions",
    "fit",
    "on_bytes",
    "open_pair",
    "plan_file",
]


@dataclass(frozen=True)
class OutputOptions:
    """Where `edgecal.fit` writes the temperature, and what it may write; by default nothing.

    Attributes
    ----------
    path: the file to write: a copy of the chat model that holds the temperature; None writes none.
    in_place: write the temperature into the chat model's own file instead.
    force: overwrite an existing file at `path`.
    sampling_key: also set `general.sampling.temp`, the key that llama.cpp's programs sample with.
    force_baked: fit even if the chat model already has a temperature baked in (see `edgecal bake`).
    unsettled: return and write the temperature even if it is unsettled or harmful; the file is marked accordingly.
        Otherwise such a run ends with an `UnsettledError`, as soon as it is clear that more prompts would not settle
        it.
    """

    path: str | Path | None = None
    in_place: bool = False
    force: bool = False
    sampling_key: bool = True
    force_baked: bool = False
    unsettled: bool = False

    @property
    def writes(self) -> bool:
        """Whether a file is written at all."""
        return self.path is not None or self.in_place


MIN_BOOTSTRAP = 20
DEFAULT_TOLERANCE = 0.05
LEVEL = 0.95


def fit(
    base: PathLike,
    chat: PathLike,
    prompts: PromptSource | None = None,
    *,
    method: Method | str = "dual-align",
    labels: PromptSource | None = None,
    questions: QuestionOptions | None = None,
    run: RunOptions | None = None,
    output: OutputOptions | None = None,
    n_bootstrap: int = 1000,
    tolerance: float | None = DEFAULT_TOLERANCE,
    on_progress: OnProgress | None = None,
) -> FitResult:
    """Fits one temperature for a chat model against the base model that it came from.

    Parameters
    ----------
    base, chat: GGUF files; of a split model the first shard.
    prompts: files or folders (see `edgecal.data`), records as dicts, which are read like lines of JSON Lines, or
        `Question` and `Prompt` objects; None takes the built-in bank. Their order does not matter.
    method: "dual-align", "daca", "naive", "process", "anchored" (uses prompts and some labels), "ts" (uses the prompts'
        answers) or "vanilla"; a `Method` also says which variant.
    labels: for method "anchored" alone: records with answers, in any form that `prompts` may have. One that is among
        the prompts labels it, the others are added to them; the prompts' own answers are then not read. None: the
        prompts' own answers are the labels.
    questions: how prompts are read and put. Its seed also draws the order of the run and the resamples.
    run: how models are run, and whether their outputs are cached.
    output: where the temperature is written; None writes nothing.
    n_bootstrap: resamples of the interval.
    tolerance: prompts are run in a random order until half of the interval's width is at most this share
        of the temperature; None runs all. See `edgecal.calibration.AdaptivePlan`.
    on_progress: called now and then.

    Returns
    -------
    The result; with an `output` the file is complete on disk.

    Raises
    ------
    InputError: a file, a prompt or an option is wrong; nothing was run or written.
    ModelError: a model could not be run, or the lens does not fit it.
    NotIdentifiedError: the prompts do not determine a temperature; nothing was written. Its `warnings` are
        those that a result would have had.
    UnsettledError: they do, but the temperature may make the model less honest (see `FitResult.reasons`); nothing was
        written. Its `result` is what would have been returned. A NotIdentifiedError.
    OutputError: the file could not be written; what was there is intact.

    References
    ----------
    Dual-Align: arXiv 2601.04277. DACA: arXiv 2505.16690. Temperature scaling: Guo et al. 2017.
    """
    from edgecal.calibration import AdaptivePlan, Method
    from edgecal.pair.run import RunOptions
    from edgecal.stamping.changes import calibration_edits
    from edgecal.stamping.edit import write_calibrated
    from edgecal.stamping.fit_record import record_of_result
    from edgecal.stamping.record import CalibrationRecord

    if prompts is not None and not isinstance(prompts, (str, Path, Mapping)):
        prompts = list(prompts)  # an iterator can be read only once
    chosen = Method.of(method)
    asked, options, output = questions or QuestionOptions(), run or RunOptions(), output or OutputOptions()
    if labels is not None and not isinstance(labels, (str, Path, Mapping)):
        labels = list(labels)
    adaptive = None if tolerance is None or chosen.name == "vanilla" else AdaptivePlan(tolerance, level=LEVEL)
    if n_bootstrap < MIN_BOOTSTRAP:
        raise InputError(f"an interval needs at least {MIN_BOOTSTRAP} resamples, got {n_bootstrap}")
    base_shards, chat_shards = open_pair(base, chat, force_baked=output.force_baked)
    loaded = load_questions(prompts, asked, chat_header=chat_shards.header)
    loaded = add_labels(loaded, chosen, labels, asked)
    _check_enough(loaded, chosen)
    plan = plan_file(
        chat_shards, output, [*base_shards.paths, *data_files(prompts), *data_files(labels), *asked.files]
    )
    if plan is not None:
        # Refuses a file whose keys cannot be replaced now rather than after the run.
        calibration_edits(
            chat_shards.header,
            CalibrationRecord(temperature=1.0),
            output.sampling_key,
            force_baked=output.force_baked,
        )
    gives_up = not output.unsettled and not chosen.needs_labels
    loaded, found = run_those_that_fit(
        loaded,
        lambda given: _run_and_fit(
            given,
            chosen,
            base_shards,
            chat_shards,
            adaptive,
            options,
            gives_up,
            n_bootstrap,
            asked.seed,
            on_progress,
        ),
        [
            (str(base_shards.path), "base", lambda given: given.base),
            (str(chat_shards.path), "chat", lambda given: given.chat),
        ],
        strict=asked.strict,
        options=options,
    )
    adaptivity = found.describe(adaptive, len(loaded.pairs))
    data = loaded.describe(asked, with_answers=chosen.needs_labels)
    result = _conclude(found, data, adaptivity, base_shards, chat_shards, options.cache_folder, on_progress)
    if result.reasons and not output.unsettled:
        raise UnsettledError(
            f"the temperature {result.temperature:.4g} is refused, since it may make the model less honest than it is, "
            "and nothing was written; --unsettled writes it all the same, marked so",
            result.warnings,
            result,
        )
    if plan is None:
        return result
    siblings = write_calibrated(
        chat_shards,
        plan,
        record_of_result(result.to_dict(), "the fit"),
        sampling_key=output.sampling_key,
        force_baked=output.force_baked,
        on_progress=on_bytes(on_progress, "write"),
    )
    return replace(
        result,
        output=str(plan.path),
        siblings=siblings,
    )


def open_pair(base: PathLike, chat: PathLike, *, force_baked: bool) -> tuple[ShardSet, ShardSet]:
    """Reads the headers of a pair; InputError for a file that cannot be read, one model twice, or, unless
    `force_baked`, one with a temperature baked in."""
    from edgecal.gguf.shards import find_shards
    from edgecal.pair.compatibility import check_not_itself
    from edgecal.stamping.record import check_not_baked

    base_shards, chat_shards = find_shards(Path(base)), find_shards(Path(chat))
    check_not_itself(base_shards, chat_shards)
    if not force_baked:
        check_not_baked(base_shards.header, "taking it as the reference")
        check_not_baked(chat_shards.header, "fitting it again")
    return base_shards, chat_shards


def plan_file(chat: ShardSet, output: OutputOptions, inputs: Sequence[Path]) -> OutputPlan | None:
    """Where a fit writes, None if nowhere; InputError or OutputError if it cannot. `inputs` must not be overwritten."""
    from edgecal.gguf.output import plan_output

    if not output.writes:
        return None
    return plan_output(
        chat,
        None if output.path is None else Path(output.path),
        in_place=output.in_place,
        force=output.force,
        inputs=inputs,
    )


def _run_and_fit(
    loaded: LoadedQuestions,
    method: Method,
    base: ShardSet,
    chat: ShardSet,
    adaptive: AdaptivePlan | None,
    options: RunOptions,
    gives_up: bool,
    n_bootstrap: int,
    seed: int,
    on_progress: OnProgress | None,
) -> AdaptiveFit:
    from edgecal.api.adaptive import fit_adaptively, fit_all
    from edgecal.pair.compatibility import check_pair
    from edgecal.pair.pair_capture import PairRunner
    from edgecal.stamping.decision_export import warn_of_export

    def show(progress: Progress) -> None:
        if on_progress is not None:
            on_progress(progress)

    def on_look(look: Look, is_result: bool) -> None:
        show(Progress("look", None, look.n_prompts, len(loaded.pairs), look=look))

    if method.name == "anchored" and all(loaded.labels < 0):
        raise InputError("no prompt with a label fits both models; label others")
    pair_warnings = [*check_pair(base, chat, layers=method.needs_layers), *warn_of_export(chat.header)]
    with PairRunner(
        str(base.path),
        str(chat.path),
        layers=method.needs_layers,
        options=options,
        model_bytes=base.n_bytes + chat.n_bytes,
        pair_warnings=pair_warnings,
        on_progress=on_observe(on_progress),
    ) as runner:
        runner.check(loaded.base, loaded.chat)
        common: dict[str, Any] = {
            "n_bootstrap": n_bootstrap,
            "seed": seed,
            "on_fit": lambda: show(Progress("fit")),
        }
        if adaptive is None:
            return fit_all(runner, loaded, method, level=LEVEL, **common)
        return fit_adaptively(runner, loaded, method, adaptive, gives_up=gives_up, on_look=on_look, **common)


def _check_enough(loaded: LoadedQuestions, method: Method) -> None:
    prompts = loaded.base
    if method.name == "ts":
        n_labelled = sum(prompt.answer is not None for prompt in prompts)
        if n_labelled == 0:
            raise InputError(
                f'--method {method.name} learns from answers, and no prompt has an "answer"; add answers, or use '
                "a method that needs none (dual-align, daca)"
            )
        least = method.needed["labelled"]
        if n_labelled < least <= len(prompts):
            raise NotIdentifiedError(
                f"method {method.name} needs at least {least} labelled examples and has {n_labelled} among "
                f"{len(prompts)} prompts; give more answers"
            )
    if len(prompts) < method.min_examples:
        raise NotIdentifiedError(
            f"{len(prompts)} prompts cannot determine a temperature by {method.name}, which needs at least "
            f"{method.min_examples}; give more prompts"
        )


def on_bytes(on_progress: OnProgress | None, stage: str) -> Callable[[int, int], None] | None:
    """What to call with bytes done and in total, for a stage of a progress."""
    if on_progress is None:
        return None
    return lambda done, total: on_progress(Progress(stage, None, done, total))


def _conclude(
    found: AdaptiveFit,
    data: DataRead,
    adaptivity: Adaptive | None,
    base: ShardSet,
    chat: ShardSet,
    cache_folder: Path | None,
    on_progress: OnProgress | None,
) -> FitResult:
    """The result, before anything is written."""
    from edgecal.calibration import check_labels, find_anchored_doubts, find_doubts

    loaded, captured, fitted = found.loaded, found.captured, found.fitted
    method = fitted.method
    base_sha256 = files_sha256(base, cache_folder, on_bytes(on_progress, "hash"))
    prompts_sha256 = loaded.compute_sha256(with_answers=method.needs_labels)
    mass = captured.choice_mass["base"]
    # Labels cannot check a fit on them, nor a temperature that changes nothing; and a fit on labels needs no bracket.
    accuracy, ece, check = None, None, None
    doubts: tuple[str, ...] = ()
    if found.anchored is not None:
        doubts = find_anchored_doubts(found.anchored)
    else:
        accuracy, ece = _labelled_figures(captured.logits, fitted.temperature)
        check = check_labels(
            captured.logits, fitted.temperature, n_bootstrap=fitted.n_bootstrap, seed=fitted.seed
        )
        if not method.needs_labels:
            doubts = find_doubts(found.bracket, mass, **captured.mass_words)
    judged = check is not None and not method.needs_labels and method.name != "vanilla"
    harmful = check.harmful if check is not None and judged else None
    seen = {"base": captured.base, "chat": captured.chat}
    lens_errors = {role: one.lens_error for role, one in seen.items() if one.lens_error is not None}
    return FitResult(
        temperature=fitted.temperature,
        interval=fitted.interval,
        method=method.name,
        variant=method.variant,
        n_prompts=fitted.n_prompts,
        n_agreement=fitted.n_agreement,
        n_disagreement=fitted.n_disagreement,
        agreement_rate=fitted.agreement_rate,
        choice_mass={"base": mass, "chat": captured.choice_mass["chat"]},
        pdl_histogram=fitted.pdl_histogram,
        loss={"before": fitted.loss_before, "after": fitted.loss_after},
        accuracy=accuracy,
        ece=ece,
        n_labelled=int((captured.logits.labels >= 0).sum()),
        bracket=found.bracket.to_dict(),
        anchor=_describe_anchor(found),
        settled=not doubts,
        harmful=harmful,
        label_check=None if check is None else check.to_dict(),
        reasons=[*doubts, *([check.doubt] if check is not None and harmful else [])],
        output=None,
        siblings=[],
        bootstrap={
            "n": fitted.n_bootstrap,
            "level": LEVEL,
            "seed": fitted.seed,
            "share_at_bound": fitted.share_at_bound,
        },
        adaptive=adaptivity,
        prompts_sha256=prompts_sha256,
        data=data,
        models={
            "base": {**describe_run(base, captured.base), "sha256": base_sha256},
            "chat": describe_run(chat, captured.chat),
        },
        lens=lens_errors or None,
        runtime=describe_runtime(captured.chat, captured.settings),
        prompting=loaded.describe_prompting(),
        warnings=[*loaded.warnings(), *captured.warnings(told=doubts, yardstick=not method.needs_labels)],
    )


def _describe_anchor(found: AdaptiveFit) -> Anchoring | None:
    if found.anchored is None:
        return None
    labelled = found.loaded.take((found.loaded.labels >= 0).nonzero()[0].tolist())
    return {
        "files": list(labelled.label_files),
        "n_labels": found.anchored.n_labelled,
        "weighted": labelled.label_weights is not None,
        "sha256": labelled.compute_sha256(with_answers=True),
        "prior_temperature": found.anchored.prior_temperature,
        "prior_interval": list(found.anchored.prior_interval),
        "doubt": found.anchored.doubt,
    }


def _labelled_figures(
    logits: ChoiceLogits, temperature: float
) -> tuple[AccuracyByRole | None, EceByState | None]:
    from edgecal.metrics import compute_accuracy, compute_ece, softmax_probs

    labelled = (logits.labels >= 0).nonzero()[0]
    if len(labelled) == 0:
        return None, None
    part = logits.take(labelled)
    base = softmax_probs(part.base_final, part.n_choices)
    before = softmax_probs(part.chat_final, part.n_choices)
    after = softmax_probs(part.chat_final, part.n_choices, temperature)

    def ece(probs: npt.NDArray[np.float64]) -> float:
        return compute_ece(probs.max(axis=1), probs.argmax(axis=1) == part.labels)

    return (
        {"base": compute_accuracy(base, part.labels), "chat": compute_accuracy(before, part.labels)},
        {"base": ece(base), "before": ece(before), "after": ece(after)},
    )
