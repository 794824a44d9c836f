"""Checks that a JSON value is a result of `edgecal eval` or `edgecal compare`, complete enough to be drawn.

Types and ranges are those of `edgecal.results`; this adds relations between keys, and the largest numbers that pictures
can handle. A file may come from an older edgecal or be written by hand, so every misfit is reported in one line with
its place, and what older results lack is filled in.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from edgecal.errors import InputError
from edgecal.results import CompareResult, EvalResult
from edgecal.results.fitting import Runtime
from edgecal.results.judging import (
    AblationRow,
    Bootstrap,
    Judgement,
    LayerDivergence,
    LossCurve,
    MethodRow,
    ReliabilityBins,
    RiskCurve,
    SplitsUsed,
    Spread,
    WrongAnswer,
)
from edgecal.results.questions import DataRead, MeasuredPrompting

__all__ = ["check_result"]

_LARGEST = (
    1e12  # far above any real figure, loss or temperature, and small enough for the pictures' arithmetic
)
_LARGEST_COUNT = 10**15
_LARGEST_SEED = 1 << 128
_MOST_ITEMS = 100_000

# Keys that a result may lack, and their defaults. Any key that may be null may be missing too.
_ABSENT: dict[tuple[type, str], Callable[[], Any]] = {
    **{
        (shape, key): made
        for shape in (EvalResult, CompareResult)
        for key, made in (("subjects", list), ("wrong", list), ("warnings", list), ("runtime", dict))
    },
    **{
        (shape, "bootstrap"): lambda: {"n": 0, "n_by_subject": 0, "level": 0.95, "seed": 0}
        for shape in (EvalResult, CompareResult)
    },
    (EvalResult, "temperature"): lambda: {"value": None, "source": None},
    (CompareResult, "bracket"): lambda: dict.fromkeys(("low", "high", "low_interval", "high_interval")),
    (CompareResult, "settled"): lambda: None,
    (CompareResult, "reasons"): list,
    (CompareResult, "ablations"): dict,
    (CompareResult, "learning_curve"): lambda: {"n_draws": 0, "lines": []},
    (CompareResult, "scalings"): lambda: {"n_labelled": 0, "chosen": "temperature", "rows": []},
    (CompareResult, "extra_runs"): lambda: dict.fromkeys(("cape", "verbalized", "effects")),
    (Bootstrap, "n_by_subject"): int,
    (Bootstrap, "seed"): int,
    (DataRead, "formats"): list,
    (DataRead, "decisions"): list,
    (DataRead, "n_skipped"): int,
    (DataRead, "skipped"): list,
    (DataRead, "sha256"): str,
    (DataRead, "seed"): int,
    (MeasuredPrompting, "template"): str,
    (MeasuredPrompting, "shots"): int,
    (MeasuredPrompting, "choice_mass"): dict,
    (MeasuredPrompting, "effects"): list,
    (SplitsUsed, "seeds"): list,
    (Spread, "values"): list,
    (MethodRow, "figures"): dict,
    (MethodRow, "not_identified"): list,
    (AblationRow, "not_identified"): int,
}


class _MisfitError(Exception):
    """A misfit, and where in the value it is."""


def check_result(value: object, where: str) -> Judgement:
    """The result of an evaluation or a comparison, checked.

    Parameters
    ----------
    value: what a JSON text decoded to.
    where: where it came from, for the message.

    Raises
    ------
    InputError: it is not such a result: another kind, a missing key, a wrong type, lengths that do not match.
    """
    kinds = {"eval": EvalResult, "compare": CompareResult}
    try:
        if not isinstance(value, Mapping):
            raise _MisfitError(f"expected a JSON object, got {_kind(value)}")
        if "kind" not in value:
            raise _MisfitError('the key "kind" is missing')
        kind = value["kind"]
        if not (isinstance(kind, str) and kind in kinds):
            raise _MisfitError(f'"kind" is {_shown(kind)}, expected "eval" or "compare"')
        shape = kinds[kind]
        checked = _convert(dict(value), shape)
        runtime = checked.pop("runtime")
        _check_sizes(checked, "")
        result: Judgement = shape(**checked, runtime=runtime)
        _check_lengths(result)
    except _MisfitError as misfit:
        raise InputError(
            f"{where}: {misfit}; give what `edgecal eval --json` or `edgecal compare --json` printed"
        ) from None
    return result


def _convert(value: dict[str, Any], shape: type) -> dict[str, Any]:
    """The value with all keys of the shape; `runtime` is left as it is, since other versions have other keys there."""
    import msgspec

    from edgecal.results.schema import struct_of

    struct = struct_of(shape, {Runtime: dict[str, Any]}, closed=False, absent=_ABSENT)
    try:
        found: dict[str, Any] = msgspec.to_builtins(msgspec.convert(value, struct))
    except msgspec.ValidationError as error:
        said, _, place = str(error).partition(" - at `$")
        way = _spell_out(value, struct, str(error), re.findall(r"\.(\w+)|\[(\d+|\.\.\.)\]", place))
        raise _MisfitError(_in_words(said, value, way)) from None
    return found


def _spell_out(
    value: dict[str, Any], struct: Any, message: str, steps: list[tuple[str, str]]
) -> list[str | int]:
    """The full path of a misfit. msgspec writes `[...]` for a key of an open object; the key is found by checking each
    alone."""
    import msgspec

    way: list[str | int] = []
    for name, index in steps:
        if index != "...":
            way.append(name or int(index))
            continue
        items = _at(value, way)
        for key in items:
            trial = _replaced(value, way, {key: items[key]})
            try:
                msgspec.convert(trial, struct)
            except msgspec.ValidationError as error:
                if str(error) == message:
                    value = trial
                    way.append(key)
                    break
    return way


def _at(value: Any, way: list[str | int]) -> Any:
    for step in way:
        value = value[step]
    return value


def _replaced(value: Any, way: list[str | int], part: object) -> Any:
    """A copy with `part` at the end of the path."""
    if not way:
        return part
    first, *rest = way
    changed: Any = list(value) if isinstance(value, (list, tuple)) else dict(value)
    changed[first] = _replaced(value[first], rest, part)
    return changed


_TYPES = {
    "float": "a number",
    "int": "a whole number",
    "str": "text",
    "bool": "true or false",
    "object": "an object",
    "array": "a list",
    "null": "null",
}
_BOUNDS = {">=": "{} or more", ">": "above {}", "<=": "at most {}"}


def _in_words(said: str, value: Any, way: list[str | int]) -> str:
    """msgspec's message in edgecal's words: what was expected, and what was found."""
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step[:40]}" for step in way).lstrip(".")
    there = _at(value, way)
    if found := re.fullmatch(r"Object missing required field `(.*)`", said):
        return f"{path}.{found[1]} is missing".lstrip(".")
    if found := re.fullmatch(r"Expected `([\w |]+)`, got `\w+`", said):
        wanted = " or ".join(_TYPES.get(name, name) for name in found[1].split(" | "))
        return f"{path} should be {wanted}, got {_kind(there)}"
    if found := re.fullmatch(r"Expected `array` of length ([<>=]+) (\d+)", said):
        return f"{path} has {len(there)} items, expected {_BOUNDS[found[1]].format(found[2])}"
    if found := re.fullmatch(r"Expected `\w+` ([<>=]+) ([\d.]+)", said):
        return f"{path} is {_shown(there)}, expected {_BOUNDS[found[1]].format(found[2].removesuffix('.0'))}"
    return f"{path} is {_shown(there)}: {said[:1].lower()}{said[1:]}"


def _kind(value: object) -> str:
    names = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "an object",
    }
    return "null" if value is None else names.get(type(value), type(value).__name__)


def _shown(value: object) -> str:
    text = (
        f'"{value}"'
        if isinstance(value, str)
        else _kind(value)
        if isinstance(value, (list, dict))
        else f"{value}"
    )
    return text if len(text) <= 60 else f"{text[:60]}…"


def _check_sizes(value: Any, path: str) -> None:
    """Refuses numbers too large for a picture, and lists too long for a page."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key not in ("seed", "seeds", "split_seed"):
                _check_sizes(item, f"{path}.{key[:40]}".lstrip("."))
    elif isinstance(value, list):
        if len(value) > _MOST_ITEMS:
            raise _MisfitError(f"{path} has {len(value)} items, at most {_MOST_ITEMS} can be shown")
        for index, item in enumerate(value):
            _check_sizes(item, f"{path}[{index}]")
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        largest = _LARGEST_COUNT if isinstance(value, int) else _LARGEST
        if not -largest <= value <= largest:
            raise _MisfitError(f"{path} is {_shown(value)}, expected a number of at most {largest:g}")


def _check_lengths(result: Judgement) -> None:
    for role, bins in _roles("plots.reliability", result.plots["reliability"]):
        _check_reliability(bins, role)
    for role, curve in _roles("plots.risk_coverage", result.plots["risk_coverage"]):
        _check_risk(curve, role)
    if result.plots["loss"] is not None:
        _check_loss(result.plots["loss"])
    if result.plots["layers"] is not None:
        _check_layers(result.plots["layers"])
    for index, wrong in enumerate(result.wrong):
        _check_wrong(wrong, f"wrong[{index}]")
    seeds = [result.data["seed"], result.bootstrap["seed"]]
    if isinstance(result, CompareResult):
        seeds += result.splits["seeds"]
        for index, line in enumerate(result.learning_curve["lines"]):
            counts = [point["n_labels"] for point in line["points"]]
            _check_increasing(counts, f"learning_curve.lines[{index}].points' n_labels")
    if max(seeds) > _LARGEST_SEED:
        raise _MisfitError(f"a seed is {_shown(max(seeds))}, expected a possible number")


def _roles(path: str, plots: Any) -> Iterator[tuple[str, Any]]:
    yield from ((f"{path}.{role}", plot) for role, plot in plots.items() if plot is not None)


def _check_reliability(bins: ReliabilityBins, path: str) -> None:
    n = len(bins["n"])
    _same_length(path, "n", bins["n"], confidence=bins["confidence"], accuracy=bins["accuracy"])
    _same_length(path, "n", bins["n"], low=bins["low"], high=bins["high"])
    _check_increasing(bins["edges"], f"{path}.edges")
    if len(bins["edges"]) != n + 1:
        raise _MisfitError(f"{path}.edges has {len(bins['edges'])} items, expected {n + 1}, one more than n")
    for index, (count, *means) in enumerate(
        zip(bins["n"], bins["confidence"], bins["accuracy"], strict=True)
    ):
        if count and None in means:
            raise _MisfitError(f"{path}: bin {index} holds {count} questions and no confidence or accuracy")


def _check_risk(curve: RiskCurve, path: str) -> None:
    _same_length(path, "coverage", curve["coverage"], risk=curve["risk"])


def _check_loss(curve: LossCurve) -> None:
    _same_length("plots.loss", "temperature", curve["temperature"], loss=curve["loss"])
    _check_increasing(curve["temperature"], "plots.loss.temperature")


def _check_layers(layers: LayerDivergence) -> None:
    means = {"agreement": layers["agreement"], "disagreement": layers["disagreement"]}
    _same_length("plots.layers", "layer", layers["layer"], **means, pdl_histogram=layers["pdl_histogram"])
    _check_increasing(layers["layer"], "plots.layers.layer")


def _check_wrong(wrong: WrongAnswer, path: str) -> None:
    n = len(wrong["choices"])
    for key, choice in (("answer", wrong["answer"]), ("predicted", wrong["predicted"])):
        if choice >= n:
            raise _MisfitError(f"{path}.{key} is {choice}, but there are {n} choices")


def _same_length(path: str, name: str, first: list[Any], **others: list[Any] | None) -> None:
    if not first:
        raise _MisfitError(f"{path}.{name} is empty")
    for key, values in others.items():
        if values is not None and len(values) != len(first):
            raise _MisfitError(f"{path}.{key} has {len(values)} items, but {name} has {len(first)}")


def _check_increasing(values: list[Any], path: str) -> None:
    if any(b <= a for a, b in itertools.pairwise(values)):
        raise _MisfitError(f"{path} does not increase")
