"""What a file says about its calibration, and what is left for an app to do.

`edgecal.temperature` is what is left to divide the logits by: baking sets it to 1. Knows the keys. Does not know
llama.cpp, and writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgecal.bake.keys import baked_temperature
from edgecal.gguf import CalibrationRecord, Header, SamplingTemperature, read_calibration, read_sampling

__all__ = ["FileCalibration", "read_file_calibration"]

Kind = Literal["stamped", "baked", "none"]


@dataclass(frozen=True)
class FileCalibration:
    """How a file is calibrated.

    Attributes
    ----------
    kind: "stamped": a temperature is in the metadata, and whoever wants confidence divides the logits by it.
        "baked": the weights give divided logits already. "none": nobody has calibrated this file.
    temperature: what was fitted (stamped), or what the weights' logits are divided by (baked); above 0, None where
        kind is "none".
    divisor: what is left to divide the file's logits by: the temperature if stamped, else 1, unless a baked file
        was calibrated again by force.
    record: how the temperature was fitted; None where the file does not say.
    sampling: the temperature that programs sample with by default, and whose it is.
    """

    kind: Kind
    temperature: float | None
    divisor: float
    record: CalibrationRecord | None
    sampling: SamplingTemperature

    @property
    def doubts(self) -> tuple[str, ...]:
        """What speaks against the temperature, one line each: edgecal refused it, and somebody insisted (`edgecal fit
        --unsettled`). Empty where nothing does, or where the file does not say."""
        return () if self.record is None else self.record.doubts

    @property
    def sentence(self) -> str:
        """One sentence for people."""
        return self._told + ("; it is not to be relied on: " + "; ".join(self.doubts) if self.doubts else "")

    @property
    def _told(self) -> str:
        if self.kind == "stamped":
            return f"logits are divided by the file's temperature, {self.divisor:.4g}"
        if self.kind == "baked":
            then = (
                "so logits are taken as they are"
                if self.divisor == 1
                else f"and logits are divided by a further {self.divisor:.4g}, which was stamped later"
            )
            return f"the temperature, {self.temperature:.4g}, is baked into the weights, {then}"
        return (
            "the file holds no calibration, so logits are taken as they are (temperature 1) and the confidence is "
            "the model's own; edgecal fit finds a temperature"
        )


def read_file_calibration(header: Header) -> FileCalibration:
    """How the file with this header (of a split model the first shard's) is calibrated.

    A baked file that names the baked temperature as what is left to divide by, which edgecal does not write, is not
    divided twice.

    Raises
    ------
    InputError: a calibration key is of the wrong type or makes no sense.
    """
    record = read_calibration(header)
    sampling = read_sampling(header)
    baked = baked_temperature(header)
    left = 1.0 if record is None or record.temperature == baked else record.temperature
    if baked is not None:
        return FileCalibration("baked", baked, left, record, sampling)
    if record is not None:
        return FileCalibration("stamped", left, left, record, sampling)
    return FileCalibration("none", None, 1.0, None, sampling)
