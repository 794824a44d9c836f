"""The loss that each method minimises: which prompts it uses, which of the two losses, and with which weights.

conf_i(tau) = KL(p_g[L] || softmax(z_f[L] / tau)) in nats and proc_i(tau) = (ISE_f(tau) - ISE_g)^2 in nats squared,
over the layers PDL..L (Dual-Align, arXiv 2601.04277; conf on agreement examples alone is DACA, arXiv 2505.16690).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from edgecal.calibration.arrays import BoolArray, FloatArray, IntArray
from edgecal.calibration.choice_logits import ChoiceLogits
from edgecal.calibration.method import Method
from edgecal.errors import InputError

__all__ = ["Loss", "Terms", "build_loss", "compute_divergence"]

# Exponentials in one kernel call: a fraction of a second, so that Ctrl-C takes effect soon.
_WORK_PER_CALL = 20_000_000


@dataclass(frozen=True, eq=False)
class Terms:
    """How rows, one for each prompt in the loss, sum to a function of tau.

    The rows of a group are summed, multiplied by the group's factor, and divided by the group's number of examples
    (`by_group`) or by the number of all prompts.
    """

    prompts: IntArray  # int64 [m], index of each row's prompt
    groups: IntArray  # int64 [m], 0 .. n_groups - 1
    factors: FloatArray  # float64 [n_groups]
    by_group: bool
    n_prompts: int


@dataclass(frozen=True, eq=False)
class Loss(Terms):
    """A loss as a function of tau; row i is conf_weights[i] conf_i + process_weights[i] proc_i."""

    n_choices: IntArray  # int32 [m]
    final: FloatArray  # float32 [m, k_max], the chat model's logits
    targets: FloatArray  # float64 [m, k_max], the distributions that softmax(final / tau) should match
    conf_weights: FloatArray  # float64 [m]
    layers: FloatArray | None  # float32 [m, n_layer, k_max], the chat model's layers
    first: IntArray  # int64 [m], index of the first layer averaged
    stability: FloatArray  # float64 [m], the base model's ISE
    process_weights: FloatArray  # float64 [m]
    mixture: bool
    all_layers: bool

    @property
    def n_used(self) -> int:
        """Number of examples in the loss."""
        return int(self.prompts.size)

    @property
    def is_convex(self) -> bool:
        """Whether it is the confidence loss alone, which is convex in 1 / tau."""
        return not np.any(self.process_weights)

    @property
    def scales(self) -> FloatArray:
        """The multiplier of each group's sum; 0 for a group without examples."""
        sizes = np.bincount(self.groups, minlength=self.factors.size).astype(np.float64)
        if not self.by_group:
            return self.factors / max(self.n_prompts, 1)
        return np.divide(self.factors, sizes, out=np.zeros_like(sizes), where=sizes > 0)

    def evaluate(self, tau: FloatArray, table: FloatArray | None = None) -> tuple[FloatArray, FloatArray]:
        """Loss and its slope in ln tau at each tau: two float64 [n_tau].

        `table` (float32 [m, n_nodes]) receives each row's slopes at the first n_nodes values of tau.
        """
        from edgecal.calibration.prompt_kernels import accumulate_rows

        betas = 1.0 / np.ascontiguousarray(tau, dtype=np.float64)
        sums = np.zeros((2, self.factors.size, betas.size))
        k_max = self.final.shape[1]
        depth = 1 if self.layers is None else self.layers.shape[1]
        chunk = max(1, _WORK_PER_CALL // (max(betas.size, 1) * k_max * (depth + 1)))
        for start in range(0, self.n_used, chunk):
            rows = slice(start, min(start + chunk, self.n_used))
            losses = np.zeros((rows.stop - start, betas.size))
            slopes = np.zeros_like(losses)
            self._add(rows, betas, losses, slopes)
            accumulate_rows(losses, self.groups[rows], sums[0])
            accumulate_rows(slopes, self.groups[rows], sums[1])
            if table is not None:
                table[rows] = slopes[:, : table.shape[1]]
        scales = self.scales[:, None]
        return (scales * sums[0]).sum(axis=0), (scales * sums[1]).sum(axis=0)

    def in_beta(self) -> Callable[[float], tuple[float, float, float]]:
        """A function of beta = 1 / tau that returns a convex loss (`is_convex`) and its first two derivatives."""
        from edgecal.calibration.prompt_kernels import confidence_columns, confidence_sums

        columns = confidence_columns(self.targets, self.final, self.n_choices)
        weights = self.conf_weights * self.scales[self.groups]
        return lambda beta: confidence_sums(*columns, weights, beta)

    def _add(self, rows: slice, betas: FloatArray, losses: FloatArray, slopes: FloatArray) -> None:
        """Add the two losses of some rows; each kernel gets only the rows with a nonzero weight."""
        for weights, add in (
            (self.conf_weights, self._add_confidence),
            (self.process_weights, self._add_process),
        ):
            weighted = np.flatnonzero(weights[rows])
            if weighted.size == losses.shape[0]:  # all rows: no need to copy them
                add(rows, betas, losses, slopes)
            elif weighted.size:
                part = losses[weighted], slopes[weighted]
                add(weighted + rows.start, betas, *part)
                losses[weighted], slopes[weighted] = part

    def _add_confidence(
        self, at: slice | IntArray, betas: FloatArray, losses: FloatArray, slopes: FloatArray
    ) -> None:
        from edgecal.calibration.prompt_kernels import add_confidence_rows

        add_confidence_rows(
            self.targets[at], self.final[at], self.n_choices[at], self.conf_weights[at], betas, losses, slopes
        )

    def _add_process(
        self, at: slice | IntArray, betas: FloatArray, losses: FloatArray, slopes: FloatArray
    ) -> None:
        from edgecal.calibration.layer_kernels import stability_entropy
        from edgecal.calibration.prompt_kernels import add_process_rows

        assert self.layers is not None  # a row with this weight has layers
        stability = stability_entropy(
            self.layers[at], self.n_choices[at], self.first[at], self.mixture, self.all_layers, betas
        )
        add_process_rows(*stability, self.stability[at], self.process_weights[at], losses, slopes)


def compute_divergence(logits: ChoiceLogits) -> tuple[FloatArray, IntArray]:
    """Layer-wise divergence of the two models and the layer of its largest jump.

    Returns (profile, peaks): float64 [n_prompts, n_layer] of d[l] = JSD(p_g[l], p_f[l]) in nats, untempered,
    and int64 [n_prompts] of PDL = argmax over l in 2..L of |d[l] - d[l-1]| (layers from 1, ties: lowest).

    Raises InputError without layer logits or with fewer than 2 layers.
    """
    from edgecal.calibration.layer_kernels import divergence_profile
    from edgecal.calibration.prompt_kernels import peak_divergence_layers

    if logits.base_layers is None or logits.chat_layers is None:
        raise InputError("the process loss needs the logits of every layer and got none; use --method daca")
    if logits.base_layers.shape[1] < 2:
        raise InputError("the process loss needs at least 2 layers, the models have 1; use --method daca")
    profile = divergence_profile(logits.base_layers, logits.chat_layers, logits.n_choices)
    return profile, peak_divergence_layers(profile)


def build_loss(
    logits: ChoiceLogits, method: Method, divergence: tuple[FloatArray, IntArray] | None = None
) -> Loss:
    """Build the loss of `method` on `logits`. `divergence`: the result of `compute_divergence(logits)`, if at hand.

    Raises InputError for a method without a loss, and if layers or labels that the method needs are missing.
    """
    from edgecal.calibration.layer_kernels import stability_at_one
    from edgecal.calibration.prompt_kernels import softmax_rows

    if method.name == "vanilla":
        raise InputError("method vanilla has no loss: its temperature is 1")
    if method.name == "anchored":
        raise InputError("method anchored has no loss: its temperature is a posterior median (fit_anchored)")
    agree = logits.agreement
    n = logits.n_prompts
    conf, process, factors, by_group = _weights(logits, method, agree)
    if method.needs_layers:
        profile, peaks = compute_divergence(logits) if divergence is None else divergence
        if method.combine == "divergence":
            share = profile[np.arange(n), peaks - 1] / np.log(2.0)
            conf, process = 1.0 - share, share
    else:
        peaks = np.ones(n, dtype=np.int64)
    prompts = np.flatnonzero((conf > 0.0) | (process > 0.0))
    groups = np.zeros(n, dtype=np.int64) if factors.size == 1 else (~agree).astype(np.int64)
    n_choices = logits.n_choices[prompts]
    targets: FloatArray
    if method.needs_labels:
        targets = np.zeros((prompts.size, logits.chat_final.shape[1]))
        targets[np.arange(prompts.size), logits.labels[prompts]] = 1.0
    else:
        targets = softmax_rows(logits.base_final.take(prompts, axis=0), n_choices)
    first = peaks[prompts] - 1
    stability: FloatArray = np.zeros(prompts.size)
    mixture, all_layers = method.ise == "mixture", method.tau_scope == "all"
    layers = None
    if method.needs_layers and logits.base_layers is not None and logits.chat_layers is not None:
        layers = logits.chat_layers.take(prompts, axis=0)
        base = logits.base_layers.take(prompts, axis=0)
        stability = stability_at_one(base, n_choices, first, mixture)
    return Loss(
        prompts=prompts,
        groups=groups[prompts],
        factors=factors,
        by_group=by_group,
        n_prompts=n,
        n_choices=n_choices,
        final=logits.chat_final.take(prompts, axis=0),
        targets=targets,
        conf_weights=conf[prompts],
        layers=layers,
        first=first,
        stability=stability,
        process_weights=process[prompts],
        mixture=mixture,
        all_layers=all_layers,
    )


def _weights(
    logits: ChoiceLogits, method: Method, agree: BoolArray
) -> tuple[FloatArray, FloatArray, FloatArray, bool]:
    """The confidence weights [n], process weights [n], group factors [n_groups], and `by_group` of `Terms`."""
    zeros, one = np.zeros(logits.n_prompts), np.ones(1)
    agreeing, disagreeing = agree.astype(np.float64), (~agree).astype(np.float64)
    if method.name == "daca":
        return agreeing, zeros, one, True
    if method.name == "naive":
        return zeros + 1.0, zeros, one, True
    if method.name == "ts":
        if not np.any(logits.labels >= 0):
            raise InputError("method ts needs labels and no prompt has an answer; add answers, or use daca")
        return (logits.labels >= 0).astype(np.float64), zeros, one, True
    if method.name == "process":
        return zeros, disagreeing, one, True
    if method.combine == "divergence":  # the caller computes the weights from the divergence
        return zeros, zeros, one, True
    if method.combine == "sum" and method.lam is not None:
        return agreeing, disagreeing, np.array([1.0, method.lam]), True
    return agreeing, disagreeing, np.ones(2), False
