"""Makes a calibration record from a `FitResult`, or from the JSON that `edgecal fit --json` printed.

A result in a file may have been edited, so every field is checked.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from edgecal.errors import InputError, UnsettledError
from edgecal.gguf.values import encode_text
from edgecal.stamping.decision_record import GROUPS, DecisionRecord, GroupRecord
from edgecal.stamping.record import CalibrationRecord

__all__ = ["decisions_of_result", "name_of_chat", "read_result", "read_text", "record_of_result"]

MAX_RESULT_BYTES = 1 << 26

_VARIANT = ("ise", "tau_scope", "combine", "lambda")


def record_of_result(result: Mapping[str, Any] | str | bytes, where: str) -> CalibrationRecord:
    """The record that a fit writes into its output, from `FitResult.to_dict()` or the same as JSON text.

    `where` names it in messages. InputError: it is not JSON or not a fit's result, or a value is missing, of the wrong
    type or out of range.
    """
    fields = _Fields(_checked(result, where), where)
    models = _Fields(fields.of_kind("models", dict, "an object"), f"{where}: models")
    base = _Fields(models.of_kind("base", dict, "an object"), f"{where}: models.base")
    runtime = _Fields(fields.of_kind("runtime", dict, "an object"), f"{where}: runtime")
    variant = _Fields(fields.of_kind("variant", dict, "an object"), f"{where}: variant")
    anchor = (
        _Fields(fields.of_kind("anchor", dict, "an object"), f"{where}: anchor")
        if fields.has("anchor")
        else None
    )
    return CalibrationRecord(
        temperature=fields.number("temperature", "a positive number", lambda tau: tau > 0),
        interval=_interval(fields, where),
        method=fields.text("method"),
        variant=" ".join(
            f"{name}={value}" for name in _VARIANT if (value := variant.plain(name)) is not None
        ),
        prompts_count=fields.count("n_prompts"),
        prompts_sha256=fields.text("prompts_sha256"),
        labels_count=None if anchor is None else anchor.count("n_labels"),
        labels_sha256=None if anchor is None else anchor.text("sha256"),
        agreement_rate=fields.number("agreement_rate", "a number from 0 to 1", lambda rate: 0 <= rate <= 1),
        bracket=_bracket(fields, where),
        settled=fields.flag("settled"),
        harmful=fields.flag("harmful"),
        reasons=tuple(fields.texts("reasons")),
        base_name=base.text("name"),
        base_sha256=base.text("sha256"),
        llama_cpp=runtime.text("llama_cpp"),
        version=runtime.text("edgecal"),
    )


def decisions_of_result(
    result: Mapping[str, Any] | str | bytes, where: str, *, unsettled: bool = False
) -> DecisionRecord:
    """The record that a fit of requests writes, from `RequestFitResult.to_dict()` or the same as JSON text.

    Parameters
    ----------
    result: the fit's.
    where: its name in messages.
    unsettled: include the groups that something speaks against.

    Raises
    ------
    InputError: it is not such a result, or a value is missing, of the wrong type or out of range.
    UnsettledError: no group is left; `warnings` say why.
    """
    fields = _Fields(_checked(result, where), where)
    groups: dict[str, GroupRecord] = {}
    doubts: list[str] = []
    for index, item in enumerate(fields.of_kind("groups", list, "a list")):
        at = f"{where}: groups[{index}]"
        if not isinstance(item, Mapping):
            raise InputError(f"{at} is {_short(item)}, expected an object; was the result edited?")
        group = _Fields(item, at)
        name = group.text("name")
        if name not in GROUPS:
            raise InputError(f"{at}: name is {name!r:.60}, expected one of {', '.join(GROUPS)}")
        reasons = group.texts("reasons")
        doubts += [f"{name}: {reason}" for reason in reasons]
        if group.has("temperature") and (unsettled or not reasons):
            groups[name] = GroupRecord(
                temperature=group.number("temperature", "a positive number", lambda tau: tau > 0),
                interval=_interval(group, at),
                bracket=_bracket(group, at),
                settled=not reasons,
            )
    if not groups:
        raise UnsettledError(
            f"{where}: no temperature of any type is settled, and nothing was written", doubts
        )
    bias = _bias(fields, where) if "noul" in groups else None
    requests = _Fields(fields.of_kind("requests", dict, "an object"), f"{where}: requests")
    models = _Fields(fields.of_kind("models", dict, "an object"), f"{where}: models")
    base = _Fields(models.of_kind("base", dict, "an object"), f"{where}: models.base")
    return DecisionRecord(
        groups=groups,
        noul_bias=None if bias is None else bias.number("bias", "a number", math.isfinite),
        bias_labels=None if bias is None else bias.count("n_labels"),
        readout=fields.text("readout"),
        orders=fields.text("orders"),
        prompt_sha256=fields.text("prompt_sha256"),
        method=fields.text("method"),
        requests_count=requests.count("n_questions"),
        requests_sha256=requests.text("sha256"),
        base_sha256=base.text("sha256"),
    )


def _bias(fields: _Fields, where: str) -> _Fields | None:
    """Scale and bias of yes/no questions; None if the result has none, or they did not help."""
    if not fields.has("noul_bias"):
        return None
    bias = _Fields(fields.of_kind("noul_bias", dict, "an object"), f"{where}: noul_bias")
    return bias if bias.flag("used") else None


def _interval(fields: _Fields, where: str) -> tuple[float, float]:
    interval = fields.of_kind("interval", list, "two numbers in order")
    if len(interval) != 2 or not all(_is_number(bound) for bound in interval) or interval[0] > interval[1]:
        raise InputError(f"{where}: interval is {_short(interval)}, expected two numbers in order")
    return float(interval[0]), float(interval[1])


def _bracket(fields: _Fields, where: str) -> tuple[float | None, float | None] | None:
    """Both ends; None for a result without a bracket, from before 0.6."""
    if not fields.has("bracket"):
        return None
    bracket = _Fields(fields.of_kind("bracket", dict, "an object"), f"{where}: bracket")
    low, high = (
        bracket.number(end, "a positive number or null", lambda tau: tau > 0) if bracket.has(end) else None
        for end in ("low", "high")
    )
    return low, high


def name_of_chat(result: Mapping[str, Any] | str | bytes, where: str) -> str | None:
    """The name of the chat model that was fitted; None if the result does not say.

    InputError: not a fit's result.
    """
    models = _checked(result, where)["models"]
    chat = models.get("chat") if isinstance(models, dict) else None
    name = chat.get("name") if isinstance(chat, dict) else None
    return name if isinstance(name, str) else None


def read_result(path: str | Path, stream: BinaryIO | None = None) -> Mapping[str, Any]:
    """The fit's result in a file, or in `stream` if given; InputError as for `record_of_result`."""
    return _checked(read_text(path, stream), str(path))


def read_text(path: str | Path, stream: BinaryIO | None = None, *, keep: bool = False) -> str:
    """The text of a small file, or of `stream` if given; with `keep`, bytes that are not UTF-8 survive.

    InputError: it cannot be read, or is absurdly long.
    """
    try:
        with contextlib.nullcontext(stream) if stream is not None else Path(path).open("rb") as file:
            raw = file.read(MAX_RESULT_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"{path}: cannot be read: {reason}") from None
    if len(raw) > MAX_RESULT_BYTES:
        raise InputError(f"{path}: longer than {MAX_RESULT_BYTES} bytes: refused")
    return raw.decode("utf-8", "surrogateescape" if keep else "replace")


def _checked(result: Mapping[str, Any] | str | bytes, where: str) -> Mapping[str, Any]:
    """The fields of a fit's result; InputError if it is obviously something else."""
    if isinstance(result, Mapping):
        found: Any = result
    else:
        try:
            found = json.loads(result)
        except (ValueError, RecursionError) as error:
            reason = f" ({error})" if isinstance(error, json.JSONDecodeError) else ""
            raise InputError(f"{where}: not JSON{reason}; give what edgecal fit --json printed") from None
    if not isinstance(found, Mapping):
        raise InputError(
            f"{where}: holds {_short(found)}, expected the object that edgecal fit --json prints"
        )
    kind = found.get("kind")
    if kind in ("eval", "compare"):
        raise InputError(f"{where}: is the result of edgecal {kind}, expected that of edgecal fit --json")
    if not found.keys() & {"temperature", "groups"} or "models" not in found:
        raise InputError(f"{where}: is not the result of a fit; give what edgecal fit --json printed")
    return found


class _Fields:
    """The fields of one object, each checked as it is asked for."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self._values = values
        self._where = where

    def of_kind(self, name: str, kind: type[Any], expected: str) -> Any:
        found = self._values.get(name)
        if not isinstance(found, kind):
            said = "is missing" if name not in self._values else f"is {_short(found)}"
            raise InputError(f"{self._where}: {name} {said}, expected {expected}; was the result edited?")
        return found

    def text(self, name: str) -> str:
        found = str(self.of_kind(name, str, "text"))
        try:
            encode_text(found)  # a file name that is not UTF-8 can still be stored
        except UnicodeEncodeError:
            raise InputError(
                f"{self._where}: {name} holds half a character (a lone surrogate), which cannot be stored"
            ) from None
        return found

    def has(self, name: str) -> bool:
        return self._values.get(name) is not None

    def flag(self, name: str) -> bool | None:
        """True or False; None for a field that is null or missing."""
        return bool(self.of_kind(name, bool, "true or false")) if self.has(name) else None

    def texts(self, name: str) -> list[str]:
        """A list of texts; empty for a field that is null or missing."""
        found = self.of_kind(name, list, "a list of texts") if self.has(name) else []
        items = _Fields({str(i): item for i, item in enumerate(found)}, f"{self._where}: {name}")
        return [items.text(str(i)) for i in range(len(found))]

    def plain(self, name: str) -> str | float | None:
        """A text or a number; None for a field that is null or missing."""
        found = self._values.get(name)
        if found is None or _is_number(found):
            return found
        return self.text(name)

    def number(self, name: str, expected: str, is_sound: Callable[[float], bool]) -> float:
        found: Any = self._values.get(name)
        if not _is_number(found) or not is_sound(found):
            said = "is missing" if name not in self._values else f"is {_short(found)}"
            raise InputError(f"{self._where}: {name} {said}, expected {expected}; was the result edited?")
        return float(found)

    def count(self, name: str) -> int:
        return int(self.number(name, "a whole number", lambda n: n % 1 == 0 and 0 <= n < 1 << 32))


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:56]}..."
