"""What a user says of a file's columns: which role each plays, and what answers count from.

Knows how a mapping is written; not how columns are found without one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgecal.data.delimited import column_key
from edgecal.data.fields import is_blank, look_up
from edgecal.data.roles import Given
from edgecal.data.spelling import READINGS
from edgecal.errors import InputError

__all__ = ["MAPPING_KEYS", "Told", "read_mapping"]

MAPPING_KEYS = ("question", "options", "labels", "answer", "answer-base", "passage", "subject")
_SEVERAL = ("options", "passage")
_LABELLED = "options_with_labels"


@dataclass(frozen=True)
class Told:
    """A mapping that was understood.

    Attributes
    ----------
    paths: for each role the columns' names, or paths such as `doc.question`, as the user wrote them.
    reading: the position in `READINGS` of what answers are, or None.
    """

    paths: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    reading: int | None = None

    @property
    def names(self) -> list[str]:
        """Names of columns in a header, as they are compared."""
        return [column_key(path.partition(".")[0]) for paths in self.paths.values() for path in paths] + [
            column_key(path) for paths in self.paths.values() for path in paths if "." in path
        ]

    @property
    def given(self) -> Given:
        """The roles by the keys under which `fields` puts them."""
        given = {
            role: tuple(map(column_key, paths)) for role, paths in self.paths.items() if role != "labels"
        }
        if "labels" in self.paths:
            given["options"] = (_LABELLED,)
        return given

    def fields(self, value: object) -> dict[str, object]:
        """What a row holds under the names and paths, by their keys."""
        found = {
            column_key(path): look_up(value, path)
            for role, paths in self.paths.items()
            for path in paths
            if role != "labels"
        }
        if "labels" in self.paths:
            texts = [found[column_key(path)] for path in self.paths["options"]]
            labels = [look_up(value, path) for path in self.paths["labels"]]
            found[_LABELLED] = {
                "text": texts[0] if len(texts) == 1 else texts,
                "label": labels[0] if len(labels) == 1 else labels,
            }
        return found

    def check(self, name: str, values: Sequence[object]) -> None:
        """Raises InputError if a column is in no row of a file."""
        for role, paths in self.paths.items():
            for path in paths:
                if all(is_blank(look_up(value, path)) for value in values):
                    keys = dict.fromkeys(
                        str(key) for value in values if isinstance(value, Mapping) for key in value
                    )
                    there = ", ".join(f"{key!r:.40}" for key in [*keys][:12]) or "no columns"
                    raise InputError(
                        f"{name}: {role}={path!r:.60} names nothing that is in a row; there are: {there}"
                    )


def read_mapping(mapping: Mapping[str, object] | None) -> Told | None:
    """Understands a mapping.

    Parameters
    ----------
    mapping: `question`, `options`, `answer`, `passage`, `subject`: a column's name, or a path such as
        `doc.question` into what a column holds. `options` and `passage` may be several, in a sequence or in one text
        with commas; one for the options holds them all. `labels`: likewise, the options' labels. `answer-base`: what
        answers are: 0 or 1 (counted from it), "label" (of an option, by place where they have none) or "text".

    Returns
    -------
    None if there is none.

    Raises
    ------
    InputError: an unknown key, or a value that is none of these.
    """
    if not mapping:
        return None
    paths: dict[str, tuple[str, ...]] = {}
    reading: int | None = None
    for key, value in mapping.items():
        role = str(key).strip().lower().replace("_", "-")
        if role not in MAPPING_KEYS:
            raise InputError(f"the mapping has no {key!r:.40}; there are: {', '.join(MAPPING_KEYS)}")
        if role == "answer-base":
            said = str(value).strip().lower()
            if isinstance(value, bool) or said not in READINGS:
                raise InputError(f"the mapping's answer-base must be 0, 1, label or text, got {value!r:.40}")
            reading = READINGS.index(said)
            continue
        listed = value.split(",") if isinstance(value, str) and role in (*_SEVERAL, "labels") else value
        names = [listed] if isinstance(listed, (str, int)) else listed
        if not isinstance(names, Sequence) or not all(isinstance(name, (str, int)) for name in names):
            raise InputError(f"the mapping's {role} must be a column's name, got {value!r:.60}")
        paths[role] = tuple(text for name in names if (text := str(name).strip()))
        if not paths[role] or (len(paths[role]) > 1 and role not in (*_SEVERAL, "labels")):
            raise InputError(f"the mapping's {role} must be one column's name, got {value!r:.60}")
    if "labels" in paths and "options" not in paths:
        raise InputError("the mapping's labels need options beside them")
    return Told(paths, reading)
