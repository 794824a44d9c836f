"""The temperatures of typed questions: by type and by number of options, as llama.cpp's decision mode has them.

A question takes the temperature of its type and size, else of its type, else the file's one temperature (which was
fitted on multiple-choice questions), else 1. Only one that was fitted for the type and is settled counts as settled;
of any other, also of one for all sizes, the answer says whose it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgecal.decisions.questions import QuestionType

__all__ = ["BUCKETS", "TYPES", "TypedTemperature", "TypedTemperatures", "UsedTemperature", "bucket_of"]

TYPES: tuple[QuestionType, ...] = ("choice", "score", "noul")

# Numbers of options that share a temperature: the name in a key, the least and the most.
BUCKETS: tuple[tuple[str, int, int], ...] = (("2", 2, 2), ("3_5", 3, 5), ("6_10", 6, 10), ("11", 11, 256))


def bucket_of(n_options: int) -> str:
    """The bucket of a number of options, at least 2: "2", "3_5", "6_10" or "11" (11 and more)."""
    return next(name for name, least, most in BUCKETS if least <= n_options <= most)


@dataclass(frozen=True)
class TypedTemperature:
    """A temperature of a type, or of a type and a bucket.

    Attributes
    ----------
    temperature: what logits are divided by, above 0.
    settled: whether nothing spoke against it; None where the file does not say.
    """

    temperature: float
    settled: bool | None = None


@dataclass(frozen=True)
class UsedTemperature:
    """What one question's logits are divided by.

    Attributes
    ----------
    temperature: above 0.
    settled: True: fitted for this type, and settled; False: unsettled, or fitted for something else; None: there is no
        temperature, or nobody knows.
    bias: added to the logit of "true" less that of "false" after the division (Platt 1999); noul only.
    doubt: what speaks against it, or None.
    """

    temperature: float = 1.0
    settled: bool | None = None
    bias: float = 0.0
    doubt: str | None = None


@dataclass(frozen=True)
class TypedTemperatures:
    """All temperatures of a file.

    Attributes
    ----------
    general: the file's one temperature (`edgecal.temperature`), or None. For a baked file, what is left to divide by.
    typed: by name: a type ("choice"), or a type and a bucket ("choice.3_5").
    noul_bias: see `UsedTemperature`.
    readout, orders: how the questions were asked when these were fitted; None where the file does not say.
    prompt_sha256: of the template and the chat template then in use, or None.
    """

    general: float | None = None
    typed: Mapping[str, TypedTemperature] = field(default_factory=dict)
    noul_bias: float = 0.0
    readout: str | None = None
    orders: str | None = None
    prompt_sha256: str | None = None

    def find(self, kind: QuestionType, n_options: int) -> UsedTemperature:
        """The temperature for a question of a type with a number of options."""
        bias = self.noul_bias if kind == "noul" else 0.0
        bucket = bucket_of(n_options)
        for name in (f"{kind}.{bucket}", kind):
            found = self.typed.get(name)
            if found is not None:
                doubt = f"the temperature of {name} is unsettled" if found.settled is False else None
                if doubt is None and name == kind != "noul":
                    sizes = bucket.replace("_", " to ").replace("11", "11 or more")
                    doubt = f"the temperature is that of all {kind} questions; the file has none for {sizes} options"
                return UsedTemperature(found.temperature, found.settled, bias, doubt)
        if self.general is not None:
            doubt = f"the temperature was fitted on multiple-choice questions, not on {kind} questions"
            return UsedTemperature(self.general, False, bias, doubt)
        return UsedTemperature(
            bias=bias, doubt="the file holds no temperature, so the probability is the model's own"
        )
