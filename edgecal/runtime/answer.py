"""What a model returns: an answer to a question with options, or a generated text; plain values.

All probabilities are calibrated by the file: the softmax of its logits, divided by the temperature unless that is baked
into them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from edgecal.results.model_files import AnswerGiven

__all__ = ["Answer", "Finish", "GeneratedToken", "Generation"]

Finish = Literal["end", "stop", "length"]


@dataclass(frozen=True)
class Answer:
    """Which of K options a model chooses, and how sure it is.

    Attributes
    ----------
    choice: index of the most probable option, from 0; of equal ones the first. If `abstained`, what it would have said.
    label: the option's letter, or the verbatim label that the caller gave.
    text: the option's text, or the verbatim label.
    confidence: probability of the choice among the K options, above 0 and at most 1.
    probs: K probabilities in the order of the options, which sum to 1.
    abstained: whether the confidence is below `min_confidence`.
    min_confidence: the caller's; None never abstains.
    label_mass: probability of all K labels together among the whole vocabulary, by the original logits (a baked
        file's division is undone). Far below 1, the model was about to say something else, and the answer means little.
    temperature: the divisor of the file's logits.
    n_tokens: tokens of the prompt.
    base_confidence: the base model's probability of the choice among the K options, as a BaseCal map makes it of the
        chat model's hidden state (`load(..., basecal=...)`), at no temperature; None without a map.
    """

    choice: int
    label: str
    text: str
    confidence: float
    probs: tuple[float, ...]
    abstained: bool
    min_confidence: float | None
    label_mass: float
    temperature: float
    n_tokens: int
    base_confidence: float | None = None

    def to_dict(self) -> AnswerGiven:
        """The answer as JSON-ready values; the keys are the attributes' names."""
        return {
            "choice": self.choice,
            "label": self.label,
            "text": self.text,
            "confidence": self.confidence,
            "probs": list(self.probs),
            "abstained": self.abstained,
            "min_confidence": self.min_confidence,
            "label_mass": self.label_mass,
            "temperature": self.temperature,
            "n_tokens": self.n_tokens,
            "base_confidence": self.base_confidence,
        }


@dataclass(frozen=True)
class GeneratedToken:
    """One generated token.

    Attributes
    ----------
    id: the token's number.
    text: its text; bytes that are no UTF-8 by themselves are U+FFFD.
    log_prob: its calibrated log-probability (nats, at most 0) among the whole vocabulary.
    top: the most probable tokens at this place and their log-probabilities, the most probable first.
    """

    id: int
    text: str
    log_prob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Generation:
    """A generated text.

    Attributes
    ----------
    text: the text, without the prompt, a stop text or the token that ended it.
    tokens: the generated tokens, including those that completed a stop text.
    finish: "end" (the model ended its turn), "stop" (a stop text came) or "length" (`max_tokens` were generated, or the
        context is full).
    log_prob: sum of the tokens' log-probabilities, in nats.
    temperature: the divisor of the file's logits.
    """

    text: str
    tokens: tuple[GeneratedToken, ...]
    finish: Finish
    log_prob: float
    temperature: float

    def to_dict(self) -> dict[str, Any]:
        """The text as JSON-ready values; the keys are the attributes' names."""
        return asdict(self)
