"""More than one number, where labels show that one is not enough: richer forms of scaling, chosen by held-out NLL.

Every form is a softmax regression on the logits divided by one temperature, so its penalised likelihood is strictly
convex and Newton's method finds the one minimum. The penalties are normal priors around that temperature: with few
labels a form stays near it. A form is chosen if, over labels that it was not fitted on, its gain exceeds two standard
errors; so more parameters alone never win. Platt (1999): scale and bias for two choices. Guo et al., "On calibration of
modern neural networks" (2017): vector scaling.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from edgecal.calibration.arrays import BoolArray, FloatArray, IntArray
from edgecal.calibration.choice_logits import ChoiceLogits
from edgecal.calibration.losses import build_loss
from edgecal.calibration.method import Method
from edgecal.calibration.search import TAU_MAX, TAU_MIN, Minimum, find_valley
from edgecal.errors import InputError
from edgecal.results.judging import ScalingForm

__all__ = [
    "FORMS",
    "MIN_LABELS",
    "N_FOLDS",
    "Scaling",
    "ScalingChoice",
    "Trial",
    "choose_scaling",
    "compare_held_out",
    "fit_supervised",
]

FORMS: Final[tuple[ScalingForm, ...]] = ("temperature", "subject", "bias", "vector")
MIN_LABELS: Final = 100  # for any form but one temperature
N_ERRORS: Final = 2.0  # standard errors by which a richer form must win
N_FOLDS: Final = 5
# Standard deviations of the priors: of a subject's or a label's scale, relative to the common one; of the common scale,
# relative to that without the form's other parameters; of a bias in nats.
_OWN_SD: Final = 0.5
_COMMON_SD: Final = 1.0
_BIAS_SD: Final = 1.0
_MAX_NEWTON_STEPS: Final = 100


@dataclass(frozen=True, eq=False)
class Scaling:
    """A fitted form: logits, less their mean, become logits / temperature * scales + biases.

    Attributes
    ----------
    form : one of FORMS
    temperature : the common one
    subjects : each subject's temperature in its place; empty unless form is "subject"
    scales, biases : float64 [k_max], for the label at each place; None where the form has none
    """

    form: ScalingForm
    temperature: float
    subjects: Mapping[str, float]
    scales: FloatArray | None = None
    biases: FloatArray | None = None

    def apply(self, logits: FloatArray, subjects: Sequence[str | None]) -> FloatArray:
        """Scaled logits, float64 [n, k_max], of float [n, k_max]; -inf where there is no choice.

        A subject that the fit did not see has the common temperature.
        """
        taus = np.array([self.subjects.get(subject or "", self.temperature) for subject in subjects])
        z = _centre(logits) / taus[:, None]
        if self.scales is not None:
            z *= self.scales
        if self.biases is not None:
            z += self.biases
        scaled: FloatArray = np.where(np.isfinite(logits), z, -np.inf)
        return scaled


@dataclass(frozen=True)
class Trial:
    """A richer form against one temperature, by cross-validation.

    gain : by how much it lowers the mean NLL of labels that it was not fitted on, in nats per question
    low, high : 2 standard errors (paired) less and more
    """

    gain: float
    low: float
    high: float


@dataclass(frozen=True)
class ScalingChoice:
    """The chosen form, and what the others would bring.

    Attributes
    ----------
    form : the chosen one
    scalings : each form that was tried, fitted on all labels
    trials : the gain of each of these but "temperature"
    withheld : why a form was not tried
    n_labelled : number of labels
    """

    form: ScalingForm
    scalings: Mapping[ScalingForm, Scaling]
    trials: Mapping[ScalingForm, Trial]
    withheld: Mapping[ScalingForm, str]
    n_labelled: int


def choose_scaling(
    logits: ChoiceLogits,
    subjects: Sequence[str | None] | None = None,
    choice_labels: Sequence[Sequence[Hashable]] | None = None,
    *,
    seed: int = 0,
) -> ScalingChoice:
    """Fits every form of scaling that the labelled prompts allow, and chooses one.

    `subject`: a temperature for each subject. `bias`: a temperature, and a bias for each label. `vector`: a scale and a
    bias for each label. In this order each replaces the one chosen so far if its held-out NLL is lower than that of
    both this one and one temperature, by more than 2 standard errors. `bias` and `vector` can change answers.

    Parameters
    ----------
    logits : the chat model's count; prompts without a label are left out.
    subjects : of each prompt, None where it has none.
    choice_labels : of each prompt; the labels that stand at the same place must be the same in all prompts, or there is
        no `bias` and no `vector`. None: they are.
    seed : draws the five folds, 0 to 2^64 - 1.

    Raises
    ------
    InputError: there is no label, or a list's length is not the number of prompts.
    """
    for name, values in (("subjects", subjects), ("choice labels", choice_labels)):
        if values is not None and len(values) != logits.n_prompts:
            raise InputError(f"there are {len(values)} {name} for {logits.n_prompts} prompts")
    rows = np.flatnonzero(logits.labels >= 0).tolist()
    if not rows:
        raise InputError("there is no label to fit a scaling on")
    part = replace(logits, base_layers=None, chat_layers=None).take(rows)
    named = [None if subjects is None else subjects[i] for i in rows]
    withheld = _withhold(named, None if choice_labels is None else [choice_labels[i] for i in rows])
    forms = [form for form in FORMS if form not in withheld]
    held_out = {form: np.empty(len(rows)) for form in forms}
    folds = np.random.Generator(np.random.PCG64(seed)).permutation(len(rows)) % N_FOLDS
    for fold in range(N_FOLDS if len(forms) > 1 else 0):
        train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        there, asked = part.take(test), [named[i] for i in test]
        for form, scaling in _fit_forms(forms, part.take(train), [named[i] for i in train]).items():
            held_out[form][test] = _losses(scaling.apply(there.chat_final, asked), there.labels)
    chosen: ScalingForm = "temperature"
    for form in forms[1:]:
        if all(
            compare_held_out(held_out[form], held_out[rival]).low > 0.0 for rival in ("temperature", chosen)
        ):
            chosen = form
    return ScalingChoice(
        form=chosen,
        scalings=_fit_forms(forms, part, named),
        trials={form: compare_held_out(held_out[form], held_out["temperature"]) for form in forms[1:]},
        withheld=withheld,
        n_labelled=len(rows),
    )


def fit_supervised(logits: ChoiceLogits) -> Minimum:
    """Supervised temperature scaling on one label or more: the minimum on [TAU_MIN, TAU_MAX], ends included."""
    return find_valley(build_loss(logits, Method("ts")).in_beta())[0]


def _withhold(
    subjects: Sequence[str | None], choice_labels: Sequence[Sequence[Hashable]] | None
) -> dict[ScalingForm, str]:
    """Why a form cannot be tried, for each that cannot."""
    if len(subjects) < MIN_LABELS:
        return dict.fromkeys(FORMS[1:], f"needs at least {MIN_LABELS} labels, has {len(subjects)}")
    withheld: dict[ScalingForm, str] = {}
    if len(set(subjects) - {None}) < 2:
        withheld["subject"] = "the questions do not have two subjects or more"
    at: dict[int, Hashable] = {}
    for labels in choice_labels or ():
        for place, label in enumerate(labels):
            if at.setdefault(place, label) != label:
                reason = f"the labels differ between prompts: {at[place]!r} and {label!r} both name choice {place + 1}"
                return {**withheld, "bias": reason, "vector": reason}
    return withheld


def compare_held_out(losses: FloatArray, rival: FloatArray) -> Trial:
    """The gain of one form on a rival, from the losses of both for each label, float64 [n]."""
    gains = rival - losses
    gain, reach = float(gains.mean()), N_ERRORS * float(gains.std(ddof=1)) / len(gains) ** 0.5
    return Trial(gain, gain - reach, gain + reach)


def _centre(logits: FloatArray) -> FloatArray:
    """float64 logits less the mean of each row's finite ones, 0 where a logit is -inf."""
    inside = np.isfinite(logits)
    z = np.where(inside, logits, 0.0).astype(np.float64)
    centred: FloatArray = np.where(
        inside, z - z.sum(axis=1, keepdims=True) / inside.sum(axis=1, keepdims=True), 0.0
    )
    return centred


def _losses(scaled: FloatArray, labels: IntArray) -> FloatArray:
    z = scaled - scaled.max(axis=1, keepdims=True)
    losses: FloatArray = np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), labels]
    return losses


def _fit_forms(
    forms: Sequence[ScalingForm], logits: ChoiceLogits, subjects: Sequence[str | None]
) -> dict[ScalingForm, Scaling]:
    tau = fit_supervised(logits).tau
    inside = np.isfinite(logits.chat_final)
    u = _centre(logits.chat_final) / tau
    return {form: _fit_form(form, tau, u, inside, logits.labels, subjects) for form in forms}


def _fit_form(
    form: ScalingForm,
    tau: float,
    u: FloatArray,
    inside: BoolArray,
    labels: IntArray,
    subjects: Sequence[str | None],
) -> Scaling:
    """Fits one form to logits `u` that one temperature has divided already; its parameters are deviations from that."""
    if form == "temperature":
        return Scaling(form, tau, {})
    places = np.eye(u.shape[1])[None] * inside[:, :, None]  # [n, k, k]: which label this is
    own: FloatArray = u[:, :, None] * places
    names = sorted({subject for subject in subjects if subject is not None})
    if form == "subject":
        own = (
            u[:, :, None]
            * np.array([[subject == name for name in names] for subject in subjects])[:, None, :]
        )
    scales = [u[:, :, None]] + ([own] if form != "bias" else [])
    features = np.concatenate(scales + ([places] if form != "subject" else []), axis=2)
    n_scales = sum(part.shape[2] for part in scales)
    sd = np.full(features.shape[2], _BIAS_SD)
    sd[:n_scales] = _OWN_SD
    sd[0] = _COMMON_SD
    found = _minimise(np.where(inside, u, -np.inf), features, labels, sd**-2.0)

    def within(scale: FloatArray) -> FloatArray:
        """The scale if the temperature stays in its range, which keeps it above 0."""
        clipped: FloatArray = np.clip(scale, tau / TAU_MAX, tau / TAU_MIN)
        return clipped

    common = float(within(1.0 + found[:1])[0])
    each = within(1.0 + found[0] + found[1:n_scales])
    if form == "subject":
        return Scaling(form, tau / common, dict(zip(names, (tau / each).tolist(), strict=True)))
    biases = found[n_scales:]
    return Scaling(form, tau / common, {}, each / common if form == "vector" else None, biases)


def _minimise(
    offset: FloatArray, features: FloatArray, labels: IntArray, precision: npt.NDArray[np.float64]
) -> FloatArray:
    """The parameters t that minimise the NLL of softmax(offset + features t) plus `precision t^2 / 2`, summed.

    offset: float64 [n, k], -inf where there is no choice; features: float64 [n, k, p], 0 there; precision: [p], above
    0, which makes the objective strictly convex. Newton's method with backtracking.
    """
    n, _, n_parameters = features.shape
    right = features[np.arange(n), labels]

    def objective(t: FloatArray) -> float:
        return float(_losses(offset + features @ t, labels).sum() + precision @ t**2 / 2.0)

    t = np.zeros(n_parameters)
    value = objective(t)
    for _ in range(_MAX_NEWTON_STEPS):
        scaled = offset + features @ t
        p = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        mean = np.einsum("nk,nkp->np", p, features)
        gradient = (mean - right).sum(axis=0) + precision * t
        spread = ((features - mean[:, None, :]) * np.sqrt(p)[:, :, None]).reshape(-1, n_parameters)
        step = np.linalg.solve(spread.T @ spread + np.diag(precision), gradient)
        descent = float(gradient @ step)
        if descent < 1e-10:
            break
        length = 1.0
        while (tried := objective(t - length * step)) > value - 1e-4 * length * descent and length > 1e-10:
            length /= 2.0
        t, value = t - length * step, tried
    return t
