"""The layouts of known data sets: how a row of each is recognised, and what its column names do not say.

A data set needs an entry in `LAYOUTS` only if its rows are not one question each with a column for every part, if a
column's name says nothing of its role, or if its authors count answers from 0 or from 1 and a part of the data may not
show which. All other tables with a question and options are read by their column names alone, as the layout "mmlu".

A layout is a function that recognises a row, and may have a function that reshapes it: from the row's values to those
of one question or of several, under names that `column_roles` knows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from edgecal.data.answer_options import split_inline_options
from edgecal.data.column_roles import KnownRoles, find_roles
from edgecal.data.decoded_rows import Fields, as_list, as_text, fail, is_blank, parsed, whole_number
from edgecal.prompts import LABEL_LETTERS

__all__ = ["FORMATS", "LAYOUTS", "Layout"]


# Each question in a row: its place, and its values.
Questions = Iterator[tuple[str, Fields]]


@dataclass(frozen=True)
class Layout:
    """The layout of one data set's rows.

    Attributes
    ----------
    recognise: whether a row is of this layout, by its values (keys are those of `column_key`).
    reshape: turns a row's values into those of each question in it, with the question's place; None where the row is
        one question already.
    base: what the authors count answers from, for data that do not show it: 0, 1, a function of the row, or None if
        they do not count.
    known_roles: roles of columns whose names do not tell them.
    subject_in_name: whether the name of a file such as `anatomy_test.csv` tells the subject.
    tasks: names of the tasks of a collection that has a file for each; the name of such a file tells the subject.
    """

    recognise: Callable[[Fields], bool]
    reshape: Callable[[Fields, str], Questions] | None = None
    base: int | Callable[[Fields], int | None] | None = None
    known_roles: KnownRoles = field(default_factory=dict)
    subject_in_name: bool = False
    tasks: frozenset[str] = frozenset()

    def base_of(self, fields: Fields) -> int | None:
        """The number that this row's layout counts answers from, or None."""
        return self.base(fields) if callable(self.base) else self.base


_BBH_OPTIONS = re.compile(r"(?:^|\n|(?<=\s))options:[ \t]*(?=\n|\(|-)", re.IGNORECASE)
_BBH_LETTERED = re.compile(r"\(([A-Z])\)\s*(.*)", re.DOTALL)
# An AGIEval query is: passage, "Q: ", question, "Answer Choices: ", options; or the same in Chinese.
_QUERY_OPTIONS = re.compile(r"\s*(?:Answer Choices:|选项[：:])\s*(?=\(A\))", re.IGNORECASE)
_QUERY_QUESTION = re.compile(r"\bQ: |Question: |问题[：:]\s*")
_COPA_QUESTIONS = {"cause": "What was the cause of this?", "effect": "What happened as a result?"}
_YES_OR_NO = "yes and no"
_SAYS_YES_OR_NO = {"true": "yes", "yes": "yes", "false": "no", "no": "no"}


def _reshape_arc(fields: Fields, where: str) -> Questions:
    """ARC. In its CSV files the options stand in the question's text; answers that are digits count them from 1, even
    where letters mark them."""
    if not is_blank(fields.get("choices")):
        yield where, fields
        return
    text = as_text(fields.get("question"), "the question", where)
    split = split_inline_options(text)
    if split is None:
        fail(where, 'the question has no options in its text, expected "... (A) ... (B) ..."')
    yield where, {**fields, "question": split[0], "choices": split[1]}


def _reshape_bbh(fields: Fields, where: str) -> Questions:
    """BIG-Bench-Hard: the options follow "Options:" in the input; the target is an option's mark or its text."""
    text = as_text(fields.get("input"), "the input", where)
    heads = list(_BBH_OPTIONS.finditer(text))
    if not heads:
        fail(where, 'the input has no "Options:", so it is not multiple choice')
    options = _bbh_options(text[heads[-1].end() :].strip())
    if options is None:
        fail(where, 'after "Options:" expected lines like "(A) ..." or "- ..."')
    question = text[: heads[-1].start()].strip()
    rest = {key: value for key, value in fields.items() if key != "input"}
    yield where, {**rest, "question": question, "options": options}


def _reshape_agieval(fields: Fields, where: str) -> Questions:
    """AGIEval. On the Hub its query repeats the passage and the options, which are cut out of the question."""
    if "query" not in fields:
        if is_blank(fields.get("options")) or fields["options"] == []:
            fail(where, "has no options, so it is not multiple choice")
        yield where, fields
        return
    texts = [
        re.sub(r"^\([A-Z]\)\s*", "", str(item)) for item in as_list(fields.get("choices"), "choices", where)
    ]
    passage, question = _split_query(as_text(fields["query"], "the query", where), texts)
    rest = {key: value for key, value in fields.items() if key != "query"}
    yield where, {**rest, "question": question, "passage": passage.strip() or fields.get("passage")}


def _reshape_race(fields: Fields, where: str) -> Questions:
    """RACE. The original keeps all questions of an article in one row; the Hub has a row for each. The subject is
    "high" or "middle", where the id tells."""
    name = str(fields.get("example_id") or fields.get("id") or "").lower()
    level = next((level for level in ("high", "middle") if name.startswith(level)), None)
    fields = {"subject": level, **fields}
    if "questions" not in fields:
        yield where, fields
        return
    questions = as_list(fields["questions"], "questions", where)
    options = as_list(fields.get("options"), "options", where)
    held = fields.get("answers")
    answers = [None] * len(questions) if is_blank(held) else as_list(held, "answers", where)
    if not len(questions) == len(options) == len(answers):
        fail(where, f"{len(questions)} questions, {len(options)} lists of options, {len(answers)} answers")
    if not questions:
        fail(where, "an article without questions")
    rest = {key: value for key, value in fields.items() if key not in ("questions", "answers")}
    for index, question in enumerate(questions):
        one = {**rest, "question": question, "options": options[index], "answer": answers[index]}
        yield f"{where}, question {index + 1}", one


def _reshape_truthfulqa(fields: Fields, where: str) -> Questions:
    """TruthfulQA with one right option: `mc1_targets`, or the best answer and the incorrect ones."""
    if is_blank(fields.get("mc1_targets")):
        held = fields.get("incorrect_answers")
        wrong: object = fields.get("best_incorrect_answer")
        if not is_blank(held):
            text = isinstance(held, str) and not isinstance(parsed(held), list)
            wrong = [part.strip() for part in str(held).split(";") if part.strip()] if text else held
        right = fields.get("best_answer")
    else:
        right, wrong = _mc1_targets(fields["mc1_targets"], where)
    hidden = (
        "mc1_targets",
        "mc2_targets",
        "best_answer",
        "best_incorrect_answer",
        "incorrect_answers",
        "correct_answers",
    )
    rest = {key: value for key, value in fields.items() if key not in hidden}
    yield where, {**rest, "correct_answer": right, "incorrect_answers": wrong}


def _reshape_hellaswag(fields: Fields, where: str) -> Questions:
    """HellaSwag: the question is a text to be continued, headed by the activity that it is about."""
    text = fields.get("ctx")
    if is_blank(text):
        parts = [fields.get("ctx_a"), fields.get("ctx_b")]
        text = " ".join(str(part).strip() for part in parts if not is_blank(part))
    about = fields.get("activity_label")
    hidden = ("ctx", "ctx_a", "ctx_b", "activity_label")
    rest = {key: value for key, value in fields.items() if key not in hidden}
    yield where, {"question": text if is_blank(about) else f"{about}: {text}", **rest}


def _reshape_copa(fields: Fields, where: str) -> Questions:
    """COPA: the question column holds only the word "cause" or "effect"."""
    asked = _COPA_QUESTIONS.get(str(fields.get("question")).strip().lower())
    if asked is None:
        fail(where, f'the question must be "cause" or "effect", got {fields.get("question")!r:.40}')
    yield where, {**fields, "question": asked}


def _is_yes_or_no(value: object) -> bool:
    """Whether a value is a boolean, or says yes, no, true or false."""
    return isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in _SAYS_YES_OR_NO)


def _reshape_boolq(fields: Fields, where: str) -> Questions:
    """BoolQ and its like: questions answered by yes or no, whose rows hold no options. A label of 1 is yes."""
    key = "answer" if not is_blank(fields.get("answer")) else "label"
    held = fields.get(key)
    said: str | None = None
    if not is_blank(held) and whole_number(held) != -1:
        number = whole_number(held)
        said = ("no", "yes")[number] if number in (0, 1) else _SAYS_YES_OR_NO.get(str(held).strip().lower())
        if said is None:
            fail(where, f"the answer must be yes or no, or true or false, got {held!r:.40}")
    rest = {name: value for name, value in fields.items() if name not in ("answer", "label")}
    yield where, {**rest, _YES_OR_NO: ["yes", "no"], key: said}


def _bbh_options(text: str) -> list[str] | dict[str, str] | None:
    lines = text.split("\n")
    if lines[0].startswith("-"):
        options: list[str] = []
        for line in lines:
            if line.lstrip().startswith("-"):
                options.append(line.lstrip()[1:].strip())
            else:
                options[-1] = f"{options[-1]}\n{line}".strip()
        return options
    options = []
    for line in lines:
        match = _BBH_LETTERED.match(line.strip())
        if match and len(options) < len(LABEL_LETTERS) and match.group(1) == LABEL_LETTERS[len(options)]:
            options.append(match.group(2))
        elif options:
            options[-1] = f"{options[-1]}\n{line}".strip()
        else:
            return None
    if len(options) == 1:
        split = split_inline_options(text)
        if split is None:
            return None
        options = split[1]
    return dict(zip(LABEL_LETTERS, options, strict=False))


def _split_query(query: str, options: list[str]) -> tuple[str, str]:
    """The passage, which may be empty, and the question of an AGIEval query; the whole query where it repeats none."""
    cuts = list(_QUERY_OPTIONS.finditer(query))
    if not cuts or not all(option in query[cuts[-1].end() :] for option in options):
        return "", query
    query = query[: cuts[-1].start()]
    heads = list(_QUERY_QUESTION.finditer(query))
    return (query[: heads[-1].start()], query[heads[-1].end() :]) if heads else ("", query)


def _mc1_targets(value: object, where: str) -> tuple[object, list[object]]:
    targets = parsed(value)
    if not isinstance(targets, Mapping):
        fail(where, f"mc1_targets must be an object, got {value!r:.60}")
    if "choices" in targets and "labels" in targets:
        texts = as_list(targets["choices"], "mc1_targets.choices", where)
        labels = as_list(targets["labels"], "mc1_targets.labels", where)
    else:
        # in a Parquet table every row also has the other rows' options, as nulls
        items = [(text, label) for text, label in targets.items() if label is not None]
        texts, labels = [text for text, _ in items], [label for _, label in items]
    numbers = [whole_number(label) for label in labels]
    if len(texts) != len(numbers) or any(number not in (0, 1) for number in numbers):
        fail(where, "mc1_targets must give each option a label of 0 or 1")
    if numbers.count(1) != 1:
        fail(where, f"mc1_targets must mark one option as right, got {numbers.count(1)}")
    right = numbers.index(1)
    return texts[right], [text for index, text in enumerate(texts) if index != right]


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
    """Recognises rows that have all of these keys; `a|b` stands for either."""
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
    """Labelled choices, or options in the question's text, with the answer under ARC's own name or withheld."""
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
    """LogiQA in both forms on the Hub, or LogiQA 2.0."""
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
    return numbered or _is_yes_or_no(fields.get("answer"))


def _is_edgecal(fields: Fields) -> bool:
    """One of the three forms that `edgecal.prompts` describes; rows with the Hub's columns of MMLU are "mmlu"."""
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
    return roles is not None and roles.question == "question" and set(roles.gold_columns) <= {"answer"}


def _is_cmmlu(fields: Fields) -> bool:
    return "" in fields and set(fields) >= _LETTERED


# The first layout that recognises a row wins, so peculiar layouts stand above general ones. The last one takes every
# row with a question and options.
LAYOUTS: dict[str, Layout] = {
    "truthfulqa": Layout(
        lambda fields: (
            "mc1_targets" in fields
            or (
                "best_answer" in fields
                and ("incorrect_answers" in fields or "best_incorrect_answer" in fields)
            )
        ),
        _reshape_truthfulqa,
    ),
    "hellaswag": Layout(
        _has("ctx|ctx_a endings|ending0|endings0|ending_0|endings_0"), _reshape_hellaswag, base=0
    ),
    "winogrande": Layout(_has("sentence option1 option2"), base=1, known_roles={"question": ("sentence",)}),
    "piqa": Layout(_has("goal sol1 sol2"), base=0, known_roles={"question": ("goal",)}),
    "siqa": Layout(_has("context question answera answerb answerc"), base=1),
    "copa": Layout(_is_copa, _reshape_copa, base=0),
    "belebele": Layout(_has("question mc_answer1 mc_answer2 correct_answer_num"), base=1),
    "sciq": Layout(_has("question correct_answer distractor1")),
    "gpqa": Layout(
        _has("question correct_answer incorrect_answer_1"),
        known_roles={
            "gold_text": ("correct_answer",),
            "wrong": tuple(f"incorrect_answer_{number}" for number in (1, 2, 3)),
            "question": ("question",),
        },
    ),
    "arabicmmlu": Layout(_has("question option_1 option_2 answer_key")),
    "kmmlu": Layout(_has("question a b c d answer human_accuracy"), base=1),
    "cmmlu": Layout(_is_cmmlu, subject_in_name=True),
    "ceval": Layout(_has("id question a b c d explanation"), subject_in_name=True),
    "logiqa": Layout(_is_logiqa, base=0),
    "medmcqa": Layout(_has("question opa opb")),
    "mathqa": Layout(_is_mathqa),
    "race": Layout(_has("article question|questions options"), _reshape_race),
    "commonsenseqa": Layout(_is_commonsenseqa),
    "openbookqa": Layout(_is_openbookqa),
    "arc": Layout(_is_arc, _reshape_arc, base=1),
    "bbh": Layout(_is_bbh, _reshape_bbh, tasks=_BBH_TASKS),
    "agieval": Layout(_is_agieval, _reshape_agieval, base=0, tasks=_AGIEVAL_TASKS),
    "boolq": Layout(_is_boolq, _reshape_boolq, known_roles={"options": (_YES_OR_NO,)}),
    "edgecal": Layout(_is_edgecal, base=0),
    "mmlu": Layout(
        _has_options, base=lambda fields: 0 if tuple(fields) in _PUBLIC_MMLU else None, subject_in_name=True
    ),
}
FORMATS: tuple[str, ...] = ("edgecal", "mmlu", *sorted(set(LAYOUTS) - {"edgecal", "mmlu"}))
