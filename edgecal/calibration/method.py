"""The names of the methods and the variants of the Dual-Align loss, and which options apply to which method.

`DEFAULTS` is the only place that holds the defaults.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from edgecal.errors import InputError
from edgecal.results.fitting import Variant

__all__ = [
    "COMBINES",
    "DEFAULTS",
    "DEFAULT_LAMBDA",
    "DEFAULT_METHOD",
    "ISES",
    "METHODS",
    "MIN_DISAGREEMENTS",
    "MIN_EXAMPLES",
    "TAU_SCOPES",
    "Method",
]

METHODS: Final = ("dual-align", "daca", "naive", "process", "ts", "vanilla")
ISES: Final = ("mixture", "mean")
TAU_SCOPES: Final = ("all", "final")
COMBINES: Final = ("stratified", "divergence", "sum")

DEFAULT_METHOD: Final = "dual-align"
# Chosen on development questions of three pairs (docs/log.md). The process loss alone is more stable over all layers.
DEFAULTS: Final[dict[str, dict[str, str]]] = {
    "dual-align": {"ise": "mixture", "tau_scope": "final", "combine": "divergence"},
    "process": {"ise": "mixture", "tau_scope": "all"},
}
DEFAULT_LAMBDA: Final = 0.1

MIN_EXAMPLES: Final = 30  # in the loss; for Dual-Align of agreements alone
MIN_DISAGREEMENTS: Final = 10  # in addition, for Dual-Align


@dataclass(frozen=True)
class Method:
    """A method with its options, checked and completed.

    Attributes
    ----------
    name : one of METHODS
        `dual-align` (both losses), `daca` (confidence loss on agreement examples), `naive` (the same on all),
        `process` (process loss on disagreement examples), `ts` (negative log-likelihood of labels),
        `vanilla` (tau = 1).
    ise : "mixture" or "mean"
        Entropy of the layers' mean distribution, or mean of the layers' entropies.
    tau_scope : "all" or "final"
        Whether tau divides every layer PDL..L of the chat model, or only layer L.
    combine : "stratified", "divergence" or "sum"
        How Dual-Align combines its two losses.
    lam : finite number > 0
        Weight of the process loss in combine="sum".

    An option that is None takes its default if it applies to the method and stays None otherwise. Raises InputError
    for an option that is set but does not apply, or has an unknown value.
    """

    name: str = DEFAULT_METHOD
    ise: str | None = None
    tau_scope: str | None = None
    combine: str | None = None
    lam: float | None = None

    def __post_init__(self) -> None:
        if self.name not in METHODS:
            raise InputError(f"unknown method {self.name!r}, expected one of {', '.join(METHODS)}")
        has_process_loss = self.name in ("dual-align", "process")
        self._complete("ise", ISES, has_process_loss)
        self._complete("tau_scope", TAU_SCOPES, has_process_loss)
        self._complete("combine", COMBINES, self.name == "dual-align")
        if self.combine == "sum":
            lam = DEFAULT_LAMBDA if self.lam is None else self.lam
            if not (math.isfinite(lam) and lam > 0):
                raise InputError(f"lambda is {lam}, expected a finite number above 0")
            object.__setattr__(self, "lam", float(lam))
        elif self.lam is not None:
            raise InputError("lambda applies only to method dual-align with combine=sum; leave it out")

    def _complete(self, option: str, values: tuple[str, ...], applies: bool) -> None:
        """Check an option and set it to its default where it applies and is None."""
        value = getattr(self, option)
        name = option.replace("_", "-")
        if not applies:
            if value is not None:
                raise InputError(f"{name} does not apply to method {self.name}; leave it out")
        elif value is None:
            object.__setattr__(self, option, DEFAULTS[self.name][option])
        elif value not in values:
            raise InputError(f"unknown {name} {value!r}, expected one of {', '.join(values)}")

    @classmethod
    def of(cls, method: Method | str) -> Method:
        """Return `method` itself, or the method of that name with default options."""
        return method if isinstance(method, Method) else cls(method)

    @property
    def needs_layers(self) -> bool:
        """Whether the loss uses the logits of intermediate layers."""
        return self.ise is not None

    @property
    def needs_labels(self) -> bool:
        """Whether the loss uses labels."""
        return self.name == "ts"

    @property
    def needed(self) -> dict[str, int]:
        """Minimum number of examples of each kind: "agreement", "disagreement", "labelled", or "" for any."""
        if self.name == "vanilla":
            return {}
        kinds = {"dual-align": "agreement", "daca": "agreement", "process": "disagreement", "ts": "labelled"}
        needed = {kinds.get(self.name, ""): MIN_EXAMPLES}
        return needed | {"disagreement": MIN_DISAGREEMENTS} if self.name == "dual-align" else needed

    @property
    def min_examples(self) -> int:
        """The fewest prompts from which this method could find a temperature; the fit also counts each kind."""
        return sum(self.needed.values())

    @property
    def variant(self) -> Variant:
        """The options under their public names; None for one that does not apply."""
        return {"ise": self.ise, "tau_scope": self.tau_scope, "combine": self.combine, "lambda": self.lam}

    def variant_text(self) -> str:
        """The options that apply, as one line in a fixed order; "" if none apply.

        For example "ise=mixture tau_scope=all combine=sum lambda=0.1".
        """
        return " ".join(f"{option}={value}" for option, value in self.variant.items() if value is not None)
