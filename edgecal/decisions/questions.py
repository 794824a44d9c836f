"""Typed questions about a state, and the request that carries them: the format `POST /v1/systemone`.

    {"model": ..., "state": text or JSON, "questions": {id: question, ...}}

A question is `{"type": "noul" | "choice" | "score", "instructions", "criteria"}`. Two fields of a question are ours:
`"x_none_of_the_above": true` for a choice, and `"answer"`, the right answer where it is known (true or false, an
option's name, a level's number), which no model sees. Other unknown fields are ignored, as the format asks; those of a
question are named in `Request.warnings`, because they may be misspelt.

Every broken rule is a `Problem` with the place, in the form in which the format's servers report it (status 422).
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NoReturn

from edgecal.errors import InputError

__all__ = [
    "MAX_LEVELS",
    "MAX_OPTIONS",
    "NONE_OF_THE_ABOVE",
    "Choice",
    "Noul",
    "Problem",
    "Question",
    "QuestionType",
    "Request",
    "RequestError",
    "Score",
    "check_state",
    "detail_of",
    "parse_question",
    "parse_request",
    "read_json",
    "write_value",
]

QuestionType = Literal["noul", "choice", "score"]

MAX_OPTIONS = 255
MAX_LEVELS = 10
NONE_OF_THE_ABOVE = "none of the above"

# A state that no model's context holds; how deep JSON may be nested; and a whole number's bits, about 3,900 digits.
_MAX_CHARACTERS = 1_000_000
_MAX_DEPTH = 64
_MAX_BITS = 13_000
_MAX_NAME = 200

Place = tuple[str | int, ...]


@dataclass(frozen=True)
class Problem:
    """One rule that a request breaks.

    Attributes
    ----------
    loc: the place: "body", then names of fields and indices.
    message: what was expected, and what was found.
    type: a word for programs: "missing", "wrong_type", "out_of_range" or "invalid".
    """

    loc: Place
    message: str
    type: str

    def __str__(self) -> str:
        return f"{_path(self.loc)}: {self.message}"

    def to_dict(self) -> dict[str, Any]:
        """The problem as the format's servers report it; names in `loc` are cut at 200 characters."""
        names = [
            part if isinstance(part, int) else part[:_MAX_NAME].encode("utf-8", "replace").decode("utf-8")
            for part in self.loc
        ]
        return {"loc": names, "msg": self.message, "type": self.type}


class RequestError(InputError):
    """A request breaks the format's rules; `problems` are all that were found, at least one."""

    def __init__(self, problems: Sequence[Problem], where: str = "") -> None:
        self.problems = tuple(problems)
        self.where = where
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"{where + ': ' if where else ''}{problems[0]}{more}")

    def __reduce__(self) -> tuple[Any, ...]:  # it is sent from process to process
        return type(self), (self.problems, self.where)


def detail_of(error: InputError) -> list[dict[str, Any]]:
    """What the format's servers report as `detail`, with status 422, of a request that cannot be answered."""
    if isinstance(error, RequestError):
        return [problem.to_dict() for problem in error.problems]
    return [Problem(("body",), str(error), "invalid").to_dict()]


@dataclass(frozen=True)
class Noul:
    """A question with the answers yes and no. Texts may be str or anything that JSON can hold.

    Attributes
    ----------
    instructions: the question or the statement to judge; None if the criteria say it all.
    true, false: when the answer is yes, and when it is no; either may be None.
    """

    instructions: Any = None
    true: Any = None
    false: Any = None

    type: ClassVar[QuestionType] = "noul"

    @property
    def keys(self) -> tuple[str, ...]:
        """The options' names: "true" and "false"."""
        return ("true", "false")

    @property
    def descriptions(self) -> tuple[Any, ...]:
        """A description for each option, or None."""
        return (self.true, self.false)


@dataclass(frozen=True)
class Choice:
    """A question with 2 to 255 options.

    Attributes
    ----------
    instructions: the question, or None.
    criteria: the options, each with a description or None; or a list of options.
    none_of_the_above: offer the model one more option, which is reported apart.
    """

    instructions: Any = None
    criteria: Mapping[str, Any] | Sequence[str] = ()
    none_of_the_above: bool = False

    type: ClassVar[QuestionType] = "choice"

    @property
    def keys(self) -> tuple[str, ...]:
        """The options' names, in the order given."""
        return tuple(self.criteria)

    @property
    def descriptions(self) -> tuple[Any, ...]:
        """A description for each option, or None."""
        if isinstance(self.criteria, Mapping):
            return tuple(self.criteria.values())
        return (None,) * len(self.criteria)


@dataclass(frozen=True)
class Score:
    """A question whose answer is one of 2 to 10 ordered levels.

    Attributes
    ----------
    instructions: what to rate, or None.
    criteria: the levels' descriptions, the lowest first.
    """

    instructions: Any = None
    criteria: Sequence[Any] = ()

    type: ClassVar[QuestionType] = "score"

    @property
    def keys(self) -> tuple[str, ...]:
        """The levels' numbers as texts: "0", "1", ..."""
        return tuple(map(str, range(len(self.criteria))))

    @property
    def descriptions(self) -> tuple[Any, ...]:
        """The levels' descriptions."""
        return tuple(self.criteria)


Question = Noul | Choice | Score


@dataclass(frozen=True)
class Request:
    """A request that keeps the format's rules.

    Attributes
    ----------
    state: str, dict or list.
    questions: by id, in the order given.
    model: the name in the request, or None.
    answers: index of the right option, for the questions that say it.
    warnings: unknown fields of questions, one line each.
    source: where the request came from, for messages.
    """

    state: Any
    questions: dict[str, Question]
    model: str | None = None
    answers: dict[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    source: str = ""


def read_json(text: str | bytes, where: str) -> Any:
    """Decodes JSON strictly: an object that names a field twice, NaN and Infinity are refused, not guessed at.

    Raises
    ------
    RequestError: it is not JSON, not Unicode, or nested too deeply; `where` names it.
    """

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) < len(items):
            twice = Counter(name for name, _ in items).most_common(1)[0][0]
            raise ValueError(f"the field {twice!r:.60} is there twice in one object")
        return found

    def constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is not a JSON number")

    try:
        if isinstance(text, str):
            text = text.removeprefix("\ufeff")
        return json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    except UnicodeDecodeError:
        flaw = "is not UTF-8 text"
    except RecursionError:
        flaw = "is nested too deeply"
    except ValueError as error:
        reason = "a number has too many digits" if "int_max_str_digits" in str(error) else error
        flaw = f"is not valid JSON ({reason})"
    raise RequestError([Problem(("body",), flaw, "invalid")], where)


def write_value(value: Any) -> str:
    """A state, an instruction or a description as the model reads it: a text as it is, anything else as JSON in one
    line, its keys in the order given (as llama.cpp's templates write it)."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def parse_request(body: Any, where: str = "", *, needs_model: bool = False) -> Request:
    """Checks a decoded request.

    Parameters
    ----------
    body: what `read_json` returned.
    where: the request's origin, for messages.
    needs_model: whether "model" must be there, as it must over HTTP.

    Raises
    ------
    RequestError: with every broken rule.
    """
    problems: list[Problem] = []
    warnings: list[str] = []
    if not isinstance(body, Mapping):
        raise RequestError(
            [Problem(("body",), f"expected an object, got {_kind(body)}", "wrong_type")], where
        )
    model = body.get("model")
    if model is None and needs_model:
        problems.append(Problem(("body", "model"), "is missing; expected the model's name", "missing"))
    elif model is not None and not isinstance(model, str):
        problems.append(Problem(("body", "model"), f"expected a text, got {_kind(model)}", "wrong_type"))
    if body.get("assets"):
        problems.append(Problem(("body", "assets"), "images are not supported; leave them out", "invalid"))
    if "state" not in body:
        problems.append(
            Problem(("body", "state"), "is missing; expected a text, an object or a list", "missing")
        )
    else:
        problems += _state_problems(body["state"], ("body", "state"))
    found = body.get("questions")
    place: Place = ("body", "questions")
    questions: dict[str, Question] = {}
    answers: dict[str, int] = {}
    if found is None:
        problems.append(Problem(place, "is missing; expected an object of questions by id", "missing"))
    elif not isinstance(found, Mapping):
        problems.append(
            Problem(place, f"expected an object of questions by id, got {_kind(found)}", "wrong_type")
        )
    elif not found:
        problems.append(Problem(place, "is empty; expected at least one question", "out_of_range"))
    else:
        for key, value in found.items():
            if not isinstance(key, str) or not key or not _is_unicode(key):
                problems.append(
                    Problem(place, f"an id is {_kind(key)}, expected a non-empty text", "invalid")
                )
                continue
            flaws: list[Problem] = []
            question = _question(value, (*place, key), flaws, warnings)
            if question is not None and not flaws:
                questions[key] = question
                if isinstance(value, Mapping) and value.get("answer") is not None:
                    index = _answer(question, value["answer"], (*place, key, "answer"), flaws)
                    if index is not None:
                        answers[key] = index
            problems += flaws
    if problems:
        raise RequestError(problems, where)
    return Request(body["state"], questions, model, answers, tuple(warnings), where)


def parse_question(value: Any, key: str, where: str = "") -> Question:
    """Checks one question: one of this module's classes, or an object of the format. RequestError as
    `parse_request`."""
    problems: list[Problem] = []
    question = _question(value, ("questions", key), problems, [])
    if problems or question is None:
        raise RequestError(problems, where)
    return question


def check_state(state: Any, where: str = "") -> None:
    """RequestError unless this can be a state: a text, an object or a list."""
    if problems := _state_problems(state, ("state",)):
        raise RequestError(problems, where)


_FIELDS = {"type", "instructions", "criteria", "answer", "x_none_of_the_above"}


def _question(value: Any, place: Place, problems: list[Problem], warnings: list[str]) -> Question | None:
    n_before = len(problems)
    if isinstance(value, (Noul, Choice, Score)):
        value = _as_object(value, place, problems)
    if not isinstance(value, Mapping):
        problems.append(Problem(place, f"expected a question (an object), got {_kind(value)}", "wrong_type"))
        return None
    kind = value.get("type")
    if not isinstance(kind, str) or kind not in ("noul", "choice", "score"):
        found = "is missing" if kind is None else f"is {_kind(kind)}"
        problems.append(
            Problem((*place, "type"), f'{found}; expected "noul", "choice" or "score"', "invalid")
        )
        return None
    instructions = _text(value.get("instructions"), (*place, "instructions"), problems)
    none = value.get("x_none_of_the_above")
    if none is not None and not isinstance(none, bool):
        problems.append(
            Problem(
                (*place, "x_none_of_the_above"), f"expected true or false, got {_kind(none)}", "wrong_type"
            )
        )
    elif none and kind != "choice":
        problems.append(Problem((*place, "x_none_of_the_above"), f"a {kind} cannot have it", "invalid"))
    names = [name if isinstance(name, str) else _kind(name) for name in value]
    unknown = [name for name in names if name not in _FIELDS and not name.startswith("x_")]
    warnings += [f"{_path((*place, name))}: an unknown field, which is ignored" for name in unknown]
    criteria, place = value.get("criteria"), (*place, "criteria")
    question: Question
    if kind == "noul":
        question = _noul(instructions, criteria, place, problems)
    elif kind == "choice":
        question = _choice(instructions, criteria, none is True, place, problems)
    else:
        question = _score(instructions, criteria, place, problems)
    return question if len(problems) == n_before else None


def _noul(instructions: Any, criteria: Any, place: Place, problems: list[Problem]) -> Noul:
    if criteria is None:
        criteria = {}
    if not isinstance(criteria, Mapping):
        problems.append(
            Problem(
                place,
                f'expected an object with "true" and "false", or null, got {_kind(criteria)}',
                "wrong_type",
            )
        )
        criteria = {}
    problems += [
        Problem(place, f'has the name {_kind(name)}, expected only "true" and "false"', "invalid")
        for name in criteria
        if name not in ("true", "false")
    ]
    sides = {side: _text(criteria.get(side), (*place, side), problems) for side in ("true", "false")}
    is_empty = instructions is None and sides["true"] is None and sides["false"] is None
    if is_empty and not problems:
        problems.append(
            Problem((*place[:-1], "instructions"), "is missing, and there are no criteria either", "missing")
        )
    return Noul(instructions, sides["true"], sides["false"])


def _choice(instructions: Any, criteria: Any, none: bool, place: Place, problems: list[Problem]) -> Choice:
    if not isinstance(criteria, Mapping):
        said = "is missing; expected" if criteria is None else f"is {_kind(criteria)}, expected"
        problems.append(Problem(place, f"{said} an object of options and their descriptions", "wrong_type"))
        return Choice()
    if not 2 <= len(criteria) <= MAX_OPTIONS:
        problems.append(
            Problem(place, f"expected 2 to {MAX_OPTIONS} options, got {len(criteria)}", "out_of_range")
        )
        return Choice()
    options = {}
    for name, description in criteria.items():
        if not isinstance(name, str) or not name.strip() or not _is_unicode(name):
            problems.append(
                Problem(place, f"an option is {_kind(name)}, expected a non-empty text", "invalid")
            )
        elif none and name == NONE_OF_THE_ABOVE:
            said = "is an option already; leave it out, or leave out x_none_of_the_above"
            problems.append(Problem((*place, name), said, "invalid"))
        else:
            options[name] = _text(description, (*place, name), problems)
    return Choice(instructions, options, none)


def _score(instructions: Any, criteria: Any, place: Place, problems: list[Problem]) -> Score:
    if isinstance(criteria, (str, Mapping)) or not isinstance(criteria, Sequence):
        said = "is missing; expected" if criteria is None else f"is {_kind(criteria)}, expected"
        problems.append(Problem(place, f"{said} a list of levels, the lowest first", "wrong_type"))
        return Score()
    if not 2 <= len(criteria) <= MAX_LEVELS:
        problems.append(
            Problem(place, f"expected 2 to {MAX_LEVELS} levels, got {len(criteria)}", "out_of_range")
        )
        return Score()
    levels = []
    for index, level in enumerate(criteria):
        text = _text(level, (*place, index), problems)
        if text is None:
            problems.append(
                Problem((*place, index), f"expected a description, got {_kind(level)}", "missing")
            )
        levels.append(text)
    return Score(instructions, tuple(levels))


def _as_object(question: Question, place: Place, problems: list[Problem]) -> dict[str, Any]:
    """A question of Python as an object of the format, so that both are checked by the same rules."""
    value: dict[str, Any] = {"type": question.type, "instructions": question.instructions}
    if isinstance(question, Noul):
        return value | {"criteria": {"true": question.true, "false": question.false}}
    if isinstance(question, Score):
        return value | {"criteria": question.criteria}
    criteria: Any = question.criteria
    if isinstance(criteria, (list, tuple)):
        criteria = _as_options(criteria, (*place, "criteria"), problems)
    return value | {"criteria": criteria, "x_none_of_the_above": question.none_of_the_above}


def _as_options(names: Sequence[Any], place: Place, problems: list[Problem]) -> dict[str, None]:
    found: dict[str, None] = {}
    for at, name in enumerate(names):
        if not isinstance(name, str):
            problems.append(
                Problem((*place, at), f"expected an option's name, got {_kind(name)}", "wrong_type")
            )
        elif name in found:
            problems.append(Problem((*place, at), f"the option {name!r:.60} is there twice", "invalid"))
        else:
            found[name] = None
    return found


def _answer(question: Question, value: Any, place: Place, problems: list[Problem]) -> int | None:
    """The index of the right option."""
    if isinstance(question, Noul) and isinstance(value, bool):
        return 0 if value else 1
    if isinstance(question, Choice) and isinstance(value, str) and value in question.keys:
        return question.keys.index(value)
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if isinstance(question, Score) and is_whole and 0 <= value < len(question.keys):
        return int(value)
    expected = {
        "noul": "true or false",
        "choice": "the name of one of the options",
        "score": f"a level's number, 0 to {len(question.keys) - 1}",
    }[question.type]
    problems.append(Problem(place, f"is {_kind(value)}, expected {expected}", "invalid"))
    return None


def _state_problems(state: Any, place: Place) -> list[Problem]:
    if not isinstance(state, (str, dict, list, tuple)):
        return [Problem(place, f"expected a text, an object or a list, got {_kind(state)}", "wrong_type")]
    problems: list[Problem] = []
    _text(state, place, problems)
    return problems


def _text(value: Any, place: Place, problems: list[Problem]) -> Any:
    """The value if it is a text, an object or a list that a prompt can hold; None for one that is empty."""
    if value is None:
        return None
    if not isinstance(value, (str, dict, list, tuple)):
        problems.append(
            Problem(place, f"expected a text, an object or a list, got {_kind(value)}", "wrong_type")
        )
        return None
    found = _find_flaw(value, place, 0)
    if found is None and len(text := write_value(value)) > _MAX_CHARACTERS:
        flaw = f"has {len(text)} characters, and no prompt may have more than {_MAX_CHARACTERS}"
        found = Problem(place, flaw, "out_of_range")
    if found is not None:
        problems.append(found)
        return None
    return value if (value.strip() if isinstance(value, str) else value) else None


def _find_flaw(value: Any, place: Place, depth: int) -> Problem | None:
    """The first thing in a value that JSON or a prompt cannot hold."""
    flaw = ""
    if depth > _MAX_DEPTH:
        return Problem(place[: -_MAX_DEPTH - 1], f"is nested more than {_MAX_DEPTH} deep", "invalid")
    if isinstance(value, str):
        if not _is_unicode(value):
            flaw = "holds half a character (a lone surrogate), which is no valid text"
    elif isinstance(value, float):
        if not math.isfinite(value):
            flaw = f"is {value}, which is not a JSON number"
    elif isinstance(value, int):
        if value.bit_length() > _MAX_BITS:
            flaw = "is a whole number of more than 3900 digits"
    elif isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str) or not _is_unicode(name):
                flaw = f"has a field whose name is {_kind(name)}, expected a text"
                break
            if found := _find_flaw(item, (*place, name), depth + 1):
                return found
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            if found := _find_flaw(item, (*place, index), depth + 1):
                return found
    elif value is not None:
        flaw = f"is {_kind(value)}, which is not JSON"
    return Problem(place, flaw, "invalid") if flaw else None


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _path(place: Place) -> str:
    """A place as people write it, without "body": questions.urgency.criteria[2]."""
    text = ""
    for part in place[1:] if place[:1] == ("body",) else place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return _printable(text) or "the request"


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text[:200])


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, str):
        return f"the text {value!r:.60}" if value.strip() else "an empty text"
    if type(value) in (int, float) and abs(value) < 1e15:
        return f"the number {value!r}"
    names = {bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), f"a {type(value).__name__}")
