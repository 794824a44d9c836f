"""Puts labels on questions for an anchored fit.

A label belongs to a question's prompt (worked examples aside), wherever in the data that stands; a labelled question
that is not among the data's is added to them. Answers in the data count only if they were asked for. Each prompt is
labelled once, even if the data repeat it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from edgecal.api.questions import LoadedQuestions, PromptSource, QuestionOptions, read_fitting
from edgecal.errors import InputError

if TYPE_CHECKING:
    from edgecal.calibration import Method
    from edgecal.data import Data
    from edgecal.prompts import Prompt, Prompting, PromptPair, Question

__all__ = ["add_labels"]


def add_labels(
    loaded: LoadedQuestions, method: Method, source: PromptSource | None, options: QuestionOptions
) -> LoadedQuestions:
    """The questions with the labels of an anchored fit and no other answer, in canonical order; for another method as
    they are.

    Parameters
    ----------
    loaded: the questions as they were read.
    method: of the fit.
    source: files, folders or records that hold the labels; None: the questions' own answers.
    options: how the questions were read. Labels in edgecal's own form are read as such, others like the questions, but
        all of them.

    Raises
    ------
    InputError: the source cannot be read, no record has an answer, two contradict each other, one labels a prompt of
        the data with other choices, or only some have an `inclusion_probability`; or there is a source, but for another
        method.
    """
    from edgecal.prompts import Prompting, Question, canonical_pairs

    if method.name != "anchored":
        if source is not None:
            raise InputError(
                f"labels are for method anchored, and the method is {method.name}; leave one out"
            )
        return loaded
    prompting = loaded.prompting
    data = loaded.records
    own = [record for record in data if record.answer is not None]
    if source is None:
        read, given = None, own
        if not given:
            raise InputError(
                '--anchor needs at least one prompt with an "answer", and none has one; add answers, or give them '
                "in a file of their own (--labels FILE)"
            )
    else:
        read = _read(source, options)
        given = [record for record in read.records if record.answer is not None]
        if not given:
            raise InputError(
                f"{read.records[0].source}: no record of the labels has an answer; at least one is needed"
            )
    labels: dict[bytes, Question | Prompt] = {}
    for record in given:
        first = labels.setdefault(_key(prompting, record), record)
        if (first.answer, first.inclusion_probability) != (record.answer, record.inclusion_probability):
            raise InputError(
                f"{record.source}: its label contradicts that of {first.source}, which is the same prompt "
                f"({_said(record)} and {_said(first)}); keep one of the two"
            )
    _check_probabilities(list(labels.values()))
    pairs, texts = [], {}
    for pair, record in zip(loaded.pairs, data, strict=True):
        pairs.append(_with_label(pair, labels.pop(_key(prompting, record), None)))
        texts[pair.base.text, pair.base.tokens] = pair.base
    added = list(labels.values())
    worked = [record for record in own if isinstance(record, Question)]
    rendered = Prompting(
        prompting.template,
        n_shots=prompting.n_shots,
        chat_template=prompting.chat_template,
        seed=prompting.seed,
        pool=prompting.pool or worked,
    ).render(added)
    for pair in rendered:
        other = texts.get((pair.base.text, pair.base.tokens))
        if other is not None:
            raise InputError(
                f"{pair.base.source}: labels the prompt of {other.source} with other choices, "
                f"{_choices(pair.base)} instead of {_choices(other)}"
            )
    notes = []
    if added:
        notes.append(
            f"{len(added)} of {len(added) + sum(pair.base.answer is not None for pair in pairs)} labelled prompts are "
            "not among the data and were added to them"
        )
    if read is None:
        return replace(loaded, pairs=tuple(canonical_pairs(pairs)), label_files=loaded.files)
    if own:
        notes.append(
            f"{len(own)} prompts of the data have an answer, which was not used: all labels come from --labels"
        )
    return replace(
        loaded,
        pairs=tuple(canonical_pairs([*pairs, *rendered])),
        files=(*loaded.files, *read.files),
        formats=(*loaded.formats, *read.formats),
        n_read=loaded.n_read + len(read.records) + len(read.skipped),
        skipped=(*loaded.skipped, *read.skipped),
        notes=(*loaded.notes, *read.notes, *notes),
        decisions=(*loaded.decisions, *(f"labels: {decision}" for decision in read.decisions)),
        label_files=read.files,
    )


def _read(source: PromptSource, options: QuestionOptions) -> Data:
    bare = replace(options, limit=None, shots_from=None)
    if options.format is not None or options.mapping is not None:
        try:  # as `edgecal label` writes them, whatever the data look like
            return read_fitting(source, replace(bare, format="edgecal", mapping=None))
        except InputError:
            pass
    return read_fitting(source, bare)


def _key(prompting: Prompting, record: Question | Prompt) -> bytes:
    """What two records have in common that are one prompt."""
    from edgecal.prompts import Question, digest_prompt

    return digest_prompt(prompting.template.render(record) if isinstance(record, Question) else record)


def _with_label(pair: PromptPair, record: Question | Prompt | None) -> PromptPair:
    """The pair with the record's label, or without any."""
    answer, chance = (None, None) if record is None else (record.answer, record.inclusion_probability)
    base = replace(pair.base, answer=answer, inclusion_probability=chance)
    if pair.chat is pair.base:
        return replace(pair, base=base, chat=base)
    return replace(pair, base=base, chat=replace(pair.chat, answer=answer, inclusion_probability=chance))


def _check_probabilities(records: Sequence[Question | Prompt]) -> None:
    missing = [record for record in records if record.inclusion_probability is None]
    if 0 < len(missing) < len(records):
        raise InputError(
            f'{missing[0].source}: has no "inclusion_probability", which {len(records) - len(missing)} of '
            f"{len(records)} labels have; all of them must have it, or none"
        )


def _said(record: Question | Prompt) -> str:
    chance = record.inclusion_probability
    return f"choice {record.answer}" + ("" if chance is None else f" with probability {chance:g}")


def _choices(prompt: Prompt) -> str:
    return ", ".join(repr(label) for label in prompt.labels or prompt.choice_tokens or ())
