"""Reads what the user says of a file's columns, as in `--map question=Q,options=A+B,answer-base=1`: which role each
column plays, and how the gold answers are meant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edgecal.data.column_roles import KnownRoles
from edgecal.data.decoded_rows import column_key, is_blank, look_up
from edgecal.data.gold_readings import READINGS
from edgecal.errors import InputError

__all__ = ["ColumnMap", "read_column_map"]

_KEYS = ("question", "options", "labels", "answer", "answer-base", "passage", "subject")
_SEVERAL = ("options", "passage")
_LABELLED_OPTIONS = "options_with_labels"


@dataclass(frozen=True)
class ColumnMap:
    """The user's column map.

    Attributes
    ----------
    paths: by role, names of columns or paths such as `doc.question`, as the user wrote them.
    answer_base: how the gold answers are meant, as an index into `READINGS`; None if the user does not say.
    """

    paths: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    answer_base: int | None = None

    @property
    def names(self) -> list[str]:
        """The columns that must be in a header, by `column_key`."""
        return [column_key(path.partition(".")[0]) for paths in self.paths.values() for path in paths] + [
            column_key(path) for paths in self.paths.values() for path in paths if "." in path
        ]

    @property
    def known_roles(self) -> KnownRoles:
        """The columns' roles, by the keys that `fields` uses."""
        known = {
            role: tuple(map(column_key, paths)) for role, paths in self.paths.items() if role != "labels"
        }
        if "labels" in self.paths:
            known["options"] = (_LABELLED_OPTIONS,)
        return known

    def fields(self, value: object) -> dict[str, object]:
        """The values of a row at the mapped columns and paths, by key."""
        found = {
            column_key(path): look_up(value, path)
            for role, paths in self.paths.items()
            for path in paths
            if role != "labels"
        }
        if "labels" in self.paths:
            texts = [found[column_key(path)] for path in self.paths["options"]]
            labels = [look_up(value, path) for path in self.paths["labels"]]
            found[_LABELLED_OPTIONS] = {
                "text": texts[0] if len(texts) == 1 else texts,
                "label": labels[0] if len(labels) == 1 else labels,
            }
        return found

    def check(self, name: str, values: Sequence[object]) -> None:
        """Raises InputError if a mapped column is empty in all rows of a file."""
        for role, paths in self.paths.items():
            for path in paths:
                if all(is_blank(look_up(value, path)) for value in values):
                    keys = dict.fromkeys(
                        str(key) for value in values if isinstance(value, Mapping) for key in value
                    )
                    there = ", ".join(f"{key!r:.40}" for key in [*keys][:12]) or "no columns"
                    raise InputError(f"{name}: {role}={path!r:.60} is in no row; the columns are: {there}")


def read_column_map(mapping: Mapping[str, object] | None) -> ColumnMap | None:
    """Checks a mapping and turns it into a `ColumnMap`.

    Parameters
    ----------
    mapping: `question`, `options`, `answer`, `passage` and `subject`: a column's name, or a path such as
        `doc.question` into an object in a column. `options` and `passage` may name several, in a sequence or in one
        text with commas; a single column of options holds a list. `labels`: the options' labels, named likewise.
        `answer-base`: how answers are meant: 0 or 1 (a number counted from there), "label" (an option's label; its
        place where it has none) or "text" (an option's text).

    Returns
    -------
    None if the mapping is None or empty.

    Raises
    ------
    InputError: a key is unknown, or a value is none of these.
    """
    if not mapping:
        return None
    paths: dict[str, tuple[str, ...]] = {}
    answer_base: int | None = None
    for key, value in mapping.items():
        role = str(key).strip().lower().replace("_", "-")
        if role not in _KEYS:
            raise InputError(f"the mapping has no key {key!r:.40}; its keys are: {', '.join(_KEYS)}")
        if role == "answer-base":
            said = str(value).strip().lower()
            if isinstance(value, bool) or said not in READINGS:
                raise InputError(f"the mapping's answer-base must be 0, 1, label or text, got {value!r:.40}")
            answer_base = READINGS.index(said)
            continue
        listed = value.split(",") if isinstance(value, str) and role in (*_SEVERAL, "labels") else value
        names = [listed] if isinstance(listed, (str, int)) else listed
        if not isinstance(names, Sequence) or not all(isinstance(name, (str, int)) for name in names):
            raise InputError(f"the mapping's {role} must be a column's name, got {value!r:.60}")
        paths[role] = tuple(text for name in names if (text := str(name).strip()))
        if not paths[role] or (len(paths[role]) > 1 and role not in (*_SEVERAL, "labels")):
            raise InputError(f"the mapping's {role} must be one column's name, got {value!r:.60}")
    if "labels" in paths and "options" not in paths:
        raise InputError("the mapping names labels but no options; name both")
    return ColumnMap(paths, answer_base)
