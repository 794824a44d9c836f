"""`edgecal.fit_projection`: fits a BaseCal map from two model files and some prompts, and writes it into a file."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edgecal.api.capture import capture
from edgecal.api.progress import OnProgress, Progress
from edgecal.api.provenance import describe_run, describe_runtime, files_sha256, model_name
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
from edgecal.results import ProjectionResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    from edgecal.gguf.shards import ShardSet
    from edgecal.pair.pair_capture import PairCapture
    from edgecal.pair.run import RunOptions
    from edgecal.prompts import Prompt
    from edgecal.results.fitting import ProjectionEce

__all__ = ["fit_projection"]


def fit_projection(
    base: PathLike,
    chat: PathLike,
    prompts: PromptSource | None = None,
    output: PathLike | None = None,
    *,
    force: bool = False,
    unsettled: bool = False,
    questions: QuestionOptions | None = None,
    run: RunOptions | None = None,
    n_bootstrap: int = 1000,
    on_progress: OnProgress | None = None,
) -> ProjectionResult:
    """Fits a map by which a chat model says how probable its base model finds an answer, without the base model.

    The map goes from the chat model's last hidden state to the base model's logits of the labels. It is no temperature
    and changes no answer: `edgecal.load(chat, basecal=output)` adds the base model's probability of the chat model's
    choice to each answer. It holds for questions like these, asked in the same way, and is worth as much as the base
    model's own calibration.

    Parameters
    ----------
    base, chat, prompts, questions, run, on_progress: as in `fit`. Answers are used for nothing but the check.
    output: the file to write; None writes nothing.
    force: overwrite an existing file at `output`.
    unsettled: return and write the map even if it is unsettled or harmful; the file is marked accordingly.
    n_bootstrap: resamples of the bracket and of the check by labels.

    Returns
    -------
    The result; with an `output` the file is complete on disk. Only labels that at least 30 prompts have get a row.

    Raises
    ------
    InputError: a file, a prompt or an option is wrong; nothing was run or written.
    ModelError: a model could not be run, or the lens does not fit it.
    NotIdentifiedError: fewer than 30 prompts have the same label.
    UnsettledError: the map may make the model less honest (see `ProjectionResult.reasons`); nothing was written. Its
        `result` is what would have been returned.
    OutputError: the file could not be written; what was there is intact.

    References
    ----------
    BaseCal: arXiv 2601.03042.
    """
    from edgecal.architectures import stream_of
    from edgecal.gguf.create import write_new
    from edgecal.gguf.output import check_target
    from edgecal.gguf.shards import find_shards
    from edgecal.pair.compatibility import check_not_itself
    from edgecal.pair.run import RunOptions
    from edgecal.stamping.record import check_not_baked

    asked, options = questions or QuestionOptions(), run or RunOptions()
    base_shards, chat_shards = find_shards(Path(base)), find_shards(Path(chat))
    check_not_itself(base_shards, chat_shards)
    for shards in (base_shards, chat_shards):
        check_not_baked(shards.header, "fitting a map on it")
    header = chat_shards.header
    if stream_of(header.architecture or "", header.get, header.path).n_streams > 1:
        raise InputError(
            f"{header.path}: has several residual streams, and a BaseCal map is for models with one"
        )
    loaded = load_questions(prompts, asked, chat_header=header)
    if output is not None:
        inputs = [*base_shards.paths, *chat_shards.paths, *data_files(prompts), *asked.files]
        check_target(Path(output), inputs, force)
    loaded, captured = run_those_that_fit(
        loaded,
        lambda given: capture(
            base_shards.path,
            chat_shards.path,
            given.base,
            chat_prompts=given.chat,
            hidden=True,
            run=options,
            on_progress=on_progress,
        ),
        [
            (str(base_shards.path), "base", lambda given: given.base),
            (str(chat_shards.path), "chat", lambda given: given.chat),
        ],
        strict=asked.strict,
        options=options,
    )
    if on_progress is not None:
        on_progress(Progress("project"))
    result, content = _fit(loaded, captured, base_shards, chat_shards, asked, options, n_bootstrap)
    if result.reasons and not unsettled:
        raise UnsettledError(
            "the BaseCal map is refused, since it may make the model less honest than it is, and nothing was written; "
            "--unsettled writes it all the same, marked so",
            result.warnings,
            result,
        )
    if output is None:
        return result
    write_new(Path(output), content, like=chat_shards.path, overwrite=force)
    return replace(result, output=str(output))


def _fit(
    loaded: LoadedQuestions,
    captured: PairCapture,
    base: ShardSet,
    chat: ShardSet,
    asked: QuestionOptions,
    options: RunOptions,
    n_bootstrap: int,
) -> tuple[ProjectionResult, bytes]:
    """What is to be said of the map, and the bytes of its file, before anything is written."""
    import numpy as np

    from edgecal.calibration import check_choices, find_doubts, fit_bracket
    from edgecal.evaluation.linear_map import fit_linear_map
    from edgecal.metrics import compute_ece, softmax_probs
    from edgecal.pair.run import choice_tokens, project_states
    from edgecal.pair.worker_project import pick
    from edgecal.runtime.last_hidden import digest_content
    from edgecal.stamping.projection import Projection, projection_bytes

    states, base_states = captured.chat.last_hidden, captured.base.last_hidden
    assert states is not None and base_states is not None
    own = project_states(str(base.path), "base", loaded.base, base_states, options=options)
    tokens = choice_tokens(str(chat.path), "chat", loaded.chat, options=options)
    rows = _choose_rows(own.columns, tokens, loaded.chat)
    found = fit_linear_map(states, own.logits)
    logits = captured.logits
    mapped = pick(found.left_out, own.columns)
    choices = logits.chat_final.argmax(axis=1)

    def sure(z: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        probs: npt.NDArray[np.float64] = softmax_probs(z, logits.n_choices)[np.arange(len(z)), choices]
        return probs

    by_base, by_map = sure(logits.base_final), sure(mapped)
    bracket = fit_bracket(logits, n_bootstrap=n_bootstrap, seed=asked.seed)
    mass = captured.choice_mass
    doubts = find_doubts(bracket, mass["base"], **captured.mass_words)
    check = check_choices(logits, mapped, n_bootstrap=n_bootstrap, seed=asked.seed)
    harmful = None if check is None else check.harmful
    reasons = [*doubts, *([check.doubt] if check is not None and harmful else [])]
    ece: ProjectionEce | None = None
    labelled = np.flatnonzero(logits.labels >= 0)
    if labelled.size:
        right = choices[labelled] == logits.labels[labelled]
        ece = {
            "chat": compute_ece(sure(logits.chat_final)[labelled], right),
            "base": compute_ece(by_base[labelled], right),
            "projection": compute_ece(by_map[labelled], right),
        }

    base_sha256 = files_sha256(base, options.cache_folder)
    projection = Projection(
        weight=found.weight[[row.column for row in rows]].astype(np.float32),
        bias=found.intercept[[row.column for row in rows]].astype(np.float32),
        token_ids=[row.token for row in rows],
        labels=[row.label for row in rows],
        base_name=model_name(base),
        base_sha256=base_sha256,
        chat_name=model_name(chat),
        chat_sha256=files_sha256(chat, options.cache_folder),
        chat_content_sha256=digest_content(chat, options.cache_folder),
        prompts_count=len(states),
        prompts_sha256=loaded.compute_sha256(with_answers=False),
        ridge=found.ridge,
        reasons=reasons,
    )
    content = projection_bytes(projection)
    result = ProjectionResult(
        output=None,
        n_bytes=len(content),
        labels=list(projection.labels),
        n_prompts=len(states),
        ridge=found.ridge,
        error=float(np.sqrt(np.mean((by_map - by_base) ** 2))),
        choice_mass={"base": mass["base"], "chat": mass["chat"]},
        bracket=bracket.to_dict(),
        settled=not doubts,
        ece=ece,
        n_labelled=int(labelled.size),
        harmful=harmful,
        label_check=None if check is None else check.to_dict(),
        reasons=reasons,
        prompts_sha256=projection.prompts_sha256,
        data=loaded.describe(asked, with_answers=False),
        models={
            "base": {**describe_run(base, captured.base), "sha256": base_sha256},
            "chat": describe_run(chat, captured.chat),
        },
        prompting=loaded.describe_prompting(),
        runtime=describe_runtime(captured.chat, captured.settings),
        warnings=[*loaded.warnings(), *captured.warnings(told=doubts)],
    )
    return result, content


class _Row(NamedTuple):
    """A label: its token in the chat model's prompts, its text, and its column among the base model's logits."""

    token: int
    label: str
    column: int


def _choose_rows(
    columns: npt.NDArray[np.int64], tokens: npt.NDArray[np.int32], prompts: Sequence[Prompt]
) -> list[_Row]:
    """The labels that enough prompts have, by token. Columns and tokens, int [n, k_max], are -1 where there is no
    choice.

    The two models' tokens for a label differ if only the chat model's prompt is a turn of a conversation.
    """
    from edgecal.evaluation.linear_map import MIN_MAPPED

    counts: Counter[tuple[int, int]] = Counter()
    label_of: dict[int, str] = {}
    for prompt, of_base, of_chat in zip(prompts, columns.tolist(), tokens.tolist(), strict=True):
        texts = prompt.labels or prompt.choice_tokens or ()
        for text, column, token in zip(texts, of_base, of_chat, strict=False):
            counts[token, column] += 1
            label_of.setdefault(token, str(text))
    kept = [
        _Row(token, label_of[token], column)
        for (token, column), n in sorted(counts.items())
        if n >= MIN_MAPPED
    ]
    if not kept:
        raise NotIdentifiedError(
            f"no label is offered by {MIN_MAPPED} of the {len(prompts)} prompts, which a BaseCal map needs; give more "
            "prompts"
        )
    if len({row.token for row in kept}) < len(kept):
        raise InputError(
            "what is one label for the chat model has different tokens in some of the base model's prompts; give "
            "prompts of one kind"
        )
    return kept
