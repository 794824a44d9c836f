"""Results, as Python and as JSON.

Knows nothing of how it was computed, nor of how it is shown to people.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["CompareResult", "DoctorResult", "EvalResult", "FitResult", "PlanResult", "QuestionsResult"]


@dataclass(frozen=True)
class FitResult:
    """A fitted temperature and everything that a reader needs to trust it.

    Attributes
    ----------
    temperature: the chat model's logits are divided by it; dimensionless, above 0.
    interval: percentile bootstrap interval over prompts, at `bootstrap["level"]`.
    method, variant: what was minimised; the variant's keys are ise, tau_scope, combine and lambda, None where
        a method has no such choice.
    n_prompts, n_agreement, n_disagreement: how many prompts, and on how many both models choose alike or not.
    agreement_rate: n_agreement / n_prompts.
    choice_mass: {"base", "chat"}: mean probability on all choice tokens together.
    pdl_histogram: item l - 1 counts the disagreement prompts whose paths part at layer l; None if the method
        captures no layers.
    loss: {"before", "after"}: the method's loss at temperature 1 and at the fitted one, in nats (squared
        nats where it holds the process loss); None for vanilla, which minimises nothing.
    accuracy: {"base", "chat"} on the labelled prompts; None without labels.
    ece: {"base", "before", "after"}, expected calibration error with 10 equal-width bins; None without labels.
    n_labelled: how many prompts had a label.
    bracket: {"low", "high", "low_interval", "high_interval"}: the temperatures between which the right one lies, if
        neither model counts against the other, each with its 95 % interval; None for what cannot be had. See
        `edgecal.calibration.bracket`.
    settled: whether the bracket and the base model's choice mass let a temperature be believed that no label has
        confirmed. True for ts, which has labels.
    harmful: whether the labelled prompts do not show the temperature to be better than none; None where there are
        fewer than 30, and for ts, which was fitted on them, and vanilla, which changes nothing.
    label_check: {"n", "nll_before", "nll_after", "difference", "interval", "found"}: the negative log-likelihood of
        the labels in nats, the 95 % interval of its difference by a paired bootstrap, and whether that is "better",
        "worse" or "undecided"; None where there are fewer than 30.
    reasons: why it is unsettled or harmful and was refused, one line each; empty for a result to be believed.
    output: the file that was written, or None.
    siblings: how the other shards of a split model came to stand beside the output.
    bootstrap: {"n", "level", "seed", "share_at_bound"}.
    adaptive: {"tolerance", "reached", "n_available", "stopped", "looks"}: when the run stopped asking for more prompts,
        and why: "tolerance" reached, "all" run, or "hopeless": no more of them would settle it. `reached` is half of
        the interval's width over the temperature. A look has n_prompts, temperature, interval, whether
        the run could have ended there (counts), and its own level, which is above the result's where more than one
        look shares the error. None if all prompts were run.
    prompts_sha256: hash of the prompts, whatever their order.
    data: as in `EvalResult`; `n_questions` are those that there were, of which `n_prompts` were run.
    models: {"base", "chat"}: path, name, tokens of the prompts, peak memory in bytes; the base's sha256.
    lens: {"base", "chat"}: rms error of the lens, as a share of the logits' spread; None without layers.
    prompting: {"template", "shots", "chat_template"}: how questions were put to the models.
    runtime: versions and settings that can influence a number.
    warnings: one line each; what the reasons say is not said here too.
    """

    temperature: float
    interval: tuple[float, float]
    method: str
    variant: dict[str, Any]
    n_prompts: int
    n_agreement: int
    n_disagreement: int
    agreement_rate: float
    choice_mass: dict[str, float]
    pdl_histogram: list[int] | None
    loss: dict[str, float | None]
    accuracy: dict[str, float] | None
    ece: dict[str, float] | None
    n_labelled: int
    bracket: dict[str, Any]
    settled: bool
    harmful: bool | None
    label_check: dict[str, Any] | None
    reasons: list[str]
    output: str | None
    siblings: list[dict[str, str]]
    bootstrap: dict[str, Any]
    adaptive: dict[str, Any] | None
    prompts_sha256: str
    data: dict[str, Any]
    models: dict[str, dict[str, Any]]
    lens: dict[str, float] | None
    prompting: dict[str, Any]
    runtime: dict[str, Any]
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-ready values; the keys are the attributes' names and are stable."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        values["interval"] = list(self.interval)
        return values


@dataclass(frozen=True)
class QuestionsResult:
    """How questions were read.

    Attributes
    ----------
    questions: each in edgecal's own form: question, choices and perhaps passage; or prompt and labels; or tokens and
        choice_tokens; with answer (an index from 0) and subject where they are known.
    sources: where each stands.
    prompts: each as a base model is given it: a text, or token ids.
    data: as in `EvalResult`; its `decisions` say what was decided for the data as a whole.
    warnings: one line each.
    """

    questions: list[dict[str, Any]]
    sources: list[str]
    prompts: list[str | list[int]]
    data: dict[str, Any]
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-ready values; the keys are the attributes' names and are stable."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True)
class PlanResult:
    """What a fit over all questions would cost.

    Attributes
    ----------
    n_questions: questions for each model.
    data: as in `EvalResult`.
    models: {"base", "chat"}: path, and the fields of `edgecal.pair.worker_plan.ModelPlan`: tokens, distinct tokens,
        what is kept, tokens per second of a short probe, predicted seconds, bytes of memory.
    seconds: of both models together, as predicted. Other work on the machine adds to it.
    settings: how llama.cpp would be run.
    warnings: one line each.
    """

    n_questions: int
    data: dict[str, Any]
    models: dict[str, dict[str, Any]]
    seconds: float
    settings: dict[str, Any]
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON-ready values; the keys are the attributes' names and are stable."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True)
class DoctorResult:
    """What edgecal can do with a model file.

    Attributes
    ----------
    path, name, architecture, n_bytes: the file, all shards of a split model together.
    known: whether the table of architectures has this one.
    n_layer: blocks that a token goes through; None where the file is no model that can be run.
    methods: the methods of `edgecal.fit` that work on this file. Without a run: those that should.
    reason: why not all of them, in one line; None if all do.
    exit_code: what `edgecal fit` with its default method would end with on this file: 0, 2 (unusable, or without the
        layers that this method needs) or 3 (llama.cpp cannot run it, or the lens is refused).
    head: {"tensor", "type", "n_vocab"}: what the logits are made with; None where the file has no head.
    ending: how the last block's output becomes logits: kind ("rms", "layer", None) and eps of the final norm,
        logit_scale, soft_cap, and n_streams of node, the graph's name of the residual stream; None where the header
        does not say.
    tokenizer, has_chat_template: `tokenizer.ggml.model`, and whether there is a chat template.
    bakeable, bake_reason: whether a temperature can be baked into the weights, and if not, why.
    notes: what else a user should know, one line each.
    seed: what drew the token ids; None, as the rest, without a run.
    captured_layers: blocks whose output was captured.
    lens_rms: error of the re-projected last block over the spread of llama.cpp's logits (0.003 is allowed); None also
        where no layers were captured.
    logit_spread: standard deviation of the logits over the vocabulary, mean over the prompts that were run.
    llama_cpp: the version that ran the model.
    """

    path: str
    name: Any
    architecture: str | None
    n_bytes: int
    known: bool
    n_layer: int | None
    methods: list[str]
    reason: str | None
    exit_code: int
    head: dict[str, Any] | None
    ending: dict[str, Any] | None
    tokenizer: str | None
    has_chat_template: bool
    bakeable: bool
    bake_reason: str | None
    notes: list[str]
    seed: int | None
    captured_layers: int | None = None
    lens_rms: float | None = None
    logit_spread: float | None = None
    llama_cpp: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-ready values; the keys are the attributes' names and are stable."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True)
class EvalResult:
    """One model judged on labelled questions. Values are JSON-ready; shares are shares, not percent.

    Attributes
    ----------
    verdict: one sentence.
    model: path, name, architecture, tokens run, peak memory in bytes.
    data: files and formats, what was decided about them (what answers are counted from, ...), how many questions
        were read, judged and skipped, and why; a hash of what was asked.
    prompting: template, worked examples, chat template, the choice mass, and each part's effect on it.
    temperature: {"value", "source"}: what the logits were divided by, and whether the file or an option said so.
    figures: {"before", "after", "difference"}: each figure (see `edgecal.metrics.FIGURES`) with its interval;
        the last two are None without a temperature.
    subjects: the same by subject.
    plots: the numbers behind the pictures.
    wrong: the most confidently wrong questions.
    bootstrap: {"n", "n_by_subject", "level", "seed"}.
    runtime: versions and settings that can influence a number.
    warnings: one line each.
    """

    verdict: str
    model: dict[str, Any]
    data: dict[str, Any]
    prompting: dict[str, Any]
    temperature: dict[str, Any]
    figures: dict[str, Any]
    subjects: list[dict[str, Any]]
    plots: dict[str, Any]
    wrong: list[dict[str, Any]]
    bootstrap: dict[str, Any]
    runtime: dict[str, Any]
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-ready values: `kind` is "eval", the other keys are the attributes' names."""
        return {"kind": "eval", **{name: getattr(self, name) for name in self.__dataclass_fields__}}


@dataclass(frozen=True)
class CompareResult:
    """Methods compared on a pair of models and labelled questions. Values are JSON-ready; shares are shares.

    Attributes
    ----------
    verdict: one sentence.
    models: {"base", "chat"}: as `EvalResult.model`; the base's sha256.
    data, prompting, bootstrap, runtime, warnings: as in `EvalResult`.
    splits: {"n", "fit_share", "seeds", "n_fit", "n_evaluate"}.
    bracket, settled, harmful, reasons: of the headline's method, as in `FitResult`; found on the questions that the
        first split fits on, and `harmful` by those that it judges on (None also without a temperature or intervals).
    rows: one for each method: temperature and figures as mean and spread over the splits, whether it uses labels,
        why it is withheld or was not identified, and on how many splits the labels are less probable with it than
        as the model is (n_worse; None for what is not fitted).
    extra_runs: prompts and tokens that were run beyond one run of each model over the questions.
    ablations: one option of the method changed at a time.
    headline: the chosen method on the first split: temperature, interval; None where not identified.
    figures: {"base", "before", "after", "difference"} on the headline's split, with intervals.
    subjects, plots, wrong: on the headline's split.
    """

    verdict: str
    models: dict[str, Any]
    data: dict[str, Any]
    prompting: dict[str, Any]
    splits: dict[str, Any]
    bracket: dict[str, Any]
    settled: bool
    harmful: bool | None
    reasons: list[str]
    rows: list[dict[str, Any]]
    extra_runs: dict[str, Any]
    ablations: dict[str, list[dict[str, Any]]]
    headline: dict[str, Any] | None
    figures: dict[str, Any]
    subjects: list[dict[str, Any]]
    plots: dict[str, Any]
    wrong: list[dict[str, Any]]
    bootstrap: dict[str, Any]
    runtime: dict[str, Any]
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-ready values: `kind` is "compare", the other keys are the attributes' names."""
        return {"kind": "compare", **{name: getattr(self, name) for name in self.__dataclass_fields__}}
