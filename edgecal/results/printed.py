"""Building blocks of every printed result: ranges of numbers, and the conversion to JSON-ready values.

A range is part of a key's type, so that the published schema, the check of a result that is read back, and the reader
of the code share one source. It is plain data: importing a result loads no JSON library.
"""

from __future__ import annotations

import sys
from dataclasses import Field
from typing import Annotated, Any, ClassVar, NamedTuple

if sys.version_info >= (3, 11):
    from typing import NotRequired
else:
    from typing_extensions import NotRequired

__all__ = [
    "Count",
    "Interval",
    "Json",
    "NonNegative",
    "NotRequired",
    "Ordinal",
    "Printed",
    "Probability",
    "Range",
    "Seed",
    "Share",
    "Temperature",
    "is_printed",
]


class Range(NamedTuple):
    """Bounds of a number (ge, gt, le) or how many items a list has (length); None where there is no bound."""

    ge: int | None = None
    gt: int | None = None
    le: int | None = None
    length: int | None = None


Count = Annotated[int, Range(ge=0)]
Ordinal = Annotated[int, Range(ge=1)]
Seed = Annotated[int, Range(ge=0)]
Share = Annotated[float, Range(ge=0, le=1)]
NonNegative = Annotated[float, Range(ge=0)]
Probability = Annotated[float, Range(gt=0, le=1)]
Temperature = Annotated[float, Range(gt=0)]
Interval = Annotated[list[float], Range(length=2)]
Json = Any  # anything that a file's metadata may hold


def is_printed(field: Field[Any]) -> bool:
    """Whether a field is a key in the JSON; a field's metadata can exclude it."""
    return bool(field.metadata.get("printed", True))


class Printed:
    """A dataclass whose fields, in their order, are the keys that `--json` prints."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-ready values; the keys are the attributes' names and are stable."""
        return {
            name: getattr(self, name)
            for name, field in self.__dataclass_fields__.items()
            if is_printed(field)
        }
