"""`edgecal.label`: makes a session that asks for the labels that are worth most: runs both models, draws the order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgecal.api.label_session import LabelSession, LabelSource, read_source
from edgecal.api.progress import OnProgress, Progress, on_observe
from edgecal.api.questions import (
    LoadedQuestions,
    PathLike,
    PromptSource,
    QuestionOptions,
    data_files,
    load_questions,
    run_those_that_fit,
)
from edgecal.errors import InputError

if TYPE_CHECKING:
    from edgecal.gguf.shards import ShardSet
    from edgecal.pair.pair_capture import PairCapture
    from edgecal.pair.run import RunOptions
    from edgecal.prompts import Prompting, PromptPair

__all__ = ["DEFAULT_RATIO", "label"]

DEFAULT_RATIO: Final = 1.5


def label(
    base: PathLike,
    chat: PathLike,
    prompts: PromptSource | None = None,
    *,
    output: PathLike,
    questions: QuestionOptions | None = None,
    run: RunOptions | None = None,
    ratio: float = DEFAULT_RATIO,
    on_progress: OnProgress | None = None,
) -> LabelSession:
    """Runs both models on all questions, and makes a session that asks for labels where they are worth most.

        session = edgecal.label("base.gguf", "chat.gguf", "questions.jsonl", output="labels.jsonl")
        while (shown := session.question) is not None:
            session.answer(ask_somebody(shown.text, shown.options))  # an index, or None if unsure
        print(session.result().temperature)

    The questions are drawn at random, those more often whose label says more of the temperature, and each label counts
    by the inverse of its probability, so that the choice does not bias the fit. Answers in the data are neither shown
    nor used. A question without an answer counts as unlabelled: if unsure questions are unlike the others, the
    temperature is that of the others.

    Parameters
    ----------
    base, chat, prompts, questions, run, on_progress: as in `fit`. The questions' seed draws the order too.
    output: the file of labels, which `fit` takes. One that exists is continued.
    ratio: the interval is narrow enough if its upper end is at most this many times its lower end; above 1.

    Raises
    ------
    InputError: a file, a question or an option is wrong, or `output` holds something else or belongs to other models,
        questions or another seed.
    ModelError: a model could not be run.
    OutputError: `output` cannot be written.
    """
    from edgecal.atomic_write import check_target
    from edgecal.calibration.anchored import fit_anchored, label_free_prior
    from edgecal.calibration.labelling import compute_label_sizes, draw_label_order
    from edgecal.gguf.shards import find_shards
    from edgecal.pair.compatibility import check_not_itself, check_pair
    from edgecal.pair.pair_capture import capture_pair
    from edgecal.pair.run import RunOptions
    from edgecal.stamping.record import check_not_baked

    if not ratio > 1.0:
        raise InputError(f"the ratio that is narrow enough must be above 1, got {ratio}")
    asked, options, path = questions or QuestionOptions(), run or RunOptions(), Path(output)
    shards = {"base": find_shards(Path(base)), "chat": find_shards(Path(chat))}
    check_not_itself(shards["base"], shards["chat"])
    for header in (shards["base"].header, shards["chat"].header):
        check_not_baked(header, "labelling for it")
    loaded = load_questions(prompts, asked, chat_header=shards["chat"].header)
    loaded, warnings = _without_answers(loaded)
    check_target(path)
    if any(path.exists() and path.samefile(other) for other in data_files(prompts)):
        raise InputError(f"{path}: is the file of the questions; give another --output")
    digests = {
        role: _compute_digest(found, role, options.cache_folder, on_progress)
        for role, found in shards.items()
    }
    wanted: LabelSource = {
        "base": digests["base"],
        "chat": digests["chat"],
        "questions": loaded.compute_sha256(with_answers=False)[:16],
        "seed": asked.seed,
        "temperature": 1.0,
    }
    source = read_source(path, wanted)
    pair_warnings = check_pair(shards["base"], shards["chat"], layers=False)

    def capture(given: LoadedQuestions) -> PairCapture:
        return capture_pair(
            str(shards["base"].path),
            str(shards["chat"].path),
            given.base,
            chat_prompts=given.chat,
            layers=False,
            options=options,
            pair_warnings=pair_warnings,
            on_progress=on_observe(on_progress),
        )

    loaded, captured = run_those_that_fit(
        loaded,
        capture,
        [
            (str(shards["base"].path), "base", lambda given: given.base),
            (str(shards["chat"].path), "chat", lambda given: given.chat),
        ],
        strict=asked.strict,
        options=options,
    )
    if on_progress is not None:
        on_progress(Progress("fit"))
    mass = captured.choice_mass["base"]
    prior = label_free_prior(captured.logits, mass)
    if source is None:
        source = wanted | {"temperature": fit_anchored(captured.logits, mass, prior=prior).temperature}
    sizes = compute_label_sizes(captured.logits, source["temperature"])
    return LabelSession(
        path,
        source,
        loaded.records,
        captured.logits,
        mass,
        prior,
        draw_label_order(sizes, asked.seed),
        ratio=ratio,
        data=loaded.describe(asked, with_answers=False),
        prompting=loaded.describe_prompting(),
        warnings=[*loaded.warnings(), *captured.warnings(), *warnings],
    )


def _without_answers(loaded: LoadedQuestions) -> tuple[LoadedQuestions, list[str]]:
    """Each question once, as if nobody knew an answer, and warnings; refuses what nobody can read."""

    def hide(pair: PromptPair) -> PromptPair:
        if pair.base.text is None:
            raise InputError(
                f"{pair.base.source}: is a prompt of token ids, which cannot be shown; give its text"
            )
        base = replace(pair.base, answer=None, inclusion_probability=None)
        chat = base if pair.chat is pair.base else replace(pair.chat, answer=None, inclusion_probability=None)
        question = (
            None if pair.question is None else replace(pair.question, answer=None, inclusion_probability=None)
        )
        return replace(pair, base=base, chat=chat, question=question)

    once = {_content(loaded.prompting, pair): pair for pair in reversed(loaded.pairs)}
    warnings = []
    if known := int((loaded.labels >= 0).sum()):
        warnings.append(f"{known} questions have an answer already, which is neither shown nor used")
    if repeats := len(loaded.pairs) - len(once):
        warnings.append(f"{repeats} questions repeat another and are asked once")
    return replace(loaded, pairs=tuple(map(hide, reversed(once.values())))), warnings


def _content(prompting: Prompting, pair: PromptPair) -> bytes:
    """The same for questions that are one to a fit, to which worked examples are no part of them."""
    from edgecal.prompts import digest_prompt

    return digest_prompt(pair.base if pair.question is None else prompting.template.render(pair.question))


def _compute_digest(
    shards: ShardSet, role: str, cache_folder: Path | None, on_progress: OnProgress | None
) -> str:
    """What a model is to a session: hex, the first 16 characters of its content's digest, whatever else edgecal wrote
    into the file. The cache of captures recalls the same digest."""
    from edgecal.cache import DigestMemo
    from edgecal.gguf.hashes import CONTENT_REVISION, content_sha256

    def show(done: int, total: int) -> None:
        if on_progress is not None:
            on_progress(Progress("digest", role, done, total))

    name = f"content/{CONTENT_REVISION}"
    with DigestMemo(cache_folder) as memo:
        return memo.recall(shards.paths, [name], lambda: {name: content_sha256(shards, show)})[name][:16]
