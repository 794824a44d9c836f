"""The page's tables, and everything needed to reproduce a result, as rows of finished text.

Only the wording is decided here. User text is cut to a reasonable length; the page makes it visible and escapes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgecal.metrics import find_figure
from edgecal.report.text import clipped, number, percent, plain, points, signed
from edgecal.report.text_tables import TextTable, ablation_texts, learning_table, scalings_table, typed_table
from edgecal.report.words import EFFECTS, METHODS, method_title
from edgecal.results.judging import (
    BaseRun,
    CompareResult,
    Estimate,
    EvalResult,
    ExtraRuns,
    Judgement,
    MethodRow,
    ModelRun,
    Spread,
)
from edgecal.results.questions import DataRead

__all__ = [
    "Cell",
    "Column",
    "Row",
    "Table",
    "ablation_tables",
    "effects_table",
    "figures_table",
    "interval_level",
    "label_tables",
    "methods_table",
    "provenance",
    "short",
    "subjects_table",
    "typed_page_table",
]

_METHOD_FIGURES = {
    "ece": "ECE",
    "ece_equal_mass": "ECE, equal groups",
    "smece": "Smooth ECE",
    "mce": "Largest gap",
    "brier": "Brier",
    "nll": "NLL",
    "auroc": "AUROC",
    "accuracy": "Accuracy",
}
_NOTHING = "–"


@dataclass(frozen=True)
class Cell:
    """One cell: its text, a smaller line below, and whether the line is good news ("good", "bad" or "")."""

    text: str
    detail: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Column:
    """A column's heading; numbers are set to the right."""

    title: str
    numeric: bool = True
    detail: str = ""


@dataclass(frozen=True)
class Row:
    """A row, headed by its first cell. A `note` replaces all other cells."""

    cells: tuple[Cell, ...]
    strong: bool = False
    note: str = ""


@dataclass(frozen=True)
class Table:
    """A table with a caption, and remarks to go below it."""

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    remarks: Sequence[str] = ()


def short(text: str) -> str:
    """A name, a path or a subject: at most about 160 characters."""
    return clipped(text, 160)


def interval_level(result: Judgement) -> str:
    """ "95 % " before the word interval; nothing where there are none."""
    bootstrap = result.bootstrap
    return f"{percent(bootstrap['level'], 0)} " if bootstrap["n"] else ""


def figures_table(result: Judgement) -> Table:
    """Every figure before and after, with intervals and the difference; for a comparison the base model's too."""
    figures = result.figures
    before, after, difference, base = (
        figures["before"],
        figures["after"],
        figures["difference"],
        figures.get("base"),
    )
    columns = [Column("Figure", numeric=False), Column("Before")]
    columns += [Column("After")] if after is not None else []
    columns += [Column("Change")] if difference is not None else []
    columns += [Column("Base model")] if base is not None else []
    columns.append(Column("Better is", numeric=False))
    rows = []
    for name in _names(values for values in (before, after, base) if values is not None):
        words = find_figure(name)
        cells = [Cell(short(words.title), words.explanation), _interval(before.get(name), words.percent)]
        cells += [_interval(after.get(name), words.percent)] if after is not None else []
        if difference is not None:
            cells.append(_difference(difference.get(name), words.percent, words.better))
        cells += [_interval(base.get(name), words.percent)] if base is not None else []
        aim = "equal to the accuracy" if name == "confidence" else ""
        cells.append(Cell(aim if words.better == "none" else words.better))
        rows.append(Row(tuple(cells), strong=name in ("ece", "nll")))
    level = interval_level(result)
    remarks = [f"Small numbers: {level}interval, from drawing the questions again with replacement."]
    if difference is not None:
        remarks[0] += (
            " A change is called better or worse only when its interval does not contain zero; "
            "pts are percentage points."
        )
    return Table("figures", "Every figure, with its interval", tuple(columns), tuple(rows), remarks)


def methods_table(result: CompareResult) -> Table | None:
    """The compared methods, mean ± standard deviation over the splits; None if there are no rows."""
    rows = result.rows
    if not rows:
        return None
    names = [name for name in _METHOD_FIGURES if any(row["figures"].get(name) is not None for row in rows)]
    columns = [Column("Method", numeric=False), Column("Temperature")]
    for name in names:
        words = find_figure(name)
        columns.append(Column(_METHOD_FIGURES[name], detail="in %" if words.percent else ""))
    columns += [Column("Needs answers", numeric=False), Column("Not identified", detail="of the splits")]
    splits = result.splits
    counts = Counter(row["n"] for row in rows)
    usual_n = counts.most_common(1)[0][0]
    explained: set[str] = set()
    lines = []
    for row in rows:
        seen = row["name"] in explained
        explained.add(row["name"])
        title = method_title(row["name"]) or row["title"]
        heading = Cell(short(title), _method_detail(row, usual_n, explain=not seen))
        failed = list(dict.fromkeys(row["not_identified"]))
        if row["withheld"] is not None:
            lines.append(Row((heading,), note=f"withheld: {clipped(row['withheld'], 300)}"))
            continue
        if failed and len(row["not_identified"]) >= splits["n"]:
            lines.append(Row((heading,), note=f"not identified in any split: {clipped(failed[0], 300)}"))
            continue
        if failed:
            heading = Cell(
                heading.text, f"{heading.detail}; not identified: {clipped(failed[0], 200)}".lstrip("; ")
            )
        cells = [heading, _spread(row["temperature"], False)]
        cells += [_spread(row["figures"].get(name), find_figure(name).percent) for name in names]
        cells.append(
            Cell(f"{row['n_labelled']:,}" if row["n_labelled"] else "yes" if row["uses_labels"] else "no")
        )
        n_failed = len(row["not_identified"])
        cells.append(Cell(f"{n_failed:,} of {splits['n']:,}" if failed else "none"))
        lines.append(Row(tuple(cells), strong=row["default"]))
    remark = (
        f"{percent(splits['fit_share'], 0)} of the questions fit, the rest judge ({usual_n:,} questions in each "
        "split). Lower is better but for AUROC and accuracy. Methods that need no answers never see one."
    )
    return Table(
        "methods",
        f"Every method on the same questions: mean ± standard deviation over {_count(splits['n'], 'split')}",
        tuple(columns),
        tuple(lines),
        [remark, *_extra_runs(result.extra_runs)],
    )


def ablation_tables(result: CompareResult) -> list[Table]:
    """One table for each setting that was varied."""
    return [_as_table(f"ablation-{at}", text) for at, text in enumerate(ablation_texts(result)) if text.rows]


def label_tables(result: CompareResult) -> list[Table]:
    """What labels buy, and whether one temperature is enough; those that have rows."""
    made = {"learning-curve": learning_table(result), "scalings": scalings_table(result)}
    return [_as_table(name, text) for name, text in made.items() if text.rows]


def _as_table(name: str, text: TextTable) -> Table:
    """A table of texts as one of the page: numbers between the first column and the last."""
    last = len(text.columns) - 1
    columns = tuple(
        Column(title[0].upper() + title[1:], 0 < at < last) for at, title in enumerate(text.columns)
    )
    rows = tuple(Row(tuple(Cell(clipped(cell, 400)) for cell in row)) for row in text.rows)
    return Table(
        name,
        short(text.title),
        columns,
        rows,
        [text.note[0].upper() + text.note[1:] + "."] if text.note else [],
    )


def subjects_table(result: Judgement) -> Table | None:
    """Accuracy, confidence and calibration error of each subject; None without subjects."""
    rows = result.subjects
    if not rows:
        return None
    has_base = any(row.get("base") is not None for row in rows)
    has_after = any(row["after"] is not None for row in rows)
    columns = [Column("Subject", numeric=False), Column("Questions"), Column("Right")]
    columns += [Column("Sure, before")] + ([Column("Sure, after")] if has_after else [])
    columns += [Column("ECE, base model")] if has_base else []
    columns += [Column("ECE, before")] + ([Column("ECE, after")] if has_after else [])
    lines = []
    for row in rows:
        before, after, base = row["before"], row["after"] or {}, row.get("base") or {}
        cells = [
            Cell(short(row["subject"])),
            Cell(f"{row['n']:,}"),
            _interval(before.get("accuracy"), True),
            _interval(before.get("confidence"), True),
        ]
        cells += [_interval(after.get("confidence"), True)] if has_after else []
        cells += [_interval(base.get("ece"), True)] if has_base else []
        cells += [_interval(before.get("ece"), True)]
        cells += [_interval(after.get("ece"), True)] if has_after else []
        lines.append(Row(tuple(cells)))
    return Table(
        "subjects",
        "Each subject: how often right, how sure, and the calibration error",
        tuple(columns),
        tuple(lines),
        ["With few questions a calibration error of several percent is chance alone: look at the intervals."],
    )


def typed_page_table(result: Judgement) -> Table | None:
    """Label mass, order flips and cost of typed questions; None for other questions."""
    typed = result.typed if isinstance(result, EvalResult) else None
    return None if typed is None else _as_table("typed", typed_table(typed))


def effects_table(result: Judgement) -> Table | None:
    """How the prompting changes the choice mass; None if nothing was tried."""
    effects = result.prompting["effects"]
    if not effects:
        return None
    models = _names(effect["choice_mass"] for effect in effects)
    titles = {"base": "Base model", "chat": "Chat model", "model": "Model"}
    columns = [Column("Way of asking", numeric=False), Column("Questions")]
    columns += [Column(titles.get(model, short(model))) for model in models]
    lines = []
    for effect in effects:
        cells = [Cell(EFFECTS.get(effect["name"], short(effect["name"]))), Cell(f"{effect['n']:,}")]
        cells += [_mass(effect["choice_mass"].get(model)) for model in models]
        lines.append(Row(tuple(cells)))
    caption = "Probability that falls on the option letters, by way of asking"
    return Table("effects", caption, tuple(columns), tuple(lines))


def _names(sets: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for values in sets for name in values))


def _mass(share: float | None) -> Cell:
    return Cell(_NOTHING if share is None else percent(share, 2))


def _interval(value: Estimate | None, is_share: bool) -> Cell:
    if value is None or value["value"] is None:
        return Cell(_NOTHING)
    show = percent if is_share else number
    low, high = value["low"], value["high"]
    if low is None or high is None:
        return Cell(show(value["value"]))
    bounds = [number(100 * bound, 1) if is_share else number(bound) for bound in (low, high)]
    return Cell(show(value["value"]), f"{bounds[0]} to {bounds[1]}")


def _difference(value: Estimate | None, is_share: bool, better: str) -> Cell:
    if value is None or value["value"] is None:
        return Cell(_NOTHING)
    show = points if is_share else signed
    text = show(value["value"]) + ("\u00a0pts" if is_share else "")
    low, high = value["low"], value["high"]
    if low is None or high is None:
        return Cell(text)
    if value["value"] == low == high == 0:
        return Cell("0", "unchanged")
    bounds = f"{show(low)} to {show(high)}"
    if better == "none":
        return Cell(text, bounds)
    if low <= 0 <= high:
        return Cell(text, f"{bounds}; no clear change")
    good = (high < 0) == (better == "lower")
    return Cell(text, f"{bounds}; {'better' if good else 'worse'}", "good" if good else "bad")


def _spread(value: Spread | None, is_share: bool) -> Cell:
    if value is None or value["mean"] is None:
        return Cell(_NOTHING)
    scale, decimals = (100.0, 1) if is_share else (1.0, 3)
    mean = number(scale * value["mean"], decimals)
    return Cell(mean, "" if value["sd"] is None else f"±\u00a0{number(scale * value['sd'], decimals)}")


def _method_detail(row: MethodRow, usual_n: int, *, explain: bool) -> str:
    parts = [METHODS[row["name"]][1]] if explain and row["name"] in METHODS else []
    variant: Mapping[str, object] = row["variant"] or {}
    settings = [f"{clipped(key, 40)} {_scalar(value)}" for key, value in variant.items() if value is not None]
    if settings:
        parts.append(", ".join(settings))
    if row["n_permutations"] is not None:
        parts.append(f"{row['n_permutations']:,} orders of the options")
    if row["parsed_share"] is not None:
        parts.append(f"{percent(row['parsed_share'], 0)} of the answers could be read")
    if row["withheld"] is None and row["n"] != usual_n:
        parts.append(f"judged on {row['n']:,}")
    return "; ".join(parts)


def _scalar(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else clipped(str(value), 40)


def _extra_runs(runs: ExtraRuns) -> list[str]:
    """One sentence on each kind of extra run, besides one run of each model."""
    titled = (
        (METHODS["cape"][0], runs["cape"]),
        (METHODS["verbalized"][0], runs["verbalized"]),
        ("the ways of asking", runs["effects"]),
    )
    sentences = []
    for title, cost in titled:
        if cost is not None:
            written = f", {cost['n_generated']:,} tokens written" if "n_generated" in cost else ""
            read = f"{cost['n_prompts']:,} prompts, {cost['n_tokens']:,} tokens read"
            sentences.append(f"Extra runs for {title}: {read}{written}.")
    return sentences


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}" + ("" if n == 1 else "s")


_MOST_FACTS = 200
_DEEPEST = 4


def provenance(result: Judgement) -> list[tuple[str, str]]:
    """Name and text of every recorded fact of a checked result; at most 200, with long texts cut."""
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


def _data(data: DataRead) -> Iterator[tuple[str, str]]:
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
