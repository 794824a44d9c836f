"""The result of a fit, as Python and as JSON.

Knows nothing of how it was computed, nor of how it is shown to people.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["FitResult"]


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
    output: the file that was written, or None.
    siblings: how the other shards of a split model came to stand beside the output.
    bootstrap: {"n", "level", "seed", "share_at_bound"}.
    prompts_sha256: hash of the prompts, whatever their order.
    models: {"base", "chat"}: path, name, tokens run, peak memory in bytes; the base's sha256.
    lens: {"base", "chat"}: rms error of the lens, as a share of the logits' spread; None without layers.
    runtime: versions and settings that can influence a number.
    warnings: one line each.
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
    output: str | None
    siblings: list[dict[str, str]]
    bootstrap: dict[str, Any]
    prompts_sha256: str
    models: dict[str, dict[str, Any]]
    lens: dict[str, float] | None
    runtime: dict[str, Any]
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-ready values; the keys are the attributes' names and are stable."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        values["interval"] = list(self.interval)
        return values
