"""The formats: how each is recognised, and what is known of it beyond what its columns' names say.

A line here is only needed where a row is no plain record, where a column has a name that says nothing, or where its
makers count answers from 0 or from 1 and a part of the data may not show it. The first line that recognises a row
wins, so what is peculiar stands above what is general; the last takes every table with a question and options.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from edgecal.data import shapes
from edgecal.data.fields import Fields, parsed, whole_number
from edgecal.data.roles import Given, find_roles

__all__ = ["FORMATS", "FORMAT_TABLE", "Format"]


def _unknown(fields: Fields) -> None:
    return None


def _from_0(fields: Fields) -> int:
    return 0


def _from_1(fields: Fields) -> int:
    return 1


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes
    ----------
    recognise: whether a row's values (keys as `column_key` gives them) are of this format.
    shape: turns a row's values into those of plain records.
    base: what the makers of such a row count answers from, for data that do not show it; None where nothing is
        known.
    given: columns whose roles their names do not tell.
    subject_in_name: whether a file named `anatomy_test.csv` tells the subject.
    tasks: the tasks of a collection that has a file for each: a file of that name tells the subject.
    """

    recognise: Callable[[Fields], bool]
    shape: Callable[[Fields, str], shapes.Parts] | None = None
    base: Callable[[Fields], int | None] = _unknown
    given: Given = field(default_factory=dict)
    subject_in_name: bool = False
    tasks: frozenset[str] = frozenset()


_BBH_TASKS = frozenset(
    """
    boolean_expressions causal_judgement date_understanding disambiguation_qa dyck_languages formal_fallacies
    geometric_shapes hyperbaton logical_deduction_five_objects logical_deduction_seven_objects
    logical_deduction_three_objects movie_recommendation multistep_arithmetic_two navigate object_counting
    penguins_in_a_table reasoning_about_colored_objects ruin_names salient_translation_error_detection snarks
    sports_understanding temporal_sequences tracking_shuffled_objects_five_objects
    tracking_shuffled_objects_seven_objects tracking_shuffled_objects_three_objects web_of_lies word_sorting
    """.split()
)
_AGIEVAL_TASKS = frozenset(
    """
    aqua-rat gaokao-biology gaokao-chemistry gaokao-chinese gaokao-english gaokao-geography gaokao-history
    gaokao-mathcloze gaokao-mathqa gaokao-physics jec-qa-ca jec-qa-kd logiqa-en logiqa-zh lsat-ar lsat-lr
    lsat-rc math sat-en sat-en-without-passage sat-math
    """.split()
)
_HUB_MMLU = ("question", "subject", "choices", "answer")
_PUBLIC_MMLU = (_HUB_MMLU, tuple("question choice0 choice1 choice2 choice3 answer".split()))
_LETTERED = frozenset("abcd")


def _has(keys: str) -> Callable[[Fields], bool]:
    """A recogniser of rows that have all of some keys; one with `|` in it stands for any of several."""
    wanted = [part.split("|") for part in keys.split()]
    return lambda fields: all(any(key in fields for key in part) for part in wanted)


def _has_options(fields: Fields) -> bool:
    roles = find_roles([fields], {})
    return roles is not None and bool(roles.options or roles.wrong)


def _is_mathqa(fields: Fields) -> bool:
    return "problem" in fields and isinstance(fields.get("options"), str) and "correct" in fields


def _is_commonsenseqa(fields: Fields) -> bool:
    return "question_concept" in fields


def _is_openbookqa(fields: Fields) -> bool:
    identity = str(fields.get("id", ""))
    nested = "fact1" in fields or (identity.replace("-", "", 1).isdecimal() and "-" in identity)
    return "choices" in fields and ("question_stem" in fields or (nested and _is_arc(fields)))


def _is_arc(fields: Fields) -> bool:
    """Labelled choices, or options in the question's text; with the answer under ARC's own name, or hidden."""
    if "question" not in fields:
        return False
    choices = parsed(fields.get("choices"))
    labelled = isinstance(choices, Mapping) or (
        isinstance(choices, list) and bool(choices) and isinstance(choices[0], Mapping)
    )
    if labelled:
        return "answerkey" in fields or not {"answer", "label", "answer_key"} & set(fields)
    return "answerkey" in fields and not _has_options(fields)


def _is_bbh(fields: Fields) -> bool:
    return "input" in fields and "target" in fields and not _has_options(fields)


def _is_agieval(fields: Fields) -> bool:
    if {"query", "choices", "gold"} <= set(fields):
        gold = fields["gold"]
        return isinstance(gold, list) or str(gold).startswith("[")
    return {"question", "options", "label"} <= set(fields) and whole_number(fields["label"]) is None


def _is_logiqa(fields: Fields) -> bool:
    """The first LogiQA in its two spellings on the Hub, and the second, whose types are an object."""
    if "options" not in fields:
        return False
    first = "context" in fields and ("correct_option" in fields or _is_letter(fields.get("label")))
    return first or ({"text", "question", "answer", "type"} <= set(fields))


def _is_letter(value: object) -> bool:
    return isinstance(value, str) and len(value.strip()) == 1 and value.strip().isalpha()


def _is_copa(fields: Fields) -> bool:
    return {"premise", "choice1", "choice2"} <= set(fields) and fields.get("question") in ("cause", "effect")


def _is_boolq(fields: Fields) -> bool:
    if "question" not in fields or _has_options(fields):
        return False
    numbered = {"passage", "label"} <= set(fields)
    return numbered or shapes.is_yes_or_no(fields.get("answer"))


def _is_edgecal(fields: Fields) -> bool:
    """One of the three forms of `edgecal.prompts`; a question in the order of the Hub's MMLU is none."""
    if {"tokens", "choice_tokens"} <= set(fields) or {"prompt", "labels"} <= set(fields):
        return True
    choices = parsed(fields.get("choices"))
    if (
        tuple(fields) == _HUB_MMLU
        or not isinstance(choices, list)
        or any(isinstance(c, dict) for c in choices)
    ):
        return False
    roles = find_roles([fields], {})
    return roles is not None and roles.question == "question" and set(roles.answers) <= {"answer"}


def _is_cmmlu(fields: Fields) -> bool:
    return "" in fields and set(fields) >= _LETTERED


FORMAT_TABLE: dict[str, Format] = {
    "truthfulqa": Format(
        lambda fields: (
            "mc1_targets" in fields
            or (
                "best_answer" in fields
                and ("incorrect_answers" in fields or "best_incorrect_answer" in fields)
            )
        ),
        shapes.from_truthfulqa,
    ),
    "hellaswag": Format(
        _has("ctx|ctx_a endings|ending0|endings0|ending_0|endings_0"), shapes.from_hellaswag, base=_from_0
    ),
    "winogrande": Format(_has("sentence option1 option2"), base=_from_1, given={"question": ("sentence",)}),
    "piqa": Format(_has("goal sol1 sol2"), base=_from_0, given={"question": ("goal",)}),
    "siqa": Format(_has("context question answera answerb answerc"), base=_from_1),
    "copa": Format(_is_copa, shapes.from_copa, base=_from_0),
    "belebele": Format(_has("question mc_answer1 mc_answer2 correct_answer_num"), base=_from_1),
    "sciq": Format(_has("question correct_answer distractor1")),
    "gpqa": Format(
        _has("question correct_answer incorrect_answer_1"),
        given={
            "right": ("correct_answer",),
            "wrong": tuple(f"incorrect_answer_{number}" for number in (1, 2, 3)),
            "question": ("question",),
        },
    ),
    "arabicmmlu": Format(_has("question option_1 option_2 answer_key")),
    "kmmlu": Format(_has("question a b c d answer human_accuracy"), base=_from_1),
    "cmmlu": Format(_is_cmmlu, subject_in_name=True),
    "ceval": Format(_has("id question a b c d explanation"), subject_in_name=True),
    "logiqa": Format(_is_logiqa, base=_from_0),
    "medmcqa": Format(_has("question opa opb")),
    "mathqa": Format(_is_mathqa),
    "race": Format(_has("article question|questions options"), shapes.from_race),
    "commonsenseqa": Format(_is_commonsenseqa),
    "openbookqa": Format(_is_openbookqa),
    "arc": Format(_is_arc, shapes.from_arc, base=_from_1),
    "bbh": Format(_is_bbh, shapes.from_bbh, tasks=_BBH_TASKS),
    "agieval": Format(_is_agieval, shapes.from_agieval, base=_from_0, tasks=_AGIEVAL_TASKS),
    "boolq": Format(_is_boolq, shapes.from_boolq, given={"options": (shapes.YES_OR_NO,)}),
    "edgecal": Format(_is_edgecal, base=_from_0),
    "mmlu": Format(
        _has_options, base=lambda fields: 0 if tuple(fields) in _PUBLIC_MMLU else None, subject_in_name=True
    ),
}
FORMATS: tuple[str, ...] = ("edgecal", "mmlu", *sorted(set(FORMAT_TABLE) - {"edgecal", "mmlu"}))
