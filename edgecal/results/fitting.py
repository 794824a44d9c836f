"""Results of `fit`, `plan` and `doctor`: a temperature with its evidence, the cost of a fit, and what edgecal can do
with a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, TypedDict

from edgecal.results.printed import (
    Count,
    Interval,
    Json,
    NonNegative,
    NotRequired,
    Ordinal,
    Printed,
    Seed,
    Share,
    Temperature,
)
from edgecal.results.questions import DataRead, PromptingUsed

__all__ = [
    "MAX_RATIO",
    "AccuracyByRole",
    "Adaptive",
    "Anchoring",
    "BracketEnds",
    "DoctorResult",
    "EceByState",
    "FinalTransform",
    "FitBootstrap",
    "FitModels",
    "FitResult",
    "FittedBase",
    "FittedModel",
    "Head",
    "LabelVerdict",
    "LookTaken",
    "LossByState",
    "MassByRole",
    "PlanResult",
    "PlannedModel",
    "PlannedModels",
    "ProjectionEce",
    "ProjectionResult",
    "Runtime",
    "Settings",
    "SiblingFile",
    "Variant",
]


Variant = TypedDict(
    "Variant",
    {"ise": "str | None", "tau_scope": "str | None", "combine": "str | None", "lambda": "float | None"},
)
Variant.__doc__ = """A method's options; null where the method has no such choice.

ise: what is averaged in the stability entropy: "mixture" or "mean".
tau_scope: which layers the temperature divides: "final" or "all".
combine: how the two losses are combined: "divergence", "stratified" or "sum".
lambda: weight of the process loss where they are summed.
"""


MAX_RATIO: Final = (
    1.5  # of the bracket's ends, above which a label-free temperature is unsettled (docs/pairs.md)
)


class BracketEnds(TypedDict):
    """The bracket: the two temperatures between which the right one lies.

    low, high: the ends; null for a missing end.
    low_interval, high_interval: the 95 % interval of each, by bootstrap; null for what cannot be had.
    """

    low: Temperature | None
    high: Temperature | None
    low_interval: Interval | None
    high_interval: Interval | None


class LabelVerdict(TypedDict):
    """A temperature judged by prompts with answers.

    n: prompts with an answer.
    nll_before, nll_after: mean negative log-likelihood of the answers in nats, without and with the temperature.
    difference: after less before.
    interval: the 95 % interval of the difference, by a paired bootstrap.
    found: "better" if the whole interval is below 0, "worse" if it is above, else "undecided".
    """

    n: Count
    nll_before: NonNegative
    nll_after: NonNegative
    difference: float
    interval: Interval
    found: Literal["better", "worse", "undecided"]


class Anchoring(TypedDict):
    """What an anchored fit rests on beside the prompts, and what it found.

    files: where the labels were read; empty for labels from Python.
    n_labels: labels that were used, one for each labelled prompt.
    weighted: whether each counts by the inverse of the probability with which it was chosen.
    sha256: hash of the labelled prompts with their labels and these probabilities, in any order.
    prior_temperature, prior_interval: what the prompts say without a label.
    doubt: posterior probability that the right temperature is nearer to 1 than to the result, so that this does harm.
    """

    files: list[str]
    n_labels: Count
    weighted: bool
    sha256: str
    prior_temperature: Temperature
    prior_interval: Interval
    doubt: Share


class LookTaken(TypedDict):
    """A temperature on the way to the result.

    n_prompts: prompts that had been run.
    counts: whether the run could have ended there.
    level: level of the interval; above the result's if several looks share the error.
    temperature, interval: what was found; null where the prompts did not determine one. For an anchored fit this is
        the end of the bracket that is known less exactly, by which it decides how many unlabelled prompts it needs.
    """

    n_prompts: Count
    counts: bool
    level: Share
    temperature: Temperature | None
    interval: Interval | None


class Adaptive(TypedDict):
    """When the run stopped asking for more prompts.

    tolerance: the wanted ratio of half the interval's width to the temperature.
    reached: the result's ratio; null where there is none: an anchored fit whose bracket has no end.
    n_available: questions available.
    stopped: "tolerance" reached, "all" run, or "hopeless": more prompts would not settle the result.
    looks: the temperatures on the way, the result's last.
    """

    tolerance: NonNegative
    reached: NonNegative | None
    n_available: Count
    stopped: Literal["tolerance", "all", "hopeless"]
    looks: list[LookTaken]


class MassByRole(TypedDict):
    """Mean probability on all choice tokens together.

    base, chat: of each model.
    """

    base: float
    chat: float


class LossByState(TypedDict):
    """A method's loss in nats (squared nats where it holds the process loss); null for vanilla and anchored.

    before, after: at temperature 1 and at the fitted one.
    """

    before: float | None
    after: float | None


class AccuracyByRole(TypedDict):
    """Share of the labelled prompts answered correctly.

    base, chat: by each model.
    """

    base: Share
    chat: Share


class EceByState(TypedDict):
    """Expected calibration error with 10 equal-width bins, a share.

    base: of the base model.
    before, after: of the chat model without and with the temperature.
    """

    base: Share
    before: Share
    after: Share


class FitBootstrap(TypedDict):
    """How the interval was made, or for anchored the bracket's intervals.

    n: resamples of the prompts.
    level: share of them that the interval holds.
    seed: what drew them.
    share_at_bound: share of the refits that ended at an end of the range of temperatures.
    """

    n: Count
    level: Share
    seed: Seed
    share_at_bound: Share


class FittedModel(TypedDict):
    """A model and what running it took.

    path: the file; of a split model the first shard.
    name: the model's name in its metadata, else its file's.
    n_tokens: tokens in the prompts.
    peak_memory_bytes: of the process that ran it; 0 where the system does not say.
    """

    path: str
    name: str
    n_tokens: Count
    peak_memory_bytes: Count


class FittedBase(FittedModel):
    """The base model and what running it took.

    sha256: of its files.
    """

    sha256: str


class FitModels(TypedDict):
    """Both models.

    base, chat: each model and what running it took.
    """

    base: FittedBase
    chat: FittedModel


class ProjectionEce(TypedDict):
    """Expected calibration error of a confidence in the chat model's choices, with 10 equal-width bins, a share.

    chat: the chat model's own confidence.
    base: the base model's.
    projection: that of the map, each prompt left out of it.
    """

    chat: Share
    base: Share
    projection: Share


class SiblingFile(TypedDict):
    """Another shard of a split model that was written.

    path: where it is.
    how: how it got there: "hard link", "symbolic link", "copy" or "already there".
    """

    path: str
    how: str


class Settings(TypedDict):
    """How llama.cpp is run.

    n_threads: threads at most.
    n_batch: tokens that one decode may hold.
    n_ubatch: tokens that are computed at once, at most.
    n_seq_max: sequences that a context may hold.
    share: whether what prompts begin with in common is computed once.
    flash_attn: whether attention is llama.cpp's fused one.
    kv_unified: whether all sequences share one cache.
    """

    n_threads: Ordinal
    n_batch: Ordinal
    n_ubatch: Ordinal
    n_seq_max: Ordinal
    share: bool
    flash_attn: bool
    kv_unified: bool


class Runtime(Settings):
    """Versions and settings that can influence a number.

    edgecal: edgecal's version.
    llama_cpp: llama.cpp's version.
    system_info: what llama.cpp says of the processor's features.
    command: the command line; left out where the result was computed from Python, and by `edgecal fit`.
    """

    edgecal: str
    llama_cpp: str
    system_info: str
    command: NotRequired[str]


class PlannedModel(TypedDict):
    """The cost of a run for one model, as planned.

    path: the file; of a split model the first shard.
    n_prompts: prompts.
    n_kept: how many of them the cache answers.
    n_tokens: tokens of the others.
    n_distinct: the fewest tokens that any order could compute.
    n_computed: tokens that are computed, padding included.
    n_decodes: calls of llama.cpp.
    n_sequences: the most sequences that a context holds.
    tokens_per_s: speed of a short probe.
    seconds: predicted time to load and compute.
    file_bytes: size of the file, which is mapped.
    buffer_bytes: what llama.cpp also allocates for repacked weights.
    cache_bytes: key-value cache of the largest context.
    available_bytes: memory that is free.
    n_threads: threads of llama.cpp.
    """

    path: str
    n_prompts: Count
    n_kept: Count
    n_tokens: Count
    n_distinct: Count
    n_computed: Count
    n_decodes: Count
    n_sequences: Count
    tokens_per_s: NonNegative
    seconds: NonNegative
    file_bytes: Count
    buffer_bytes: Count
    cache_bytes: Count
    available_bytes: Count
    n_threads: Ordinal


class PlannedModels(TypedDict):
    """Both models.

    base, chat: what a run would cost each.
    """

    base: PlannedModel
    chat: PlannedModel


class Head(TypedDict):
    """The matrix that the logits are computed with.

    tensor: the tensor's name.
    type: how its weights are stored.
    n_vocab: tokens of the vocabulary.
    """

    tensor: str
    type: str
    n_vocab: Count


class FinalTransform(TypedDict):
    """How the last block's output becomes logits.

    norm: "rms" or "layer", the kind of the final norm; null: there is none.
    eps: epsilon of the norm.
    logit_scale: what the logits are multiplied by.
    soft_cap: the bound of a tanh on the logits; null: there is none.
    node: the graph's name of the residual stream.
    n_streams: how many streams are merged.
    """

    norm: Literal["rms", "layer"] | None
    eps: float
    logit_scale: float
    soft_cap: float | None
    node: str
    n_streams: Ordinal


@dataclass(frozen=True)
class FitResult(Printed):
    """A fitted temperature and everything needed to judge it.

    Attributes
    ----------
    temperature: the chat model's logits are divided by it; dimensionless, above 0.
    interval: percentile bootstrap interval over prompts, at `bootstrap["level"]`; for anchored, of the posterior.
    method: what was minimised.
    variant: the method's options.
    n_prompts: how many prompts were run.
    n_agreement, n_disagreement: on how many of them the models choose alike, or differently.
    agreement_rate: n_agreement / n_prompts.
    choice_mass: mean probability on all choice tokens together.
    pdl_histogram: item l - 1 counts the disagreement prompts on which the models part at layer l; None if the method
        captures no layers.
    loss: the method's loss at temperature 1 and at the fitted one.
    accuracy: share of the labelled prompts answered correctly; None without labels, and for anchored, which has used
        them, perhaps a few that were chosen to be hard.
    ece: expected calibration error on the labelled prompts; None as `accuracy` is.
    n_labelled: how many prompts had a label.
    bracket: the temperatures between which the right one lies, if neither model counts against the other. See
        `edgecal.calibration.bracket`.
    anchor: what an anchored fit rests on; None for another method.
    settled: whether the bracket and the base model's choice mass support a temperature that no label has confirmed;
        for anchored, whether its interval is narrow and leaves little doubt that it helps. True for ts, which has
        labels.
    harmful: whether the labelled prompts fail to show that the temperature is better than none; None if there are fewer
        than 30, for ts and anchored, which were fitted on them, and for vanilla, which changes nothing.
    label_check: the negative log-likelihood of the labels before and after; None where there are fewer than 30, and for
        anchored. For ts these are the labels that it was fitted on, so it proves nothing.
    reasons: why it is unsettled or harmful and was refused, one line each; empty for a sound result.
    output: the file that was written, or None.
    siblings: how the other shards of a split model were placed beside the output.
    bootstrap: how the interval was made.
    adaptive: when the run stopped asking for more prompts, and why; None if it was to run all of them.
    prompts_sha256: hash of the prompts, whatever their order.
    data: what was read; `n_prompts` of its `n_questions` were run.
    models: both models, and what running them took.
    lens: rms error of the lens for each model, as a share of the logits' spread; None without layers.
    prompting: how questions were put to the models.
    runtime: versions and settings that can influence a number.
    warnings: one line each, without what `reasons` says already.
    """

    temperature: Temperature
    interval: tuple[float, float]
    method: str
    variant: Variant
    n_prompts: Count
    n_agreement: Count
    n_disagreement: Count
    agreement_rate: Share
    choice_mass: MassByRole
    pdl_histogram: list[Count] | None
    loss: LossByState
    accuracy: AccuracyByRole | None
    ece: EceByState | None
    n_labelled: Count
    bracket: BracketEnds
    anchor: Anchoring | None
    settled: bool
    harmful: bool | None
    label_check: LabelVerdict | None
    reasons: list[str]
    output: str | None
    siblings: list[SiblingFile]
    bootstrap: FitBootstrap
    adaptive: Adaptive | None
    prompts_sha256: str
    data: DataRead
    models: FitModels
    lens: dict[str, NonNegative] | None
    prompting: PromptingUsed
    runtime: Runtime
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-ready values; the keys are the attributes' names and are stable."""
        return {**super().to_dict(), "interval": list(self.interval)}


@dataclass(frozen=True)
class ProjectionResult(Printed):
    """A BaseCal map from the chat model's last hidden state to the base model's logits: `edgecal project`.

    Attributes
    ----------
    output: the file that was written, or None.
    n_bytes: its size.
    labels: the labels that the map has a row for.
    n_prompts: prompts that it was fitted on.
    ridge: penalty of the fit, as a share of the largest squared singular value of the states.
    error: rms difference between the map's and the base model's own probability of the chat model's choice, on prompts
        that are left out one at a time.
    choice_mass: mean probability on all choice tokens together.
    bracket, settled: as in a fit: how far these prompts say what the chat model's confidence should be, and whether
        that is far enough to believe the base model.
    ece: expected calibration error on the labelled prompts; None without labels.
    n_labelled: how many prompts had a label.
    harmful: whether the labelled prompts fail to show that the map's confidence is better than the chat model's own;
        None if there are fewer than 30.
    label_check: the negative log-likelihood of whether the choices are right, by the chat model's own confidence
        (before) and by the map's, prompts left out (after); None where there are fewer than 30.
    reasons: why it is unsettled or harmful and was refused, one line each; empty for a sound map.
    prompts_sha256: hash of the prompts, whatever their order.
    data: what was read.
    models: both models, and what running them took.
    prompting: how questions were put to the models.
    runtime: versions and settings that can influence a number.
    warnings: one line each, without what `reasons` says already.
    """

    output: str | None
    n_bytes: Count
    labels: list[str]
    n_prompts: Count
    ridge: NonNegative
    error: Share
    choice_mass: MassByRole
    bracket: BracketEnds
    settled: bool
    ece: ProjectionEce | None
    n_labelled: Count
    harmful: bool | None
    label_check: LabelVerdict | None
    reasons: list[str]
    prompts_sha256: str
    data: DataRead
    models: FitModels
    prompting: PromptingUsed
    runtime: Runtime
    warnings: list[str]


@dataclass(frozen=True)
class PlanResult(Printed):
    """What a fit over all questions would cost.

    Attributes
    ----------
    n_questions: questions for each model.
    data: what was read.
    models: what a run would cost each.
    seconds: predicted time for both models. Other work on the machine adds to it.
    settings: how llama.cpp would be run.
    warnings: one line each.
    """

    n_questions: Count
    data: DataRead
    models: PlannedModels
    seconds: NonNegative
    settings: Settings
    warnings: list[str]


@dataclass(frozen=True)
class DoctorResult(Printed):
    """What edgecal can do with a model file.

    Attributes
    ----------
    path, name, architecture, n_bytes: the file, all shards of a split model together.
    known: whether the table of architectures has this one.
    n_layer: blocks that a token passes through; None if the file is not a model that can be run.
    methods: the methods of `edgecal.fit` that work on this file. Without a run: those that should.
    reason: why some do not, in one line; None if all do.
    exit_code: what `edgecal fit` with its default method would return for this file: 0, 2 (unusable, or without the
        layers that this method needs) or 3 (llama.cpp cannot run it, or the lens is refused).
    head: the matrix that the logits are computed with; None if the file has none.
    ending: how the last block's output becomes logits; None where the header does not say.
    tokenizer, has_chat_template: `tokenizer.ggml.model`, and whether there is a chat template.
    bakeable, bake_reason: whether a temperature can be baked into the weights, and if not, why.
    notes: what else a user should know, one line each.
    seed: what drew the token ids; None without a run, as are all that follow.
    captured_layers: blocks whose output was captured.
    lens_rms: error of the re-projected last block, as a share of the spread of llama.cpp's logits (0.003 is allowed);
        None also if no layers were captured.
    logit_spread: standard deviation of the logits over the vocabulary, mean over the prompts that were run.
    llama_cpp: the version that ran the model.
    """

    path: str
    name: Json
    architecture: str | None
    n_bytes: Count
    known: bool
    n_layer: Count | None
    methods: list[str]
    reason: str | None
    exit_code: Count
    head: Head | None
    ending: FinalTransform | None
    tokenizer: str | None
    has_chat_template: bool
    bakeable: bool
    bake_reason: str | None
    notes: list[str]
    seed: Seed | None
    captured_layers: Count | None = None
    lens_rms: NonNegative | None = None
    logit_spread: float | None = None
    llama_cpp: str | None = None
