"""Methods in the names of tests."""

from __future__ import annotations

from edgecal.calibration import Method


def variant_text(method: Method) -> str:
    """The options that apply, "ise=mixture combine=sum" for example; "" if none apply."""
    return " ".join(f"{option}={value}" for option, value in method.variant.items() if value is not None)
