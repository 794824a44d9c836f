"""What is needed to get a result again: models, data, settings, seeds, versions, as pairs of name and text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edgecal.report.page_tables import short
from edgecal.report.text import clipped, percent, plain
from edgecal.results.judging import BaseRun, CompareResult, Judgement, ModelRun
from edgecal.results.questions import Data

__all__ = ["provenance"]

_MOST_FACTS = 200
_DEEPEST = 4


def provenance(result: Judgement) -> list[tuple[str, str]]:
    """Name and text of every recorded fact of a checked result, at most 200, the texts cut to size."""
    facts = [
        (clipped(name, 80), clipped(value, 600))
        for name, value in _facts(result)
        if value not in ("", "null")
    ]
    return facts[:_MOST_FACTS]


def _facts(result: Judgement) -> Iterator[tuple[str, str]]:
    yield "made by", f"edgecal {result.kind}"
    if isinstance(result, CompareResult):
        yield from _model("base model", result.models["base"])
        yield from _model("chat model", result.models["chat"])
    else:
        yield from _model("model", result.model)
        temperature = result.temperature
        if temperature["value"] is not None:
            origin = {"file": "from the file", "option": "given as an option"}.get(
                temperature["source"] or "", ""
            )
            yield "temperature", f"{plain(temperature['value'], 4)} {origin}".strip()
    if isinstance(result, CompareResult) and result.headline is not None:
        headline = result.headline
        settings = ", ".join(
            f"{key} {_text(value)}" for key, value in headline["variant"].items() if value is not None
        )
        yield "method of the pictures", short(headline["method"]) + (f" ({settings})" if settings else "")
        interval = " to ".join(plain(bound, 4) for bound in headline["interval"])
        yield "its temperature", f"{plain(headline['temperature'], 4)} ({interval})"
        yield "its split's seed", _text(headline["split_seed"])
    if isinstance(result, CompareResult):
        ends = (result.bracket["low"], result.bracket["high"])
        yield "bracket", " to ".join("none" if end is None else plain(end, 4) for end in ends)
        yield "settled", _text(result.settled)
        yield "harmful by the labels", _text(result.harmful)
    yield from _data(result.data)
    prompting = result.prompting
    yield "prompt template", prompting["template"]
    yield "worked examples (shots)", str(prompting["shots"])
    yield "chat template", prompting["chat_template"] or "none"
    if isinstance(result, CompareResult):
        splits = result.splits
        yield "splits", f"{splits['n']}, {percent(splits['fit_share'], 0)} to fit"
        yield "splits' seeds", ", ".join(map(str, splits["seeds"]))
        yield "questions to fit and to judge", f"{_text(splits['n_fit'])} and {_text(splits['n_evaluate'])}"
    bootstrap = result.bootstrap
    if bootstrap["n"]:
        level = percent(bootstrap["level"], 0)
        yield "bootstrap", f"{bootstrap['n']:,} resamples, {level} interval, seed {bootstrap['seed']}"
    yield from _flat({key: value for key, value in result.runtime.items() if key != "command"}, "", 0)


def _model(title: str, model: ModelRun | BaseRun) -> Iterator[tuple[str, str]]:
    yield title, model["path"]
    yield f"{title}, name", " · ".join(part for part in (model["name"], model["architecture"]) if part)
    yield f"{title}, SHA-256", str(model.get("sha256", ""))
    yield f"{title}, tokens read", f"{model['n_tokens']:,}"
    yield f"{title}, peak memory", f"{model['peak_memory_bytes'] / 1e6:,.0f} MB"


def _data(data: Data) -> Iterator[tuple[str, str]]:
    yield "data", ", ".join(data["files"])
    yield "format", ", ".join(data["formats"])
    yield "read as", "; ".join(data["decisions"])
    yield "rows read", f"{data['n_read']:,}"
    yield "questions judged", f"{data['n_questions']:,}"
    yield "data, SHA-256", data["sha256"]
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
