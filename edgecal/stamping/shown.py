"""What a file says about its calibration, for `edgecal show`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from edgecal.gguf.header import PREFIX, Header, read_header
from edgecal.gguf.inplace.journal import recover
from edgecal.results import ShowResult
from edgecal.stamping.decision_record import doubts_of_groups
from edgecal.stamping.record import read_doubts

__all__ = ["show"]


def show(file: str | Path) -> ShowResult:
    """What a model file says about its calibration and its sampling defaults, as `edgecal show` prints it.

    Reads the header alone. An edit of the file that was interrupted is finished or undone first.

    Raises
    ------
    InputError: the file cannot be read, or its calibration makes no sense. (Exit code 2 on the command line.)
    """
    recover(Path(file))
    header = read_header(file)
    doubts = [*read_doubts(header), *doubts_of_groups(header)]
    return ShowResult(
        path=str(header.path),
        name=header.get("general.name"),
        architecture=header.architecture,
        calibration=_section(header, PREFIX),
        sampling=_section(header, "general.sampling."),
        warnings=doubts,
    )


def _section(header: Header, prefix: str) -> dict[str, Any]:
    return {key: _finite(header.get(key)) for key in header.keys if key.startswith(prefix)}


def _finite(value: Any) -> Any:
    """The value; None if it is not finite (a missing end of the bracket), since JSON has no such number."""
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value if not isinstance(value, float) or math.isfinite(value) else None
