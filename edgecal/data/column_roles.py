"""Decides which columns of a file are question, options, gold answer, passage and subject, and which are unused.

A layout or the user may name a column's role. The other roles are found by the columns' names, by families of columns
such as `option_a`, `option_b`, ..., and by whether a column holds anything. What the values of a gold column mean is
decided later, from all rows (`gold_answers`).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgecal.data.decoded_rows import Fields, is_blank, parsed

__all__ = ["SUBJECT_KEYS", "KnownRoles", "Roles", "find_roles"]

# Roles that a layout or the user gives to columns, by the role's name, such as {"passage": ("support",)}.
KnownRoles = Mapping[str, Sequence[str]]

# The best names come first. A new one also belongs into `decoded_rows.QUESTION_COLUMNS`, by which headers are
# recognised.
_QUESTION_NAMES = tuple(
    """
    question question_text question_stem query stem problem prompt ctx sentence goal startphrase input instruction text
    """.split()
)
_PASSAGE_NAMES = frozenset(
    """
    passage context article support story premise paragraph background document dialogue dialog conversation scenario
    situation text body content abstract excerpt extract case vignette flores_passage reading hint instruction
    instructions input preamble facts narrative stimulus transcript ctx sentence input_sentence
    """.replace("_", "").split()
)
# Some of these passage names may hold the whole prompt, question included.
_MAYBE_PROMPTS = frozenset("text input content body ctx instruction instructions".split())
_PASSAGE_END = re.compile(r".*(passage|context|article|paragraph|_story|_document)")
# One column with all options.
_OPTION_LIST_NAMES = tuple(
    """
    choices options candidates endings alternatives answers answer_choices answer_options possible_answers mc_answers
    options_list choices_list option_list choice_list choice option opts answer_list multiple_choices responses
    """.split()
)
# Under these names even a list of one option is a list of options; it is refused later, with a reason.
_SURE_OPTION_LISTS = ("choices", "options")
# Stems of families of columns with an option each, such as `option_a`. With an empty stem the names are A, B, ...
_OPTION_STEMS = frozenset(
    """
    choice option opt op answer ans ending endings sol solution candidate alternative alt mc_answer response choices
    options answers completion
    """.replace("_", "").split()
) | {""}
# Stems of families that are never options.
_OTHER_STEMS = frozenset(
    """
    question fact id score url image hypothesis statement annotator source line page evidence explanation feature col
    column field unnamed: unnamed token label idx rationale tag keyword
    """.split()
)
_SAMPLE_ROWS = 64
_SHORT = 15  # characters; other texts may contain a question as short as this by chance
# The right option's text, in layouts that have the wrong ones elsewhere.
_RIGHT_OPTION_NAMES = tuple("correct_answer best_answer right_answer correct answer".split())
# One column with all wrong options.
_WRONG_LIST_NAMES = tuple(
    "incorrect_answers distractors wrong_answers incorrect wrong best_incorrect_answer".split()
)
# Stems of families of columns with a wrong option each.
_WRONG_STEM = re.compile(r"(?:distractors?|incorrect|wrong|false)(?:_(?:answers?|options?|choices?))?")
# Columns that say which option is right; the most telling names come first.
_GOLD_NAMES = tuple(
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
# Columns that a model should not see anyway, so that they are not reported as unused.
_NEVER_SHOWN = re.compile(
    r"(?:.*_)?(?:u?u?id|guid|idx|ind|index|urls?|links?|source|src|split|split_type|lang|language|dialect|license|"
    r"version|date|ds|hash|level|difficulty|type|country|group|year|author|model|config|dataset|topic|domain|subdomain|"
    r"tags?|file|path|name|is_few_shot|inclusion_probability)|unnamed:?.*|"
)


@dataclass(frozen=True)
class Roles:
    """The role of each column of a file; columns are named by their keys.

    Attributes
    ----------
    question: the column of the question.
    options: one column that holds all options, or one column for each.
    labels: the letters of the options' columns, where these do not begin at A.
    gold_text, wrong: instead of `options`, the column of the right option's text and those of the wrong options.
    gold_columns: columns that say which option is right, the most telling name first.
    passages: columns that belong before the question, in this order.
    subjects: columns that may hold the subject; the first that is filled counts.
    unused: columns of text without a role; without a gold answer, every column that has no role.
    """

    question: str
    options: tuple[str, ...] = ()
    labels: tuple[str, ...] | None = None
    gold_text: str | None = None
    wrong: tuple[str, ...] = ()
    gold_columns: tuple[str, ...] = ()
    passages: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


def find_roles(rows: Sequence[Fields], known: KnownRoles) -> Roles | None:
    """Gives each column that is not empty its role.

    Parameters
    ----------
    rows: all rows of a file.
    known: roles given by the layout or the user: `question`, `options`, `gold_text`, `wrong`, `answer`, `passage`,
        `subject`.

    Returns
    -------
    None if there is no question, or no options.
    """
    examples: dict[str, object] = {}
    for row in rows:
        for key, value in row.items():
            if key not in examples and not is_blank(value) and value != []:
                examples[key] = value
    question = next(iter(_named(known.get("question", _QUESTION_NAMES), examples)), None)
    if question is None:
        return None
    free = {key: value for key, value in examples.items() if key != question}
    options, family, right, wrong = _find_options(rows, free, known)
    if not options and not wrong:
        return None
    # The column doc counts as used where doc.question was read from it.
    owners = {key.partition(".")[0] for keys in known.values() for key in keys if "." in key}
    used = {question, right, *options, *wrong, *owners}
    gold_columns = tuple(
        key
        for key in _named(known.get("answer", () if right else _GOLD_NAMES), examples)
        if key not in used or "answer" in known
    )
    used.update(gold_columns)
    passages = tuple(
        key
        for key in _find_passages(free, used, known)
        if "passage" in known or not _repeats_question(rows, key, question)
    )
    used.update(passages)
    subjects = tuple(key for key in _named(known.get("subject", SUBJECT_KEYS), free) if key not in used)
    used.update(subjects)
    has_gold = bool(gold_columns or right)
    unused = tuple(
        key
        for key, value in free.items()
        if key not in used and not _NEVER_SHOWN.fullmatch(key) and (not has_gold or _holds_text(value))
    )
    return Roles(
        question,
        options,
        family.letters if family else None,
        right,
        wrong,
        gold_columns,
        passages,
        subjects,
        unused,
    )


def _find_options(
    rows: Sequence[Fields], free: Fields, known: KnownRoles
) -> tuple[tuple[str, ...], Family | None, str | None, tuple[str, ...]]:
    """The options' columns; their family, if they are one; or instead the column of the right option and those of the
    wrong ones."""
    keys = list(dict.fromkeys(key for row in rows for key in row if key is not None))
    families = _find_families(keys)
    if named := tuple(known.get("options", ())):
        family = next((family for family in families if family.columns == named), None)
        return named, family if len(named) > 1 else None, None, ()
    if known.get("wrong") and _named(known.get("gold_text", ()), free):
        return (), None, _named(known["gold_text"], free)[0], tuple(_named(known["wrong"], free))
    for key in _named(_OPTION_LIST_NAMES, free):
        if _holds_options(free[key], at_least=1 if key in _SURE_OPTION_LISTS else 2):
            return (key,), None, None, ()
    wrong = next((family.columns for family in families if _WRONG_STEM.fullmatch(family.stem)), None)
    wrong = wrong or tuple(_named(_WRONG_LIST_NAMES, free)[:1])
    right = next(iter(_named(_RIGHT_OPTION_NAMES, free)), None)
    candidates = [
        family
        for family in families
        if len(family.columns) > 1
        and not _WRONG_STEM.fullmatch(family.stem)
        and _plain(family.stem) not in _OTHER_STEMS | _PASSAGE_NAMES
        and all(key in free for key in family.columns[:2])
        and not any(isinstance(free.get(key), (list, dict)) for key in family.columns)
    ]
    likely = [family for family in candidates if _plain(family.stem) in _OPTION_STEMS] or (
        candidates if not wrong and _named(known.get("answer", _GOLD_NAMES), free) else []
    )
    width = max((len(family.columns) for family in likely), default=0)
    widest = [family for family in likely if len(family.columns) == width]
    if len(widest) == 1:
        return widest[0].columns, widest[0], None, ()
    if wrong and right:
        return (), None, right, tuple(key for key in wrong if key in free)
    return (), None, None, ()


def _find_passages(free: Fields, used: set[str | None], known: KnownRoles) -> tuple[str, ...]:
    if "passage" in known:
        return tuple(known["passage"])
    parts = {
        key
        for family in _find_families(free)
        if _plain(family.stem) in _PASSAGE_NAMES and len(family.columns) > 1
        for key in family.columns
    }
    found = [
        key
        for key in free
        if key not in used and (_plain(key) in _PASSAGE_NAMES or key in parts or _PASSAGE_END.fullmatch(key))
    ]
    return tuple(sorted(found, key=lambda key: not key.startswith("instruction")))


def _repeats_question(rows: Sequence[Fields], key: str, question: str) -> bool:
    """Whether a column that might be a passage repeats the question: then it is the whole prompt, perhaps with the
    answer."""
    if key not in _MAYBE_PROMPTS:
        return False
    pairs = [(row.get(key), row.get(question)) for row in rows[:_SAMPLE_ROWS]]
    said = [
        (str(text), str(asked).strip()) for text, asked in pairs if not is_blank(text) and not is_blank(asked)
    ]
    return bool(said) and all(len(asked) > _SHORT and asked in text for text, asked in said)


def _plain(name: str) -> str:
    """A key without underscores, so that `correct_answer` and `correctAnswer` are the same."""
    return name.replace("_", "")


def _named(names: Sequence[str], examples: Fields) -> list[str]:
    """The keys that match one of the names, in the order of the names."""
    keys = {_plain(key): key for key in examples}
    return list(dict.fromkeys(keys[_plain(name)] for name in names if _plain(name) in keys))


def _holds_options(value: object, at_least: int) -> bool:
    """Whether a value looks like a list of options, and not like one answer."""
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


_NUMBER = re.compile(r"([^\d]*?)[_\[(.]*(\d{1,2})[\])_.]*([^\d]*)")
_LETTER = re.compile(r"(.*?)_?([a-z])")
_INNER_LETTER = re.compile(r"(?:(.+)_)?([a-z])_(.+)")


@dataclass(frozen=True)
class Family:
    """Columns named alike, with one stem and a running number or letter, such as

        choice0 choice1 ...   "Option 1" "Option 2" ...   A B C D   answerA answerB ...   opa opb ...   option_01_text

    Attributes
    ----------
    stem: the common part of their names; empty where a name is only a number or a letter.
    columns: their keys in order.
    first: the number or letter of the first.
    """

    stem: str
    columns: tuple[str, ...]
    first: str

    @property
    def letters(self) -> tuple[str, ...] | None:
        """The columns' letters in upper case; None where the columns are numbered, or the letters begin at A and so say
        no more than the places do."""
        if self.first.isdecimal() or self.first == "a":
            return None
        return tuple(chr(ord(self.first.upper()) + index) for index in range(len(self.columns)))


def _find_families(keys: Iterable[str]) -> list[Family]:
    """All families among the keys, in the order of the keys.

    Numbers must begin at 0 or 1 and have no gap; letters may begin anywhere. A family has two columns or more, except
    that a single number 1 counts as one (`distractor1`).
    """
    held: dict[tuple[str, str, bool], dict[int, str]] = defaultdict(dict)
    for key in keys:
        for pattern, is_number in ((_NUMBER, True), (_INNER_LETTER, False), (_LETTER, False)):
            match = pattern.fullmatch(key)
            if match:
                before, mark, after = (*match.groups(), "")[:3]
                code = int(mark) if is_number else ord(mark)
                held[before or "", after or "", is_number].setdefault(code, key)
                break
    found = []
    for (before, after, is_number), members in held.items():
        for run in _runs(sorted(members)):
            alone = is_number and run == [1]
            if alone or (len(run) > 1 and (not is_number or run[0] in (0, 1))):
                first = str(run[0]) if is_number else chr(run[0])
                stem = "_".join(part.strip("_") for part in (before, after) if part.strip("_"))
                found.append(Family(stem, tuple(members[code] for code in run), first))
    return found


def _runs(codes: list[int]) -> list[list[int]]:
    """Splits ascending numbers at every gap."""
    runs: list[list[int]] = []
    for code in codes:
        if runs and code == runs[-1][-1] + 1:
            runs[-1].append(code)
        else:
            runs.append([code])
    return runs
