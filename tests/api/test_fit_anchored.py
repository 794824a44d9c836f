"""`edgecal fit` with a handful of labels, on the bundled pair."""

import copy
import json
import subprocess
import sys

import numpy as np
import pytest
from support.calibrated import BASE, CHAT, MODELS
from support.options import grouped
from support.prompts import write_json_lines

import edgecal
from edgecal import InputError, UnsettledError
from edgecal.calibration import anchored_doubts, fit_anchored
from edgecal.gguf.header import read_header
from edgecal.llama.settings import CaptureSettings
from edgecal.stamping.record import read_calibration

DEV = MODELS / "questions/dev.jsonl"
RECORDS = [json.loads(line) for line in DEV.read_text("utf-8").splitlines()[:330]]
LABELS, REST = RECORDS[:30], RECORDS[30:]
BARE = [{key: value for key, value in record.items() if key != "answer"} for record in RECORDS]


@pytest.fixture(scope="module")
def one_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("anchored-cache")


@pytest.fixture(autouse=True)
def use_one_cache(one_cache, _own_cache, monkeypatch):
    monkeypatch.setenv("EDGECAL_CACHE_DIR", str(one_cache))


def fit(data=BARE, labels=LABELS, **options):
    common = {"settings": CaptureSettings(n_threads=1), "n_bootstrap": 40, "method": "anchored"}
    return edgecal.fit(BASE, CHAT, data, labels=labels, **grouped(**(common | options)))


def as_bytes(result):
    values = copy.deepcopy(result.to_dict())
    for model in values["models"].values():
        del model["peak_memory_bytes"]
    return json.dumps(values)


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "edgecal", *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )


def test_thirty_labels_settle_it_and_the_result_says_which():
    result = fit()
    assert (result.method, result.settled, result.harmful, result.reasons) == ("anchored", True, None, [])
    assert result.n_labelled == result.anchor["n_labels"] == 30 and not result.anchor["weighted"]
    low, high = result.interval
    assert low < result.temperature < high < 2 * low and 2 < result.temperature < 5
    assert result.anchor["doubt"] < 0.05
    # the labels were spent on the fit, so nothing is judged by them
    assert result.label_check is None and result.ece is None and result.accuracy is None
    prompts = edgecal.load_prompts(BARE)
    answers = {edgecal.load_prompts([record])[0].text: record["answer"] for record in LABELS}
    captured = edgecal.capture(BASE, CHAT, prompts, layers=False)
    whole = fit(tolerance=None)
    assert whole.n_prompts == 330 and whole.adaptive is None
    logits = captured.logits
    labels = np.array([answers.get(prompt.text, -1) for prompt in prompts], dtype=np.int32)
    plain = fit_anchored(edgecal_logits(logits, labels), captured.choice_mass["base"])
    assert (whole.temperature, whole.interval) == (plain.temperature, plain.interval)
    assert whole.anchor["prior_temperature"] == plain.prior_temperature
    assert whole.anchor["prior_interval"] == list(plain.prior_interval)


def edgecal_logits(logits, labels):
    from dataclasses import replace

    return replace(logits, labels=labels)


def test_the_order_of_labels_and_prompts_does_not_touch_a_bit():
    assert as_bytes(fit()) == as_bytes(fit(BARE[::-1], LABELS[::-1]))


def test_answers_on_some_prompts_are_the_same_labels():
    mixed, apart = fit([*LABELS, *BARE[30:]], None), fit()
    for name in ("temperature", "interval", "n_prompts", "prompts_sha256"):
        assert getattr(mixed, name) == getattr(apart, name)
    assert mixed.anchor == apart.anchor


def test_other_answers_of_the_data_change_nothing():
    wrong = [record | {"answer": (record["answer"] + 1) % len(record["choices"])} for record in RECORDS]
    told, bare = fit(wrong), fit()
    assert (told.temperature, told.interval, told.anchor) == (bare.temperature, bare.interval, bare.anchor)
    assert any("330 prompts of the data have an answer, which was not used" in text for text in told.warnings)


def test_a_label_free_method_never_sees_the_answers():
    found = [fit(data, None, method="daca", unsettled=True) for data in (BARE, RECORDS)]
    assert found[0].temperature == found[1].temperature and found[0].interval == found[1].interval
    assert found[0].anchor is None


def test_it_runs_the_labelled_prompts_and_as_many_others_as_the_bracket_needs():
    result = fit(tolerance=0.1)
    found = result.adaptive
    assert 100 <= result.n_prompts < 330 == found["n_available"] and result.n_labelled == 30
    ends = result.bracket["low"], result.bracket["high"]
    assert found["looks"][-1]["temperature"] in ends and found["reached"] <= 0.1
    many = fit(BARE, RECORDS[:150], tolerance=0.5)
    assert many.n_prompts == many.n_labelled == many.adaptive["looks"][0]["n_prompts"] == 150


def test_one_label_is_enough_to_run_and_few_prompts_too():
    assert fit(BARE[:40], LABELS[:1], unsettled=True).anchor["n_labels"] == 1
    alone = fit(LABELS[:12], None, unsettled=True)  # too few for a bracket
    assert alone.n_prompts == 12 and alone.bracket["low"] is None and alone.adaptive["reached"] is None
    with pytest.raises(InputError, match="--anchor needs at least one"):
        fit(BARE, None)


def test_weights_count():
    drawn = [record | {"inclusion_probability": 0.1 if i < 15 else 1.0} for i, record in enumerate(LABELS)]
    weighted, even = fit(BARE, drawn, unsettled=True), fit()
    assert weighted.anchor["weighted"] and weighted.temperature != even.temperature
    assert weighted.anchor["sha256"] != even.anchor["sha256"]
    same = fit(BARE, [record | {"inclusion_probability": 0.5} for record in LABELS])
    assert same.temperature == pytest.approx(even.temperature, rel=1e-9)


def test_an_unsettled_one_is_refused_as_any_other(monkeypatch, tmp_path):
    monkeypatch.setattr(anchored_doubts, "MAX_ANCHORED_RATIO", 1.1)
    with pytest.raises(UnsettledError) as caught:
        fit(output=tmp_path / "no.gguf")
    (reason,) = caught.value.result.reasons
    assert "with 30 labels" in reason and "labels" in reason.partition(": ")[2]
    assert not caught.value.result.settled and not (tmp_path / "no.gguf").exists()
    fit(output=tmp_path / "marked.gguf", unsettled=True)
    record = read_calibration(read_header(tmp_path / "marked.gguf"))
    assert record.reasons == (reason,) and record.settled is False


def test_the_command_writes_the_record_and_show_shows_it(tmp_path):
    data = write_json_lines(tmp_path / "data.jsonl", BARE)
    labels = write_json_lines(tmp_path / "labels.jsonl", LABELS)
    common = ["fit", BASE, CHAT, "--data", data, "-t", "1", "--bootstrap", "40", "-o", tmp_path / "out.gguf"]
    done = run(*common, "--labels", labels, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["anchor"]["files"] == [str(labels)] and said["data"]["files"] == [str(data), str(labels)]
    assert "end of the bracket" in done.stderr
    record = read_calibration(read_header(tmp_path / "out.gguf"))
    assert (record.method, record.labels_count, record.labels_sha256) == (
        "anchored",
        30,
        said["anchor"]["sha256"],
    )
    shown = json.loads(run("show", tmp_path / "out.gguf", "--json").stdout)["calibration"]
    assert shown["edgecal.labels.count"] == 30 and shown["edgecal.labels.sha256"] == said["anchor"]["sha256"]
    (tmp_path / "fit.json").write_text(done.stdout, "utf-8")
    edgecal.stamp(CHAT, tmp_path / "again.gguf", fit=tmp_path / "fit.json")
    assert (tmp_path / "again.gguf").read_bytes() == (tmp_path / "out.gguf").read_bytes()
    del said["anchor"]  # from a version without it
    edgecal.stamp(CHAT, tmp_path / "old.gguf", fit=said)
    assert read_calibration(read_header(tmp_path / "old.gguf")).labels_count is None

    table = run(*common, "--labels", labels, "--force", "-q")
    lines = dict(line.split("  ", 1) for line in table.stdout.splitlines() if "  " in line)
    assert lines["labels"].strip().startswith(f"30 from {labels}")
    assert lines["settled"].strip() == "yes, by prompts and labels together" and "without them" in lines
    planned = run(*common, "--labels", labels, "--plan", "--json", "-q")
    assert json.loads(planned.stdout)["n_questions"] == 330
    clash = run(*common[:-1], labels, "--labels", labels, "-q", "--force")
    assert clash.returncode == 2 and str(labels) in clash.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--anchor", "--method", "daca"), "--anchor is for --method anchored, and the method is daca"),
        (("--labels", DEV, "--method", "ts"), "--labels is for --method anchored, and the method is ts"),
        (("--labels", DEV, "--anchor"), "exclude each other"),
        (("--method", "anchored"), "give --labels FILE, or --anchor"),
        (("--anchor", "--ise", "mean"), "ise does not apply to method anchored"),
        (("--anchor",), "--anchor needs at least one prompt"),
        (("--labels", "missing.jsonl"), "missing.jsonl: no such file"),
        (("--labels", MODELS / "questions/unlabelled.jsonl"), "no record of the labels has an answer"),
    ],
)
def test_what_does_not_go_together(options, said):
    data = MODELS / "questions/unlabelled.jsonl"
    done = run("fit", BASE, CHAT, "--data", data, *options, "--dry-run", "-q")
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if said in line]) == 1


def test_compare_refuses_it_before_it_runs():
    with pytest.raises(InputError, match="anchored is in every comparison"):
        edgecal.compare(BASE, CHAT, DEV, method="anchored")
