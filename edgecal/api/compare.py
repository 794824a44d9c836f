"""`edgecal.compare`: compares every method on the same pair and questions, as the papers' tables do.

Each model runs over the questions once, and most methods are computed from that run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgecal.api.capture import capture
from edgecal.api.evaluate import LEVEL, check_bootstrap, describe_bootstrap
from edgecal.api.extra_runs import (
    DEFAULT_EFFECT_SAMPLE,
    Masses,
    measure_effects,
    run_permutations,
    run_projection,
    run_statements,
)
from edgecal.api.progress import OnProgress, Progress, on_observe
from edgecal.api.provenance import describe_model, describe_runtime, files_sha256, model_name
from edgecal.api.questions import (
    LoadedQuestions,
    PathLike,
    PromptSource,
    QuestionOptions,
    load_questions,
    run_those_that_fit,
)
from edgecal.errors import InputError, ModelError
from edgecal.results import CompareResult

if TYPE_CHECKING:
    from edgecal.calibration import Method
    from edgecal.pair.pair_capture import PairCapture
    from edgecal.pair.run import RunOptions
    from edgecal.prompts import PromptPair
    from edgecal.results.judging import RunCost

__all__ = ["DEFAULT_PERMUTATIONS", "compare"]

DEFAULT_PERMUTATIONS = 4


def compare(
    base: PathLike,
    chat: PathLike,
    data: PromptSource,
    *,
    method: Method | str = "dual-align",
    n_splits: int = 5,
    fit_share: float = 0.3,
    n_permutations: int = DEFAULT_PERMUTATIONS,
    verbalized: bool = True,
    projection: bool = True,
    questions: QuestionOptions | None = None,
    n_bootstrap: int = 1000,
    effect_sample: int = DEFAULT_EFFECT_SAMPLE,
    run: RunOptions | None = None,
    on_progress: OnProgress | None = None,
) -> CompareResult:
    """Compares all methods: fitted on some of the questions, judged on the rest, over several splits.

    Parameters
    ----------
    base, chat: GGUF files; of a split model the first shard.
    data: files or folders (see `edgecal.data`), or records (see `fit`), with answers.
    method: the method for the headline, which the ablations vary: a `Method`, or its name.
    n_splits: splits, drawn by the seed, seed + 1, ...
    fit_share: share of the questions to fit on.
    n_permutations: orders of the options that `cape` averages over, the given one included; 0 leaves it out.
    verbalized: also ask the chat model to state its confidence.
    projection: also map the chat model's hidden states to the base model's (`basecal-proj`).
    questions: how questions are read and put; its seed is used for every random draw.
    n_bootstrap, effect_sample, run, on_progress: as in `evaluate`.

    Returns
    -------
    The table, the ablations, and the headline with its figures and pictures. Methods that need layers are withheld,
    with the reason, if the pair's layers cannot be compared. If the questions do not determine a method's temperature,
    its row says so; that is not an error.

    Raises
    ------
    InputError: a file, a row (if `questions.strict`) or an option is wrong, or too few questions have answers.
    ModelError: a model could not be run.
    """
    from edgecal.calibration import Method
    from edgecal.evaluation.comparison import compare_methods
    from edgecal.evaluation.scalings import warn_of_scaling
    from edgecal.evaluation.splits import make_splits
    from edgecal.gguf.shards import find_shards
    from edgecal.pair.compatibility import check_not_itself
    from edgecal.pair.run import RunOptions
    from edgecal.stamping.record import check_not_baked, read_doubts

    check_bootstrap(n_bootstrap)
    chosen = Method.of(method)
    if chosen.name == "vanilla":
        raise InputError(
            "method vanilla fits nothing, and is in every comparison as polm; name another method"
        )
    if chosen.name == "anchored":
        raise InputError(
            "method anchored is in every comparison, with 30 labels; name another method for the verdict"
        )
    if n_splits < 1:
        raise InputError(f"the number of splits must be at least 1, got {n_splits}")
    if n_permutations < 0:
        raise InputError(f"the number of permutations must be 0 or more, got {n_permutations}")
    asked, run_options = questions or QuestionOptions(), run or RunOptions()
    seed = asked.seed
    base_shards, chat_shards = find_shards(Path(base)), find_shards(Path(chat))
    check_not_itself(base_shards, chat_shards)
    for shards in (base_shards, chat_shards):
        check_not_baked(shards.header, "comparing methods on it")
    loaded = load_questions(data, asked, chat_header=chat_shards.header, labelled=True)
    make_splits(
        len(loaded.pairs), range(seed, seed + n_splits), fit_share
    )  # refuses too few questions before the run
    base_path, chat_path = base_shards.path, chat_shards.path
    loaded, (captured, no_layers) = run_those_that_fit(
        loaded,
        lambda given: _capture(base_path, chat_path, given, projection, run_options, on_progress),
        [
            (str(base_path), "base", lambda given: given.base),
            (str(chat_path), "chat", lambda given: given.chat),
        ],
        strict=asked.strict,
        options=run_options,
    )
    splits = make_splits(len(loaded.pairs), range(seed, seed + n_splits), fit_share)
    permuted = run_permutations(
        str(chat_shards.path),
        loaded,
        captured.chat.final_logits,
        n_permutations,
        seed=seed,
        options=run_options,
        on_progress=on_observe(on_progress, "permute"),
    )
    projected = run_projection(
        str(base_path), captured, splits, wanted=projection, no_layers=no_layers, options=run_options
    )
    stated = run_statements(
        str(chat_shards.path),
        loaded,
        wanted=verbalized,
        options=run_options,
        on_progress=on_observe(on_progress, "generate"),
    )
    effects_cost: RunCost = {"n_prompts": 0, "n_tokens": 0}

    def run_effects(pairs: Sequence[PromptPair]) -> Masses:
        from edgecal.pair.run import capture_model

        masses = {}
        for role, path, prompts in (
            ("base", base_shards.path, [pair.base for pair in pairs]),
            ("chat", chat_shards.path, [pair.chat for pair in pairs]),
        ):
            seen = capture_model(
                str(path),
                role,
                prompts,
                layers=False,
                options=run_options,
                on_progress=on_observe(on_progress, "effects"),
            )
            effects_cost["n_prompts"] += len(prompts)
            effects_cost["n_tokens"] += seen.n_tokens
            masses[role] = seen.choice_mass
        return masses

    masses = {"base": captured.base.choice_mass, "chat": captured.chat.choice_mass}
    effects, remarks = measure_effects(loaded, masses, effect_sample, run_effects)
    compared = compare_methods(
        captured.logits,
        splits,
        chosen,
        base_mass=captured.choice_mass["base"],
        mass_words=captured.mass_words,
        subjects=loaded.subjects,
        questions=loaded.describe_pairs(),
        choice_labels=[pair.chat.labels or pair.chat.choice_tokens or () for pair in loaded.pairs],
        permuted=permuted,
        projected=projected,
        stated=stated,
        no_layers=no_layers,
        chat_name=model_name(chat_shards),
        n_bootstrap=n_bootstrap,
        level=LEVEL,
        seed=seed,
        on_step=None if on_progress is None else lambda a, b: on_progress(Progress("judge", None, a, b)),
    )
    return CompareResult(
        models={
            "base": {
                **describe_model(base_shards, captured.base),
                "sha256": files_sha256(
                    base_shards,
                    run_options.cache_folder,
                    None if on_progress is None else lambda a, b: on_progress(Progress("hash", None, a, b)),
                ),
            },
            "chat": describe_model(chat_shards, captured.chat),
        },
        data=loaded.describe(asked),
        prompting={**loaded.describe_prompting(), "choice_mass": captured.choice_mass, "effects": effects},
        splits={
            "n": n_splits,
            "fit_share": fit_share,
            "seeds": [split.seed for split in splits],
            "n_fit": len(splits[0].fit),
            "n_evaluate": len(splits[0].judge),
        },
        extra_runs={
            "cape": permuted.cost,
            "verbalized": stated.cost,
            "effects": effects_cost if effects else None,
        },
        bootstrap=describe_bootstrap(n_bootstrap, seed),
        runtime=describe_runtime(captured.chat, run_options.settings),
        warnings=[
            *read_doubts(chat_shards.header),
            *(f"{method} is refused by edgecal fit: {reason}" for reason in compared["reasons"]),
            *warn_of_scaling(compared["scalings"], n_splits),
            *loaded.warnings(),
            *remarks,
            *captured.warnings(told=compared["reasons"]),
        ],
        **compared,
    )


def _capture(
    base: Path,
    chat: Path,
    loaded: LoadedQuestions,
    hidden: bool,
    options: RunOptions,
    on_progress: OnProgress | None,
) -> tuple[PairCapture, str | None]:
    """Both models' logits, with layers if these can be compared, else with the reason why not."""

    def capture_with(layers: bool) -> PairCapture:
        return capture(
            base,
            chat,
            loaded.base,
            chat_prompts=loaded.chat,
            layers=layers,
            hidden=hidden,
            run=options,
            on_progress=on_progress,
        )

    try:
        return capture_with(True), None
    except (InputError, ModelError) as error:
        # An error that is not about the layers comes up again without them, and the second run raises it.
        return capture_with(False), str(error)
