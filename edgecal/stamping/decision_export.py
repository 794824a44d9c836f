"""The keys by which llama.cpp's decision mode reads a file, made from edgecal's own, and how they are taken out again.

    <arch>.decision.type                      "openjev": read the letters' logits
    <arch>.decision.temperature.choice[.3_5]  FLOAT32, for each type of question and number of options
    tokenizer.chat_template.systemone         the template
    edgecal.export.llama_decision             the names of all keys that the export added

It also writes how llama.cpp asks, `edgecal.decision.readout` = "letters" and `edgecal.decision.orders` = "1", so that
`edgecal decide` on the file gives llama.cpp's own numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from edgecal.decisions import TYPES
from edgecal.errors import InputError
from edgecal.gguf.header import FILLER_KEY, PREFIX, Header
from edgecal.gguf.rewrite import padding_edits
from edgecal.gguf.shards import ShardSet
from edgecal.gguf.values import Value, ValueType, quoted
from edgecal.stamping.decision_record import DecisionRecord, decision_values, read_decisions
from edgecal.stamping.record import is_baked, read_file_calibration

__all__ = [
    "EXPORT_KEY",
    "TEMPLATE_KEY",
    "DecisionExport",
    "check_can_export",
    "export_edits",
    "exported_keys",
    "plan_temperatures",
    "unexport_edits",
    "warn_of_export",
]

EXPORT_KEY = "edgecal.export.llama_decision"
TEMPLATE_KEY = "tokenizer.chat_template.systemone"
DECISION_TYPE = "openjev"
READOUT, ORDERS = "letters", "1"

# llama.cpp reads a number from its text with six decimals.
_LEAST = 0.01


@dataclass(frozen=True)
class DecisionExport:
    """What an export writes.

    Attributes
    ----------
    temperatures: by name ("choice", "choice.3_5"), above 0.
    record: edgecal's own keys as they are to be from then on.
    reasons: what speaks against these temperatures, one line each.
    warnings: what the user should know of them, one line each.
    """

    temperatures: Mapping[str, float]
    record: DecisionRecord
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]


def exported_keys(header: Header) -> tuple[str, ...]:
    """The keys that an earlier export added to a file; empty if there was none.

    Whatever the list in the file says, only keys that an export could have added are in it.
    """
    entry = header.entries.get(EXPORT_KEY)
    if entry is None or entry.element_type is not ValueType.STRING:
        return ()
    ours = (f"{header.architecture}.decision.", PREFIX)
    return tuple(
        key
        for key in (*header.get(EXPORT_KEY, []), EXPORT_KEY)
        if key in header and (key.startswith(ours) or key == TEMPLATE_KEY)
    )


def check_can_export(shards: ShardSet) -> None:
    """InputError if a file is a decision model that edgecal did not make."""
    header = shards.header
    ours = exported_keys(header)
    prefix = f"{header.architecture}.decision."
    tensors = [
        name
        for part in shards.headers
        for name in part.tensors
        if name.startswith("decision.") or ".decision." in name
    ]
    if tensors:
        raise InputError(
            f"{header.path}: has a trained decision head (the tensor {quoted(tensors[0])}), which llama.cpp reads "
            "instead of letters; edgecal's temperatures are not for it"
        )
    for key in header.keys:
        if key in ours or not (key.startswith(prefix) or key == TEMPLATE_KEY):
            continue
        found = f"{prefix}type"
        said = f" ({found} is {header.get(found)!r:.60})" if header.is_text(found) else ""
        raise InputError(
            f"{header.path}: is made for llama.cpp's decision mode already{said}, and edgecal did not write "
            f"{quoted(key)}; edgecal's temperatures are for the chat model's letters. Give the chat model's own file, "
            "or take the keys out with edgecal unset"
        )


def plan_temperatures(header: Header, prompt_sha256: str) -> DecisionExport:
    """The temperatures by which llama.cpp is to divide, and what speaks against them.

    Of each type its own, else the file's one temperature, else 1; of a baked file what is left to divide by. Those of a
    type and number of options as they are.

    Parameters
    ----------
    header: the file's (of a split model the first shard's).
    prompt_sha256: of the prompt that llama.cpp will be given (`DecisionPrompting.sha256`).

    Raises
    ------
    InputError: edgecal's keys make no sense, or a temperature is too small for llama.cpp.
    """
    calibration = read_file_calibration(header)
    record = read_decisions(header) or DecisionRecord()
    reasons: list[str] = []
    warnings: list[str] = []
    rest: list[str] = [kind for kind in TYPES if kind not in record.groups]
    temperatures: dict[str, float] = dict.fromkeys(rest, calibration.divisor)
    temperatures |= {name: group.temperature for name, group in record.groups.items()}
    others = _other_asking(record, prompt_sha256) if record.groups else []
    reasons += others
    for name, group in record.groups.items():
        if group.settled is False:
            reasons.append(f"the temperature of {name} is unsettled")
    if record.noul_bias:
        reasons.append(
            f"noul questions have a bias ({record.noul_bias:.4g}, edgecal.bias.noul), which llama.cpp cannot add"
        )
    if rest and calibration.kind == "none":
        which = "" if len(rest) == len(TYPES) else f" for {' and '.join(rest)}"
        warnings.append(
            f"{header.path}: holds no calibration{which}, so temperature 1 is written and the probabilities are the "
            "model's own; edgecal fit BASE FILE --requests finds temperatures"
        )
    elif rest and calibration.kind == "stamped":
        warnings.append(
            f"{header.path}: {' and '.join(rest)} get the file's one temperature, {calibration.divisor:.4g}, which was "
            "fitted on multiple-choice questions; edgecal fit BASE FILE --requests finds their own"
        )
    if rest and calibration.divisor != 1:
        reasons += calibration.doubts
    for name, temperature in temperatures.items():
        if temperature < _LEAST:
            raise InputError(
                f"{header.path}: the temperature of {name} is {temperature:g}, but llama.cpp reads only six "
                f"decimals of it; expected at least {_LEAST:g}"
            )
    spoilt = [name for name in record.groups if others or (record.noul_bias and name.startswith("noul"))]
    groups = {**record.groups, **{name: replace(record.groups[name], settled=False) for name in spoilt}}
    record = replace(record, groups=groups, noul_bias=None, bias_labels=None)
    return DecisionExport(
        temperatures, replace(record, readout=READOUT, orders=ORDERS), tuple(reasons), tuple(warnings)
    )


def _other_asking(record: DecisionRecord, prompt_sha256: str) -> list[str]:
    """Why temperatures that were fitted on otherwise asked questions are not for llama.cpp."""
    asked = [
        f"{what} {found} instead of {expected}"
        for what, found, expected in (
            ("readout", record.readout, READOUT),
            ("orders", record.orders, ORDERS),
        )
        if found is not None and found != expected
    ]
    if asked:
        return [
            f"its temperatures of questions were fitted with {' and '.join(asked)}, which is how llama.cpp asks; "
            f"fit them with edgecal fit BASE FILE --requests REQUESTS --readout {READOUT} --orders {ORDERS}"
        ]
    if record.prompt_sha256 is not None and record.prompt_sha256 != prompt_sha256:
        return [
            "its temperatures of questions were fitted with another prompt or chat template (edgecal.decision.prompt)"
        ]
    return []


def export_edits(
    header: Header, export: DecisionExport, template: str
) -> tuple[dict[str, Value], frozenset[str]]:
    """The edits that make a file a decision model: (keys to set, keys to remove), for `write_edited`. An earlier export
    is replaced.

    Raises
    ------
    InputError: the file is baked, and its record of typed questions would have to change.
    """
    prefix = f"{header.architecture}.decision."
    changes = {
        f"{prefix}type": Value.of(ValueType.STRING, DECISION_TYPE),
        **{f"{prefix}temperature.{name}": Value.float32(x) for name, x in export.temperatures.items()},
        TEMPLATE_KEY: Value.of(ValueType.STRING, template),
        **decision_values(export.record),
    }
    old = exported_keys(header)
    now = decision_values(read_decisions(header) or DecisionRecord())
    remove = {key for key in (*old, *now) if key not in changes and key != EXPORT_KEY}
    lost = [key for key in now if key not in old and changes.get(key) != now[key]]
    if is_baked(header) and lost:
        raise InputError(
            f"{header.path}: is baked, so {quoted(lost[0])} could not be restored later; use edgecal unbake first"
        )
    added = [key for key in changes if key not in header or key in old]
    if not any(key.startswith(PREFIX) for key in header.keys):
        changes |= padding_edits(header)
    changes[EXPORT_KEY] = Value.array(ValueType.STRING, added)
    return changes, frozenset(remove)


def unexport_edits(header: Header) -> frozenset[str]:
    """The keys to remove so that a file is the one from before an export; empty if there was none."""
    keys = exported_keys(header)
    return frozenset({*keys, FILLER_KEY}) if keys else frozenset()


def warn_of_export(header: Header) -> list[str]:
    """One line if a file that gets another calibration was exported for llama.cpp, since that is taken out."""
    if not exported_keys(header):
        return []
    return [
        f"{header.path}: was exported for llama.cpp's decision mode; a file with another temperature is written "
        "without that, since llama.cpp would go on dividing by the old one. Run edgecal export again"
    ]
