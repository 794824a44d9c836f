"""Labels of an anchored fit: which prompts they belong to, what is refused, and that only those asked for are read."""

import json

import pytest
from support.prompts import write_json_lines
from support.questions import make_questions

from edgecal import InputError
from edgecal.api.labels import add_labels
from edgecal.api.questions import QuestionOptions, load_questions, read_questions
from edgecal.calibration import Method
from edgecal.prompts import Prompt, Question, describe_record, parse_record

ANSWERED = make_questions(20, seed=2, n_choices=(2, 4))
BARE = [{key: value for key, value in record.items() if key != "answer"} for record in ANSWERED]
READY = {"prompt": "Is it so?", "labels": [" yes", " no"]}


def labelled(data=BARE, labels=None, method="anchored", **options):
    asked = QuestionOptions(**options)
    return add_labels(load_questions(data, asked), Method(method), labels, asked)


def answers(loaded):
    return {pair.base.text: pair.base.answer for pair in loaded.pairs if pair.base.answer is not None}


def refused(*arguments, **options):
    with pytest.raises(InputError) as caught:
        labelled(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_label_goes_to_its_prompt_and_others_are_added():
    loaded = labelled(BARE[:15], ANSWERED[10:])
    assert len(loaded.pairs) == 20 and len(answers(loaded)) == 10
    assert answers(loaded) == answers(labelled(ANSWERED[10:]))
    assert any("5 of 10 labelled prompts are not among the data" in note for note in loaded.notes)
    assert [pair.base.text for pair in loaded.pairs] == [
        pair.base.text for pair in load_questions(BARE, QuestionOptions()).pairs
    ]


def test_the_order_of_labels_and_a_label_said_twice_change_nothing():
    once = labelled(BARE, ANSWERED[:7])
    other = labelled(BARE[::-1], [*ANSWERED[:7][::-1], ANSWERED[3]])
    assert [pair.base for pair in once.pairs] != [] and answers(once) == answers(other)
    assert once.labels.tolist() == other.labels.tolist()
    assert once.compute_sha256(with_answers=True) == other.compute_sha256(with_answers=True)


def test_answers_of_the_data_are_not_read_unless_asked_for():
    loaded = labelled(ANSWERED, BARE[:1] + ANSWERED[1:3])
    assert len(answers(loaded)) == 2 and any(
        "20 prompts of the data have an answer" in n for n in loaded.notes
    )
    wrong = [record | {"answer": 1 - min(record["answer"], 1)} for record in ANSWERED]
    assert answers(labelled(wrong, ANSWERED[1:3])) == answers(loaded)
    assert len(answers(labelled(ANSWERED))) == 20
    assert load_questions(ANSWERED, QuestionOptions()).labels.tolist() == labelled(ANSWERED).labels.tolist()


def test_a_prompt_that_the_data_repeat_is_labelled_once():
    assert (labelled(BARE * 2, ANSWERED[:4]).labels >= 0).sum() == 4
    assert (labelled(ANSWERED * 2).labels >= 0).sum() == 20


def test_worked_examples_come_from_the_data_and_the_label_belongs_to_the_question():
    loaded = labelled(ANSWERED[:18], ANSWERED[16:], shots=2)
    texts = {pair.base.text for pair in load_questions(ANSWERED[:18], QuestionOptions(shots=2)).pairs}
    found = answers(loaded)
    assert len(found) == 4 and len(texts & found.keys()) == 2 and len(loaded.pairs) == 20
    assert all(len(pair.shots) == 2 for pair in loaded.pairs)


def test_labels_with_the_probability_of_their_choice():
    drawn = [record | {"inclusion_probability": 0.5 if i % 2 else 0.125} for i, record in enumerate(ANSWERED)]
    loaded = labelled(BARE, drawn[:6])
    weights = loaded.label_weights
    assert sorted(weights[loaded.labels >= 0].tolist()) == [2.0] * 3 + [8.0] * 3
    assert labelled(BARE, ANSWERED[:6]).label_weights is None
    assert labelled(drawn).label_weights is not None
    assert loaded.compute_sha256(with_answers=True) != labelled(BARE, ANSWERED[:6]).compute_sha256(
        with_answers=True
    )
    said = refused(BARE, [*drawn[:4], ANSWERED[5]])
    assert "prompt 5" in said and "4 of 5 labels" in said and "all of them" in said


def test_a_file_of_labels_in_our_own_form_beside_data_with_mapped_columns(tmp_path):
    rows = [
        {"Q": record["question"], "O": record["choices"], "R": record["answer"] + 1} for record in ANSWERED
    ]
    data = write_json_lines(tmp_path / "data.jsonl", rows)
    mapping = {"question": "Q", "options": "O", "answer": "R", "answer-base": "1"}
    own = write_json_lines(tmp_path / "labels.jsonl", ANSWERED[:5])
    alike = write_json_lines(tmp_path / "alike.jsonl", rows[:5])
    expected = answers(labelled(ANSWERED[:5]))
    for file in (own, alike):
        loaded = labelled(data, file, mapping=mapping)
        assert answers(loaded) == expected and len(loaded.pairs) == 20
        assert loaded.label_files == (str(file),) and loaded.files == (str(data), str(file))


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_the_probability_is_read_from_any_container_and_shown_to_no_model(tmp_path, suffix):
    record = ANSWERED[0]
    path = tmp_path / f"labels.{suffix}"
    if suffix == "jsonl":
        write_json_lines(path, [record | {"inclusion_probability": 0.25}])
    else:
        options = ",".join(f"choice{i}" for i in range(len(record["choices"])))
        cells = [record["question"], *record["choices"], "ABCD"[record["answer"]], "0.25"]
        path.write_text(
            f"question,{options},answer,inclusion_probability\n{','.join(map(json.dumps, cells))}\n"
        )
    read = read_questions(path)
    assert read.questions[0]["inclusion_probability"] == 0.25
    assert read.warnings == [] and "0.25" not in read.prompts[0]
    assert describe_record(parse_record(read.questions[0], "here")) == read.questions[0]


@pytest.mark.parametrize("wrong", [0, 1.01, -0.5, "often", True, [0.5], float("inf"), 10**400])
def test_a_probability_that_is_none(wrong):
    with pytest.raises(
        InputError, match=r'here: "inclusion_probability" must be a number above 0 and at most 1'
    ):
        parse_record(ANSWERED[0] | {"inclusion_probability": wrong}, "here")


def test_objects_carry_it_too():
    question = Question("Which?", ("a", "b"), 1, inclusion_probability=0.5)
    ready = Prompt(text="Is it so?", labels=(" yes", " no"), answer=0, inclusion_probability=0.25)
    loaded = labelled(BARE, [question, ready])
    assert sorted(loaded.label_weights[loaded.labels >= 0].tolist()) == [2.0, 4.0]


def test_what_is_refused(tmp_path):
    flipped = ANSWERED[2] | {"answer": 1 - min(ANSWERED[2]["answer"], 1)}
    said = refused(BARE, [ANSWERED[2], flipped])
    assert "prompt 2: its label contradicts that of prompt 1" in said and "keep one" in said
    assert "contradicts" in refused([*ANSWERED, flipped])
    assert "no record of the labels has an answer" in refused(BARE, BARE[:2])
    assert "--anchor needs at least one" in refused(BARE)
    said = refused([*BARE, READY], [READY | {"labels": [" no", " yes"], "answer": 0}])
    assert "with other choices, ' no', ' yes' instead of ' yes', ' no'" in said
    missing = tmp_path / "missing.jsonl"
    assert refused(BARE, missing).startswith(f"{missing}: no such file")
    outside = [*ANSWERED[:3], ANSWERED[3] | {"answer": 7}]
    assert "prompt 4" in refused(BARE, outside) and "more than a fifth" in refused(BARE, outside)
    assert "prompt 4" in refused(BARE, [*outside, *ANSWERED[5:]], strict=True)
    loaded = labelled(BARE, [*outside, *ANSWERED[5:]])  # named as any row that does not fit
    assert any("prompt 4" in warning for warning in loaded.warnings()) and len(answers(loaded)) == 18
    for method in ("daca", "dual-align", "ts"):
        assert f"the method is {method}" in refused(BARE, ANSWERED[:3], method=method)
