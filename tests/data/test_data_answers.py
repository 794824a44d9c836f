"""What answers mean is decided once, from all rows; what can be read in two ways is refused with both."""

import random

import pytest
from support import datasets as ds
from support.datasets import CONTAINERS, LETTERS, labelled

from edgecal import InputError
from edgecal.data import read_data

COLOURS = ["red", "blue", "green", "grey"]
OPTION_COLUMNS = [
    "choice{0}", "choice_{0}", "option{0}", "Option {0}", "option-{0}", "opt{0}", "endings{0}", "answer{0}", "sol{0}",
    "Choice{0:02d}", "{0}", "candidate_{0}_text", "anything{0}",
]  # fmt: skip
WAYS = {
    "from 0": (lambda k, a: a, "answers counted from 0"),
    "from 1": (lambda k, a: a + 1, "answers counted from 1"),
    "digit text from 0": (lambda k, a: str(a), "answers counted from 0"),
    "digit text from 1": (lambda k, a: str(a + 1), "answers counted from 1"),
    "float": (lambda k, a: float(a), "answers counted from 0"),
    "letter": (lambda k, a: LETTERS[a], "answers by letter"),
    "small letter": (lambda k, a: f"({LETTERS[a].lower()})", "answers by letter"),
    "text": (lambda k, a: COLOURS[a], "answers as texts of options"),
    "text in capitals": (lambda k, a: f" {COLOURS[a].upper()} ", "answers as texts of options"),
    "one-hot": (lambda k, a: [int(i == a) for i in range(k)], "answers as a mark on each option"),
    "list of one": (lambda k, a: [LETTERS[a]], "answers by letter"),
    "named": (lambda k, a: f"Option {LETTERS[a]}", "answers by letter"),
}


def read(tmp_path, rows, container="jsonl", **options):
    return read_data([CONTAINERS[container](tmp_path / f"rows.{container}", rows)], **options)


def answers(data):
    return [record.answer for record in data.records]


@pytest.mark.parametrize("container", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("column", OPTION_COLUMNS)
def test_numbered_columns_in_any_spelling(tmp_path, column, first, container):
    names = [column.format(first + i) for i in range(4)]
    rows = [
        {"question": f"q{a}", **dict(zip(names, COLOURS, strict=True)), "target": a} for a in (3, 0, 2, 1)
    ]
    data = read(tmp_path, rows, container, strict=True)
    assert answers(data) == [3, 0, 2, 1] and {record.choices for record in data.records} == {tuple(COLOURS)}
    assert data.decisions == (f"answers counted from 0; options from {names[0]} to {names[3]}",)


@pytest.mark.parametrize("container", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("columns", ["choice0", "choice1", "A", "options"])
def test_every_way_of_answering(tmp_path, columns, way, container):
    spell, said = WAYS[way]
    named = (
        [columns] if columns == "options" else [columns[:-1] + chr(ord(columns[-1]) + i) for i in range(4)]
    )
    rows = []
    for right in (3, 0, 2, 1):
        options = {columns: COLOURS} if columns == "options" else dict(zip(named, COLOURS, strict=True))
        rows.append({"Context": "c", "question": f"q{right}", **options, "correct": spell(4, right)})
    data = read(tmp_path, rows, container, strict=True)
    assert answers(data) == [3, 0, 2, 1] and data.records[0].passage == "c"
    where = "options" if columns == "options" else f"{named[0]} to {named[-1]}"
    assert data.decisions == (f"{said}; options from {where}; passage from Context",)


def test_the_commonest_public_mmlu(tmp_path):
    """Its options count from 0, and so do its answers; `choice1` alone would be the first option."""
    rows = [
        {"question": "q?", **{f"choice{i}": c for i, c in enumerate(COLOURS)}, "answer": a} for a in (1, 2, 1)
    ]
    assert answers(read(tmp_path, rows, "csv")) == [1, 2, 1]
    (record, *_) = read(tmp_path, rows, "csv").records
    assert record.choices == tuple(COLOURS)


REFUSED = {
    "all between": ([1, 2, 3], COLOURS, "counted from 0 ('blue') or counted from 1 ('red')"),
    "two options": (["1", "1"], ["x", "y"], "counted from 0 ('y') or counted from 1 ('x')"),
    "contradiction": ([0, 4, 1], COLOURS, "counted from 0 ('red') or counted from 1 (none)"),
    "letters as texts": (["D", "A"], ["A", "C", "D", "K"], "of an option ('K') or the text of an option ('D')"),
    "numbers as texts": (["3", "2"], ["2", "3", "4", "5"], "or the text of an option ('3')"),
}  # fmt: skip


@pytest.mark.parametrize("container", ["jsonl", "csv"])
@pytest.mark.parametrize("name", REFUSED)
def test_two_readings_are_refused(tmp_path, name, container):
    held, options, told = REFUSED[name]
    rows = [{"question": f"q{i}", "options": options, "gold": a} for i, a in enumerate(held)]
    with pytest.raises(InputError) as caught:
        read(tmp_path, rows, container)
    message = str(caught.value)
    assert told in message and "'gold'" in message and "--map answer-base=0, =1, =label, =text" in message
    assert "\n" not in message


@pytest.mark.parametrize(("base", "wanted"), [(0, [3, 2]), ("1", [2, 1]), ("text", [1, 0]), ("label", None)])
def test_the_user_says_which(tmp_path, base, wanted):
    rows = [
        {"question": f"q{i}", "options": ["2", "3", "4", "5"], "gold": a} for i, a in enumerate(["3", "2"])
    ]
    if wanted is None:
        with pytest.raises(InputError, match="none of the 4 options"):
            read(tmp_path, rows, mapping={"answer-base": base})
    else:
        assert answers(read(tmp_path, rows, mapping={"answer-base": base})) == wanted


def test_other_rows_tell_texts_from_numbers_and_letters(tmp_path):
    vitamins = {"question": "Which vitamin?", "options": ["A", "C", "D", "K"]}
    data = read(tmp_path, [{**vitamins, "gold": g} for g in "DK"])
    assert answers(data) == [2, 3]
    data = read(tmp_path, [{**vitamins, "gold": "D"}, {"question": "q", "options": COLOURS, "gold": "blue"}])
    assert answers(data) == [2, 1]
    plain = [{"question": f"q{a}", "options": COLOURS, "gold": a} for a in "ABCD"]
    assert answers(read(tmp_path, [{**vitamins, "gold": "D"}, *plain])) == [3, 0, 1, 2, 3]
    small = {"question": "How many?", "options": ["2", "3", "4", "5"]}
    assert answers(read(tmp_path, [{**small, "gold": g} for g in "325"])) == [1, 0, 3]
    plain = [{"question": f"q{a}", "options": COLOURS, "gold": a} for a in (0, 1, 2, 3)]
    assert answers(read(tmp_path, [{**small, "gold": 3}, *plain])) == [3, 0, 1, 2, 3]


def test_our_own_form_counts_from_0_where_nothing_speaks_against_it(tmp_path):
    def own(choices, *held):
        return answers(read(tmp_path, [{"question": f"q{a}", "choices": choices, "answer": a} for a in held]))

    assert own(COLOURS, 1, 2, "1") == [1, 2, 1]
    assert own(COLOURS, 1, 2, 4) == [0, 1, 3]
    assert own(["1", "2", "3"], 2, 1) == [2, 1]
    for choices, held in (([1, 2, 3], (2, 1)), (["1", "2", "3"], ("2", "1"))):
        with pytest.raises(InputError, match=r"counted from 0 .* or counted from 1"):
            own(choices, *held)


def test_letters_among_texts_of_which_one_may_be_either(tmp_path):
    rows = [{"question": "q", "options": COLOURS, "gold": gold} for gold in ("A", "B", "blue", "C", "D")]
    assert answers(read(tmp_path, rows)) == [0, 1, 1, 2, 3]
    rows.append({"question": "Which note?", "options": ["C", "A", "B", "F"], "gold": "A"})
    with pytest.raises(InputError, match=r"the label of an option \('C'\) or the text of an option \('A'\)"):
        read(tmp_path, rows)


LABELLED = {
    "object": lambda texts, labels: dict(zip(labels, texts, strict=True)),
    "objects": lambda texts, labels: [{"label": k, "text": t} for k, t in zip(labels, texts, strict=True)],
    "objects by key": lambda texts, labels: [{"key": k, "content": t} for k, t in zip(labels, texts, strict=True)],
    "objects of one": lambda texts, labels: [{k: t} for k, t in zip(labels, texts, strict=True)],
    "lists": labelled,
    "pairs": lambda texts, labels: [[k, t] for k, t in zip(labels, texts, strict=True)],
    "carried": lambda texts, labels: [f"{k}. {t}" for k, t in zip(labels, texts, strict=True)],
    "carried in brackets": lambda texts, labels: [f"({k}) {t}" for k, t in zip(labels, texts, strict=True)],
}  # fmt: skip


@pytest.mark.parametrize("container", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("labels", ["ABCD", "BCDE", "DCBA", "1234", "0123", "CADB"])
@pytest.mark.parametrize("shape", LABELLED)
def test_an_answer_is_the_option_with_that_label(tmp_path, shape, labels, container):
    rows = [
        {"question": f"q{i}", "options": LABELLED[shape](COLOURS, labels), "answer_key": label}
        for i, label in enumerate(labels)
    ]
    data = read(tmp_path, rows, container, strict=True)
    placed = [r.choices[r.answer] for r in data.records]
    assert placed == COLOURS and {frozenset(r.choices) for r in data.records} == {frozenset(COLOURS)}


@pytest.mark.parametrize("container", ["jsonl", "parquet"])
@pytest.mark.parametrize("labels", ["i ii iii iv", "Q1 Q2 Q3 Q4", "aa bb cc dd"])
@pytest.mark.parametrize("shape", ["object", "objects", "objects by key"])
def test_labels_of_several_characters(tmp_path, shape, labels, container):
    """They are labels before they are texts, though some options read like the label of another."""
    names = labels.split()
    texts = [names[2], names[3], *COLOURS[:2]]
    rows = [
        {"question": f"q{i}", "options": LABELLED[shape](texts, names), "gold": label}
        for i, label in enumerate(names)
    ]
    data = read(tmp_path, rows, container, strict=True)
    assert [r.choices[r.answer] for r in data.records] == texts
    assert "by the options' labels" in data.decisions[0] and "texts" not in data.decisions[0]
    with pytest.raises(InputError, match=r"the label of an option .* or the text of an option"):
        read(tmp_path, [rows[2]] * 3)  # once is chance


def test_labels_that_the_texts_look_like(tmp_path):
    options = [{"label": k, "text": t} for k, t in zip("ABCD", ["D", "C", "B", "A"], strict=True)]
    data = read(tmp_path, [{"question": "Which vitamin?", "options": options, "gold": "D"}])
    assert data.records[0].choices[data.records[0].answer] == "A"
    options = dict(zip("1234", ["4", "3", "2", "1"], strict=True))
    data = read(tmp_path, [{"question": "How many?", "options": options, "gold": 4}])
    assert data.records[0].choices[data.records[0].answer] == "1"


def test_labels_are_doubted_where_every_answer_is_a_text_as_well(tmp_path):
    """Once is chance; in row after row, where not all labels are texts, it is none."""
    options = [{"label": k, "text": t} for k, t in zip("ABCD", ["D", "K", "B", "A"], strict=True)]
    held = [{"question": f"q{i}", "options": options, "gold": gold} for i, gold in enumerate("DBA")]
    data = read(tmp_path, held[:2])
    assert [r.choices[r.answer] for r in data.records] == ["A", "K"]
    with pytest.raises(InputError, match=r"the label of an option .* or the text of an option"):
        read(tmp_path, held)


def test_carried_letters_with_a_gap_fit_only_where_no_others_are_carried(tmp_path):
    carried = [{"question": f"q{i}", "options": ["A. x", "B. y", "C. z"], "gold": "C"} for i in range(3)]
    data = read(tmp_path, [*carried, {**carried[0], "options": ["A. x", "C. y", "D. z"]}])
    assert answers(data) == [2, 2, 2] and "a letter in between is missing" in data.skipped[0].reason
    plain = [{"question": f"q{i}", "options": COLOURS, "gold": "B"} for i in range(3)]
    names = ["G. Bush", "J. Adams", "T. Roosevelt"]
    data = read(tmp_path, [*plain, {"question": "Who?", "options": names, "gold": "B"}])
    assert data.records[3].choices == tuple(names) and answers(data) == [1, 1, 1, 1]


def test_marks_of_options_whose_labels_are_not_in_order(tmp_path):
    rows = [{"question": "q", "choices": labelled(["x", "y", "z"], "CAB"), "gold": [1, 0, 0]}]
    with pytest.raises(InputError, match=r"the text of an option \('x'\) or the label of an option \('y'\)"):
        read(tmp_path, rows)


@pytest.mark.parametrize("flag", ["is_correct", "correct"])
def test_options_that_say_themselves_that_they_are_right(tmp_path, flag):
    options = [{"text": t, flag: t == "green"} for t in COLOURS]
    data = read(tmp_path, [{"question": "q", "choices": options}])
    assert answers(data) == [2] and data.records[0].choices == tuple(COLOURS)


def test_all_files_are_decided_together(tmp_path):
    def write(name, held):
        rows = [
            {"question": f"{name}{i}", "A": "x", "B": "y", "C": "z", "answer": a} for i, a in enumerate(held)
        ]
        (tmp_path / name).parent.mkdir(exist_ok=True)
        return ds.write_delimited(tmp_path / name, rows)

    one, other = write("one.csv", [1, 2]), write("other.csv", [3, 1])
    with pytest.raises(InputError, match="2 ways"):
        read_data([one])
    assert answers(read_data([one, other])) == [0, 1, 2, 0]
    # worked examples are part of the data, and so is a split that is not judged
    data = read_data([one], worked_from=other)
    assert answers(data) == [0, 1] and [shot.answer for shot in data.worked] == [2, 0]
    write("set/test.csv", [1, 2])
    write("set/dev.csv", [3])
    data = read_data([tmp_path / "set"])
    assert answers(data) == [0, 1] and [shot.answer for shot in data.worked] == [2]
    write("set/dev.csv", [2])
    write("set/validation.csv", [3])
    assert answers(read_data([tmp_path / "set"])) == [0, 1]
    # what one of them says against the others is refused, and not outvoted
    many, few = write("many.csv", [0, 1, 2] * 40), write("few.csv", [1, 2, 3])
    with pytest.raises(
        InputError, match=r"few\.csv: the answers in 'answer' are counted from 1 here, but counted"
    ):
        read_data([many, few])


def test_columns_that_say_the_same_settle_each_other(tmp_path):
    rows = [{"question": f"q{i}", "options": COLOURS, "answer": "blue", "answer_idx": 1} for i in range(20)]
    data = read(tmp_path, rows)
    assert answers(data) == [1] * 20 and "answers counted from 0" in data.decisions[0]
    rows.append({**rows[0], "answer": "red"})
    data = read(tmp_path, rows)
    assert answers(data) == [1] * 20
    assert "contradict each other: answer 'red' and answer_idx 1" in data.skipped[0].reason
    said = {"answer": "Since blue is a colour.", "label": "B"}
    data = read(tmp_path, [{"question": f"q{i}", "options": COLOURS, **said} for i in range(2)])
    assert answers(data) == [1, 1] and "which option is right: answer" in data.notes[0]


def test_rows_without_an_answer(tmp_path):
    held = [0, None, -1, "", 3, float("nan"), []]
    rows = [{"question": f"q{i}", "options": COLOURS, "gold": a} for i, a in enumerate(held)]
    assert answers(read(tmp_path, rows)) == [0, None, None, None, 3, None, None]
    rows = [{"question": "q", "options": ["-1", "0", "1"], "gold": gold} for gold in ("-1", "1", "0")]
    assert answers(read(tmp_path, rows)) == [0, 2, 1]


def test_never_wrong(tmp_path):
    """Random tables whose truth is known: read right, or refused."""
    rng = random.Random(5)
    n_read = 0
    for number in range(150):
        k = rng.choice([2, 3, 4, 5])
        texts = rng.choice(
            [[*COLOURS, "pink"], list("ACDEK"), ["1", "2", "3", "4", "5"], ["7", "3", "0", "12", "9"]]
        )
        style = rng.choice(["num0", "num1", "letters", "list", "object", "objects"])
        start = rng.choice([0, 0, 1])
        way = rng.choice(
            ["from 0", "from 1", "digit text from 1", "letter", "text", "one-hot", "list of one"]
        )
        rows, truth = [], []
        for i in range(rng.choice([1, 3, 8, 30])):
            options = rng.sample(texts, k)
            right = rng.randrange(k)
            labels = LETTERS[start : start + k]
            row = {"question": f"q{i}"}
            if style in ("num0", "num1", "letters"):
                first = {"num0": "choice0", "num1": "choice1", "letters": "A"}[style]
                row |= {first[:-1] + chr(ord(first[-1]) + j): text for j, text in enumerate(options)}
            elif style == "list":
                row["options"] = options
            else:
                row["options"] = LABELLED[style](options, labels)
            named = style in ("object", "objects")
            row["gold"] = (
                labels[right] if named else WAYS[way][0](k, right) if way != "text" else options[right]
            )
            rows.append(row)
            truth.append(options[right])
        try:
            data = read(tmp_path, rows, rng.choice(["jsonl", "csv", "parquet"]))
        except InputError as error:
            assert "ways" in str(error)
            continue
        n_read += 1
        assert not data.skipped and [r.choices[r.answer] for r in data.records] == truth, (number, rows, data)
    assert n_read > 90
