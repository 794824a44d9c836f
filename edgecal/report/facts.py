"""What is needed to get a result again: models, data, settings, seeds, versions, as pairs of name and text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edgecal.report.page_tables import short
from edgecal.report.text import clipped, percent, plain

__all__ = ["provenance"]

_MOST_FACTS = 200
_DEEPEST = 4


def provenance(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and text of every recorded fact of a checked result, at most 200, the texts cut to size."""
    facts = [
        (clipped(name, 80), clipped(value, 600))
        for name, value in _facts(result)
        if value not in ("", "null")
    ]
    return facts[:_MOST_FACTS]


def _facts(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "made by", f"edgecal {result['kind']}"
    if result["kind"] == "compare":
        for role in ("base", "chat"):
            yield from _model(f"{role} model", result["models"][role])
    else:
        yield from _model("model", result["model"])
        temperature = result["temperature"]
        if temperature is not None and temperature["value"] is not None:
            origin = {"file": "from the file", "option": "given as an option"}.get(
                temperature["source"] or "", ""
            )
            yield "temperature", f"{plain(temperature['value'], 4)} {origin}".strip()
    if result.get("headline") is not None:
        headline = result["headline"]
        settings = ", ".join(
            f"{key} {_text(value)}" for key, value in (headline["variant"] or {}).items() if value is not None
        )
        yield "method of the pictures", short(headline["method"]) + (f" ({settings})" if settings else "")
        interval = " to ".join(plain(bound, 4) for bound in headline["interval"])
        yield "its temperature", f"{plain(headline['temperature'], 4)} ({interval})"
        yield "its split's seed", _text(headline["split_seed"])
    if result.get("bracket") is not None:
        ends = (result["bracket"][name] for name in ("low", "high"))
        yield "bracket", " to ".join("none" if end is None else plain(end, 4) for end in ends)
        yield "settled", _text(result["settled"])
        yield "harmful by the labels", _text(result["harmful"])
    yield from _data(result["data"])
    prompting = result["prompting"]
    yield "prompt template", prompting["template"] or ""
    yield "worked examples (shots)", str(prompting["shots"])
    yield "chat template", prompting["chat_template"] or "none"
    if "splits" in result:
        splits = result["splits"]
        share = "" if splits["fit_share"] is None else f", {percent(splits['fit_share'], 0)} to fit"
        yield "splits", f"{splits['n']}{share}"
        yield "splits' seeds", ", ".join(map(str, splits["seeds"]))
        yield "questions to fit and to judge", f"{_text(splits['n_fit'])} and {_text(splits['n_evaluate'])}"
    if result["bootstrap"] is not None:
        bootstrap = result["bootstrap"]
        level = percent(bootstrap["level"], 0)
        resamples = f"{bootstrap['n']:,} resamples, {level} interval, seed {_text(bootstrap['seed'])}"
        yield "bootstrap", resamples
    yield from _flat({key: value for key, value in result["runtime"].items() if key != "command"}, "", 0)


def _model(title: str, model: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield title, model["path"]
    yield f"{title}, name", " · ".join(part for part in (model["name"], model["architecture"]) if part)
    yield f"{title}, SHA-256", model["sha256"] or ""
    if model["n_tokens"] is not None:
        yield f"{title}, tokens read", f"{model['n_tokens']:,}"
    if model["peak_memory_bytes"] is not None:
        yield f"{title}, peak memory", f"{model['peak_memory_bytes'] / 1e6:,.0f} MB"


def _data(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "data", ", ".join(data["files"])
    yield "format", ", ".join(data["formats"])
    yield "read as", "; ".join(data["decisions"])
    yield "rows read", "" if data["n_read"] is None else f"{data['n_read']:,}"
    yield "questions judged", f"{data['n_questions']:,}"
    yield "data, SHA-256", data["sha256"] or ""
    yield "limit", _text(data["limit"])
    yield "seed of the data", _text(data["seed"])
    yield "only the subjects", ", ".join(data["subjects"] or ())


def _flat(value: Any, name: str, depth: int) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and depth < _DEEPEST:
        for key, item in list(value.items())[:_MOST_FACTS]:
            yield from _flat(item, f"{name}.{key}" if name else str(key), depth + 1)
    elif isinstance(value, (list, tuple)):
        yield name, ", ".join(_text(item) for item in value[:_MOST_FACTS])
    else:
        yield name, _text(value)


def _text(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return plain(value, 6)
    if isinstance(value, int):
        return str(value) if abs(value) < 1 << 256 else "a huge number"
    return value if isinstance(value, str) else type(value).__name__
