"""`edgecal.compare` on a real pair: every run counted, every method from the same capture."""

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from support.options import grouped
from support.prompts import random_token_prompts
from support.questions import make_questions
from support.reference import ReferenceLlama
from support.tiny_models import tiny_folder, write_tiny_llama, write_tiny_pair

import edgecal
from edgecal import OutputOptions, RunOptions
from edgecal.evaluation.linear_map import fit_linear_map
from edgecal.evaluation.splits import make_splits
from edgecal.llama.settings import CaptureSettings
from edgecal.metrics import compute_accuracy, softmax_probs
from edgecal.prompts import permute_question, reorder

ONE_THREAD = CaptureSettings(n_threads=1)
RECORDS = make_questions(160, seed=2, n_choices=(2, 4))


@cache
def pair():
    folder = tiny_folder() / "compare"
    folder.mkdir()
    return write_tiny_pair(folder / "base.gguf", folder / "chat.gguf", seed=5, perturbation=0.3)


def compare(data=RECORDS, base=None, chat=None, **options):
    own_base, own_chat = pair()
    settings = {
        "settings": ONE_THREAD,
        "n_bootstrap": 50,
        "n_splits": 2,
        "fit_share": 0.5,
        "verbalized": False,
    }
    return edgecal.compare(base or own_base, chat or own_chat, data, **grouped(**(settings | options)))


@pytest.fixture(scope="module")
def ran():
    runs = []
    result = compare(
        on_progress=lambda p: (
            runs.append((p.stage, p.model, p.total)) if p.stage == "run" and p.n_tokens_done == 0 else None
        )
    )
    return result, runs


def row(result, name):
    return next(row for row in result.rows if row["name"] == name)


def test_each_model_runs_once_and_extra_runs_are_counted(ran):
    result, runs = ran
    assert runs == [("run", "base", 160), ("run", "chat", 160)]
    extra = result.extra_runs
    assert extra["verbalized"] is None and extra["effects"] is None
    # Four orders of each question's options, of which two options have only two; the given one is not run again.
    assert extra["cape"]["n_prompts"] == sum(min(4, math.factorial(len(r["choices"]))) - 1 for r in RECORDS)


def test_cape_is_the_mean_over_permuted_prompts(ran):
    """Against single evaluations of every permuted question, mapped back by hand."""
    result, _ = ran
    records = RECORDS[:12]
    got = compare(records, n_permutations=3, fit_share=0.1, n_splits=1)
    chat = pair()[1]
    questions = [
        edgecal.prompts.Question(r["question"], tuple(r["choices"]), r["answer"], r["subject"])
        for r in records
    ]
    orders = {question: permute_question(question, 3, 0) for question in questions}
    shown_as = {
        edgecal.load_prompts([reorder(question, order)])[0].text: (question, order)
        for question in questions
        for order in orders[question]
    }
    prompts = edgecal.load_prompts([reorder(*each) for each in shown_as.values()])
    captured = edgecal.capture(
        chat, chat, prompts, layers=False, run=RunOptions(settings=replace(ONE_THREAD, share=False))
    )
    shown = softmax_probs(captured.logits.chat_final, captured.logits.n_choices)
    probs = {question.question: np.zeros(len(question.choices)) for question in questions}
    for prompt, row_shown in zip(prompts, shown, strict=True):
        question, order = shown_as[prompt.text]
        for place, original in enumerate(order):
            probs[question.question][original] += row_shown[place] / len(orders[question])
    ordered = edgecal.load_prompts(records)
    judge = make_splits(len(records), [0], 0.1)[0].judge
    texts = {record["question"]: record for record in records}
    right = []
    for index in judge:
        question = next(text for text in texts if text in ordered[index].text)
        right.append(int(np.argmax(probs[question])) == texts[question]["answer"])
    assert row(got, "cape")["figures"]["accuracy"]["mean"] == pytest.approx(np.mean(right))
    assert row(result, "cape")["n_permutations"] == 4


def test_rows_judge_the_captured_logits(ran):
    result, _ = ran
    logits = edgecal.capture(
        *pair(), edgecal.load_prompts(RECORDS), run=RunOptions(settings=ONE_THREAD)
    ).logits
    part = logits.take(make_splits(160, [0, 1], 0.5)[1].judge)
    assert row(result, "plm")["figures"]["accuracy"]["values"][1] == compute_accuracy(
        part.base_final, part.labels
    )
    assert row(result, "polm")["figures"]["accuracy"]["values"][1] == compute_accuracy(
        part.chat_final, part.labels
    )


def test_basecal_proj_in_numpy():
    """Norm, head and map in float64 on the captured hidden states; only the choice of the ridge is the package's."""
    records = random_token_prompts(80, seed=3, answers=True)
    result = compare(records, n_permutations=0, method="daca")
    prompts = edgecal.load_prompts(records)
    captured = edgecal.capture(*pair(), prompts, hidden=True, run=RunOptions(settings=ONE_THREAD))
    base = ReferenceLlama(pair()[0])
    theirs, mine = (model.last_hidden.astype(np.float64) for model in (captured.base, captured.chat))
    offered = sorted({token for prompt in prompts for token in prompt.choice_tokens})
    theirs = (base.norm(theirs, "output_norm.weight") @ base.head.T)[:, offered]
    for at, split in enumerate(make_splits(80, [0, 1], 0.5)):
        x, y = mine[split.fit], theirs[split.fit]
        centred = x - x.mean(axis=0)
        penalty = fit_linear_map(x, y).ridge * np.linalg.norm(centred, 2) ** 2
        weight = np.linalg.solve(
            centred.T @ centred + penalty * np.eye(x.shape[1]), centred.T @ (y - y.mean(axis=0))
        )
        logits = np.full((len(split.judge), len(base.head)), np.nan)
        logits[:, offered] = y.mean(axis=0) + (mine[split.judge] - x.mean(axis=0)) @ weight
        sure, right = [], []
        for projected, index in zip(logits, split.judge, strict=True):
            ids = list(prompts[index].choice_tokens)
            answer = int(np.argmax(captured.chat.final_logits[index]))
            sure.append(np.exp(projected[ids[answer]]) / np.exp(projected[ids]).sum())
            right.append(answer == prompts[index].answer)
        figures = row(result, "basecal-proj")["figures"]
        assert figures["accuracy"]["values"][at] == np.mean(right)
        assert figures["confidence"]["values"][at] == pytest.approx(np.mean(sure), abs=1e-6)
        brier = np.mean((np.array(sure) - right) ** 2)
        assert figures["brier"]["values"][at] == pytest.approx(brier, abs=1e-6)
        assert figures["nll"]["values"][at] is None
        assert min(sure) < 0.25  # the base model's head prefers another choice there


def test_a_base_model_equal_to_the_chat_model_is_basecals_chat_model(tmp_path):
    same = write_tiny_pair(
        tmp_path / "base.gguf", tmp_path / "chat.gguf", seed=5, perturbation=0.0, sharpening=1.0
    )
    result = compare(RECORDS[:80], base=same[0], chat=same[1], n_permutations=0, method="daca")
    chat = row(result, "polm")["figures"]
    for name, tolerance in (
        ("basecal-reeval", 1e-5),
        ("basecal-proj", 0.02),
    ):  # 40 states for a map of 64 numbers
        for figure in ("accuracy", "confidence", "brier"):
            assert row(result, name)["figures"][figure]["values"] == pytest.approx(
                chat[figure]["values"], abs=tolerance
            )


def test_basecal_proj_is_left_out_for_a_reason():
    few = compare(RECORDS[:50], n_permutations=0, method="daca", projection=False)
    assert row(few, "basecal-proj")["withheld"] == "not asked for (--no-projection)"
    few = compare(RECORDS[:50], n_permutations=0, method="daca")
    assert row(few, "basecal-proj")["withheld"].endswith("needs at least 30 questions to fit on, got 25")


def test_what_it_says_about_itself(ran):
    result, _ = ran
    assert result.splits == {"n": 2, "fit_share": 0.5, "seeds": [0, 1], "n_fit": 80, "n_evaluate": 80}
    assert len(result.models["base"]["sha256"]) == 64
    assert result.data["n_questions"] == 160
    assert set(result.prompting["choice_mass"]) == {"base", "chat"}
    assert row(result, "verbalized")["withheld"] == "not asked for (--no-verbalized)"


def test_same_input_same_result(ran):
    again = compare(RECORDS[::-1]).to_dict()
    first = ran[0].to_dict()
    for result in (again, first):
        for model in result["models"].values():
            model.pop("peak_memory_bytes")
        for item in result["wrong"]:
            item.pop("where")
    assert again == first


def test_random_models_state_nothing(ran):
    result = compare(verbalized=True, n_permutations=0)
    stated = row(result, "verbalized")
    assert stated["withheld"].startswith("only ")
    assert stated["parsed_share"] < 0.5
    assert 64 <= result.extra_runs["verbalized"]["n_prompts"] <= 160
    assert result.extra_runs["verbalized"]["n_generated"] > 0
    assert row(result, "cape")["withheld"] == "not asked for (--permutations)"


def test_chat_template_and_worked_examples():
    result = compare(RECORDS[:60], chat_template="own", shots=1, effect_sample=10, n_permutations=2)
    assert result.models["chat"]["n_tokens"] > result.models["base"]["n_tokens"]
    names = [effect["name"] for effect in result.prompting["effects"]]
    assert names == [
        "the default template, nothing else",
        "1 worked example",
        "chat template",
        "as asked: 1 worked example, chat template",
    ]
    masses = [effect["choice_mass"]["base"] for effect in result.prompting["effects"]]
    assert masses[0] == masses[2] and masses[1] == masses[3]  # the base model stays plain
    assert result.extra_runs["effects"]["n_prompts"] == 2 * 3 * 10


def test_ready_made_prompts_withhold_what_needs_options():
    records = random_token_prompts(80, seed=3, answers=True)
    result = compare(records, verbalized=True)
    assert "ready-made prompt" in row(result, "cape")["withheld"]
    assert "ready-made prompt" in row(result, "verbalized")["withheld"]
    assert row(result, "daca")["temperature"]["mean"] is not None or row(result, "daca")["not_identified"]


def test_unlike_models_still_compare_outputs(tmp_path):
    other = write_tiny_llama(tmp_path / "base.gguf", seed=8, n_layer=3)
    result = compare(RECORDS[:80], base=other, n_permutations=0)
    assert "3 blocks (base) and 4 blocks (chat)" in row(result, "dual-align")["withheld"]
    assert "3 blocks (base) and 4 blocks (chat)" in row(result, "basecal-proj")["withheld"]
    assert row(result, "basecal-reeval")["figures"]["ece"]["mean"] is not None
    assert row(result, "plm")["figures"]["accuracy"]["mean"] is not None
    assert result.plots["layers"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_splits": 0}, "number of splits"),
        ({"fit_share": 1.0}, "share to fit on"),
        ({"n_permutations": -1}, "number of permutations"),
        ({"method": "magic"}, "unknown method"),
        ({"method": "vanilla"}, "fits nothing"),
        ({"data": RECORDS[:1]}, "cannot be split"),
        ({"data": make_questions(3, answers=False)}, "there is no answer"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(edgecal.InputError, match=message):
        compare(**options)


def test_baked_models_are_refused(tmp_path):
    from edgecal.baking.bake import bake as bake_model

    base, chat = pair()
    baked = tmp_path / "baked.gguf"
    bake_model(chat, baked, temperature=2.0)
    for models in ({"base": baked}, {"chat": baked}):
        with pytest.raises(edgecal.InputError, match="comparing methods on it would calibrate it twice"):
            compare(**models)
    with pytest.raises(edgecal.InputError, match="taking it as the reference"):
        edgecal.fit(baked, chat, RECORDS)
    with pytest.raises(edgecal.InputError, match="fitting it again"):
        edgecal.fit(base, baked, RECORDS)
    forced = edgecal.fit(
        base,
        baked,
        RECORDS,
        method="daca",
        run=RunOptions(settings=ONE_THREAD),
        output=OutputOptions(force_baked=True, unsettled=True),
    )
    assert (
        forced.temperature
        < edgecal.fit(
            base,
            chat,
            RECORDS,
            method="daca",
            run=RunOptions(settings=ONE_THREAD),
            output=OutputOptions(unsettled=True),
        ).temperature
    )
