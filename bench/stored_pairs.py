"""Reads the stored pairs of bench/pairs/, which `make pairs` makes, and says which choose and which judge.

Methods, priors and bounds are chosen on one half of the pairs and judged on the other. The half of a pair follows from
the SHA-256 of its name, within small and within real pairs, so that nobody can choose it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgecal.calibration import ChoiceLogits

FOLDER = Path(__file__).parent / "pairs"
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class StoredPair:
    """One pair's captured numbers.

    Attributes
    ----------
    name, kind: "small" or "real"; `half`: "choosing" or "judging".
    arrays: what the file holds (models/factory/store.py says what).
    meta: how the pair was made.
    """

    name: str
    kind: str
    half: str
    arrays: Mapping[str, npt.NDArray[Any]]
    meta: Mapping[str, Any]

    @cached_property
    def logits(self) -> ChoiceLogits:
        """Both models' choice logits of all n questions, with their labels."""
        a = self.arrays
        return ChoiceLogits(
            base_final=a["base_final"],
            chat_final=a["chat_final"],
            base_layers=a["base_layers"].astype(np.float32),
            chat_layers=a["chat_layers"].astype(np.float32),
            n_choices=a["n_choices"].astype(np.int32),
            labels=a["labels"].astype(np.int32),
        )

    @cached_property
    def truth(self) -> Floats:
        """The known probabilities of the answers, or the labels as 0 and 1, [n, K]."""
        if "probs" in self.arrays:
            return self.arrays["probs"].astype(np.float64)
        truth = np.zeros(self.arrays["chat_final"].shape)
        truth[np.arange(len(truth)), self.arrays["labels"]] = 1.0
        return truth

    @property
    def base_mass(self) -> float:
        """The base model's mean probability on the choices."""
        return float(self.arrays["base_mass"].mean())


def read_pairs(folder: Path = FOLDER) -> list[StoredPair]:
    """All stored pairs: small ones first, each kind by the hash of its name, choosing and judging in turn."""
    found = []
    for path in folder.glob("*.npz"):
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        meta = json.loads(str(arrays.pop("meta")))
        digest = hashlib.sha256(path.stem.encode()).hexdigest()
        found.append((meta["kind"] == "real", digest, path.stem, arrays, meta))
    found.sort(key=lambda entry: entry[:2])
    pairs, ranks = [], {False: 0, True: 0}  # the first of each kind is for choosing
    for is_real, _, name, arrays, meta in found:
        half = "judging" if ranks[is_real] % 2 else "choosing"
        ranks[is_real] += 1
        pairs.append(StoredPair(name, "real" if is_real else "small", half, arrays, meta))
    return pairs
