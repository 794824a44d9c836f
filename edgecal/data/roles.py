"""Which column plays which role: question, passage, options, answer, subject; and which is left over.

Goes by names and by families of columns, and by whether anything is in them. Does not know how answers are meant.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgecal.data.families import Family, find_families
from edgecal.data.fields import Fields, is_blank, parsed

__all__ = ["SUBJECT_KEYS", "Given", "Roles", "find_roles"]

# Columns that a format or the user says to play a role, by the role's name; such as {"passage": ("support",)}.
Given = Mapping[str, Sequence[str]]

_QUESTIONS = tuple(
    """
    question question_text question_stem query stem problem prompt ctx sentence goal startphrase input instruction text
    """.split()
)
_PASSAGES = frozenset(
    """
    passage context article support story premise paragraph background document dialogue dialog conversation scenario
    situation text body content abstract excerpt extract case vignette flores_passage reading hint instruction
    instructions input preamble facts narrative stimulus transcript ctx sentence input_sentence
    """.replace("_", "").split()
)
# Of these names some hold the whole prompt, question and all.
_MAYBE_PROMPTS = frozenset("text input content body ctx instruction instructions".split())
_PASSAGE_END = re.compile(r".*(passage|context|article|paragraph|_story|_document)")
_LISTS = tuple(
    """
    choices options candidates endings alternatives answers answer_choices answer_options possible_answers mc_answers
    options_list choices_list option_list choice_list choice option opts answer_list multiple_choices responses
    """.split()
)
_SURE_LISTS = ("choices", "options")
_STEMS = frozenset(
    """
    choice option opt op answer ans ending endings sol solution candidate alternative alt mc_answer response choices
    options answers completion
    """.replace("_", "").split()
) | {""}
_NO_STEMS = frozenset(
    """
    question fact id score url image hypothesis statement annotator source line page evidence explanation feature col
    column field unnamed: unnamed token label idx rationale tag keyword
    """.split()
)
_SAMPLE_ROWS = 64
_SHORT = 15
_RIGHT = tuple("correct_answer best_answer right_answer correct answer".split())
_WRONG_LISTS = tuple(
    "incorrect_answers distractors wrong_answers incorrect wrong best_incorrect_answer".split()
)
_WRONG_STEM = re.compile(r"(?:distractors?|incorrect|wrong|false)(?:_(?:answers?|options?|choices?))?")
_ANSWERS = tuple(
    """
    answer answerkey answer_key correct_answer correct correct_option correct_choice target gold answer_index
    answer_idx cop correct_index correct_idx correct_answer_index correct_answer_idx correct_answer_num
    correct_answer_key correct_answer_id correct_answer_text correct_option_index correct_label correct_letter
    answer_letter answer_label answer_id answer_num answer_number answer_option answer_choice answer_text right_answer
    gold_label gold_index gold_idx gold_answer label_idx label_index ans ground_truth groundtruth expected
    expected_answer true_label truth answers output label
    """.split()
)
SUBJECT_KEYS = ("subject", "category", "subject_name", "task", "subject_area", "high_level_domain")
_NO_TEXT = re.compile(
    r"(?:.*_)?(?:u?u?id|guid|idx|ind|index|urls?|links?|source|src|split|split_type|lang|language|dialect|license|"
    r"version|date|ds|hash|level|difficulty|type|country|group|year|author|model|config|dataset|topic|domain|subdomain|"
    r"tags?|file|path|name|is_few_shot)|unnamed:?.*|"
)


@dataclass(frozen=True)
class Roles:
    """What the columns of a file are, by their keys.

    Attributes
    ----------
    question: the column of the question.
    options: one column that holds them all, or one for each.
    labels: the letters of options' columns, where these do not begin at A.
    right, wrong: instead of `options`, the column of the right one, and those of the others.
    answers: columns that say which option is right.
    passages, subjects: columns of these, in the order in which they count.
    unused: columns with texts that play no role; all columns without a role where there is no answer.
    """

    question: str
    options: tuple[str, ...] = ()
    labels: tuple[str, ...] | None = None
    right: str | None = None
    wrong: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    passages: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


def find_roles(rows: Sequence[Fields], given: Given) -> Roles | None:
    """Gives each column that has anything in it its role.

    Parameters
    ----------
    rows: all rows of a file.
    given: roles that are known: `question`, `options`, `right`, `wrong`, `answer`, `passage`, `subject`.

    Returns
    -------
    None if there is no question or there are no options.
    """
    examples: dict[str, object] = {}
    for row in rows:
        for key, value in row.items():
            if key not in examples and not is_blank(value) and value != []:
                examples[key] = value
    question = next(iter(_named(given.get("question", _QUESTIONS), examples)), None)
    if question is None:
        return None
    free = {key: value for key, value in examples.items() if key != question}
    options, family, right, wrong = _find_options(rows, free, given)
    if not options and not wrong:
        return None
    # What a path such as doc.question was found in counts as used.
    owners = {key.partition(".")[0] for keys in given.values() for key in keys if "." in key}
    used = {question, right, *options, *wrong, *owners}
    answers = tuple(
        key
        for key in _named(given.get("answer", () if right else _ANSWERS), examples)
        if key not in used or "answer" in given
    )
    used.update(answers)
    passages = tuple(
        key
        for key in _find_passages(free, used, given)
        if "passage" in given or not _repeats(rows, key, question)
    )
    used.update(passages)
    subjects = tuple(key for key in _named(given.get("subject", SUBJECT_KEYS), free) if key not in used)
    used.update(subjects)
    told = bool(answers or right)
    unused = tuple(
        key
        for key, value in free.items()
        if key not in used and not _NO_TEXT.fullmatch(key) and (not told or _holds_text(value))
    )
    return Roles(
        question,
        options,
        family.letters if family else None,
        right,
        wrong,
        answers,
        passages,
        subjects,
        unused,
    )


def _find_options(
    rows: Sequence[Fields], free: Fields, given: Given
) -> tuple[tuple[str, ...], Family | None, str | None, tuple[str, ...]]:
    """The options' columns, their family if they are one, and the columns of the right and the wrong ones."""
    keys = list(dict.fromkeys(key for row in rows for key in row if key is not None))
    families = find_families(keys)
    if named := tuple(given.get("options", ())):
        told = next((family for family in families if family.columns == named), None)
        return named, told if len(named) > 1 else None, None, ()
    if given.get("wrong") and _named(given.get("right", ()), free):
        return (), None, _named(given["right"], free)[0], tuple(_named(given["wrong"], free))
    for key in _named(_LISTS, free):
        if _holds_options(free[key], at_least=1 if key in _SURE_LISTS else 2):
            return (key,), None, None, ()
    wrong = next((family.columns for family in families if _WRONG_STEM.fullmatch(family.stem)), None)
    wrong = wrong or tuple(_named(_WRONG_LISTS, free)[:1])
    right = next(iter(_named(_RIGHT, free)), None)
    candidates = [
        family
        for family in families
        if len(family.columns) > 1
        and not _WRONG_STEM.fullmatch(family.stem)
        and _plain(family.stem) not in _NO_STEMS | _PASSAGES
        and all(key in free for key in family.columns[:2])
        and not any(isinstance(free.get(key), (list, dict)) for key in family.columns)
    ]
    known = [family for family in candidates if _plain(family.stem) in _STEMS] or (
        candidates if not wrong and _named(given.get("answer", _ANSWERS), free) else []
    )
    width = max((len(family.columns) for family in known), default=0)
    widest = [family for family in known if len(family.columns) == width]
    if len(widest) == 1:
        return widest[0].columns, widest[0], None, ()
    if wrong and right:
        return (), None, right, tuple(key for key in wrong if key in free)
    return (), None, None, ()


def _find_passages(free: Fields, used: set[str | None], given: Given) -> tuple[str, ...]:
    if "passage" in given:
        return tuple(given["passage"])
    parts = {
        key
        for family in find_families(free)
        if _plain(family.stem) in _PASSAGES and len(family.columns) > 1
        for key in family.columns
    }
    found = [
        key
        for key in free
        if key not in used and (_plain(key) in _PASSAGES or key in parts or _PASSAGE_END.fullmatch(key))
    ]
    return tuple(sorted(found, key=lambda key: not key.startswith("instruction")))


def _repeats(rows: Sequence[Fields], key: str, question: str) -> bool:
    """Whether a column that might hold passages says the question again: then it is a prompt, perhaps with its
    answer."""
    if key not in _MAYBE_PROMPTS:
        return False
    pairs = [(row.get(key), row.get(question)) for row in rows[:_SAMPLE_ROWS]]
    said = [
        (str(text), str(asked).strip()) for text, asked in pairs if not is_blank(text) and not is_blank(asked)
    ]
    return bool(said) and all(len(asked) > _SHORT and asked in text for text, asked in said)


def _plain(name: str) -> str:
    """A name without its underscores, as `correctAnswer` has none: column_key made it `correctanswer`."""
    return name.replace("_", "")


def _named(names: Sequence[str], examples: Fields) -> list[str]:
    """The keys that are called one of some names, in the names' order."""
    keys = {_plain(key): key for key in examples}
    return list(dict.fromkeys(keys[_plain(name)] for name in names if _plain(name) in keys))


def _holds_options(value: object, at_least: int) -> bool:
    """Whether a value may be a list of options, rather than one answer."""
    held = parsed(value)
    if isinstance(held, (list, tuple, Mapping)):
        return len(held) >= at_least and not (isinstance(held, Mapping) and "answer_start" in held)
    return isinstance(held, str) and (held.count(")") > 1 or held.count("\n") > 0)


def _holds_text(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_text, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_holds_text, value))
    return isinstance(value, str) and any(map(str.isalpha, value))
