"""What is handed in as a result: complete ones pass, every way of being wrong has its one line."""

import copy

import pytest
from support.results import compare_result, eval_result, hostile_result, minimal_result

from edgecal.errors import InputError
from edgecal.report import check_result, render_html

DELETE = object()


def changed(result, path, value):
    """The result with the item at a path replaced, or deleted."""
    result = copy.deepcopy(result)
    *way, last = path
    target = result
    for key in way:
        target = target[key]
    if value is DELETE:
        del target[last]
    else:
        target[last] = value
    return result


@pytest.mark.parametrize("kind", ["eval", "compare"])
@pytest.mark.parametrize("make", [None, minimal_result, hostile_result])
def test_results_pass_and_stay_as_they_are(kind, make):
    result = make(kind) if make else {"eval": eval_result, "compare": compare_result}[kind]()
    before = copy.deepcopy(result)
    checked = check_result(result, "here")
    assert result == before
    assert checked.figures == result["figures"]
    assert checked.plots["reliability"]["before"] == result["plots"]["reliability"]["before"]


def test_what_may_be_null_may_be_missing():
    result = eval_result()
    for path in (
        ("bootstrap",),
        ("warnings",),
        ("wrong",),
        ("temperature",),
        ("plots", "loss"),
        ("figures", "after"),
    ):
        result = changed(result, path, DELETE)
    checked = check_result(result, "here")
    assert checked.bootstrap["n"] == 0 and checked.temperature == {"value": None, "source": None}
    assert checked.warnings == [] and checked.wrong == []
    assert checked.plots["loss"] is None and checked.figures["after"] is None


@pytest.mark.parametrize("make", [eval_result, compare_result])
def test_whatever_an_older_version_did_not_print_may_be_missing(make):
    result = make()
    for key in ("runtime", "subjects", "bracket", "settled", "harmful", "reasons", "ablations", "extra_runs",
                "learning_curve", "scalings"):  # fmt: skip
        result.pop(key, None)
    for key in ("formats", "decisions", "n_skipped", "skipped", "sha256", "limit", "seed", "subjects"):
        del result["data"][key]
    for key in ("template", "shots", "chat_template", "choice_mass", "effects"):
        del result["prompting"][key]
    for row in result.get("rows", ()):
        for key in (
            "variant",
            "figures",
            "not_identified",
            "n_labelled",
            "n_worse",
            "withheld",
            "parsed_share",
        ):
            del row[key]
    checked = check_result(result, "here")
    assert checked.data["n_skipped"] == 0 and checked.prompting["choice_mass"] == {}
    assert "Calibration of" in render_html(result)


def test_unknown_keys_do_no_harm_and_what_ran_is_kept_as_it_stands():
    result = changed(eval_result(), ("data", "later"), 1) | {"later": 1, "runtime": {"later": [1]}}
    assert check_result(result, "here").runtime == {"later": [1]}


@pytest.mark.parametrize(
    "value", [None, 3, "text", [], [1], {}, {"kind": None}, {"kind": []}, {"kind": "fit"}, True]
)
def test_no_result_at_all(value):
    with pytest.raises(InputError, match=r"^some\.json: ") as caught:
        check_result(value, "some.json")
    assert "\n" not in str(caught.value)
    assert "edgecal eval --json" in str(caught.value)


REL, RISK, LOSS, LAYERS = ("plots", "reliability", "before"), ("plots", "risk_coverage", "before"), \
    ("plots", "loss"), ("plots", "layers")  # fmt: skip


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        (("verdict",), DELETE, "verdict is missing"),
        (("verdict",), 5, "verdict should be text, got a number"),
        (("plots",), DELETE, "plots is missing"),
        (("plots",), [], "plots should be an object, got a list"),
        (("models", "chat"), None, "models.chat should be an object, got null"),
        (("models", "chat", "path"), DELETE, "models.chat.path is missing"),
        (("data", "files"), "f.csv", "data.files should be a list, got text"),
        (("data", "files", 0), 3, "data.files[0] should be text, got a number"),
        (("data", "n_questions"), 1.5, "data.n_questions should be a whole number"),
        (("data", "n_questions"), True, "data.n_questions should be a whole number, got true or false"),
        (("data", "n_questions"), -1, "data.n_questions is -1, expected 0 or more"),
        (("data", "n_questions"), 10**30, "data.n_questions is 1000"),
        (("figures", "before", "ece"), 0.3, "figures.before.ece should be an object, got a number"),
        (("figures", "before", "ece", "value"), "0.3", "figures.before.ece.value should be a number or null, got text"),
        (("figures", "before", "ece", "value"), float("nan"), "figures.before.ece.value is nan"),
        (("figures", "before", "ece", "value"), float("inf"), "figures.before.ece.value is inf"),
        (("figures", "before", "ece", "value"), 10**400, "figures.before.ece.value is 1000"),
        ((*REL, "n"), [1, 2], "plots.reliability.before.confidence has 10 items, but n has 2"),
        ((*REL, "n"), [], "plots.reliability.before.n is empty"),
        ((*REL, "edges"), [0, 1], "plots.reliability.before.edges has 2 items, expected 11"),
        ((*REL, "edges", 3), 0.1, "plots.reliability.before.edges does not increase"),
        ((*REL, "accuracy", 9), 1.5, "plots.reliability.before.accuracy[9] is 1.5, expected at most 1"),
        ((*REL, "accuracy", 9), None, "plots.reliability.before: bin 9 holds"),
        (REL, None, "plots.reliability.before should be an object, got null"),
        ((*RISK, "risk"), [0.5], "plots.risk_coverage.before.risk has 1 items, but coverage has"),
        ((*RISK, "coverage", 0), "0", "plots.risk_coverage.before.coverage[0] should be a number"),
        ((*LOSS, "loss"), [1.0], "plots.loss.loss has 1 items, but temperature has 121"),
        ((*LOSS, "temperature", 0), 0, "plots.loss.temperature[0] is 0, expected above 0"),
        ((*LOSS, "temperature", 0), 3.0, "plots.loss.temperature does not increase"),
        ((*LOSS, "chosen"), -1, "plots.loss.chosen is -1, expected above 0"),
        ((*LOSS, "interval"), [1.0], "plots.loss.interval has 1 items, expected 2"),
        ((*LOSS, "bracket", "low"), 0, "plots.loss.bracket.low is 0, expected above 0"),
        ((*LOSS, "bracket", "high_interval"), [1], "plots.loss.bracket.high_interval has 1 items, expected 2"),
        ((*LAYERS, "agreement"), [0.1], "plots.layers.agreement has 1 items, but layer has 8"),
        ((*LAYERS, "pdl_histogram", 0), -1, "plots.layers.pdl_histogram[0] is -1"),
        (("wrong", 0, "answer"), 4, "wrong[0].answer is 4, but there are 4 choices"),
        (("wrong", 0, "confidence_before"), 1.01, "wrong[0].confidence_before is 1.01, expected at most 1"),
        (("rows", 0, "uses_labels"), "no", "rows[0].uses_labels should be true or false, got text"),
        (("rows", 0, "figures", "ece", "mean"), [], "rows[0].figures.ece.mean should be a number or null, got a list"),
        (("ablations", "lambda", 0, "lambda"), -0.1, "ablations.lambda[0].lambda is -0.1"),
        (("splits",), DELETE, "splits is missing"),
        (("headline", "temperature"), 0, "headline.temperature is 0, expected above 0"),
        (("warnings", 0), {}, "warnings[0] should be text, got an object"),
        (("warnings",), None, "warnings should be a list, got null"),
        (("prompting", "choice_mass", "chat"), "0.5", "prompting.choice_mass.chat should be a number, got text"),
        (("ablations", "ise", 1, "ece", "sd"), "0.5", "ablations.ise[1].ece.sd should be a number or null, got text"),
        (("data", "seed"), 1 << 200, "a seed is 16069"),
        (("learning_curve", "lines", 1, "points", 1, "n_labels"), 10,
         "learning_curve.lines[1].points' n_labels does not increase"),
        (("scalings", "rows", 0, "form"), "matrix", 'scalings.rows[0].form is "matrix"'),
        (("plots", "loss", "unit"), "bits", 'plots.loss.unit is "bits"'),
    ],
)  # fmt: skip
def test_every_way_of_being_wrong(path, value, complaint):
    with pytest.raises(InputError) as caught:
        check_result(changed(compare_result(), path, value), "r.json")
    assert str(caught.value).startswith(f"r.json: {complaint}"), str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_too_many_items():
    with pytest.raises(InputError, match="at most 100000 can be shown"):
        check_result(changed(eval_result(), ("warnings",), ["w"] * 100_001), "r.json")
