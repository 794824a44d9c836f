"""Renders a result as one self-contained HTML page: no network, no scripts, the same bytes for the same result.

The template beside this file combines `page_tables`, `prepare`'s sentences and `pictures`. Everything that it prints is
made visible and escaped, except the style sheet and the pictures, which hold no user text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from edgecal.atomic_write import check_target, write_whole
from edgecal.errors import OutputError
from edgecal.report import prepare
from edgecal.report.check import check_result
from edgecal.report.page_tables import (
    ablation_tables,
    effects_table,
    figures_table,
    interval_level,
    label_tables,
    methods_table,
    provenance,
    short,
    subjects_table,
    typed_page_table,
)
from edgecal.report.pictures import page_pictures
from edgecal.report.text import clipped, percent, visible
from edgecal.report.words import method_title
from edgecal.results.judging import CompareResult, Figures, Judgement, ModelRun, Plots, WrongAnswer
from edgecal.results.questions import DataRead

__all__ = ["check_report_path", "render_html", "write_report"]

_MOST_WRONG = 20
_MARK = b'<meta name="generator" content="edgecal report">'


@dataclass(frozen=True)
class _Picture:
    """A figure of the page: heading, the drawing, and the sentence below it."""

    name: str
    title: str
    svg: Any
    sentence: str


def render_html(result: Judgement | Mapping[str, Any]) -> str:
    """The page of an evaluation's or a comparison's result.

    Parameters
    ----------
    result: a result, or what `--json` prints of one, as a dictionary.

    Returns
    -------
    The whole HTML document. It has no characters that UTF-8 cannot hold.

    Raises
    ------
    InputError: it is no such result.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    def shown(value: object) -> object:
        return value if isinstance(value, Markup) else visible(str(value), keep="\n")

    folder = files("edgecal.report")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, finalize=shown, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(folder.joinpath("page.html.j2").read_text(encoding="utf-8"))
    css = folder.joinpath("style.css").read_text(encoding="utf-8")
    page = _contents(result if isinstance(result, Judgement) else check_result(result, "the result"), Markup)
    return template.render(css=Markup(css), **page).lstrip() + "\n"


def write_report(result: Judgement | Mapping[str, Any], path: str | Path, force: bool = False) -> None:
    """Writes the page of a result to a file: whole, or not at all.

    Parameters
    ----------
    path: an existing report or empty file there is replaced.
    force: also replace any other file.

    Raises
    ------
    InputError: it is no such result.
    OutputError: the page cannot be written, or something else is there; what was there is unchanged.
    """
    path = Path(path)
    html = render_html(result)
    check_report_path(path, force)
    write_whole(path, html.encode("utf-8"))


def check_report_path(path: str | Path, force: bool = False) -> None:
    """Checks whether a report can be written there, as far as possible beforehand.

    Raises
    ------
    OutputError: as `write_report`.
    """
    path = Path(path)
    check_target(path)
    if not force and not _may_be_replaced(path):
        raise OutputError(
            f"{path}: exists and is not a report of edgecal; give another name, or remove it first"
        )


def _may_be_replaced(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except (FileNotFoundError, ValueError):  # ValueError: no file has a null character in its name
        return True
    except OSError as error:
        raise OutputError(f"{path}: cannot be looked at ({error.strerror}); give another name") from None
    return not start or _MARK in start


def _contents(result: Judgement, markup: Any) -> dict[str, Any]:
    """The template's variables."""
    level = interval_level(result)
    drawings = {name: markup(svg) for name, svg in page_pictures(result).items()}
    n, data = result.data["n_questions"], result.data
    subtitle = f"{n:,} question{'' if n == 1 else 's'} from {short(', '.join(data['files'])) or 'no file'}"
    compare = result if isinstance(result, CompareResult) else None
    model = result.models["chat"] if isinstance(result, CompareResult) else result.model
    if compare is not None:
        subtitle += f" · compared with its base model {_name(compare.models['base'])}"
    return {
        "title": f"Calibration of {_name(model)}",
        "subtitle": subtitle,
        "verdict": re.sub(r"(?<=\d) %", "\u00a0%", clipped(result.verdict, 1000)),  # no line statements
        "tiles": _tiles(result.figures),
        "has_after": result.figures["after"] is not None,
        "has_loss": result.plots["loss"] is not None,
        "level": level,
        "reliability": _reliability(result.plots, drawings),
        "method_pictures": _method_pictures(result.plots, drawings, level),
        "risk": _Picture(
            "risk-coverage",
            "If it may leave questions unanswered",
            drawings["risk-coverage"],
            prepare.risk_sentence(prepare.prepare_risk_coverage(result.plots["risk_coverage"])),
        ),
        "figures": figures_table(result),
        "methods": None if compare is None else methods_table(compare),
        "methods_picture": None if compare is None else _methods_picture(compare, drawings),
        "label_tables": [] if compare is None else label_tables(compare),
        "learning": None if compare is None else _learning_picture(compare, drawings),
        "ablations": [] if compare is None else ablation_tables(compare),
        "sweeps": _sweeps(drawings),
        "subjects": subjects_table(result),
        "typed": typed_page_table(result),
        "wrong": [_wrong(one) for one in result.wrong[:_MOST_WRONG]],
        "masses": _masses(result.prompting["choice_mass"]),
        "effects": effects_table(result),
        "warnings": [clipped(warning, 500) for warning in result.warnings],
        "n_skipped": f"{data['n_skipped']:,}" if data["n_skipped"] else "",
        "skipped": [
            {"where": short(row["where"]), "reason": clipped(row["reason"], 300)}
            for row in data["skipped"][:_MOST_WRONG]
        ],
        "skipped_more": _more(data),
        "command": _command(result.runtime),
        "facts": provenance(result),
    }


def _name(model: ModelRun) -> str:
    return short(model["name"] or Path(model["path"]).name or model["path"])


def _tiles(figures: Figures) -> list[dict[str, str]]:
    """Accuracy, and confidence before and after: the verdict in three numbers."""
    before, after = figures["before"], figures["after"] or {}
    wanted = [
        ("right", before.get("accuracy"), "of the answers are right"),
        ("before", before.get("confidence"), "is how sure the model says it is, on average"),
        ("after", after.get("confidence"), "is how sure it says it is with the temperature"),
    ]
    return [
        {"role": role, "value": percent(item["value"], 0), "label": label}
        for role, item, label in wanted
        if item is not None and item["value"] is not None
    ]


def _reliability(plots: Plots, drawings: Mapping[str, Any]) -> list[_Picture]:
    titles = {"base": "The base model", "before": "Before calibration", "after": "After calibration"}
    return [
        _Picture(
            f"reliability-{role}",
            titles[role],
            drawings[f"reliability-{role}"],
            prepare.reliability_sentence(data),
        )
        for role, data in (prepare.prepare_reliability(plots["reliability"]) or {}).items()
    ]


def _method_pictures(plots: Plots, drawings: Mapping[str, Any], level: str) -> list[_Picture]:
    pictures = []
    curve = plots["loss"]
    loss, layers = prepare.prepare_loss(curve), prepare.prepare_layers(plots["layers"])
    if curve is not None and loss is not None:
        method = method_title(curve["method"])
        pictures.append(
            _Picture(
                "loss",
                "The loss at every temperature",
                drawings["loss"],
                prepare.loss_sentence(loss, method, level),
            )
        )
    if layers is not None:
        pictures.append(
            _Picture(
                "layers", "Where the two models part", drawings["layers"], prepare.layers_sentence(layers)
            )
        )
    return pictures


def _methods_picture(result: CompareResult, drawings: Mapping[str, Any]) -> _Picture | None:
    data = prepare.prepare_methods(result.rows)
    if data is None:
        return None
    sentence = prepare.methods_sentence(data, result.splits["n"])
    return _Picture("methods", "Calibration error of each method", drawings["methods"], sentence)


def _learning_picture(result: CompareResult, drawings: Mapping[str, Any]) -> _Picture | None:
    data = prepare.prepare_learning(result.learning_curve)
    if data is None:
        return None
    return _Picture(
        "learning",
        "Error against the number of labels",
        drawings["learning"],
        prepare.learning_sentence(data),
    )


def _sweeps(drawings: Mapping[str, Any]) -> list[_Picture]:
    words = {
        "lambda": (
            "Weight of the process loss",
            "At the left end only the questions on which both models choose alike count; to the right those on which "
            "their paths part weigh more.",
        ),
        "prompts": ("Number of prompts", "Where the curves are flat, more prompts would bring nothing."),
    }
    marks = (
        " Marks are means over the splits, bars one standard deviation; "
        "where a mark is missing, no temperature was identified."
    )
    return [
        _Picture(name, title, drawings[name], sentence + marks)
        for name, (title, sentence) in words.items()
        if name in drawings
    ]


def _wrong(one: WrongAnswer) -> dict[str, Any]:
    roles = {one["predicted"]: "chosen", one["answer"]: "right"}
    confidence = f"It was {_sure(one['confidence_before'])} sure"
    if one["confidence_after"] is not None:
        confidence += f", and {_sure(one['confidence_after'])} with the temperature"
    return {
        "question": clipped(one["question"], 1200, keep="\n"),
        "choices": [
            {"text": clipped(choice, 300), "role": roles.get(index, "")}
            for index, choice in enumerate(one["choices"][: _MOST_WRONG + 6])
        ],
        "confidence": f"{confidence}.",
        "source": " · ".join(short(text) for text in (one["subject"], one["where"]) if text),
    }


def _sure(share: float) -> str:
    """A confidence as percent; one that is not quite 1 is not called 100."""
    return f"over {percent(0.999)}" if 0.9995 <= share < 1 else percent(share)


def _masses(masses: Mapping[str, float]) -> list[str]:
    titles = {"base": "the base model", "chat": "the chat model", "model": "the model"}
    shown = [f"{percent(mass, 1)} for {titles.get(model, short(model))}" for model, mass in masses.items()]
    return [f"Choice mass in this run: {' and '.join(shown)}."] if shown else []


def _more(data: DataRead) -> str:
    more = data["n_skipped"] - min(len(data["skipped"]), _MOST_WRONG)
    return f"and {more:,} more" if more > 0 else ""


def _command(runtime: Mapping[str, object]) -> str:
    command = runtime.get("command")
    if (
        isinstance(command, Sequence)
        and not isinstance(command, str)
        and all(isinstance(word, str) for word in command)
    ):
        import shlex

        command = shlex.join(command)
    return clipped(command, 4000) if isinstance(command, str) else ""
