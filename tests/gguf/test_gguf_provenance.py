"""A fit's JSON as a calibration record, and every way in which it can be something else."""

import copy
import json

import pytest

from edgecal.errors import InputError
from edgecal.stamping.fit_record import name_of_chat, record_of_result

RESULT = {
    "temperature": 2.31,
    "interval": [2.2, 2.43],
    "method": "dual-align",
    "variant": {"ise": "mixture", "tau_scope": "all", "combine": "sum", "lambda": 0.1},
    "n_prompts": 500,
    "agreement_rate": 0.81,
    "bracket": {"low": 1.9, "high": None, "low_interval": [1.8, 2.0], "high_interval": None},
    "settled": False,
    "harmful": True,
    "reasons": ["no high end", "labels"],
    "prompts_sha256": "ab" * 32,
    "models": {"base": {"name": "Base", "sha256": "cd" * 32}, "chat": {"name": "Chat"}},
    "runtime": {"llama_cpp": "b1234", "edgecal": "0.1.0"},
}


def test_every_field():
    found = record_of_result(json.dumps(RESULT), "r.json")
    assert vars(found) == {
        "temperature": 2.31,
        "interval": (2.2, 2.43),
        "method": "dual-align",
        "variant": "ise=mixture tau_scope=all combine=sum lambda=0.1",
        "target": "choices",
        "prompts_count": 500,
        "prompts_sha256": "ab" * 32,
        "labels_count": None,
        "labels_sha256": None,
        "agreement_rate": 0.81,
        "bracket": (1.9, None),
        "settled": False,
        "harmful": True,
        "reasons": ("no high end", "labels"),
        "base_name": "Base",
        "base_sha256": "cd" * 32,
        "llama_cpp": "b1234",
        "version": "0.1.0",
    }


def test_a_result_from_before_there_was_a_bracket():
    old = {
        name: value
        for name, value in RESULT.items()
        if name not in ("bracket", "settled", "harmful", "reasons")
    }
    found = record_of_result(json.dumps(old), "r.json")
    assert (found.bracket, found.settled, found.harmful, found.reasons, found.doubts) == (
        None,
        None,
        None,
        (),
        (),
    )


def test_options_that_do_not_apply_are_left_out():
    result = {**RESULT, "variant": {"ise": None, "tau_scope": None, "combine": None, "lambda": None}}
    assert record_of_result(json.dumps(result), "r.json").variant == ""


def changed(path, value):
    result = copy.deepcopy(RESULT)
    *parents, last = path.split(".")
    inner = result
    for name in parents:
        inner = inner[name]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return result


WRONG = [
    ("temperature", 0, "positive"),
    ("temperature", -1, "positive"),
    ("temperature", "2.3", "positive"),
    ("temperature", True, "positive"),
    ("temperature", float("nan"), "positive"),
    ("temperature", float("inf"), "positive"),
    ("temperature", 10**400, "positive"),
    ("interval", [1], "two numbers in order"),
    ("interval", [2, 1], "two numbers in order"),
    ("interval", ["1", "2"], "two numbers in order"),
    ("interval", [1, float("nan")], "two numbers in order"),
    ("interval", None, "is missing"),
    ("method", 3, "expected text"),
    ("method", "\ud800", "half a character"),
    ("variant", [], "expected an object"),
    ("variant", {"ise": "\ud800"}, "half a character"),
    ("variant", {"lambda": {}}, "expected text"),
    ("variant", {"combine": True}, "expected text"),
    ("n_prompts", 1.5, "whole number"),
    ("n_prompts", -1, "whole number"),
    ("n_prompts", 2**32, "whole number"),
    ("agreement_rate", 1.01, "0 to 1"),
    ("bracket", [1.9, 4], "expected an object"),
    ("bracket.low", 0, "positive number or null"),
    ("bracket.low", "1.9", "positive number or null"),
    ("settled", 1, "true or false"),
    ("harmful", "no", "true or false"),
    ("reasons", "why", "list of texts"),
    ("models.base", None, "expected an object"),
    ("models.base.sha256", None, "models.base: sha256 is missing"),
    ("runtime", [], "expected an object"),
    ("runtime.edgecal", 1, "runtime: edgecal is 1"),
]


@pytest.mark.parametrize(("path", "value", "part"), WRONG)
def test_a_wrong_field_is_named(path, value, part):
    with pytest.raises(InputError, match=part) as caught:
        record_of_result(json.dumps(changed(path, value)), "r.json")
    assert str(caught.value).startswith("r.json: ")
    assert path.rsplit(".", 1)[-1] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "not JSON"),
        ("GGUF\0\0", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("{" * 10, "not JSON"),
        ("[1]", "expected the object"),
        ("null", "expected the object"),
        ("{}", "not the result of a fit"),
        ('{"kind": "eval", "temperature": {"value": 2}}', "result of edgecal eval"),
        ('{"kind": "compare", "models": {}}', "result of edgecal compare"),
        ('{"temperature": 2}', "not the result of a fit"),
        ("9" * 5000, "not JSON"),
    ],
)
def test_what_is_no_fit_is_said(text, part):
    with pytest.raises(InputError, match=part) as caught:
        record_of_result(text, "r.json")
    assert "edgecal fit --json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("models", "name"),
    [({"chat": {"name": "Chat"}}, "Chat"), ({"chat": {"name": 3}}, None), ({"chat": []}, None), ([], None)],
)
def test_whose_fit_it_is(models, name):
    assert name_of_chat(json.dumps(RESULT | {"models": models}), "r.json") == name
