"""`edgecal.fit`: from two model files and some prompts to a temperature, and into the file if asked.

The one place where the stages meet: prompts, pair check, capture, fit, file. Knows no mathematics and no
llama.cpp, and shows nothing to people; the command line is a thin face on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecal.errors import InputError, NotIdentifiedError
from edgecal.result import FitResult

if TYPE_CHECKING:
    from edgecal.calibration import ChoiceLogits, Method, TemperatureFit
    from edgecal.gguf import OutputPlan, ShardSet
    from edgecal.llama.settings import CaptureSettings
    from edgecal.pair.capture import PairCapture
    from edgecal.pair.observe import ObserveProgress
    from edgecal.prompts import Prompt, PromptTemplate, Question

__all__ = ["Progress", "capture", "fit", "load_prompts"]

MIN_BOOTSTRAP = 20

PathLike = str | Path
PromptSource = PathLike | Iterable["PathLike | Mapping[str, Any] | Question | Prompt"]


@dataclass(frozen=True)
class Progress:
    """How far a fit is.

    Attributes
    ----------
    stage: "load", "run", "hash", "fit" or "write".
    model: "base", "chat" or None.
    done, total: prompts for "run", percent for "load", bytes for "hash" and "write", else 0.
    n_tokens_done, n_tokens_total: tokens for "run", else 0.
    """

    stage: str
    model: str | None = None
    done: float = 0
    total: float = 0
    n_tokens_done: int = 0
    n_tokens_total: int = 0


def fit(
    base: PathLike,
    chat: PathLike,
    prompts: PromptSource | None = None,
    *,
    method: str = "dual-align",
    ise: str | None = None,
    tau_scope: str | None = None,
    combine: str | None = None,
    lam: float | None = None,
    template: str | PromptTemplate | None = None,
    limit: int | None = None,
    seed: int = 0,
    n_bootstrap: int = 1000,
    settings: CaptureSettings | None = None,
    timeout_s: float | None = None,
    output: PathLike | None = None,
    in_place: bool = False,
    force: bool = False,
    sampling_key: bool = True,
    on_progress: Callable[[Progress], None] | None = None,
) -> FitResult:
    """Fits one temperature for a chat model against the base model that it came from.

    Parameters
    ----------
    base, chat: GGUF files; of a split model the first shard.
    prompts: a JSON Lines file or several, or records in the same three forms (see `edgecal.prompts`), or
        `Question` and `Prompt` objects; None takes the built-in bank. Their order does not matter.
    method: "dual-align", "daca", "naive", "process", "ts" (uses the prompts' answers) or "vanilla".
    ise, tau_scope, combine, lam: the variant of the method; None takes the default. See `Method`.
    template: Jinja source or a `PromptTemplate` for questions; None takes the built-in one.
    limit: draw so many prompts, by `seed`; None takes all.
    seed: of the draw and of the bootstrap.
    n_bootstrap: resamples of the interval.
    settings: how llama.cpp is run; None takes the defaults.
    timeout_s: seconds without a sign of life after which llama.cpp counts as hung.
    output: where to write the calibrated model; None writes nothing unless `in_place`.
    in_place: write the temperature into the chat model's own file.
    force: overwrite an existing output.
    sampling_key: also set `general.sampling.temp`, which llama.cpp's programs sample with.
    on_progress: called now and then.

    Returns
    -------
    The result; with `output` or `in_place` the file is complete on disk.

    Raises
    ------
    InputError: a file, a prompt or an option is wrong; nothing was run or written.
    ModelError: a model could not be run, or the lens does not fit it.
    NotIdentifiedError: the prompts do not determine a temperature; nothing was written. Its `warnings` are
        those that a result would have had.
    OutputError: the file could not be written; what was there is intact.

    References
    ----------
    Dual-Align: arXiv 2601.04277. DACA: arXiv 2505.16690. Temperature scaling: Guo et al. 2017.
    """
    from edgecal.calibration import Method, fit_temperature
    from edgecal.gguf import CalibrationRecord, calibration_edits, find_shards, plan_output

    if prompts is not None and not isinstance(prompts, (str, Path, Mapping)):
        prompts = list(prompts)  # an iterator is good for one pass only
    chosen = Method(method, ise=ise, tau_scope=tau_scope, combine=combine, lam=lam)
    if n_bootstrap < MIN_BOOTSTRAP:
        raise InputError(f"an interval needs at least {MIN_BOOTSTRAP} resamples, got {n_bootstrap}")
    base_shards, chat_shards = find_shards(Path(base)), find_shards(Path(chat))
    loaded = load_prompts(prompts, template=template, limit=limit, seed=seed)
    _check_enough(loaded, chosen)
    plan = None
    if output is not None or in_place:
        inputs = [*base_shards.paths, *_data_files(prompts)]
        plan = plan_output(
            chat_shards,
            None if output is None else Path(output),
            in_place=in_place,
            force=force,
            inputs=inputs,
        )
        # A file whose keys cannot be replaced is refused now, not after the run.
        calibration_edits(chat_shards.header, CalibrationRecord(temperature=1.0), sampling_key)
    captured = capture(
        base_shards.path,
        chat_shards.path,
        loaded,
        layers=chosen.needs_layers,
        settings=settings,
        timeout_s=timeout_s,
        on_progress=on_progress,
    )
    if on_progress is not None:
        on_progress(Progress("fit"))
    try:
        fitted = fit_temperature(captured.logits, chosen, n_bootstrap=n_bootstrap, seed=seed)
    except NotIdentifiedError as error:
        raise NotIdentifiedError(str(error), captured.warnings()) from None
    return _conclude(captured, fitted, base_shards, chat_shards, plan, sampling_key, on_progress)


def load_prompts(
    source: PromptSource | None = None,
    *,
    template: str | PromptTemplate | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> list[Prompt]:
    """Reads and renders prompts, and puts them in their canonical order.

    Parameters
    ----------
    source, template, limit, seed: as in `fit`.

    Raises
    ------
    InputError: a record is wrong, the template fails, or there is no prompt at all.
    """
    from edgecal.prompts import (
        Prompt,
        PromptTemplate,
        Question,
        canonical_order,
        check_prompt,
        draw_prompts,
        parse_record,
        read_bank,
        read_json_lines,
    )

    if limit is not None and limit < 1:
        raise InputError(f"the limit of prompts must be at least 1, got {limit}")
    if not 0 <= seed < 2**64:
        raise InputError(f"the seed is {seed}, expected 0 to 2^64 - 1")
    records: list[Question | Prompt] = []
    if source is None:
        records.extend(read_bank())
    elif isinstance(source, Mapping):
        raise InputError("the prompts are one record; give a list of records, or a file")
    else:
        for number, item in enumerate([source] if isinstance(source, (str, Path)) else source, start=1):
            if isinstance(item, (str, Path)):
                records.extend(read_json_lines(item))
            elif isinstance(item, Mapping):
                records.append(parse_record(item, f"prompt {number}"))
            elif isinstance(item, (Question, Prompt)):
                records.append(check_prompt(item, f"prompt {number}"))
            else:
                raise InputError(
                    f"prompt {number}: expected a file's path, a record (a dict), a Question or a Prompt, got "
                    f"{type(item).__name__}"
                )
    if not records:
        raise InputError("there are no prompts; give at least one question (see edgecal fit --help)")
    if not isinstance(template, PromptTemplate):
        template = PromptTemplate() if template is None else PromptTemplate(template, "the template")
    rendered = [item if isinstance(item, Prompt) else template.render(item) for item in records]
    return canonical_order(rendered) if limit is None else draw_prompts(rendered, limit, seed)


def capture(
    base: PathLike,
    chat: PathLike,
    prompts: Sequence[Prompt],
    *,
    layers: bool = True,
    settings: CaptureSettings | None = None,
    timeout_s: float | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> PairCapture:
    """Checks a pair and runs both models; every method can then be fitted on `.logits`.

    Parameters
    ----------
    base, chat, settings, timeout_s, on_progress: as in `fit`.
    prompts: as `load_prompts` gives them.
    layers: also capture the layers, which methods with a process loss need.

    Returns
    -------
    A `PairCapture`; the warnings of the pair check are among its `warnings()`.

    Raises
    ------
    InputError: the files are no pair for this, or a prompt does not fit a model.
    ModelError: a model could not be run, or the lens does not fit it.
    """
    from edgecal.gguf import find_shards
    from edgecal.llama.settings import CaptureSettings
    from edgecal.pair.capture import capture_pair
    from edgecal.pair.check import check_pair
    from edgecal.worker.process import DEFAULT_TIMEOUT_S

    timeout_s = DEFAULT_TIMEOUT_S if timeout_s is None else timeout_s
    if not timeout_s > 0:  # also not a number
        raise InputError(f"the timeout must be above 0 seconds, got {timeout_s}")
    base_shards, chat_shards = find_shards(Path(base)), find_shards(Path(chat))
    pair_warnings = check_pair(base_shards, chat_shards, layers=layers)

    def on_observe(role: str, seen: ObserveProgress) -> None:
        if on_progress is not None:
            on_progress(
                Progress(seen.stage, role, seen.done, seen.total, seen.n_tokens_done, seen.n_tokens_total)
            )

    return capture_pair(
        str(base_shards.path),
        str(chat_shards.path),
        prompts,
        layers=layers,
        settings=CaptureSettings() if settings is None else settings,
        timeout_s=timeout_s,
        pair_warnings=pair_warnings,
        on_progress=on_observe,
    )


def _check_enough(prompts: Sequence[Prompt], method: Method) -> None:
    if method.needs_labels:
        n_labelled = sum(prompt.answer is not None for prompt in prompts)
        if n_labelled == 0:
            raise InputError(
                f'--method {method.name} learns from answers, and no prompt has an "answer"; add answers, or use '
                "a method that needs none (dual-align, daca)"
            )
    if len(prompts) < method.min_examples:
        raise NotIdentifiedError(
            f"{len(prompts)} prompts cannot determine a temperature by {method.name}, which needs at least "
            f"{method.min_examples}; give more prompts"
        )


def _conclude(
    captured: PairCapture,
    fitted: TemperatureFit,
    base: ShardSet,
    chat: ShardSet,
    plan: OutputPlan | None,
    sampling_key: bool,
    on_progress: Callable[[Progress], None] | None,
) -> FitResult:
    from edgecal import __version__
    from edgecal.gguf import CalibrationRecord, sha256_of, write_calibrated
    from edgecal.prompts import compute_prompts_sha256

    def on_bytes(stage: str) -> Callable[[int, int], None]:
        return lambda done, total: on_progress(Progress(stage, None, done, total)) if on_progress else None

    method = fitted.method
    base_sha256 = sha256_of(base, on_bytes("hash"))
    prompts_sha256 = compute_prompts_sha256(captured.prompts, with_answers=method.needs_labels)
    accuracy, ece, n_labelled = _labelled_figures(captured.logits, fitted.temperature)
    siblings: list[dict[str, str]] = []
    if plan is not None:
        record = CalibrationRecord(
            temperature=fitted.temperature,
            interval=fitted.interval,
            method=method.name,
            variant=method.variant_text(),
            target="choices",
            prompts_count=fitted.n_prompts,
            prompts_sha256=prompts_sha256,
            agreement_rate=fitted.agreement_rate,
            base_name=_name(base),
            base_sha256=base_sha256,
            llama_cpp=captured.chat.llama_cpp,
        )
        siblings = write_calibrated(
            chat, plan, record, sampling_key=sampling_key, on_progress=on_bytes("write")
        )
    both = {"base": (base, captured.base), "chat": (chat, captured.chat)}
    models: dict[str, dict[str, Any]] = {
        role: {
            "path": str(shards.path),
            "name": _name(shards),
            "n_tokens": seen.n_tokens,
            "peak_memory_bytes": seen.peak_memory_bytes,
        }
        for role, (shards, seen) in both.items()
    }
    models["base"]["sha256"] = base_sha256
    lens_errors = {role: seen.lens_error for role, (_, seen) in both.items() if seen.lens_error is not None}
    return FitResult(
        temperature=fitted.temperature,
        interval=fitted.interval,
        method=method.name,
        variant=dict(method.variant),
        n_prompts=fitted.n_prompts,
        n_agreement=fitted.n_agreement,
        n_disagreement=fitted.n_disagreement,
        agreement_rate=fitted.agreement_rate,
        choice_mass=captured.choice_mass,
        pdl_histogram=fitted.pdl_histogram,
        loss={"before": fitted.loss_before, "after": fitted.loss_after},
        accuracy=accuracy,
        ece=ece,
        n_labelled=n_labelled,
        output=None if plan is None else str(plan.path),
        siblings=siblings,
        bootstrap={
            "n": fitted.n_bootstrap,
            "level": fitted.level,
            "seed": fitted.seed,
            "share_at_bound": fitted.share_at_bound,
        },
        prompts_sha256=prompts_sha256,
        models=models,
        lens=lens_errors or None,
        runtime={
            "edgecal": __version__,
            "llama_cpp": captured.chat.llama_cpp,
            "system_info": captured.chat.system_info,
            **asdict(captured.settings),
        },
        warnings=captured.warnings(),
    )


def _labelled_figures(
    logits: ChoiceLogits, temperature: float
) -> tuple[dict[str, float] | None, dict[str, float] | None, int]:
    from edgecal.metrics import compute_accuracy, compute_ece, softmax_probs

    labelled = (logits.labels >= 0).nonzero()[0]
    if len(labelled) == 0:
        return None, None, 0
    part = logits.take(labelled)
    accuracy, ece = {}, {}
    for name, final, tau in (
        ("base", part.base_final, 1.0),
        ("before", part.chat_final, 1.0),
        ("after", part.chat_final, temperature),
    ):
        probs = softmax_probs(final, part.n_choices, tau)
        accuracy[name] = compute_accuracy(probs, part.labels)
        ece[name] = compute_ece(probs.max(axis=1), probs.argmax(axis=1) == part.labels)
    return {"base": accuracy["base"], "chat": accuracy["before"]}, ece, len(labelled)


def _name(shards: ShardSet) -> str:
    name = shards.header.get("general.name")
    return name if isinstance(name, str) and name else shards.path.name


def _data_files(source: PromptSource | None) -> list[Path]:
    if source is None:
        return []
    items = [source] if isinstance(source, (str, Path)) else source
    return [Path(item) for item in items if isinstance(item, (str, Path)) and str(item) != "-"]
