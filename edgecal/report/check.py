"""Is a JSON value the result of `edgecal eval` or `edgecal compare`, complete enough to be drawn?

Holds the shape of a result. Knows nothing of how it came about or how it is shown.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

from edgecal.errors import InputError

__all__ = ["check_result"]

_LARGEST = 1e12  # no figure, loss or temperature is near it, and pictures still compute with it
_LARGEST_COUNT = 10**15
_LARGEST_SEED = 1 << 128
_MOST_ITEMS = 100_000

Check = Callable[[Any, str], Any]


class _MisfitError(Exception):
    """What does not fit and where in the value it stands."""


def check_result(value: object, where: str) -> dict[str, Any]:
    """The result of an evaluation or a comparison, checked.

    Parameters
    ----------
    value: what a JSON text decoded to.
    where: where it came from, for the message.

    Returns
    -------
    A copy in which keys that may be null are there, null if they were missing; keys that are not known stay.

    Raises
    ------
    InputError: it is no such result: another kind, a missing key, a wrong type, lengths that do not fit.
    """
    try:
        if not isinstance(value, Mapping):
            raise _MisfitError(f"expected a JSON object, got {_kind(value)}")
        if "kind" not in value:
            raise _MisfitError('the key "kind" is missing')
        kind = value["kind"]
        if not (isinstance(kind, str) and kind in _KINDS):
            raise _MisfitError(f'"kind" is {_shown(kind)}, expected "eval" or "compare"')
        checked: dict[str, Any] = _KINDS[kind](value, "")
    except _MisfitError as misfit:
        raise InputError(
            f"{where}: {misfit}; give what `edgecal eval --json` or `edgecal compare --json` printed"
        ) from None
    return checked


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


def _expected(what: str, value: object, path: str) -> _MisfitError:
    return _MisfitError(f"{path} should be {what}, got {_kind(value)}")


def _number(low: float = -_LARGEST, high: float = _LARGEST, *, above: float = -math.inf) -> Check:
    def check(value: Any, path: str) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise _expected("a number", value, path)
        if not (low <= value <= high and value > above):
            bound = f"above {above:g}" if above > -math.inf else f"{low:g} to {high:g}"
            raise _MisfitError(f"{path} is {_shown(value)}, expected {bound}")
        return float(value)

    return check


def _whole(low: int = 0, high: int = _LARGEST_COUNT) -> Check:
    def check(value: Any, path: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise _expected("a whole number", value, path)
        if not low <= value <= high:
            raise _MisfitError(f"{path} is {_shown(value)}, expected {low} or more, and a possible number")
        return value

    return check


def _text(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise _expected("text", value, path)
    return value


def _flag(value: Any, path: str) -> bool:
    if not isinstance(value, bool):
        raise _expected("true or false", value, path)
    return value


def _anything(value: Any, path: str) -> Any:
    return value


class _Optional:
    """A value that may be null or missing; `default` stands for both."""

    def __init__(self, check: Check, default: Callable[[], Any] = lambda: None) -> None:
        self.check = check
        self.default = default

    def __call__(self, value: Any, path: str) -> Any:
        return self.default() if value is None else self.check(value, path)


def _list(check: Check) -> Check:
    def check_list(value: Any, path: str) -> list[Any]:
        if not isinstance(value, (list, tuple)):
            raise _expected("a list", value, path)
        if len(value) > _MOST_ITEMS:
            raise _MisfitError(f"{path} has {len(value)} items, at most {_MOST_ITEMS} can be shown")
        return [check(item, f"{path}[{index}]") for index, item in enumerate(value)]

    return check_list


def _two(check: Check) -> Check:
    def check_two(value: Any, path: str) -> list[Any]:
        items: list[Any] = _list(check)(value, path)
        if len(items) != 2:
            raise _MisfitError(f"{path} has {len(items)} items, expected 2")
        return items

    return check_two


def _mapping(check: Check) -> Check:
    def check_mapping(value: Any, path: str) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise _expected("an object", value, path)
        return {
            _text(key, f"a key of {path}"): check(item, f"{path}.{key[:40]}") for key, item in value.items()
        }

    return check_mapping


def _record(fits: Callable[[dict[str, Any], str], None] | None = None, /, **fields: Check) -> Check:
    def check_record(value: Any, path: str) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise _expected("an object", value, path)
        checked = dict(value)
        for name, check in fields.items():
            key = name.rstrip("_")
            below = f"{path}.{key}" if path else key
            if key not in value and not isinstance(check, _Optional):
                raise _MisfitError(f"{below} is missing")
            checked[key] = check(value.get(key), below)
        if fits is not None:
            fits(checked, path)
        return checked

    return check_record


def _same_lengths(*keys: str) -> Callable[[dict[str, Any], str], None]:
    def fits(value: dict[str, Any], path: str) -> None:
        wanted = len(value[keys[0]])
        if wanted == 0:
            raise _MisfitError(f"{path}.{keys[0]} is empty")
        for key in keys[1:]:
            if value[key] is not None and len(value[key]) != wanted:
                raise _MisfitError(f"{path}.{key} has {len(value[key])} items, but {keys[0]} has {wanted}")

    return fits


def _reliability_fits(value: dict[str, Any], path: str) -> None:
    _same_lengths("n", "confidence", "accuracy", "low", "high")(value, path)
    _increasing(value["edges"], f"{path}.edges")
    if len(value["edges"]) != len(value["n"]) + 1:
        raise _MisfitError(
            f"{path}.edges has {len(value['edges'])} items, expected {len(value['n']) + 1}, one more than n"
        )
    for index, n in enumerate(value["n"]):
        if n and (value["confidence"][index] is None or value["accuracy"][index] is None):
            raise _MisfitError(f"{path}: bin {index} holds {n} questions and no confidence or accuracy")


def _loss_fits(value: dict[str, Any], path: str) -> None:
    _same_lengths("temperature", "loss")(value, path)
    _increasing(value["temperature"], f"{path}.temperature")


def _layers_fit(value: dict[str, Any], path: str) -> None:
    _same_lengths("layer", "agreement", "disagreement", "pdl_histogram")(value, path)
    _increasing(value["layer"], f"{path}.layer")


def _increasing(values: list[float], path: str) -> None:
    if any(b <= a for a, b in itertools.pairwise(values)):
        raise _MisfitError(f"{path} does not increase")


def _wrong_fits(value: dict[str, Any], path: str) -> None:
    for key in ("answer", "predicted"):
        if value[key] >= len(value["choices"]):
            raise _MisfitError(f"{path}.{key} is {value[key]}, but there are {len(value['choices'])} choices")


def _nothing() -> list[Any]:
    return []


_share = _number(0, 1)
_maybe = _Optional(_number())
_maybe_share = _Optional(_share)
_maybe_text = _Optional(_text)
_maybe_whole = _Optional(_whole())
_seed = _whole(high=_LARGEST_SEED)
_figures = _mapping(_record(value=_maybe, low=_maybe, high=_maybe))
_spread = _Optional(_record(mean=_maybe, sd=_maybe, values=_Optional(_list(_maybe), _nothing)))
_masses = _mapping(_maybe)
_temperature = _number(above=0)

_pair = _Optional(_two(_temperature))
_bracket = _record(
    low=_Optional(_temperature), high=_Optional(_temperature), low_interval=_pair, high_interval=_pair
)

_rel = _record(
    _reliability_fits,
    edges=_list(_share),
    n=_list(_whole()),
    confidence=_list(_maybe_share),
    accuracy=_list(_maybe_share),
    low=_list(_maybe_share),
    high=_list(_maybe_share),
)
_curve = _record(_same_lengths("coverage", "risk"), coverage=_list(_share), risk=_list(_share))
_plots = _record(
    reliability=_record(base=_Optional(_rel), before=_rel, after=_Optional(_rel)),
    risk_coverage=_record(base=_Optional(_curve), before=_curve, after=_Optional(_curve)),
    loss=_Optional(
        _record(
            _loss_fits,
            method=_text,
            unit=_text,
            temperature=_list(_temperature),
            loss=_list(_number()),
            chosen=_temperature,
            interval=_two(_temperature),
            bracket=_Optional(_bracket),
        )
    ),
    layers=_Optional(
        _record(
            _layers_fit,
            layer=_list(_whole(1)),
            agreement=_Optional(_list(_number(0))),
            disagreement=_Optional(_list(_number(0))),
            pdl_histogram=_list(_whole()),
            n_agreement=_whole(),
            n_disagreement=_whole(),
        )
    ),
)
_wrong = _record(
    _wrong_fits,
    where=_text,
    subject=_maybe_text,
    question=_text,
    choices=_list(_text),
    answer=_whole(),
    predicted=_whole(),
    confidence_before=_share,
    confidence_after=_maybe_share,
)
_model = _record(
    path=_text,
    name=_maybe_text,
    architecture=_maybe_text,
    n_tokens=_maybe_whole,
    peak_memory_bytes=_maybe_whole,
    sha256=_maybe_text,
)
_common: dict[str, Check] = {
    "verdict": _text,
    "data": _record(
        files=_list(_text),
        formats=_Optional(_list(_text), _nothing),
        decisions=_Optional(_list(_text), _nothing),
        n_read=_maybe_whole,
        n_questions=_whole(),
        n_skipped=_Optional(_whole(), int),
        skipped=_Optional(_list(_record(where=_text, reason=_text)), _nothing),
        sha256=_maybe_text,
        limit=_maybe_whole,
        seed=_Optional(_seed),
        subjects=_Optional(_list(_text)),
    ),
    "prompting": _record(
        template=_maybe_text,
        shots=_Optional(_whole(), int),
        chat_template=_maybe_text,
        choice_mass=_Optional(_masses, dict),
        effects=_Optional(_list(_record(name=_text, n=_whole(), choice_mass=_masses)), _nothing),
    ),
    "plots": _plots,
    "wrong": _Optional(_list(_wrong), _nothing),
    "bootstrap": _Optional(_record(n=_whole(), level=_share, seed=_Optional(_seed))),
    "runtime": _Optional(_mapping(_anything), dict),
    "warnings": _Optional(_list(_text), _nothing),
}
_eval = _record(
    **_common,
    model=_model,
    temperature=_Optional(_record(value=_Optional(_temperature), source=_maybe_text)),
    figures=_record(before=_figures, after=_Optional(_figures), difference=_Optional(_figures)),
    subjects=_Optional(
        _list(_record(subject=_text, n=_whole(), before=_figures, after=_Optional(_figures))), _nothing
    ),
)
_ablation = _record(
    name=_text,
    temperature=_spread,
    ece=_spread,
    nll=_spread,
    not_identified=_Optional(_whole(), int),
    lambda_=_Optional(_number(0)),
    n_prompts=_Optional(_whole(1)),
    method=_maybe_text,
)
_compare = _record(
    **_common,
    models=_record(base=_model, chat=_model),
    bracket=_Optional(_bracket),
    settled=_Optional(_flag),
    harmful=_Optional(_flag),
    reasons=_Optional(_list(_text), _nothing),
    splits=_record(
        n=_whole(),
        fit_share=_maybe_share,
        seeds=_Optional(_list(_seed), _nothing),
        n_fit=_maybe_whole,
        n_evaluate=_maybe_whole,
    ),
    rows=_list(
        _record(
            name=_text,
            title=_text,
            variant=_Optional(_mapping(_anything)),
            uses_labels=_flag,
            default=_flag,
            temperature=_spread,
            figures=_Optional(_mapping(_spread), dict),
            n=_maybe_whole,
            not_identified=_Optional(_list(_text), _nothing),
            n_worse=_maybe_whole,
            withheld=_maybe_text,
            parsed_share=_maybe_share,
            n_permutations=_maybe_whole,
        )
    ),
    extra_runs=_Optional(_mapping(_anything), dict),
    ablations=_Optional(_mapping(_Optional(_list(_ablation), _nothing)), dict),
    headline=_Optional(
        _record(
            method=_text,
            variant=_Optional(_mapping(_anything)),
            temperature=_temperature,
            interval=_list(_temperature),
            split_seed=_Optional(_seed),
            n_fit=_maybe_whole,
            n_evaluate=_maybe_whole,
        )
    ),
    figures=_record(
        base=_Optional(_figures), before=_figures, after=_Optional(_figures), difference=_Optional(_figures)
    ),
    subjects=_Optional(
        _list(
            _record(
                subject=_text,
                n=_whole(),
                base=_Optional(_figures),
                before=_figures,
                after=_Optional(_figures),
            )
        ),
        _nothing,
    ),
)
_KINDS: dict[str, Check] = {"eval": _eval, "compare": _compare}
