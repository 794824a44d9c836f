"""The generated world, its question files, and the pair's card."""

import hashlib
import math
import re
from pathlib import Path

import pytest
from subjects import SUBJECTS
from world import FILES, World, question_rows, write_questions

from edgecal.prompts import PromptTemplate, Question

MODELS = Path(__file__).resolve().parents[2] / "models"


@pytest.fixture(scope="module")
def world() -> World:
    return World(0)


def test_same_seed_same_world(world):
    again = World(0)
    assert again.facts == world.facts
    assert list(again.documents(3, 500)) == list(world.documents(3, 500))
    assert list(again.documents(4, 500)) != list(world.documents(3, 500))
    assert World(1).facts != world.facts


def test_every_distribution_sums_to_one(world):
    assert len(world.facts) == sum(20 * len(s.relations) for s in SUBJECTS)
    for fact in world.facts:
        assert len(fact.probs) == len(fact.relation.values)
        assert math.isclose(sum(fact.probs), 1, abs_tol=1e-12)
        assert min(fact.probs) > 0
    for questions in world.held_out().values():
        for question in questions:
            assert math.isclose(sum(question.probs), 1, abs_tol=1e-12)
            assert len(set(question.choices)) == len(question.choices) == len(question.probs)


def test_a_question_restricts_its_fact_to_the_options(world):
    question = world.held_out()["test"][0]
    entity_facts = [
        f
        for f in world.facts
        if any(text.format(e=f.entity) == question.text for text in f.relation.questions)
    ]
    assert len(entity_facts) == 1
    whole = dict(zip(entity_facts[0].relation.values, entity_facts[0].probs, strict=True))
    offered = sum(whole[c] for c in question.choices)
    for choice, prob in zip(question.choices, question.probs, strict=True):
        assert math.isclose(prob, whole[choice] / offered, rel_tol=1e-12)


def test_good_confidence_varies_widely(world):
    best = [max(q.probs) for q in world.held_out()["test"]]
    assert min(best) < 0.35
    assert max(best) > 0.97
    for low in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        assert sum(low <= b < low + 0.1 for b in best) > len(best) / 100


def test_answers_are_drawn_from_the_known_distribution(world):
    questions = world.held_out()["test"]
    rows = list(question_rows(world, "test", questions))
    hits = sum(q.best() == row["answer"] for q, row in zip(questions, rows, strict=True))
    ceiling = world.ceiling(questions)
    spread = math.sqrt(sum(max(q.probs) * (1 - max(q.probs)) for q in questions)) / len(questions)
    assert abs(hits / len(questions) - ceiling) < 4 * spread


def test_held_out_questions_are_never_trained_on(world):
    held_out = world.held_out_prompts()
    assert len(held_out) == sum(FILES.values())
    bare = {prompt.split("\n\n", 1)[1] for prompt in held_out}
    for document in world.documents(0, 30_000):
        assert document[0][0].split("\n\n", 1)[-1] not in bare
    assert held_out.isdisjoint(q.prompt() for q in world.posttrain(0))


def test_prompts_are_edgecals_default_template(world):
    template = PromptTemplate()
    for question in world.held_out()["dev"][:50]:
        assert template.render(Question(question.text, question.choices)).text == question.prompt()


def test_shipped_questions_are_what_the_generator_writes(world, tmp_path):
    write_questions(world, tmp_path)
    for name in FILES:
        shipped = (MODELS / "questions" / f"{name}.jsonl").read_bytes()
        assert shipped == (tmp_path / f"{name}.jsonl").read_bytes()
        assert (b'"answer"' in shipped) == (name != "unlabelled")


def test_card_states_the_hash_of_every_shipped_model():
    card = (MODELS / "README.md").read_text(encoding="utf-8")
    shipped = sorted(MODELS.glob("*.gguf"))
    assert len(shipped) == 4
    for path in shipped:
        found = re.search(rf"`{re.escape(path.name)}`[^\n]*`([0-9a-f]{{64}})`", card)
        assert found is not None, path.name
        assert found[1] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert path.stat().st_size <= 10_000_000
