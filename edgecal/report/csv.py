"""A result as comma-separated values, one line for each row of its tables. A pure function of the dictionary."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from edgecal.results.fitting import Variant
from edgecal.results.judging import CompareResult, EvalResult, Judgement, Spread

__all__ = ["render_csv"]

Cell = str | float | None
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


def _eval_rows(result: EvalResult) -> Iterator[dict[str, Cell]]:
    overall = result.figures
    sets = [("", result.data["n_questions"], "before", overall["before"])]
    sets += [
        ("", sets[0][1], name, one)
        for name, one in (("after", overall["after"]), ("difference", overall["difference"]))
        if one
    ]
    for part in result.subjects:
        sets.append((part["subject"], part["n"], "before", part["before"]))
        if part["after"] is not None:
            sets.append((part["subject"], part["n"], "after", part["after"]))
    for subject, n, state, figures in sets:
        row: dict[str, Cell] = {"subject": subject, "n": n, "state": state}
        for name, item in figures.items():
            row |= {name: item["value"], f"{name}_low": item["low"], f"{name}_high": item["high"]}
        yield row


def _compare_rows(result: CompareResult) -> Iterator[dict[str, Cell]]:
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
            **_spread("temperature", row["temperature"]),
            **{
                key: value
                for name, item in row["figures"].items()
                for key, value in _spread(name, item).items()
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
                **_spread("temperature", one["temperature"]),
                **_spread("ece", one["ece"]),
                **_spread("nll", one["nll"]),
            }


def _spread(name: str, item: Spread | None) -> dict[str, Cell]:
    return {
        f"{name}_mean": None if item is None else item["mean"],
        f"{name}_sd": None if item is None else item["sd"],
    }
