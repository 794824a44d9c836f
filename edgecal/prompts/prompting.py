"""Renders questions to prompts for a pair of models: template, worked examples, and the chat model's template.

The base model always gets plain text. The chat model gets the same prompt or, with its chat template, the same content
as a conversation in which the assistant speaks next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgecal.errors import InputError
from edgecal.prompts.chat_template import ChatTemplate
from edgecal.prompts.orders import digest_prompt, draw_indices
from edgecal.prompts.question_templates import PromptTemplate, find_opening, resolve_template
from edgecal.prompts.records import Prompt, Question
from edgecal.prompts.traced_text import TracedText
from edgecal.prompts.worked_examples import with_shots

__all__ = ["PromptPair", "Prompting", "canonical_pairs", "draw_pairs"]


@dataclass(frozen=True)
class PromptPair:
    """Both models' prompts for one question.

    Attributes
    ----------
    base, chat: the prompts; the same object where both models get the same.
    question: the question that was rendered; None for a ready-made prompt.
    shots: the worked examples in them.
    """

    base: Prompt
    chat: Prompt
    question: Question | None = None
    shots: tuple[Question, ...] = ()


class Prompting:
    """One way of asking, the same for all questions.

    Parameters
    ----------
    template: the prompt template, as `resolve_template` takes it.
    n_shots: worked examples before each question.
    chat_template: the chat model's, or None for plain text.
    seed: seed of the choice of worked examples.
    pool: further questions to take worked examples from (see `with_shots`).
    """

    def __init__(
        self,
        template: str | Path | PromptTemplate | None = None,
        *,
        n_shots: int = 0,
        chat_template: ChatTemplate | None = None,
        seed: int = 0,
        pool: Sequence[Question] = (),
    ) -> None:
        self.template = resolve_template(template)
        self.n_shots = n_shots
        self.chat_template = chat_template
        self.seed = seed
        self.pool = tuple(pool)

    def render(self, records: Sequence[Question | Prompt]) -> list[PromptPair]:
        """Renders all records. A question's worked examples come from the pool or from the other records.

        Returns
        -------
        One pair for each record, in the order given.

        Raises
        ------
        InputError: a template fails; there are not enough worked examples; a ready-made prompt cannot have
            worked examples, or holds tokens and cannot be put into a conversation.
        """
        questions = [record for record in records if isinstance(record, Question)]
        worked = iter(with_shots(questions, self.n_shots, seed=self.seed, pool=self.pool))
        pairs = []
        for record in records:
            if isinstance(record, Prompt):
                pairs.append(self.render_prompt(record))
            else:
                item = next(worked)
                pairs.append(self.render_question(item.question, item.shots))
        return pairs

    def render_question(self, question: Question, shots: Sequence[Question] = ()) -> PromptPair:
        """Renders one question after these worked examples; a permuted copy of a question keeps those of the original.
        Raises InputError if a template fails."""
        base = self.template.render(question, shots)
        if self.chat_template is None:
            return PromptPair(base, base, question, tuple(shots))
        turns = self.chat_template.trace(self._turns(question, shots), question.source or "a question")
        return PromptPair(base, replace(base, text=turns.text, data=turns.data), question, tuple(shots))

    def render_prompt(self, prompt: Prompt) -> PromptPair:
        """A ready-made prompt for both models: unchanged, or for the chat model as the user's turn, all of which then
        is data.

        Raises
        ------
        InputError: worked examples are wanted; there is a chat template, but the prompt is tokens; or the template
        fails.
        """
        where = prompt.source or "a prompt"
        if self.n_shots:
            raise InputError(
                f"{where}: a ready-made prompt cannot have worked examples before it; ask for none, or give the "
                'record as {"question": ..., "choices": ...}'
            )
        if self.chat_template is None:
            return PromptPair(prompt, prompt)
        if prompt.text is None:
            raise InputError(
                f"{where}: a prompt of tokens cannot be put into a chat template; give its text, or use no chat "
                "template"
            )
        said = self.chat_template.trace([TracedText.of_data(prompt.text)], where)
        return PromptPair(prompt, replace(prompt, text=said.text, data=said.data))

    def _turns(self, question: Question, shots: Sequence[Question]) -> list[TracedText]:
        """Worked examples are earlier turns, and the instruction begins the first one. A final opening bracket (or
        quote, ...) is left out, since the assistant's turn has a beginning of its own."""
        instruction, last = self.template.split(question)
        turns = []
        for shot in shots:
            if shot.answer is None:
                raise InputError(
                    f"{shot.source or 'a question'}: has no answer, so it cannot be a worked example"
                )
            turns += [self.template.split(shot)[1], TracedText(shot.labels[shot.answer])]
        turns.append(last)
        turns[0] = instruction + turns[0]
        return [_without_opening(turn) for turn in turns]


def canonical_pairs(pairs: Sequence[PromptPair]) -> list[PromptPair]:
    """The pairs in an order that depends on their contents alone: by the base prompt's hash, then the chat prompt's,
    then the answer."""
    return sorted(pairs, key=_key)


def draw_pairs(pairs: Sequence[PromptPair], limit: int, seed: int) -> list[PromptPair]:
    """Draws `limit` pairs without replacement, by seed and content alone; all of them if there are fewer. They come in
    canonical order."""
    ordered = canonical_pairs(pairs)
    return [ordered[index] for index in draw_indices(len(ordered), limit, seed)]


def _without_opening(turn: TracedText) -> TracedText:
    text = turn.text.rstrip()
    while opening := find_opening(text)[0]:
        text = text.removesuffix(opening).rstrip()
    return turn.cut(0, len(text))


def _key(pair: PromptPair) -> tuple[bytes, bytes, int]:
    answer = -1 if pair.base.answer is None else pair.base.answer
    return digest_prompt(pair.base), digest_prompt(pair.chat), answer
