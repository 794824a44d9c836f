"""The real pair, whose calibration error every label-free method multiplies: refused, soon, and with the reasons."""

import json

import pytest
from support.real_runs import edgecal_json

import edgecal as api
from edgecal.calibration import fit_bracket


@pytest.fixture(scope="module")
def tasks(real_data):
    """2,100 few-shot prompts of three public tasks, with answers."""
    return real_data / "tasks-cal.jsonl"


def test_the_pair_is_unsettled_which_is_clear_after_the_first_look(real_pair, tasks, tmp_path):
    output = tmp_path / "out.gguf"
    said = edgecal_json("fit", *real_pair, "--data", tasks, "-o", output, code=4)
    assert not output.exists() and said["output"] is None and not said["settled"]
    assert said["adaptive"]["stopped"] == "hopeless" and said["n_prompts"] <= 200
    mass, ratio, labels = said["reasons"]
    assert "of its probability on the choices" in mass and "--shots" in mass
    assert "a ratio of" in ratio and "at most 2" in ratio
    assert said["harmful"] and "negative log-likelihood" in labels
    assert any("worked examples" in warning for warning in said["warnings"])


def test_200_labelled_prompts_refuse_it_as_harmful(real_pair, tasks, tmp_path):
    output = tmp_path / "out.gguf"
    run = ["fit", *real_pair, "--data", tasks, "--limit", 200, "--all", "-o", output]
    said = edgecal_json(*run, code=4)
    check = said["label_check"]
    assert said["harmful"] and check["n"] == 200 and check["interval"][1] > 0 and not output.exists()
    for figure in ("nll_before", "nll_after"):
        assert f"{check[figure]:.4f}" in said["reasons"][-1]
    # As all 2,100 say: low 3.2, high about 12 (the project's notes on this pair).
    assert 2.5 < said["bracket"]["low"] < 4 and 8 < said["bracket"]["high"] < 16
    assert said["ece"]["after"] > 2 * said["ece"]["before"]


def test_without_answers_it_is_refused_all_the_same_and_unsettled_writes_it_marked(
    real_pair, tasks, tmp_path
):
    data, output = tmp_path / "data.jsonl", tmp_path / "out.gguf"
    records = [json.loads(line) for line in tasks.read_text("utf-8").splitlines()[:120]]
    data.write_text(
        "\n".join(json.dumps({key: r[key] for key in ("prompt", "labels")}) for r in records), "utf-8"
    )
    run = ["fit", *real_pair, "--data", data, "--method", "daca", "-o", output]
    refused = edgecal_json(*run, code=4)
    assert (refused["settled"], refused["harmful"], refused["label_check"]) == (False, None, None)
    written = edgecal_json(*run, "--unsettled")
    assert written["output"] == str(output) and written["reasons"]
    shown = edgecal_json("show", output)["calibration"]
    assert shown["edgecal.settled"] is False and shown["edgecal.reasons"] == written["reasons"]


def test_a_sharpened_copy_has_a_bracket_of_one_point(real_model, real_sharpened, real_questions, tmp_path):
    """Its logits are its base's twice: both readings of the pair come to 2."""
    data = tmp_path / "questions.jsonl"
    data.write_text("\n".join(map(json.dumps, real_questions[:40])), encoding="utf-8")
    prompts = api.load_prompts(data)
    bracket = fit_bracket(api.capture(real_model, real_sharpened, prompts, layers=False).logits)
    assert (bracket.low, bracket.high) == (pytest.approx(2, rel=1e-4), pytest.approx(2, rel=1e-4))
