"""Writes a result's tables as text: cells for the terminal, Markdown for a model card, comma-separated values."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from edgecal.metrics import find_figure
from edgecal.report.text import number, percent, plain, points, signed, visible
from edgecal.report.words import ABLATIONS, SCALINGS
from edgecal.results.fitting import Variant
from edgecal.results.judging import (
    CompareResult,
    Estimate,
    EvalResult,
    FigureSet,
    Judgement,
    MeanWithError,
    MethodRow,
    ScalingRow,
    Spread,
    TypedQuestions,
)

__all__ = [
    "NOTHING",
    "TextTable",
    "ablation_texts",
    "describe_data",
    "describe_prompting",
    "learning_table",
    "list_tables",
    "render_csv",
    "render_markdown",
    "scalings_table",
    "typed_table",
]

NOTHING = "–"
_SHOWN_FILES = 3

# The figures that the tables of methods and of subjects have room for.
_METHOD_FIGURES = ("accuracy", "ece", "ece_equal_mass", "smece", "mce", "brier", "nll", "auroc")
_SHORT = {
    "accuracy": "accuracy",
    "ece": "ECE",
    "ece_equal_mass": "ECE, equal mass",
    "smece": "smECE",
    "mce": "MCE",
    "brier": "Brier",
    "nll": "NLL",
    "auroc": "AUROC",
    "aurc": "AURC",
}


@dataclass(frozen=True)
class TextTable:
    """A table of texts.

    title; columns: their names; rows: a cell for each column; note: one line beneath, or none; optional: columns to
    leave out where there is no room, the first one first.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    optional: tuple[str, ...] = ()

    def without(self, column: str) -> TextTable:
        """The same table without one of its columns."""
        at = self.columns.index(column)
        rows = tuple((*row[:at], *row[at + 1 :]) for row in self.rows)
        return replace(self, columns=(*self.columns[:at], *self.columns[at + 1 :]), rows=rows)


def list_tables(result: Judgement) -> list[TextTable]:
    """The tables of an `eval` or `compare` result, the most important first; empty ones are left out."""
    tables = [_figures(result)]
    if isinstance(result, CompareResult):
        labels = [learning_table(result), scalings_table(result)]
        tables = [_methods(result), _figures(result), *labels, *ablation_texts(result)]
    if isinstance(result, EvalResult) and result.typed is not None:
        return [*tables, _types(result), typed_table(result.typed)]
    tables += [_subjects(result), _effects(result)]
    return [table for table in tables if table.rows]


def describe_data(result: Judgement) -> str:
    """The questions that were judged, in one line."""
    data = result.data
    files = ", ".join(visible(path) for path in data["files"][:_SHOWN_FILES]) or "records"
    if len(data["files"]) > _SHOWN_FILES:
        files += f" and {len(data['files']) - _SHOWN_FILES:,} more files"
    text = f"{data['n_questions']:,} questions from {files}"
    if data["n_skipped"]:
        text += f", {data['n_skipped']:,} of {data['n_read']:,} rows skipped"
    return "; ".join([text, *map(visible, data["decisions"])])


def describe_prompting(result: Judgement) -> str:
    """The prompting and the choice mass, in one line."""
    prompting = result.prompting
    parts = [visible(prompting["template"])]
    if prompting["shots"]:
        parts.append(f"{prompting['shots']} worked example{'s' if prompting['shots'] > 1 else ''}")
    if prompting["chat_template"] is not None:
        parts.append(visible(prompting["chat_template"]))
    return f"{', '.join(parts)}; {_mass(prompting['choice_mass'])} of all probability on the choices"


def _mass(masses: Mapping[str, float]) -> str:
    if list(masses) == ["model"]:
        return percent(masses["model"])
    return ", ".join(f"{percent(mass)} ({role})" for role, mass in masses.items())


def _figures(result: Judgement) -> TextTable:
    sets = result.figures
    titled = (
        ("base model", sets.get("base")),
        ("before", sets["before"]),
        ("after", sets["after"]),
        ("difference", sets["difference"]),
    )
    columns = {title: figures for title, figures in titled if figures is not None}
    rows = []
    for name in sets["before"]:
        cells = [
            _interval(name, figures[name], difference=title == "difference")
            for title, figures in columns.items()
        ]
        rows.append((find_figure(name).title, *cells))
    level, n = result.bootstrap["level"], result.bootstrap["n"]
    note = f"with {percent(level, 0)} intervals from {n:,} bootstrap resamples" if n else ""
    if isinstance(result, CompareResult) and result.headline is not None:
        head = result.headline
        note = (
            f"{head['method']}, temperature {plain(head['temperature'])}, fitted on {head['n_fit']:,} questions and "
            f"judged on {head['n_evaluate']:,} others; {note}"
        ).rstrip("; ")
    return TextTable("Figures", ("figure", *columns), tuple(rows), note, ("base model", "difference"))


def _methods(result: CompareResult) -> TextTable:
    rows = []
    for row in result.rows:
        title = _method_name(row)
        if row["withheld"] is not None:
            rows.append((title, NOTHING, *(NOTHING for _ in _METHOD_FIGURES), f"withheld: {row['withheld']}"))
            continue
        cells = [_spread(name, row["figures"][name]) for name in _METHOD_FIGURES]
        tau = NOTHING if row["temperature"] is None else _temperature(row["temperature"])
        rows.append((title, tau, *cells, "; ".join(_remarks(row, result.splits["n"]))))
    splits = result.splits
    note = (
        f"mean ± standard deviation over {splits['n']} splits; fitted on {splits['n_fit']:,} questions, judged on "
        f"{splits['n_evaluate']:,}; in brackets --ise, --tau-scope and --combine"
    )
    columns = ("method", "temperature", *(_SHORT[name] for name in _METHOD_FIGURES), "remarks")
    optional = ("ECE, equal mass", "AUROC", "MCE", "smECE", "Brier", "accuracy")
    return TextTable("Methods", columns, tuple(rows), note, optional)


def _method_name(row: MethodRow) -> str:
    """The method and its options' values: dual-align (mixture, final, sum 0.1)."""
    variant = row["variant"]
    if variant is None:
        return row["name"]
    values = [value for value in (variant["ise"], variant["tau_scope"], variant["combine"]) if value]
    if variant["lambda"] is not None:
        values[-1] += f" {variant['lambda']:g}"
    return f"{row['name']} ({', '.join(values)})" if values else row["name"]


def _remarks(row: MethodRow, n_splits: int) -> list[str]:
    remarks = []
    if row["default"]:
        remarks.append("the verdict's")
    if row["uses_labels"]:
        remarks.append(f"uses {row['n_labelled']} labels" if row["n_labelled"] else "uses labels")
    if row["not_identified"]:
        remarks.append(f"not identified on {len(row['not_identified'])} of {n_splits} splits")
    if row["n_worse"]:
        remarks.append(f"worse NLL than as it is on {row['n_worse']} of {n_splits} splits")
    if row["n_permutations"] is not None:
        remarks.append(f"{row['n_permutations']} orders of the options")
    if row["parsed_share"] is not None:
        remarks.append(f"{percent(row['parsed_share'])} of the answers understood")
    return remarks


def learning_table(result: CompareResult) -> TextTable:
    """Each method's error by number of labels."""
    rows = []
    for line in result.learning_curve["lines"]:
        for point in line["points"]:
            n = point["n_runs"]
            counts = {
                "worse NLL than as it is": point["n_harmful"],
                "at an end of the range": point["n_at_bound"],
            }
            told = [f"{words} in {count:,} of {n:,} runs" for words, count in counts.items() if count]
            cells = (
                _with_error(point["error"]),
                _with_error(point["ece"], 100.0, 1),
                _with_error(point["nll"]),
            )
            labels = f"{point['n_labels']:,}" if line["uses_labels"] else "none"
            rows.append((visible(line["method"]), labels, *cells, "; ".join(told)))
    note = (
        f"mean ± standard error over {result.splits['n']} splits, {result.learning_curve['n_draws']} random draws of "
        "labels in each, the other questions unlabelled; off by: |ln(temperature / oracle)|, 0.1 is about 10 %; "
        "the oracle is that of the judging questions' labels"
    )
    return TextTable(
        "Learning curve", ("method", "labels", "off by", "ECE in %", "NLL", "remarks"), tuple(rows), note
    )


def scalings_table(result: CompareResult) -> TextTable:
    """Each form of scaling: parameters, figures, and its gain over one temperature."""
    rows = []
    for row in result.scalings["rows"]:
        figures = (
            _spread("accuracy", row["accuracy"]),
            _spread("ece", row["ece"]),
            _spread("nll", row["nll"]),
        )
        gain = NOTHING if row["gain"] is None else _interval("nll", row["gain"], difference=True)
        remarks = [f"chosen on {row['n_chosen']} of {result.splits['n']} splits"] if row["n_chosen"] else []
        remarks += _parameters(row)
        if row["withheld"] is not None:
            remarks.append(f"not tried: {visible(row['withheld'])}")
        found = row["found"]
        tau = NOTHING if found is None else plain(found["temperature"])
        rows.append((SCALINGS[row["form"]], tau, *figures, gain, "; ".join(remarks)))
    note = (
        f"fitted on {result.splits['n_fit']:,} questions with their labels, judged on {result.splits['n_evaluate']:,}; "
        "temperature and gain: on the first split; gain: by how much the NLL of labels that it was not fitted on is "
        "lower than with one temperature, with 2 standard errors; a file carries one temperature"
    )
    columns = ("scaling", "temperature", "accuracy", "ECE", "NLL", "gain in NLL", "remarks")
    return TextTable("One number or more", columns, tuple(rows), note, ("accuracy",))


def _parameters(row: ScalingRow) -> list[str]:
    found = row["found"]
    if found is None:
        return []
    many = (
        ("temperatures", list(found["subjects"].values())),
        ("scales", found["scales"]),
        ("biases", found["biases"]),
    )
    return [f"{name} {plain(min(values))} to {plain(max(values))}" for name, values in many if values]


def _with_error(item: MeanWithError, scale: float = 1.0, decimals: int = 3) -> str:
    if item["mean"] is None:
        return NOTHING
    error = "" if item["error"] is None else f" ± {number(scale * item['error'], decimals)}"
    return f"{number(scale * item['mean'], decimals)}{error}"


def ablation_texts(result: CompareResult) -> list[TextTable]:
    """One table for each setting that was varied."""
    tables = []
    for name, rows in result.ablations.items():
        made = tuple(
            (
                visible(row["name"]),
                _temperature(row["temperature"]),
                _spread("ece", row["ece"]),
                _spread("nll", row["nll"]),
                f"not identified on {row['not_identified']} of {result.splits['n']} splits"
                if row["not_identified"]
                else "",
            )
            for row in rows
        )
        columns = ("variant", "temperature", "ECE", "NLL", "remarks")
        tables.append(TextTable(ABLATIONS.get(name, visible(name)), columns, made))
    return tables


def _subjects(result: Judgement) -> TextTable:
    after = result.figures["after"] is not None
    columns = ["subject", "questions", "accuracy", "confidence", "ECE"]
    if after:
        columns += ["confidence after", "ECE after"]
    rows = []
    for row in result.subjects:
        cells = [_value(name, row["before"][name]["value"]) for name in ("accuracy", "confidence", "ece")]
        if row["after"] is not None:
            cells += [_value(name, row["after"][name]["value"]) for name in ("confidence", "ece")]
        rows.append((visible(row["subject"]), f"{row['n']:,}", *cells))
    return TextTable("Subjects", tuple(columns), tuple(rows), optional=("confidence", "confidence after"))


_TYPE_FIGURES = ("accuracy", "ece", "nll", "brier", "aurc")


def _types(result: EvalResult) -> TextTable:
    """The figures of each type of typed questions."""
    rows = []
    for row in result.subjects:
        for state, figures in (("before", row["before"]), ("after", row["after"])):
            if figures is not None:
                cells = [_interval(name, figures[name], difference=False) for name in _TYPE_FIGURES]
                rows.append((row["subject"], f"{row['n']:,}", state, *cells))
    columns = ("type", "questions", "state", *(_SHORT[name] for name in _TYPE_FIGURES))
    return TextTable("Types", columns, tuple(rows))


def typed_table(typed: TypedQuestions) -> TextTable:
    """What typed questions have beside figures."""
    rows = []
    for row in typed["groups"]:
        temperature = NOTHING if row["temperature"] is None else plain(row["temperature"])
        rows.append(
            (
                row["name"],
                f"{row['n']:,}",
                temperature + (", unsettled" if row["settled"] is False else ""),
                _interval("accuracy", row["label_mass"], difference=False),
                _interval("accuracy", row["flips"], difference=False),
                number(row["n_orders"], 2),
                f"{row['n_tokens']:,.0f} ({row['n_tokens_once']:,.0f})",
            )
        )
    note = (
        f"readout {visible(typed['readout'])}, orders {visible(typed['orders'])}; flips: questions whose answer is not "
        "the same in all orders, of at least two; tokens: of a question in its orders (in one), what they share once"
    )
    columns = ("group", "questions", "temperature", "label mass", "flips", "orders", "tokens")
    return TextTable("Typed questions", columns, tuple(rows), note)


def _effects(result: Judgement) -> TextTable:
    rows = tuple(
        (visible(effect["name"]), f"{effect['n']:,}", _mass(effect["choice_mass"]))
        for effect in result.prompting["effects"]
    )
    return TextTable(
        "Probability on the choices, by prompting", ("prompting", "questions", "choice mass"), rows
    )


def _value(name: str, value: float | None, decimals: int = 1) -> str:
    if value is None:
        return NOTHING
    return percent(value, decimals) if find_figure(name).percent else number(value)


def _interval(name: str, item: Estimate, *, difference: bool) -> str:
    if item["value"] is None:
        return NOTHING
    share = find_figure(name).percent

    def say(value: float) -> str:
        if difference:
            return points(value) if share else signed(value)
        return number(100 * value, 1) if share else number(value)

    unit = (" points" if difference else " %") if share else ""
    if item["low"] is None or item["high"] is None:
        return f"{say(item['value'])}{unit}"
    return f"{say(item['value'])}{unit} ({say(item['low'])} to {say(item['high'])})"


def _spread(name: str, item: Spread) -> str:
    mean, sd = item["mean"], item["sd"]
    if mean is None or sd is None:
        return NOTHING
    if find_figure(name).percent:
        return f"{number(100 * mean, 1)} ± {number(100 * sd, 1)} %"
    return f"{number(mean)} ± {number(sd)}"


def _temperature(item: Spread) -> str:
    mean, sd = item["mean"], item["sd"]
    return NOTHING if mean is None or sd is None else f"{number(mean, 2)} ± {number(sd, 2)}"


_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#$~])")


def render_markdown(result: Judgement) -> str:
    """Headings, the verdict, what was judged, and every table; names are escaped. Ends with a line break."""
    if isinstance(result, CompareResult):
        named = [result.models["base"]["name"], result.models["chat"]["name"]]
    else:
        named = [result.model["name"]]
    names = " and ".join(map(_escape, named))
    runtime = result.runtime
    lines = [
        f"## Calibration of {names}",
        "",
        _escape(result.verdict),
        "",
        f"- Data: {_escape(describe_data(result))}",
        f"- Prompting: {_escape(describe_prompting(result))}",
        f"- Made by edgecal {_escape(runtime['edgecal'])} with {_escape(runtime['llama_cpp'])}",
    ]
    if "command" in runtime:
        lines.append(f"- Command: {_code(runtime['command'])}")
    for table in list_tables(result):
        lines += ["", f"### {_escape(table.title)}", "", *_draw(table)]
        if table.note:
            lines += ["", _escape(table.note[0].upper() + table.note[1:] + ".")]
    return "\n".join(lines) + "\n"


def _draw(table: TextTable) -> list[str]:
    def line(cells: tuple[str, ...]) -> str:
        return "| " + " | ".join(_escape(cell) for cell in cells) + " |"

    return [line(table.columns), "|" + "---|" * len(table.columns), *(line(row) for row in table.rows)]


def _escape(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", visible(text))


def _code(text: str) -> str:
    shown = visible(text)
    longest = max((len(run) for run in re.findall(r"`+", shown)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if longest else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


_Cell = str | float | None
_NO_OPTIONS: Variant = {"ise": None, "tau_scope": None, "combine": None, "lambda": None}


def render_csv(result: Judgement) -> str:
    """Values as they are (shares, not percent; nothing for what is undefined), under a line of names.

    `eval`: one line for each subject ("" for all questions) and each of before, after and difference; three
    columns for each figure: its name, `_low` and `_high`. `compare`: `table` is "methods" or an ablation's name;
    one line for each row, with `_mean` and `_sd` over the splits.
    """
    rows = list(_eval_rows(result) if isinstance(result, EvalResult) else _compare_rows(result))
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _eval_rows(result: EvalResult) -> Iterator[dict[str, _Cell]]:
    overall = result.figures
    n_questions = result.data["n_questions"]
    sets: list[tuple[str, int, str, FigureSet | None]] = [
        ("", n_questions, "before", overall["before"]),
        ("", n_questions, "after", overall["after"]),
        ("", n_questions, "difference", overall["difference"]),
    ]
    for part in result.subjects:
        sets.append((part["subject"], part["n"], "before", part["before"]))
        sets.append((part["subject"], part["n"], "after", part["after"]))
    for subject, n, state, figures in sets:
        if figures is None:
            continue
        row: dict[str, _Cell] = {"subject": subject, "n": n, "state": state}
        for name, item in figures.items():
            row |= {name: item["value"], f"{name}_low": item["low"], f"{name}_high": item["high"]}
        yield row


def _compare_rows(result: CompareResult) -> Iterator[dict[str, _Cell]]:
    for row in result.rows:
        variant = row["variant"] or _NO_OPTIONS
        yield {
            "table": "methods",
            "name": row["name"],
            "ise": variant["ise"],
            "tau_scope": variant["tau_scope"],
            "combine": variant["combine"],
            "lambda": variant["lambda"],
            "n_prompts": None,
            "uses_labels": row["uses_labels"],
            "n": row["n"],
            "not_identified": len(row["not_identified"]),
            "withheld": row["withheld"],
            "parsed_share": row["parsed_share"],
            "n_permutations": row["n_permutations"],
            **_mean_and_sd("temperature", row["temperature"]),
            **{
                key: value
                for name, item in row["figures"].items()
                for key, value in _mean_and_sd(name, item).items()
            },
        }
    for table, changed in result.ablations.items():
        for one in changed:
            yield {
                "table": table,
                "name": one["name"],
                "lambda": one.get("lambda"),
                "n_prompts": one.get("n_prompts"),
                "not_identified": one["not_identified"],
                **_mean_and_sd("temperature", one["temperature"]),
                **_mean_and_sd("ece", one["ece"]),
                **_mean_and_sd("nll", one["nll"]),
            }


def _mean_and_sd(name: str, item: Spread | None) -> dict[str, _Cell]:
    return {
        f"{name}_mean": None if item is None else item["mean"],
        f"{name}_sd": None if item is None else item["sd"],
    }
