"""Public tasks with answers, as requests of typed questions.

`python tests/tools/real_requests.py FOLDER` writes `NAME.jsonl` for each, for `edgecal eval --requests` and
`edgecal fit --requests`.

Needs what lies beside the repository (EDGECAL_SHARED). None of these data has ordered levels of its own, so the score
tasks rate sentiment, of which only two levels have labels.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.real_models import shared_folder

__all__ = ["TASKS", "make_requests"]

Request = dict[str, Any]
SUBJECTS = {
    "anatomy": "anatomy",
    "astronomy": "astronomy",
    "college_biology": "biology",
    "high_school_geography": "geography",
    "marketing": "marketing",
    "moral_scenarios": "moral scenarios",
}


def request(state: Any, question: Request, answer: Any) -> Request:
    return {"state": state, "questions": {"q": {**question, "answer": answer}}}


def noul(state: Any, instructions: str, answer: bool) -> Request:
    return request(state, {"type": "noul", "instructions": instructions}, answer)


def choice(state: Any, instructions: str | None, options: list[str], answer: str) -> Request:
    return request(
        state, {"type": "choice", "instructions": instructions, "criteria": dict.fromkeys(options)}, answer
    )


def lines(data: Path, *names: str) -> Iterator[Any]:
    for name in names:
        yield from map(json.loads, (data / name).read_text("utf-8").splitlines())


def few_shot(data: Path, subject: str) -> list[tuple[str, int]]:
    """The last example of each few-shot prompt, without the others, and its answer."""
    found = {}
    for row in lines(data, "tasks-test.jsonl", "tasks-cal.jsonl"):
        if row["subject"] == subject:
            last = row["prompt"].rsplit("\n\n", 1)[-1].rsplit("\n", 1)[0]
            found[last.split(": ", 1)[-1]] = row["answer"]
    return list(found.items())


def sentiment(data: Path) -> list[tuple[str, int]]:
    return few_shot(data, "sst")


def mmlu(data: Path) -> Iterator[tuple[str, str, list[str], int]]:
    for subject, title in SUBJECTS.items():
        with (data / "mmlu/test" / f"{subject}_test.csv").open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                options = [row[f"choice{index}"] for index in range(4)]
                answer = row["answer"]
                yield (
                    title,
                    row["question"],
                    options,
                    int(answer) if answer.isdigit() else "ABCD".index(answer),
                )


def spam(data: Path) -> list[Request]:
    """As many spam messages as others."""
    found = few_shot(data, "sms")
    bad = [text for text, answer in found if answer == 0]
    good = [text for text, answer in found if answer == 1][: len(bad)]
    return [
        noul(text, "Is this message spam?", is_bad)
        for is_bad, texts in ((True, bad), (False, good))
        for text in texts
    ]


def is_positive(data: Path) -> list[Request]:
    return [noul(text, "Is this review positive?", answer == 1) for text, answer in sentiment(data)]


def boolq(data: Path) -> list[Request]:
    """Without the passages, so that it asks for what the model knows."""
    return [
        noul(
            row["prompt"].removeprefix("Question: ").split("\n")[0],
            "Is the answer to this question yes?",
            row["answer"] == 0,
        )
        for row in lines(data, "boolq-test.jsonl")
    ]


def two_options(data: Path) -> list[Request]:
    return [
        choice(
            text,
            "What is the sentiment of this review?",
            ["negative", "positive"],
            ["negative", "positive"][answer],
        )
        for text, answer in sentiment(data)
    ]


def news(data: Path) -> list[Request]:
    topics = ["World", "Sports", "Business", "Technology"]
    return [
        choice(text, "What is this article about?", topics, topics[answer])
        for text, answer in few_shot(data, "ag")
    ]


def arc(data: Path) -> list[Request]:
    return [
        choice(row["question"], "Which answer is right?", row["choices"], row["choices"][row["answer"]])
        for row in lines(data, "arc-easy-test.jsonl")
        if len(set(row["choices"])) == len(row["choices"])
    ]


def openbookqa(data: Path) -> list[Request]:
    return [
        choice(row["question"], "Which answer is right?", row["choices"], row["choices"][row["answer"]])
        for row in lines(data, "openbookqa-test.jsonl")
        if len(set(row["choices"])) == len(row["choices"])
    ]


def subjects(data: Path) -> list[Request]:
    """Of which of six subjects an examination question is."""
    titles = list(SUBJECTS.values())
    rows = list(mmlu(data))
    return [
        choice(question, "From which subject's exam is this question?", titles, title)
        for each in titles
        for title, question, _, _ in [row for row in rows if row[0] == each][:100]
    ]


def twelve_options(data: Path) -> list[Request]:
    """ARC's questions, each with the options of two others beside its own."""
    rows = [row for row in lines(data, "arc-easy-test.jsonl") if len(row["choices"]) == 4]
    made = []
    for at, row in enumerate(rows):
        options = [*row["choices"], *rows[at - 1]["choices"], *rows[at - 2]["choices"]]
        if len(set(options)) == 12:
            right = row["choices"][row["answer"]]
            random.Random(at).shuffle(options)
            made.append(choice(row["question"], "Which answer is right?", options, right))
    return made


def news_or_none(data: Path) -> list[Request]:
    """The news, where "none of the above" is offered beside the right topic."""
    made = news(data)
    for each in made:
        each["questions"]["q"]["x_none_of_the_above"] = True
    return made


def news_without_the_right_one(data: Path) -> list[Request]:
    """The news without the right topic, so that "none of the above" is right."""
    made = news_or_none(data)
    for each in made:
        question = each["questions"]["q"]
        del question["criteria"][question.pop("answer")]
    return made


def two_levels(data: Path) -> list[Request]:
    question = {
        "type": "score",
        "instructions": "How positive is this review?",
        "criteria": ["negative", "positive"],
    }
    return [request(text, question, answer) for text, answer in sentiment(data)]


def five_levels(data: Path) -> list[Request]:
    """Only the ends are labelled, so its answers are good for ranking alone."""
    levels = ["very negative", "negative", "neutral", "positive", "very positive"]
    question = {"type": "score", "instructions": "How positive is this review?", "criteria": levels}
    return [request(text, question, 4 * answer) for text, answer in sentiment(data)]


TASKS: dict[str, Callable[[Path], list[Request]]] = {
    "noul-spam": spam,
    "noul-sentiment": is_positive,
    "noul-boolq": boolq,
    "choice2-sentiment": two_options,
    "choice4-news": news,
    "choice4-news-or-none": news_or_none,
    "choice3-news-none-right": news_without_the_right_one,
    "choice4-arc": arc,
    "choice4-openbookqa": openbookqa,
    "choice6-subjects": subjects,
    "choice12-arc": twelve_options,
    "score2-sentiment": two_levels,
    "score5-sentiment": five_levels,
}


def make_requests(name: str, n: int | None = None) -> list[Request]:
    """A task's requests, shuffled, at most n of them; each has one question `q` with its answer."""
    made = TASKS[name](shared_folder() / "data")
    random.Random(0).shuffle(made)
    return made[:n]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for task in TASKS:
        text = "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in make_requests(task))
        (folder / f"{task}.jsonl").write_text(text, encoding="utf-8")
