"""Results of `eval` and `compare`: figures with intervals, methods side by side, and the numbers behind pictures.

The report, the tables and the pictures are made from these alone, also when a result is read back from a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypedDict

from edgecal.results.fitting import BracketEnds, Runtime, Variant
from edgecal.results.printed import (
    Count,
    Interval,
    NonNegative,
    NotRequired,
    Ordinal,
    Printed,
    Seed,
    Share,
    Temperature,
)
from edgecal.results.questions import DataRead, MeasuredPrompting

__all__ = [
    "AblationRow",
    "AskedQuestion",
    "BaseRun",
    "Bootstrap",
    "CompareResult",
    "ComparedModels",
    "Comparison",
    "Estimate",
    "EvalResult",
    "ExtraRuns",
    "FigureSet",
    "Figures",
    "FiguresByState",
    "Headline",
    "JudgedGroup",
    "Judgement",
    "LayerDivergence",
    "LearningCurve",
    "LearningLine",
    "LearningPoint",
    "LossCurve",
    "MeanWithError",
    "MethodRow",
    "ModelRun",
    "Plots",
    "ReliabilityBins",
    "ReliabilityPlots",
    "RiskCurve",
    "RiskPlots",
    "RunCost",
    "ScalingForm",
    "ScalingFound",
    "ScalingRow",
    "Scalings",
    "SplitsUsed",
    "Spread",
    "SubjectFigures",
    "TemperatureUsed",
    "TypedQuestions",
    "WrongAnswer",
]


class ModelRun(TypedDict):
    """A model and what running it took.

    path: the file; of a split model the first shard.
    name: the model's name in its metadata, else its file's.
    architecture: as the file names it.
    n_tokens: tokens of the prompts.
    peak_memory_bytes: of the process that ran it; 0 where the system does not say.
    """

    path: str
    name: str
    architecture: str | None
    n_tokens: Count
    peak_memory_bytes: Count


class BaseRun(ModelRun):
    """The base model and what running it took.

    sha256: of its files.
    """

    sha256: str


class ComparedModels(TypedDict):
    """Both models.

    base, chat: each model and what running it took.
    """

    base: BaseRun
    chat: ModelRun


class Estimate(TypedDict):
    """A figure with its interval.

    value: the figure; null where it is undefined.
    low, high: its interval; null where it is undefined or nothing was resampled.
    """

    value: float | None
    low: float | None
    high: float | None


FigureSet = dict[str, Estimate]


class FiguresByState(TypedDict):
    """Figures of one or two models on the same questions.

    base: of the base model, by name; null if there is none, left out where there cannot be one.
    before: of the model as it is.
    after: with its logits divided by the temperature; null without one.
    """

    base: NotRequired[FigureSet | None]
    before: FigureSet
    after: FigureSet | None


class Figures(FiguresByState):
    """Figures with their intervals.

    difference: after less before, from the same resamples; null without a temperature.
    """

    difference: FigureSet | None


class SubjectFigures(FiguresByState):
    """Figures of the questions about one subject.

    subject: the subject.
    n: its questions.
    """

    subject: str
    n: Count


class TemperatureUsed(TypedDict):
    """What the logits were divided by.

    value: the temperature; null if there is none, or typed questions have several.
    source: where it comes from: the "file" or an "option"; "baked": it is in the weights, nothing is left to divide by.
    """

    value: Temperature | None
    source: Literal["option", "file", "baked"] | None


class JudgedGroup(TypedDict):
    """Typed questions of one type, or of one type and number of options.

    name: "choice", "score" or "noul"; with ".2", ".3_5", ".6_10" or ".11" those with so many options; "all".
    n: how many.
    temperature: what their logits were divided by; null if there is none, or there are several.
    settled: whether that temperature was fitted for them and is settled; null if nobody knows, or there are several.
    label_mass: mean probability of all labels together.
    flips: share of the questions whose answer is not the same in all orders that were run, which are at least two.
    n_orders: in how many orders a question was asked, on average.
    n_tokens: tokens of a question in these orders, on average, what they have in common counted once.
    n_tokens_once: the same in one order.
    """

    name: str
    n: Count
    temperature: Temperature | None
    settled: bool | None
    label_mass: Estimate
    flips: Estimate
    n_orders: NonNegative
    n_tokens: NonNegative
    n_tokens_once: NonNegative


class TypedQuestions(TypedDict):
    """How typed questions were asked, and what they have beside figures.

    readout: "labels" or "letters".
    orders: in how many orders the options were shown: a number, "choices", "all" or "auto".
    prompt_sha256: hash of the template and the chat template.
    groups: all, then each type, then each type and number of options.
    """

    readout: str
    orders: str
    prompt_sha256: str
    groups: list[JudgedGroup]


class Bootstrap(TypedDict):
    """How the intervals were made.

    n: resamples of the questions; 0: there are no intervals.
    n_by_subject: the same for the figures of a subject.
    level: share of the resamples that an interval holds.
    seed: what drew them.
    """

    n: Count
    n_by_subject: Count
    level: Share
    seed: Seed


class ReliabilityBins(TypedDict):
    """A reliability diagram; its lists have an item for each bin, null in an empty one.

    edges: of the bins, ascending; one more than there are bins.
    n: questions in each.
    confidence, accuracy: their means.
    low, high: interval of the accuracy.
    """

    edges: list[Share]
    n: list[Count]
    confidence: list[Share | None]
    accuracy: list[Share | None]
    low: list[Share | None]
    high: list[Share | None]


class ReliabilityPlots(TypedDict):
    """Reliability diagrams.

    base: of the base model; null where it was not judged.
    before, after: of the model without and with the temperature; null without one.
    """

    base: ReliabilityBins | None
    before: ReliabilityBins
    after: ReliabilityBins | None


class RiskCurve(TypedDict):
    """Errors avoided by leaving unsure questions unanswered.

    coverage: share of the questions that are answered, the surest first, ascending.
    risk: share of wrong answers among these.
    """

    coverage: list[Share]
    risk: list[Share]


class RiskPlots(TypedDict):
    """Risk against coverage.

    base: of the base model; null where it was not judged.
    before, after: of the model without and with the temperature; null without one.
    """

    base: RiskCurve | None
    before: RiskCurve
    after: RiskCurve | None


class LossCurve(TypedDict):
    """A method's loss around its minimum, on the questions that it was fitted on.

    method: the method.
    unit: of the loss.
    temperature, loss: the curve's points, by ascending temperature.
    chosen: the fitted temperature.
    interval: its interval.
    bracket: the bracket around it.
    """

    method: str
    unit: Literal["nats", "nats squared"]
    temperature: list[Temperature]
    loss: list[float]
    chosen: Temperature
    interval: Interval
    bracket: BracketEnds | None


class LayerDivergence(TypedDict):
    """How far the two models' choices diverge, layer by layer.

    layer: the layers, from 1.
    agreement, disagreement: mean divergence in nats over the questions on which both models choose alike, or do not;
        null where there are none.
    pdl_histogram: on how many of the latter the paths part most at each layer.
    n_agreement, n_disagreement: how many questions of each kind.
    """

    layer: list[Ordinal]
    agreement: list[NonNegative] | None
    disagreement: list[NonNegative] | None
    pdl_histogram: list[Count]
    n_agreement: Count
    n_disagreement: Count


class Plots(TypedDict):
    """The numbers behind the pictures.

    reliability: confidence against accuracy.
    risk_coverage: risk against coverage.
    loss: the loss by temperature; null where nothing was minimised.
    layers: divergence by layer; null where layers were not looked at.
    """

    reliability: ReliabilityPlots
    risk_coverage: RiskPlots
    loss: LossCurve | None
    layers: LayerDivergence | None


class AskedQuestion(TypedDict):
    """A question for people to read.

    where: file and line, or another name for its place.
    subject: what it is about; null if unknown.
    question: its text, with the passage it is about.
    choices: the options.
    """

    where: str
    subject: str | None
    question: str
    choices: list[str]


class WrongAnswer(AskedQuestion):
    """A question answered wrongly with high confidence.

    answer: index of the right choice.
    predicted: index of the model's.
    confidence_before, confidence_after: its confidence without and with the temperature; null without one.
    """

    answer: Count
    predicted: Count
    confidence_before: Share
    confidence_after: Share | None


class SplitsUsed(TypedDict):
    """How the questions were divided.

    n: number of splits.
    fit_share: share to fit on.
    seeds: the seed of each split.
    n_fit, n_evaluate: questions to fit on and to judge.
    """

    n: Count
    fit_share: Share
    seeds: list[Seed]
    n_fit: Count
    n_evaluate: Count


class Spread(TypedDict):
    """A number over the splits.

    mean, sd: mean and standard deviation (population) over the splits that have a value; null if none has.
    values: one for each split; null where it is undefined.
    """

    mean: float | None
    sd: float | None
    values: list[float | None]


class MethodRow(TypedDict):
    """A method, fitted on one part of the questions and judged on the other, split by split.

    name: the method.
    title: what it is called.
    variant: its options; null where it has none.
    uses_labels: whether it sees answers.
    n_labelled: of how many questions it sees the answer, if not of all that it is fitted on; null otherwise.
    default: whether it is the one that the verdict and the pictures are about.
    temperature: the fitted temperature; null for a method that fits none.
    figures: figures by name.
    n: questions judged in each split; the smallest number if they differ.
    not_identified: for each split without a temperature, why.
    n_worse: splits on which the answers are less probable with it than without; null for a method that fits none.
    withheld: why its figures are not shown; null where they are.
    parsed_share: share of the stated confidences that could be read; null for other methods.
    n_permutations: orders of the options that it averages over; null for other methods.
    """

    name: str
    title: str
    variant: Variant | None
    uses_labels: bool
    n_labelled: Count | None
    default: bool
    temperature: Spread | None
    figures: dict[str, Spread]
    n: Count
    not_identified: list[str]
    n_worse: Count | None
    withheld: str | None
    parsed_share: Share | None
    n_permutations: Count | None


class RunCost(TypedDict):
    """What was run beyond one run of each model over the questions.

    n_prompts: prompts.
    n_tokens: tokens of these.
    n_generated: tokens that the model wrote; left out where it wrote none.
    """

    n_prompts: Count
    n_tokens: Count
    n_generated: NotRequired[Count]


class ExtraRuns(TypedDict):
    """The cost of each kind of extra run, besides one run of each model over the questions; null if not run.

    cape: permuted options.
    verbalized: stated confidence.
    effects: other prompts on a sample.
    """

    cape: RunCost | None
    verbalized: RunCost | None
    effects: RunCost | None


_Varied = TypedDict("_Varied", {"lambda": "NonNegative"}, total=False)


class AblationRow(_Varied):
    """The method with one option changed.

    name: the option's value.
    lambda: weight of the process loss, if that is what is changed.
    method, n_prompts: the method and how many prompts it was fitted on, if these are changed.
    temperature: the fitted temperature.
    ece: expected calibration error with 10 equal-width bins.
    nll: negative log-likelihood in nats.
    not_identified: number of splits without a temperature.
    """

    name: str
    method: NotRequired[str]
    n_prompts: NotRequired[Ordinal]
    temperature: Spread
    ece: Spread
    nll: Spread
    not_identified: Count


class MeanWithError(TypedDict):
    """A mean over splits.

    mean: the mean; null where it is undefined.
    error: its standard error; null with a single split.
    """

    mean: float | None
    error: NonNegative | None


class LearningPoint(TypedDict):
    """A method with a number of labels, judged on the questions that it was not fitted on.

    n_labels: labels that it was fitted on.
    n_runs: splits times draws of labels.
    error: distance of ln temperature from that of supervised scaling on the judging questions, 0.1 is about 10 %.
    ece: expected calibration error with 10 equal-width bins.
    nll: negative log-likelihood in nats.
    n_harmful: runs with a higher NLL than the model as it is.
    n_at_bound: runs whose temperature is an end of the range that is searched.
    """

    n_labels: Count
    n_runs: Count
    error: MeanWithError
    ece: MeanWithError
    nll: MeanWithError
    n_harmful: Count
    n_at_bound: Count


class LearningLine(TypedDict):
    """A method by number of labels.

    method: the method.
    uses_labels: whether labels change it; if not, it has one point.
    points: by ascending number of labels.
    """

    method: str
    uses_labels: bool
    points: list[LearningPoint]


class LearningCurve(TypedDict):
    """What labels buy.

    n_draws: random draws of labels in each split.
    lines: one for each method.
    """

    n_draws: Count
    lines: list[LearningLine]


ScalingForm = Literal["none", "temperature", "subject", "bias", "vector"]


class ScalingFound(TypedDict):
    """The parameters of a form of scaling: logits, less their mean, become logits / temperature * scales + biases.

    temperature: of all questions, or of those whose subject has none of its own.
    subjects: each subject's temperature in its place.
    scales, biases: for the label at each place; null where the form has none.
    """

    temperature: Temperature
    subjects: dict[str, Temperature]
    scales: list[float] | None
    biases: list[float] | None


class ScalingRow(TypedDict):
    """A form of scaling, fitted on labels.

    form: "none" is the model as it is, "temperature" one number, "subject" a temperature for each subject, "bias" a
        temperature and a bias for each label, "vector" a scale and a bias for each label.
    withheld: why it was not tried; null where it was.
    found: its parameters on the first split; null for "none".
    gain: how much lower than with one temperature the mean NLL is (nats) for labels that it was not fitted on, by
        cross-validation in the first split, with 2 standard errors; null for "none" and "temperature".
    n_chosen: splits on which it is chosen.
    accuracy, ece, nll: on the judging questions.
    """

    form: ScalingForm
    withheld: str | None
    found: ScalingFound | None
    gain: Estimate | None
    n_chosen: Count
    accuracy: Spread
    ece: Spread
    nll: Spread


class Scalings(TypedDict):
    """Whether one temperature is enough.

    n_labelled: labels that each form is fitted on.
    chosen: the form chosen on the first split: "temperature" unless a richer one wins by more than 2 standard errors.
    rows: the forms.
    """

    n_labelled: Count
    chosen: ScalingForm
    rows: list[ScalingRow]


class Headline(TypedDict):
    """The chosen method on the first split.

    method: the method.
    variant: its options.
    temperature: the fitted temperature.
    interval: interval of the temperature, by bootstrap.
    split_seed: what drew the split.
    n_fit, n_evaluate: questions to fit on and to judge.
    """

    method: str
    variant: Variant
    temperature: Temperature
    interval: Interval
    split_seed: Seed
    n_fit: Count
    n_evaluate: Count


class Comparison(TypedDict):
    """The part of a `CompareResult` that follows from the models' choice logits alone."""

    verdict: str
    bracket: BracketEnds
    settled: bool
    harmful: bool | None
    reasons: list[str]
    rows: list[MethodRow]
    ablations: dict[str, list[AblationRow]]
    learning_curve: LearningCurve
    scalings: Scalings
    headline: Headline | None
    figures: Figures
    subjects: list[SubjectFigures]
    plots: Plots
    wrong: list[WrongAnswer]


@dataclass(frozen=True, kw_only=True)
class EvalResult(Printed):
    """One model judged on labelled questions. Values are JSON-ready; shares are shares, not percent.

    Attributes
    ----------
    kind: "eval".
    verdict: one sentence.
    model: the model and what running it took.
    data: what was read.
    prompting: how questions were put to the model, and what that did to the choice mass.
    temperature: what the logits were divided by.
    typed: of typed questions (requests), how they were asked; None for others.
    figures: each figure (see `edgecal.metrics.FIGURES`) with its interval.
    subjects: the same by subject; of typed questions by type.
    plots: the numbers behind the pictures.
    wrong: the most confidently wrong questions.
    bootstrap: how the intervals were made.
    runtime: versions and settings that can influence a number.
    warnings: one line each.
    """

    kind: Literal["eval"] = "eval"
    verdict: str
    model: ModelRun
    data: DataRead
    prompting: MeasuredPrompting
    temperature: TemperatureUsed
    typed: TypedQuestions | None = None
    figures: Figures
    subjects: list[SubjectFigures]
    plots: Plots
    wrong: list[WrongAnswer]
    bootstrap: Bootstrap
    runtime: Runtime
    warnings: list[str]


@dataclass(frozen=True, kw_only=True)
class CompareResult(Printed):
    """Methods compared on a pair of models and labelled questions. Values are JSON-ready; shares are shares.

    Attributes
    ----------
    kind: "compare".
    verdict: one sentence.
    models: both models, and what running them took.
    data: what was read.
    prompting: how questions were put to the models, and what that did to the choice mass.
    splits: how the questions were divided.
    bracket, settled, harmful, reasons: of the headline's method, as in `FitResult`; found on the questions that the
        first split fits on, and `harmful` by those that it judges on (None also without a temperature or intervals).
    rows: one for each method: temperature and figures as mean and spread over the splits, whether it uses labels,
        why it is withheld or was not identified, and on how many splits the labels are less probable with it than
        as the model is (n_worse; None for what is not fitted).
    extra_runs: prompts and tokens that were run beyond one run of each model over the questions.
    ablations: one option of the method changed at a time.
    learning_curve: error against the number of labels, over the splits and several draws of labels in each.
    scalings: whether one temperature is enough.
    headline: the chosen method on the first split: temperature, interval; None where not identified.
    figures: each figure on the headline's split, with its interval.
    subjects: the same by subject.
    plots: the numbers behind the pictures, of the headline's split.
    wrong: its most confidently wrong questions.
    bootstrap: how the intervals were made.
    runtime: versions and settings that can influence a number.
    warnings: one line each.
    """

    kind: Literal["compare"] = "compare"
    verdict: str
    models: ComparedModels
    data: DataRead
    prompting: MeasuredPrompting
    splits: SplitsUsed
    bracket: BracketEnds
    settled: bool
    harmful: bool | None
    reasons: list[str]
    rows: list[MethodRow]
    extra_runs: ExtraRuns
    ablations: dict[str, list[AblationRow]]
    learning_curve: LearningCurve
    scalings: Scalings
    headline: Headline | None
    figures: Figures
    subjects: list[SubjectFigures]
    plots: Plots
    wrong: list[WrongAnswer]
    bootstrap: Bootstrap
    runtime: Runtime
    warnings: list[str]


Judgement = EvalResult | CompareResult  # what a report, a table or a picture is made of
