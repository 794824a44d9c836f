"""Results of the commands that read, change or ask a single model file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypedDict

from edgecal.results.fitting import SiblingFile
from edgecal.results.printed import (
    Count,
    Interval,
    Json,
    NonNegative,
    NotRequired,
    Printed,
    Share,
    Temperature,
)

__all__ = [
    "AnswerGiven",
    "AnswerShown",
    "BakeResult",
    "CacheCleared",
    "CacheShown",
    "CalibrationInUse",
    "Difference",
    "EditResult",
    "FilesCompared",
    "FitRecorded",
    "ModelFile",
    "SamplingShown",
    "ShowResult",
    "Sidecar",
    "StampResult",
    "StoreShown",
    "UnbakeResult",
]


class Difference(TypedDict):
    """A key or a tensor that differs.

    name: its name.
    change: "added", "removed" or "changed".
    before, after: type and value in a few words; null where there is none.
    at_byte: the first byte of a tensor's data that differs; left out if its type or shape differs.
    sha256_before, sha256_after: hashes of a tensor's data, if these were compared; null where there is no such tensor.
    """

    name: str
    change: Literal["added", "removed", "changed"]
    before: str | None
    after: str | None
    at_byte: NotRequired[Count]
    sha256_before: NotRequired[str | None]
    sha256_after: NotRequired[str | None]


@dataclass(frozen=True)
class ShowResult(Printed):
    """What a file says about calibration and sampling: `edgecal show`.

    Attributes
    ----------
    path: the file.
    name: `general.name`; None where the file has none.
    architecture: `general.architecture`.
    calibration: its `edgecal.*` keys with their values; None for a float that is not finite.
    sampling: its `general.sampling.*` keys with their values.
    warnings: what speaks against its temperature, one line each; not in the JSON.
    """

    path: str
    name: Json
    architecture: str | None
    calibration: dict[str, Json]
    sampling: dict[str, Json]
    warnings: list[str] = field(default_factory=list, metadata={"printed": False})


@dataclass(frozen=True)
class EditResult(Printed):
    """The result of editing a file's keys: `edgecal strip`, `set` and `unset`.

    Attributes
    ----------
    file: what was edited; of a split model the first shard.
    output: what was written.
    in_place: whether that is the edited file itself.
    verified: whether the tensor data were checked afterwards.
    keys: keys that differ now.
    siblings: the other shards of a split model.
    warnings: what may go wrong with the new file, one line each.
    """

    file: str
    output: str
    in_place: bool
    verified: bool
    keys: list[Difference]
    siblings: list[SiblingFile]
    warnings: list[str]


@dataclass(frozen=True)
class StampResult(EditResult):
    """The result of stamping a file: `edgecal stamp`.

    Attributes
    ----------
    temperature: what was stamped; None: the temperatures of typed questions, which are among `keys`.
    """

    temperature: Temperature | None


@dataclass(frozen=True)
class BakeResult(Printed):
    """The result of baking: `edgecal bake`.

    Attributes
    ----------
    output: the file that was written; of a split model the first shard.
    temperature: what its logits are divided by, a float32.
    changed: tensors and keys that carry it.
    head_type: how the head is stored.
    error: rms difference between the baked logits, times the temperature, and the original's, as a share of their
        spread, beyond what the head's roundings explain; None if not checked.
    allowed: the bound for `error`.
    plain: the same difference, roundings included.
    sampling_temperature: the author's, which the file has again; None if there was none.
    siblings: the other shards of a split model.
    """

    output: str
    temperature: Temperature
    changed: tuple[str, ...]
    head_type: str
    error: NonNegative | None
    allowed: NonNegative | None
    plain: NonNegative | None
    sampling_temperature: float | None
    siblings: list[SiblingFile]


@dataclass(frozen=True)
class UnbakeResult(Printed):
    """The result of unbaking: `edgecal unbake`.

    Attributes
    ----------
    output: the restored file.
    temperature: what the baked file's logits were divided by.
    exact: whether the file is the original byte for byte, as its recorded hash proves.
    siblings: the other shards of a split model.
    """

    output: str
    temperature: Temperature
    exact: bool
    siblings: list[SiblingFile]


class FilesCompared(TypedDict):
    """The differences between two files: `edgecal diff`.

    a, b: the files.
    equal: whether nothing differs.
    data_compared: whether tensor data were compared.
    keys: keys that differ.
    tensors: tensors that differ.
    n_same_keys, n_same_tensors: how many are equal.
    notes: what else differs, one line each.
    """

    a: str
    b: str
    equal: bool
    data_compared: bool
    keys: list[Difference]
    tensors: list[Difference]
    n_same_keys: Count
    n_same_tensors: Count
    notes: list[str]


class StoreShown(TypedDict):
    """The cached runs of one model.

    model: the model's digest; null if the store does not say.
    prompts: prompts in it; null where it cannot be read.
    bytes: its size.
    last_used: when it was last used, ISO 8601, UTC.
    file: its name in the folder.
    context: everything that influences its numbers; null where it cannot be read.
    """

    model: str | int | float | bool | None
    prompts: Count | None
    bytes: Count
    last_used: str
    file: str
    context: dict[str, str | int | float | bool] | None


class CacheShown(TypedDict):
    """The cache of earlier runs: `edgecal cache`.

    folder: where; null where there is no home folder.
    bytes: size of all stores.
    max_bytes: what they may grow to.
    stores: each of them.
    """

    folder: str | None
    bytes: Count
    max_bytes: Count
    stores: list[StoreShown]


class CacheCleared(TypedDict):
    """What was removed: `edgecal cache clear`.

    folder: where; null where there is no home folder.
    files: files that were removed.
    freed_bytes: their size.
    """

    folder: str | None
    files: Count
    freed_bytes: Count


class AnswerGiven(TypedDict):
    """The option that a model chooses, and how sure it is.

    choice: index of the option, from 0; also where `abstained`.
    label: its letter.
    text: its text.
    confidence: its probability among the options.
    probs: probability of each option.
    abstained: whether the confidence is below `min_confidence`.
    min_confidence: as asked for; null: never abstain.
    label_mass: probability of all labels together among the whole vocabulary, before any division.
    temperature: what the logits were divided by.
    n_tokens: tokens of the prompt.
    base_confidence: the base model's probability of the option, by a BaseCal map and at no temperature; null without a
        map.
    """

    choice: Count
    label: str
    text: str
    confidence: Share
    probs: list[Share]
    abstained: bool
    min_confidence: Share | None
    label_mass: NonNegative
    temperature: Temperature
    n_tokens: Count
    base_confidence: Share | None


class CalibrationInUse(TypedDict):
    """How the file is calibrated.

    kind: "stamped": a temperature in the metadata; "baked": in the weights; "none".
    temperature: what was fitted; null without a calibration.
    divisor: what is left to divide the logits by.
    doubts: what speaks against the temperature, one line each.
    """

    kind: Literal["stamped", "baked", "none"]
    temperature: Temperature | None
    divisor: Temperature
    doubts: list[str]


class AnswerShown(TypedDict):
    """A question and a model's answer: `edgecal ask`.

    model: the file.
    question: as asked.
    choices: the options.
    answer: what the model says.
    calibration: how its confidence is calibrated.
    """

    model: str
    question: str
    choices: list[str]
    answer: AnswerGiven
    calibration: CalibrationInUse


class ModelFile(TypedDict):
    """A model file.

    path: where it is.
    name: the model's name.
    architecture: as the file names it.
    n_bytes: size of all its shards.
    """

    path: str
    name: str
    architecture: str | None
    n_bytes: Count


class SamplingShown(TypedDict):
    """The temperature that llama.cpp's programs sample with.

    temperature: what the file names; null: nothing.
    is_the_calibration: whether it is the fitted one, written by edgecal.
    authors: the author's own; null where there is none.
    """

    temperature: float | None
    is_the_calibration: bool
    authors: float | None


class FitRecorded(TypedDict):
    """How the temperature was fitted, as the file records it; null for what it does not say.

    interval: 95 % interval of divide_logits_by.
    method, variant: what was minimised.
    target: what is calibrated.
    prompts_count, prompts_sha256: prompts that it was fitted on.
    agreement_rate: share of these on which both models choose alike.
    bracket: the temperatures between which the right one lies.
    settled: whether the bracket is narrow enough.
    harmful: whether answers failed to show that the temperature helps.
    reasons: why it was refused, one line each.
    base_name, base_sha256: the base model.
    llama_cpp, version: versions of llama.cpp and edgecal.
    """

    interval: Interval | None
    method: str | None
    variant: str | None
    target: str | None
    prompts_count: Count | None
    prompts_sha256: str | None
    agreement_rate: Share | None
    bracket: list[float | None] | None
    settled: bool | None
    harmful: bool | None
    reasons: list[str]
    base_name: str | None
    base_sha256: str | None
    llama_cpp: str | None
    version: str | None


class Sidecar(TypedDict):
    """What an app needs to use a calibrated file: `edgecal export --to json`.

    kind: where the temperature is: "stamped" in the metadata, or "baked" into the weights.
    model: the file.
    divide_logits_by: what an app divides the logits by before the softmax over the answer letters.
    temperature: what was fitted.
    sampling: what programs sample with.
    fit: how it was fitted; null where the file does not say.
    note: one sentence for people.
    """

    kind: Literal["stamped", "baked", "none"]
    model: ModelFile
    divide_logits_by: Temperature
    temperature: Temperature | None
    sampling: SamplingShown
    fit: FitRecorded | None
    note: str
