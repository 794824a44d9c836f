"""Rows that are no plain record: several questions in one, options inside a text, a question that is only implied.

Each function turns a row's values into those of one question or several, under the names that `roles` knows.
Does not know what answers mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from edgecal.data.fields import Fields, as_list, as_text, is_blank, parsed, whole_number
from edgecal.data.model import fail
from edgecal.data.options import split_inline_options
from edgecal.prompts import LABEL_LETTERS

__all__ = [
    "YES_OR_NO",
    "Parts",
    "from_agieval",
    "from_arc",
    "from_bbh",
    "from_boolq",
    "from_copa",
    "from_hellaswag",
    "from_race",
    "from_truthfulqa",
    "is_yes_or_no",
]

# What a row gives: each question's place and values.
Parts = Iterator[tuple[str, Fields]]

_BBH_OPTIONS = re.compile(r"(?:^|\n|(?<=\s))options:[ \t]*(?=\n|\(|-)", re.IGNORECASE)
_BBH_LETTERED = re.compile(r"\(([A-Z])\)\s*(.*)", re.DOTALL)
# AGIEval's prompts: passage, "Q: ", question, "Answer Choices: ", options; the Chinese ones likewise
_QUERY_OPTIONS = re.compile(r"\s*(?:Answer Choices:|选项[：:])\s*(?=\(A\))", re.IGNORECASE)
_QUERY_QUESTION = re.compile(r"\bQ: |Question: |问题[：:]\s*")
_COPA_QUESTIONS = {"cause": "What was the cause of this?", "effect": "What happened as a result?"}
YES_OR_NO = "yes and no"
_SAID = {"true": "yes", "yes": "yes", "false": "no", "no": "no"}


def from_arc(fields: Fields, where: str) -> Parts:
    """ARC; in its CSV the options stand in the question's text, and digits name them from 1, whatever marks them."""
    if not is_blank(fields.get("choices")):
        yield where, fields
        return
    text = as_text(fields.get("question"), "the question", where)
    split = split_inline_options(text)
    if split is None:
        fail(where, 'the question has no options in its text, expected "... (A) ... (B) ..."')
    yield where, {**fields, "question": split[0], "choices": split[1]}


def from_bbh(fields: Fields, where: str) -> Parts:
    """BIG-Bench-Hard: the options follow "Options:" in the input, the target is a mark or an option's text."""
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


def from_agieval(fields: Fields, where: str) -> Parts:
    """AGIEval of the Hub, whose query repeats the passage and the options: both are taken out of it."""
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


def from_race(fields: Fields, where: str) -> Parts:
    """RACE: one row for each question of an article, where the original keeps them in lists; the subject is `high`
    or `middle`, where the id tells.

    Raises
    ------
    InputError: the lists do not match.
    """
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


def from_truthfulqa(fields: Fields, where: str) -> Parts:
    """TruthfulQA with one right option: `mc1_targets`, or the best answer against the incorrect ones."""
    if is_blank(fields.get("mc1_targets")):
        held = fields.get("incorrect_answers")
        wrong: object = fields.get("best_incorrect_answer")
        if not is_blank(held):
            text = isinstance(held, str) and not isinstance(parsed(held), list)
            wrong = [part.strip() for part in str(held).split(";") if part.strip()] if text else held
        right = fields.get("best_answer")
    else:
        right, wrong = _targets(fields["mc1_targets"], where)
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


def from_hellaswag(fields: Fields, where: str) -> Parts:
    """HellaSwag: a text to be continued, after what it is about."""
    text = fields.get("ctx")
    if is_blank(text):
        parts = [fields.get("ctx_a"), fields.get("ctx_b")]
        text = " ".join(str(part).strip() for part in parts if not is_blank(part))
    about = fields.get("activity_label")
    hidden = ("ctx", "ctx_a", "ctx_b", "activity_label")
    rest = {key: value for key, value in fields.items() if key not in hidden}
    yield where, {"question": text if is_blank(about) else f"{about}: {text}", **rest}


def from_copa(fields: Fields, where: str) -> Parts:
    """COPA: the premise, and the words "cause" or "effect" for a question."""
    asked = _COPA_QUESTIONS.get(str(fields.get("question")).strip().lower())
    if asked is None:
        fail(where, f'the question must be "cause" or "effect", got {fields.get("question")!r:.40}')
    yield where, {**fields, "question": asked}


def is_yes_or_no(value: object) -> bool:
    """Whether an answer is true or false, or yes or no."""
    return isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in _SAID)


def from_boolq(fields: Fields, where: str) -> Parts:
    """Questions with yes or no for an answer, whose options nobody writes down; a label of 1 is yes."""
    key = "answer" if not is_blank(fields.get("answer")) else "label"
    held = fields.get(key)
    said: str | None = None
    if not is_blank(held) and whole_number(held) != -1:
        number = whole_number(held)
        said = ("no", "yes")[number] if number in (0, 1) else _SAID.get(str(held).strip().lower())
        if said is None:
            fail(where, f"the answer must be yes or no, or true or false, got {held!r:.40}")
    rest = {name: value for name, value in fields.items() if name not in ("answer", "label")}
    yield where, {**rest, YES_OR_NO: ["yes", "no"], key: said}


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
    """The passage (may be empty) and the question of a query; the whole query where it repeats no options."""
    cuts = list(_QUERY_OPTIONS.finditer(query))
    if not cuts or not all(option in query[cuts[-1].end() :] for option in options):
        return "", query
    query = query[: cuts[-1].start()]
    heads = list(_QUERY_QUESTION.finditer(query))
    return (query[: heads[-1].start()], query[heads[-1].end() :]) if heads else ("", query)


def _targets(value: object, where: str) -> tuple[object, list[object]]:
    targets = parsed(value)
    if not isinstance(targets, Mapping):
        fail(where, f"mc1_targets must be an object, got {value!r:.60}")
    if "choices" in targets and "labels" in targets:
        texts = as_list(targets["choices"], "mc1_targets.choices", where)
        labels = as_list(targets["labels"], "mc1_targets.labels", where)
    else:
        # rows of a table hold null under the options of the other rows
        items = [(text, label) for text, label in targets.items() if label is not None]
        texts, labels = [text for text, _ in items], [label for _, label in items]
    numbers = [whole_number(label) for label in labels]
    if len(texts) != len(numbers) or any(number not in (0, 1) for number in numbers):
        fail(where, "mc1_targets must give each option a label of 0 or 1")
    if numbers.count(1) != 1:
        fail(where, f"mc1_targets must mark one option as right, got {numbers.count(1)}")
    right = numbers.index(1)
    return texts[right], [text for index, text in enumerate(texts) if index != right]
