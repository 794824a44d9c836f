"""Judges every form of scaling: fitted and chosen on one part of the data, judged on the other."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from edgecal.calibration import ChoiceLogits, Scaling, choose_scaling
from edgecal.calibration.scaling import FORMS
from edgecal.evaluation.baselines import judge_logits
from edgecal.evaluation.judged_sets import shape_spread
from edgecal.evaluation.splits import Split
from edgecal.metrics import compute_accuracy, compute_ece, compute_nll
from edgecal.results.judging import ScalingForm, ScalingFound, ScalingRow, Scalings

__all__ = ["compare_scalings", "warn_of_scaling"]

_WORDS = {
    "subject": "a temperature for each subject",
    "bias": "a bias for each label beside the temperature",
    "vector": "a scale and a bias for each label",
}


def compare_scalings(
    logits: ChoiceLogits,
    splits: Sequence[Split],
    subjects: Sequence[str | None],
    choice_labels: Sequence[Sequence[Hashable]],
) -> Scalings:
    """The model as it is and every form of scaling, fitted on the labels of each split's first part.

    Parameters
    ----------
    logits: of all questions, all labelled.
    splits: the divisions; parameters and gains are those of the first.
    subjects, choice_labels: of each question, as in `choose_scaling`.
    """
    choices = []
    forms: tuple[ScalingForm, ...] = ("none", *FORMS)
    figures: dict[ScalingForm, list[tuple[float, float, float]]] = {form: [] for form in forms}
    as_it_is = Scaling("none", 1.0, {})
    for split in splits:
        choice = choose_scaling(
            logits.take(split.fit),
            [subjects[i] for i in split.fit],
            [choice_labels[i] for i in split.fit],
            seed=split.seed,
        )
        choices.append(choice)
        part = logits.take(split.judge)
        asked = [subjects[i] for i in split.judge]
        for form, scaling in (("none", as_it_is), *choice.scalings.items()):
            scaled = scaling.apply(part.chat_final, asked)
            judged = judge_logits(scaled, part.n_choices, part.labels)
            assert judged.probs is not None and judged.predicted is not None
            figures[form].append(
                (
                    compute_accuracy(judged.probs, part.labels),
                    compute_ece(judged.confidence, judged.correct),
                    compute_nll(judged.probs, part.labels),
                )
            )
    first = choices[0]
    rows: list[ScalingRow] = []
    for form, found in figures.items():
        trial = first.trials.get(form)
        accuracy, ece, nll = (shape_spread(each[at] for each in found) for at in range(3))
        rows.append(
            {
                "form": form,
                "withheld": first.withheld.get(form),
                "found": _shape(first.scalings[form]) if form in first.scalings else None,
                "gain": None
                if trial is None
                else {"value": trial.gain, "low": trial.low, "high": trial.high},
                "n_chosen": sum(choice.form == form for choice in choices),
                "accuracy": accuracy,
                "ece": ece,
                "nll": nll,
            }
        )
    return {"n_labelled": first.n_labelled, "chosen": first.form, "rows": rows}


def warn_of_scaling(scalings: Scalings, n_splits: int) -> list[str]:
    """One line if one temperature is not enough."""
    row = next(row for row in scalings["rows"] if row["form"] == scalings["chosen"])
    gain = row["gain"]
    if gain is None:
        return []
    return [
        f"one temperature is not enough here: {_WORDS[row['form']]} lowers the NLL of held-out labels by "
        f"{gain['value']:.4f} nats per question ({gain['low']:.4f} to {gain['high']:.4f}; chosen on {row['n_chosen']} "
        f"of {n_splits} splits), but a GGUF file carries one number"
    ]


def _shape(scaling: Scaling) -> ScalingFound:
    return {
        "temperature": scaling.temperature,
        "subjects": dict(scaling.subjects),
        "scales": None if scaling.scales is None else scaling.scales.tolist(),
        "biases": None if scaling.biases is None else scaling.biases.tolist(),
    }
