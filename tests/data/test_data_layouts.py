"""Public layouts with their own column names and ways of answering, in every container; the questions are our own."""

import pytest
from support.datasets import CONTAINERS

from edgecal.data import read_data

WALK = ["puts on boots.", "eats the boots.", "sells a kite.", "falls asleep at sea."]
TWO = ("Ann handed the rope to Bea because _ had to climb.", ["Ann", "Bea"])
TEXT = "A mill stands by the river. It was built of stone."

# name: (rows, what is read as (passage, question, options, answer, subject), the decisions)
LAYOUTS = {
    "hellaswag": (
        [
            {"ind": 4, "activity_label": "Hiking", "ctx_a": "A man packs a bag.", "ctx_b": "he", "ctx": "A man packs "
             "a bag. he", "endings": WALK, "source_id": "activitynet~v_1", "split": "val", "split_type": "indomain",
             "label": label}
            for label in ("3", "1", "")
        ],
        [(None, "Hiking: A man packs a bag. he", WALK, answer, None) for answer in (3, 1, None)],
        "answers counted from 0; options from endings",
    ),
    "winogrande": (
        [{"sentence": TWO[0], "option1": "Ann", "option2": "Bea", "answer": a} for a in ("2", "1", "")],
        [(None, *TWO, answer, None) for answer in (1, 0, None)],
        "answers counted from 1; options from option1 to option2; question from sentence",
    ),
    "piqa": (
        [{"goal": "dry a shirt", "sol1": "hang it up", "sol2": "hang it under water", "label": a} for a in (0, 0, -1)],
        [(None, "dry a shirt", ["hang it up", "hang it under water"], a, None) for a in (0, 0, None)],
        "answers counted from 0; options from sol1 to sol2; question from goal",
    ),
    "boolq": (
        [{"question": "is the mill of stone", "answer": a, "passage": TEXT} for a in (True, False)],
        [(TEXT, "is the mill of stone", ["yes", "no"], a, None) for a in (0, 1)],
        "answers as texts of options; options from yes and no; passage from passage",
    ),
    "siqa": (
        [
            {"context": "Kim lent Bo a tent.", "question": "How would Bo feel?", "answerA": "robbed",
             "answerB": "grateful", "answerC": "like a tent", "label": a}
            for a in ("2", "1", "2")
        ],
        [
            ("Kim lent Bo a tent.", "How would Bo feel?", ["robbed", "grateful", "like a tent"], a, None)
            for a in (1, 0, 1)
        ],
        "answers counted from 1; options from answerA to answerC; passage from context",
    ),
    "belebele": (
        [
            {"link": "https://example.org/x", "question_number": 1, "flores_passage": TEXT,
             "question": "What is it built of?", "mc_answer1": "stone", "mc_answer2": "wood", "mc_answer3": "water",
             "mc_answer4": "glass", "correct_answer_num": a, "dialect": "eng_Latn", "ds": "2023-05-03"}
            for a in ("1", "3")
        ],
        [(TEXT, "What is it built of?", ["stone", "wood", "water", "glass"], a, None) for a in (0, 2)],
        "answers counted from 1; options from mc_answer1 to mc_answer4; passage from flores_passage",
    ),
    "mmlu": (  # MMLU-Pro
        [
            {"question_id": 70, "question": "Which is a metal?", "options": ["tin", "air", "milk", *more],
             "answer": "A", "answer_index": 0, "cot_content": "", "category": "chemistry", "src": "own"}
            for more in ([], ["N/A"])
        ],
        [(None, "Which is a metal?", ["tin", "air", "milk"], 0, "chemistry")] * 2,
        "answers by letter; answers counted from 0; options from options",
    ),
    "arabicmmlu": (
        [
            {"ID": i, "Source": "s", "Country": "UAE", "Group": "STEM", "Subject": "Physics", "Level": "High",
             "Question": "كم؟", "Context": context, "Answer Key": key, "Option 1": "واحد", "Option 2": "اثنان",
             "Option 3": "ثلاثة", "Option 4": four, "Option 5": None, "is_few_shot": 0}
            for i, (context, key, four) in enumerate([(None, "C", None), ("نص طويل", "D", "أربعة")])
        ],
        [
            (None, "كم؟", ["واحد", "اثنان", "ثلاثة"], 2, "Physics"),
            ("نص طويل", "كم؟", ["واحد", "اثنان", "ثلاثة", "أربعة"], 3, "Physics"),
        ],
        "answers by letter; options from Option 1 to Option 5; passage from Context",
    ),
    "kmmlu": (
        [
            {"question": "몇 개?", "answer": a, "A": "하나", "B": "둘", "C": "셋", "D": "넷", "Category": "Law",
             "Human Accuracy": 0.5}
            for a in (1, 3, 2)
        ],
        [(None, "몇 개?", ["하나", "둘", "셋", "넷"], a, "Law") for a in (0, 2, 1)],
        "answers counted from 1; options from A to D",
    ),
    "cmmlu": (
        [
            {"": i, "Question": "几个？", "A": "一", "B": "二", "C": "三", "D": "四", "Answer": a}
            for i, a in enumerate("DB")
        ],
        [(None, "几个？", ["一", "二", "三", "四"], a, None) for a in (3, 1)],
        "answers by letter; options from A to D",
    ),
    "ceval": (
        [
            {"id": i, "question": "几个？", "A": "一", "B": "二", "C": "三", "D": "四", "answer": a, "explanation": ""}
            for i, a in enumerate(["D", "B", ""])
        ],
        [(None, "几个？", ["一", "二", "三", "四"], a, None) for a in (3, 1, None)],
        "answers by letter; options from A to D",
    ),
    "logiqa": (
        [
            {"context": TEXT, "query": "What follows?", "options": ["p", "the mill", "r"], "correct_option": a}
            for a in (1, 2)
        ],
        [(TEXT, "What follows?", ["p", "the mill", "r"], a, None) for a in (1, 2)],
        "answers counted from 0; options from options; question from query; passage from context",
    ),
    "logiqa (letters)": (
        [{"label": a, "context": TEXT, "question": "What follows?", "options": ["p", "the mill", "r"]} for a in "bc"],
        [(TEXT, "What follows?", ["p", "the mill", "r"], a, None) for a in (1, 2)],
        "answers by letter; options from options; passage from context",
    ),
    "logiqa (2.0)": (
        [
            {"id": 10, "answer": a, "text": TEXT, "question": "What follows?", "type": {"Sufficient": True},
             "options": ["p", "the mill", "r"]}
            for a in (1, 2)
        ],
        [(TEXT, "What follows?", ["p", "the mill", "r"], a, None) for a in (1, 2)],
        "answers counted from 0; options from options; passage from text",
    ),
    "copa": (
        [
            {"premise": "The lamp went out.", "choice1": "It was unplugged.", "choice2": "It was bought.",
             "question": asked, "idx": i, "label": a}
            for i, (asked, a) in enumerate([("cause", 1), ("effect", 1), ("cause", -1)])
        ],
        [
            ("The lamp went out.", asked, ["It was unplugged.", "It was bought."], a, None)
            for asked, a in [
                ("What was the cause of this?", 1),
                ("What happened as a result?", 1),
                ("What was the cause of this?", None),
            ]
        ],
        "answers counted from 0; options from choice1 to choice2; passage from premise",
    ),
}  # fmt: skip


def seen(data):
    return [(r.passage, r.question, list(r.choices), r.answer, r.subject) for r in data.records]


@pytest.mark.parametrize("container", [c for c in CONTAINERS if c != "semicolon.csv"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_public_layouts(tmp_path, name, container):
    rows, wanted, decided = LAYOUTS[name]
    path = CONTAINERS[container](tmp_path / f"rows.{container}", rows)
    data = read_data([path], strict=True)
    assert data.formats == (name.split(" ")[0],)
    assert seen(data) == wanted and data.decisions == (decided,)
    assert seen(read_data([path], format=data.formats[0])) == wanted


SCIQ = {"question": "What melts?", "distractor3": "fire", "distractor1": "wind", "distractor2": "light",
        "correct_answer": "ice", "support": "Ice melts in the sun."}  # fmt: skip
GPQA = {"Pre-Revision Question": "What melts, roughly?", "Question": "What melts?", "Correct Answer": "ice",
        "Incorrect Answer 1": "fire", "Incorrect Answer 2": "wind", "Incorrect Answer 3": "light",
        "Explanation": "Because of heat.", "Record ID": "rec1", "High-level domain": "Physics"}  # fmt: skip
TRIVIA = {"category": "Science", "question": "What melts?", "correct_answer": "ice",
          "incorrect_answers": ["fire", "wind", "light"]}  # fmt: skip


@pytest.mark.parametrize("container", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize(
    ("name", "row", "passage", "subject"),
    [
        ("sciq", SCIQ, SCIQ["support"], None),
        ("gpqa", GPQA, None, "Physics"),
        ("mmlu", TRIVIA, None, "Science"),
    ],
)
def test_the_right_option_beside_wrong_ones(tmp_path, name, row, passage, subject, container):
    path = CONTAINERS[container](tmp_path / f"rows.{container}", [row, row])
    places = set()
    for seed in range(20):
        data = read_data([path], strict=True, seed=seed)
        (record, _) = data.records
        assert data.formats == (name,) and sorted(record.choices) == ["fire", "ice", "light", "wind"]
        assert record.choices[record.answer] == "ice"
        assert (record.passage, record.subject) == (passage, subject)
        places.add(record.answer)
    assert places == {0, 1, 2, 3} and "shuffled" in data.decisions[0]
    assert bool(data.notes) == (name == "gpqa") and all(
        "'Pre-Revision Question'" in note for note in data.notes
    )


def test_boolq_of_superglue(tmp_path):
    rows = [
        {"question": "is it", "passage": TEXT, "idx": i, "label": label} for i, label in enumerate([1, 0, -1])
    ]
    data = read_data([CONTAINERS["parquet"](tmp_path / "x.parquet", rows)])
    assert seen(data) == [(TEXT, "is it", ["yes", "no"], answer, None) for answer in (0, 1, None)]


@pytest.mark.parametrize("folder", ["test", "dev"])
def test_cmmlu_names_the_subject_by_the_file(tmp_path, folder):
    rows, wanted, _ = LAYOUTS["cmmlu"]
    (tmp_path / folder).mkdir()
    path = CONTAINERS["csv"](tmp_path / folder / "ancient_chinese.csv", rows)
    assert seen(read_data([path])) == [(*item[:4], "ancient_chinese") for item in wanted]
    assert seen(read_data([tmp_path])) == [(*item[:4], "ancient_chinese") for item in wanted]
