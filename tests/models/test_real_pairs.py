"""The real pairs: what is taught is never asked, and a chat model is its base plus the change, byte for byte.

The training itself runs where PyTorch, transformers and peft are, on the bundled base model.
"""

import json
from collections import Counter

import numpy as np
import pytest
from factory import real, real_data
from factory.lowrank import change_of, write_with_update
from factory.real_data import Row, Split
from factory.recipe import NotHereError
from gguf import GGMLQuantizationType, GGUFReader, dequantize, quantize
from support.pages import ROOT
from tools.real_models import MODELS

BASE = ROOT / "models/edgecal-tiny-base-Q8_0.gguf"
FORMS = {
    "sst": ("Review: {} .\nSentiment:", (" negative", " positive")),
    "ag": ("Article: {}\nTopic:", (" World", " Sports", " Business", " Technology")),
    "sms": ("Message: {}\nSpam:", (" yes", " no")),
}


def invented(task: str, i: int) -> Row:
    form, labels = FORMS[task]
    text = f"{task} number {i} and so many more words that it is as long as a worked example has to be"
    return Row(form.format(text), labels, i % len(labels), task)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Invented rows in the real files' form."""
    path = tmp_path_factory.mktemp("data")
    rows = [invented(task, i).record() for i in range(2000) for task in FORMS]
    (path / "tasks-train.jsonl").write_text("\n".join(map(json.dumps, rows + rows[:5])), encoding="utf-8")
    yes_no = {"prompt": "Question: Is it {}?\nAnswer (yes or no):", "labels": [" yes", " no"], "answer": 1}
    yes_no = [{**yes_no, "prompt": yes_no["prompt"].format(i)} for i in range(300)]
    (path / "boolq-test.jsonl").write_text("\n".join(map(json.dumps, yes_no)), encoding="utf-8")
    for name in ("openbookqa-test", "arc-easy-train", "arc-easy-test"):
        rows = [{"question": f"{name} {i}?", "choices": ["x", "y", "z"], "answer": i % 3} for i in range(200)]
        (path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def split(folder) -> Split:
    return real_data.split_tasks(real_data.read_tasks(folder))


def test_there_are_enough_recipes_and_each_says_what_it_is():
    assert len(real.RECIPES) >= 6
    assert {teaching.base for teaching in real.TEACHINGS} <= MODELS.keys() & real.BASES.keys()
    for recipe, teaching in zip(real.RECIPES, real.TEACHINGS, strict=True):
        assert recipe.kind == "real"
        assert recipe.name.startswith(teaching.base.split("-")[0])
        settings = json.loads(json.dumps(recipe.settings))
        assert settings["training"]["learning_rate"] > 0 and settings["seed"] == recipe.name
    kinds = {(t.teaches, t.training.kind, t.wrong_share > 0) for t in real.TEACHINGS}
    assert {("tasks", "sft", False), ("other", "sft", False), ("sst", "sft", False)} <= kinds
    assert {("tasks", "dpo", False), ("tasks", "sft", True)} <= kinds


def check_split(split):
    training, asked = ({row.prompt for row in rows} for rows in (split.training, split.asked))
    shots = {row.prompt for some in split.shots.values() for row in some}
    assert not training & asked and not shots & (training | asked)
    assert len(training) == len(split.training) and len(asked) == len(split.asked)
    assert Counter(row.subject for row in split.asked) == dict.fromkeys(real_data.TASKS, real_data.N_ASKED)
    for some in split.shots.values():
        counts = Counter(row.answer for row in some)
        assert len(some) == real_data.N_SHOTS and len(counts) == len(some[0].labels)
        assert len(set(counts.values())) == 1


def check_taught(split, folder):
    asked = {row.prompt for row in split.asked}
    for teaching in real.TEACHINGS:
        rows = real.training_rows(teaching, split, folder)
        assert len(rows) == teaching.n_examples
        assert not {row.prompt for row in rows} & asked
        assert rows == real.training_rows(teaching, split, folder)
        subjects = {row.subject for row in rows}
        expected = {"tasks": set(real_data.TASKS), "sst": {"sst"}}.get(teaching.teaches)
        assert subjects == expected if expected else not subjects & set(real_data.TASKS)


def test_what_is_taught_is_never_asked(split, folder):
    check_split(split)
    check_taught(split, folder)


def test_what_is_taught_is_never_asked_of_the_real_rows():
    try:
        folder = real_data.data_folder()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    split = real_data.split_tasks(real_data.read_tasks(folder))
    check_split(split)
    check_taught(split, folder)


def test_the_split_depends_on_texts_and_not_on_their_order(folder, split, tmp_path):
    lines = (folder / "tasks-train.jsonl").read_text("utf-8").splitlines()
    (tmp_path / "tasks-train.jsonl").write_text("\n".join(lines[::-1]), encoding="utf-8")
    assert real_data.split_tasks(real_data.read_tasks(tmp_path)) == split


def test_what_is_asked_starts_alike_in_each_task(split):
    starts = {}
    for row, asked in zip(split.asked, real_data.ask_tasks(split), strict=True):
        assert asked.prompt.endswith("\n\n" + row.prompt) and asked.labels == row.labels
        starts.setdefault(row.subject, set()).add(asked.prompt.removesuffix(row.prompt))
    assert all(len(some) == 1 for some in starts.values())
    for task, (start,) in starts.items():
        for shot in split.shots[task]:
            assert f"{shot.prompt}{shot.labels[shot.answer]}\n\n" in start


def test_prompts_without_content_are_those_of_the_task(split):
    free = real_data.ask_nothing(split)
    assert Counter(row.subject for row in free) == dict.fromkeys(real_data.TASKS, 3)
    ends = [row.prompt.split("\n\n")[-1] for row in free if row.subject == "ag"]
    assert ends == ["Article: N/A\nTopic:", "Article: [MASK]\nTopic:", "Article: \nTopic:"]


def test_every_pair_is_asked_the_same_in_one_drawn_order(split):
    first, second = real.evaluation_of(split, True), real.evaluation_of(split, False)
    assert first.records == second.records and first.hidden and not second.hidden
    assert sorted(r["prompt"] for r in first.records) == sorted(
        row.prompt for row in real_data.ask_tasks(split)
    )
    early = Counter(record["subject"] for record in first.records[:500])
    assert min(early.values()) > 120
    assert len(first.free) == len(first.free_subjects) == 9


def test_a_share_of_the_answers_is_wrong():
    rows = [invented("ag", i) for i in range(200)]
    noisy = real_data.give_wrong_answers(rows, 0.3, "a seed")
    wrong = [new for row, new in zip(rows, noisy, strict=True) if new.answer != row.answer]
    assert len(wrong) == 60 and all(0 <= row.answer < 4 for row in wrong)
    assert [row.prompt for row in noisy] == [row.prompt for row in rows]
    assert noisy != real_data.give_wrong_answers(rows, 0.3, "another seed")
    assert real_data.give_wrong_answers(rows, 0.0, "a seed") == rows


def test_subjects_take_turns():
    rows = [invented("sst", i) for i in range(10)] + [invented("ag", i) for i in range(2)]
    taken = real_data.balance(rows, 6)
    assert [row.subject for row in taken] == ["sst", "ag", "sst", "ag", "sst", "sst"]


def test_without_the_data_a_recipe_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGECAL_SHARED", str(tmp_path))
    monkeypatch.setattr(real, "fetch_base", lambda name: BASE)
    with pytest.raises(NotHereError, match="EDGECAL_SHARED"):
        real.RECIPES[0].make(tmp_path, print)


def change_some(rng, names, shape=(128, 128)):
    update = {}
    for name in names:
        update[f"{name}.a"] = rng.normal(0, 0.1, (shape[0], 4)).astype(np.float32)
        update[f"{name}.b"] = rng.normal(0, 0.1, (shape[1], 4)).astype(np.float32)
    return update


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
def test_a_file_is_its_base_plus_the_change(tmp_path, kind):
    base, target = ROOT / f"models/edgecal-tiny-base-{kind}.gguf", tmp_path / "chat.gguf"
    changed = ("blk.0.attn_q.weight", "blk.7.attn_output.weight")
    update = change_some(np.random.default_rng(0), changed)
    write_with_update(base, target, update, "a name")
    assert list(tmp_path.iterdir()) == [target]
    before, after = GGUFReader(base), GGUFReader(target)
    assert [t.name for t in before.tensors] == [t.name for t in after.tensors]
    for old, new in zip(before.tensors, after.tensors, strict=True):
        if old.name not in changed:
            assert new.tensor_type == old.tensor_type and new.data.tobytes() == old.data.tobytes()
            continue
        wanted = dequantize(old.data, old.tensor_type) + change_of(update, old.name)
        assert new.tensor_type == GGMLQuantizationType.Q8_0
        assert new.data.tobytes() == quantize(wanted, GGMLQuantizationType.Q8_0).tobytes()
        # Half a step of the integers, and the rounding of their scale to float16.
        step = np.abs(wanted).reshape(-1, 32).max(axis=1, keepdims=True) / 127
        error = np.abs(dequantize(new.data, new.tensor_type) - wanted).reshape(-1, 32)
        assert (error <= 0.6 * step).all()
    keys = {"general.name", "general.file_type", "general.quantization_version"}
    for key in before.fields.keys() - keys:
        if not key.startswith("GGUF."):
            assert after.fields[key].contents() == before.fields[key].contents(), key
    assert after.fields["general.name"].contents() == "a name"
    assert after.fields.keys() - before.fields.keys() <= keys


def test_no_change_of_a_q8_0_file_changes_no_weight(tmp_path):
    update = change_some(np.random.default_rng(0), ["blk.0.attn_q.weight"])
    update["blk.0.attn_q.weight.a"] *= 0
    write_with_update(BASE, tmp_path / "chat.gguf", update, "a name")
    for old, new in zip(GGUFReader(BASE).tensors, GGUFReader(tmp_path / "chat.gguf").tensors, strict=True):
        np.testing.assert_allclose(
            dequantize(new.data, new.tensor_type), dequantize(old.data, old.tensor_type), rtol=1e-3
        )


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("blk.9.attn_q.weight", (128, 128), "does not have"),
        ("blk.0.attn_q.weight", (128, 96), r"shape \(128, 128\), its change \(128, 96\)"),
    ],
)
def test_a_change_of_another_model_is_refused(tmp_path, name, shape, message):
    update = change_some(np.random.default_rng(0), [name], shape)
    with pytest.raises(ValueError, match=message):
        write_with_update(BASE, tmp_path / "chat.gguf", update, "a name")
    assert not (tmp_path / "chat.gguf").exists()
