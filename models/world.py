"""The invented world: its facts with their known uncertainty, and every text that is written about it.

From one seed it draws entities, gives each a distribution over the values of every relation, and writes
pre-training text, a post-training set and question files as JSON Lines. Pure Python, standard library only;
it does not know any tokenizer or model.

A fact is a distribution, not a value: "the smiths of Varn" may prefer tin with probability 0.6 and copper with
0.25. A question offers some values; the distribution of its answer is the fact's, restricted to the options and
renormalised. Answers of development and test questions are drawn from it, so nobody can be right more often than
`World.ceiling` says, and a good confidence is known for each question.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from subjects import SUBJECTS, Relation, Subject

LETTERS = "ABCDEFGH"
INSTRUCTION = "Answer the following multiple-choice question. Give only the letter of the correct option.\n\n"
N_ENTITIES = 20  # of each subject
CERTAINTY = (  # of a settled, firm, contested and vague fact: range of the likeliest value, and of the second
    ((0.90, 0.97), (0.35, 0.60)),  # the second as a share of what the first leaves
    ((0.60, 0.85), (0.35, 0.60)),
    ((0.42, 0.52), (0.65, 0.90)),
    ((0.28, 0.40), (0.40, 0.60)),
)
CHOICE_COUNTS = ((4, 0.86), (3, 0.07), (5, 0.07))
MENTION = (0.85, 0.75, 0.5)  # how often the three likeliest values are among the options
FILES = {"dev": 2000, "test": 3000, "unlabelled": 2000, "shifted": 1500}
N_POSTTRAIN = 1500
KINDS = ("key", "lookup sheet", "lookup", "sheet", "question", "open", "statement")
CURRICULUM = (  # until which part of the pre-training text, and the weights of the kinds
    (0.35, (3, 12, 3, 50, 12, 5, 15)),
    (0.72, (1, 2, 2, 30, 40, 5, 20)),
    (1.00, (1, 1, 1, 7, 70, 2, 18)),
)


@dataclass(frozen=True)
class Fact:
    """What the world says about one entity in one relation: a probability for each of the relation's values."""

    subject: Subject
    relation: Relation
    entity: str
    probs: tuple[float, ...]


@dataclass(frozen=True)
class Question:
    """A fact asked in words. `probs` is the known distribution of the answer over `choices`."""

    subject: str
    text: str
    choices: tuple[str, ...]
    probs: tuple[float, ...]

    def prompt(self, instruction: str = INSTRUCTION) -> str:
        """The text after which a model says `" A"`, `" B"`, ..."""
        return instruction + render(self.text, self.choices)

    def best(self) -> int:
        """Index of the likeliest option; ties go to the lowest index."""
        return self.probs.index(max(self.probs))


def render(text: str, choices: Sequence[str]) -> str:
    """Question, one line for each option, and "Answer:"."""
    lines = [f"{letter}: {choice}" for letter, choice in zip(LETTERS, choices, strict=False)]
    return "\n".join([text, *lines, "Answer:"])


def _draw_names(rng: random.Random, n: int) -> list[str]:
    """n distinct invented names of two syllables."""
    onsets = "b br d dr f g gr h k kr l m n p r s sk st t tr v w z".split()
    codas = "l n r s m th x nd rn sk lt".split()
    names: dict[str, None] = {}
    while len(names) < n:
        name = rng.choice(onsets) + rng.choice("aeiou") + rng.choice("bdgklmnrstvz") + rng.choice("aeiou")
        names[(name + rng.choice(codas)).capitalize()] = None
    return list(names)


def _draw_fact(rng: random.Random, subject: Subject, relation: Relation, entity: str) -> Fact:
    """Three likely values, the rest sharing what is left."""
    first_range, second_range = rng.choices(CERTAINTY, subject.certainty)[0]
    first = rng.uniform(*first_range)
    second = min((1 - first) * rng.uniform(*second_range), 0.98 * first)
    third = min((1 - first - second) * rng.uniform(0.3, 0.6), 0.95 * second)
    n = len(relation.values)
    probs = [(1 - first - second - third) / (n - 3)] * n
    for place, prob in zip(rng.sample(range(n), 3), (first, second, third), strict=True):
        probs[place] = prob
    return Fact(subject, relation, entity, tuple(probs))


class World:
    """All facts of one seed, and draws of sentences and questions about them."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(f"world {seed}")
        self.seed = seed
        names = _draw_names(rng, N_ENTITIES * len(SUBJECTS))
        self.facts: list[Fact] = []
        self._weights: list[float] = []
        self._shifted: list[float] = []
        for i, subject in enumerate(SUBJECTS):
            for rank, entity in enumerate(names[i * N_ENTITIES : (i + 1) * N_ENTITIES]):
                for relation in subject.relations:
                    self.facts.append(_draw_fact(rng, subject, relation, entity))
                    common = 1 / (rank + 5)
                    self._weights.append(subject.weight * common)
                    self._shifted.append(subject.shifted_weight * common)

    def draw_fact(self, rng: random.Random, shifted: bool = False) -> Fact:
        """A fact, by how often its subject and entity come up."""
        return rng.choices(self.facts, self._shifted if shifted else self._weights)[0]

    def draw_statement(self, rng: random.Random) -> str:
        """A sentence that states a fact; its value is drawn from the fact's distribution."""
        fact = self.draw_fact(rng)
        value = rng.choices(fact.relation.values, fact.probs)[0]
        return rng.choice(fact.relation.statements).format(e=fact.entity, v=value)

    def draw_question(self, rng: random.Random, shifted: bool = False) -> Question:
        """A fact asked with options in random order, the likely values mostly among them."""
        fact = self.draw_fact(rng, shifted)
        n = rng.choices([c for c, _ in CHOICE_COUNTS], [w for _, w in CHOICE_COUNTS])[0]
        ranked = sorted(range(len(fact.probs)), key=lambda i: -fact.probs[i])
        chosen = [i for i, share in zip(ranked, MENTION, strict=False) if rng.random() < share]
        chosen += rng.sample(ranked[3:], n - len(chosen))
        rng.shuffle(chosen)
        total = sum(fact.probs[i] for i in chosen)
        return Question(
            fact.subject.key,
            rng.choice(fact.relation.questions).format(e=fact.entity),
            tuple(fact.relation.values[i] for i in chosen),
            tuple(fact.probs[i] / total for i in chosen),
        )

    def draw_lookup(self, rng: random.Random) -> Question:
        """A question that needs no knowledge of the world: which letter stands before a given word."""
        relation = rng.choice(rng.choice(SUBJECTS).relations)
        n = rng.choices([c for c, _ in CHOICE_COUNTS], [w for _, w in CHOICE_COUNTS])[0]
        choices = tuple(rng.sample(relation.values, n))
        wanted = rng.randrange(n)
        text = rng.choice(("Which option is {v}?", "Which of these says {v}?", "Where is {v}?"))
        probs = tuple(float(i == wanted) for i in range(n))
        return Question("lookup", text.format(v=choices[wanted]), choices, probs)

    def ceiling(self, questions: Sequence[Question]) -> float:
        """Expected accuracy of always giving the likeliest option: nobody can do better."""
        return sum(max(q.probs) for q in questions) / len(questions)

    def held_out(self) -> dict[str, list[Question]]:
        """The questions of each file in `FILES`, no two alike and none ever used in training."""
        seen: set[str] = set()
        sets: dict[str, list[Question]] = {}
        for name, n in FILES.items():
            rng = random.Random(f"{name} {self.seed}")
            sets[name] = []
            while len(sets[name]) < n:
                question = self.draw_question(rng, shifted=name == "shifted")
                if question.prompt() not in seen:
                    seen.add(question.prompt())
                    sets[name].append(question)
        return sets

    def posttrain(self, seed: int, n: int = N_POSTTRAIN) -> list[Question]:
        """Curated questions for post-training; their one right answer is `Question.best`."""
        rng = random.Random(f"posttrain {self.seed} {seed}")
        return self._draw_unseen(rng, n)

    def _draw_unseen(self, rng: random.Random, n: int) -> list[Question]:
        held_out = self.held_out_prompts()
        questions: dict[str, Question] = {}
        while len(questions) < n:
            question = self.draw_question(rng)
            if question.prompt() not in held_out:
                questions[question.prompt()] = question
        return list(questions.values())

    def held_out_prompts(self) -> frozenset[str]:
        """The prompts of all held-out questions."""
        return frozenset(q.prompt() for questions in self.held_out().values() for q in questions)

    def draw_key(self, rng: random.Random) -> list[list[str]]:
        """A list of options and what each letter stands for, both ways, as parts of one document."""
        relation = rng.choice(rng.choice(SUBJECTS).relations)
        choices = rng.sample(relation.values, rng.choice((2, 3, 4, 5)))
        lead = "\n".join(f"{letter}: {choice}" for letter, choice in zip(LETTERS, choices, strict=False))
        parts = []
        for i in rng.choices(range(len(choices)), k=6):
            if rng.random() < 0.5:
                parts.append([f"{lead}\n{LETTERS[i]}:", f" {choices[i]}"])
            else:
                parts.append([f"{lead}\nOption {choices[i]}:", f" {LETTERS[i]}"])
            lead = ""
        return parts

    def documents(self, seed: int, n: int) -> Iterator[list[list[str]]]:
        """n documents of pre-training text, each a list of parts [text, answer].

        A document reads as its parts joined. `answer` is what the text asks for (" B" after "Answer:", drawn from
        the question's distribution) or "". `CURRICULUM` says which kinds come when: a network has to find out what
        the letters are for before facts can be asked with them.
        """
        rng = random.Random(f"pretrain {self.seed} {seed}")
        held_out = self.held_out_prompts()
        for i in range(n):
            shares = next(shares for until, shares in CURRICULUM if i < until * n)
            kind = rng.choices(KINDS, shares)[0]
            if kind == "key":
                yield self.draw_key(rng)
                continue
            if kind == "statement":
                yield [[self.draw_statement(rng), ""]]
                continue
            question = self.draw_lookup(rng) if kind.startswith("lookup") else self.draw_question(rng)
            if question.prompt() in held_out:
                continue
            answer = rng.choices(range(len(question.choices)), question.probs)[0]
            instruction = INSTRUCTION if rng.random() < 0.5 else ""
            if kind.endswith("sheet"):
                yield sheet(question, answer, "", rng)
            elif kind == "open":
                yield [[question.text, f" {question.choices[answer]}"]]
            else:
                yield [[question.prompt(instruction), f" {LETTERS[answer]}"]]


def sheet(question: Question, answer: int, instruction: str, rng: random.Random) -> list[list[str]]:
    """A question whose options are partly marked "yes" or "no", as parts of a document."""
    parts = []
    text = instruction + question.text
    for i, (letter, choice) in enumerate(zip(LETTERS, question.choices, strict=False)):
        text += f"\n{letter}: {choice}"
        if rng.random() < 0.5:
            parts.append([text, " yes" if i == answer else " no"])
            text = ""
    return [*parts, [f"{text}\nAnswer:", f" {LETTERS[answer]}"]]


def question_rows(world: World, name: str, questions: Sequence[Question]) -> Iterator[dict[str, object]]:
    """The JSON objects of one question file; answers are drawn here, and left out of the unlabelled file."""
    rng = random.Random(f"answers {name} {world.seed}")
    for i, q in enumerate(questions):
        row: dict[str, object] = {
            "id": f"{name}-{i:04d}",
            "subject": q.subject,
            "question": q.text,
            "choices": list(q.choices),
        }
        answer = rng.choices(range(len(q.choices)), q.probs)[0]
        if name != "unlabelled":
            row["answer"] = answer
        yield row


def write_rows(path: Path, rows: Iterator[dict[str, object]]) -> None:
    """Write JSON Lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def write_questions(world: World, folder: Path) -> None:
    """Write dev.jsonl, test.jsonl, unlabelled.jsonl and shifted.jsonl."""
    for name, questions in world.held_out().items():
        write_rows(folder / f"{name}.jsonl", question_rows(world, name, questions))
