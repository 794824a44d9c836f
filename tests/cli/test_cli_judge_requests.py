"""`edgecal eval --requests` and `edgecal compare --requests` as a user runs them."""

import json
import subprocess
import sys

import pytest
from support.calibrated import BASE, CHAT
from support.prompts import write_json_lines
from support.sharp_pair import tiny_requests

import edgecal

QUICK = ["-t", "1"]


@pytest.fixture
def data(tmp_path):
    bad = {"state": "s", "questions": {}}
    return write_json_lines(tmp_path / "r.jsonl", [bad, *tiny_requests(6, noul=False, answers=True)])


def run(*arguments):
    command = [sys.executable, "-m", "edgecal", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, timeout=200, text=True, encoding="utf-8")


def test_eval_prints_a_table_a_report_and_json(data, tmp_path):
    page = tmp_path / "page.html"
    told = run("eval", CHAT, "--requests", data, "--bootstrap", "20", "--report", page, *QUICK)
    assert told.returncode == 0, told.stderr
    assert (
        "Typed questions" in told.stdout and "choice.3_5" in told.stdout and "orders choices" in told.stdout
    )
    assert f"skipped: {data}, line 1" in told.stderr
    assert "By type of question" in page.read_text("utf-8")
    found = json.loads(run("eval", CHAT, "--requests", data, "--bootstrap", "20", "--json", *QUICK).stdout)
    assert edgecal.EvalResult(**found).typed["groups"][0]["n"] == 6
    strict = run("eval", CHAT, "--requests", data, "--strict", *QUICK)
    assert strict.returncode == 2 and "line 1" in strict.stderr


def test_compare_prints_a_table_and_json(data):
    quick = ["--splits", "1", "--method", "daca", *QUICK]
    told = run("compare", BASE, CHAT, "--requests", data, *quick)
    assert told.returncode == 0, told.stderr
    assert "choice, 6 questions" in told.stdout and "sums-orders" in told.stdout
    found = json.loads(run("compare", BASE, CHAT, "--requests", data, "--json", *quick).stdout)
    assert [group["name"] for group in found["groups"]] == ["choice"]


@pytest.mark.parametrize("command", [("eval", CHAT), ("compare", BASE, CHAT)])
def test_options_that_do_not_go_together(command, data):
    for options, words in (
        ((), "Missing option '--data' or '--requests'"),
        (("--requests", data, "--data", data), "--data does not go with --requests"),
        (("--requests", data, "--subject", "x"), "--subject does not go with --requests"),
        (("--data", data, "--orders", "2"), "--readout and --orders are for --requests"),
        (("--requests", data, "--orders", "0"), "orders is '0'"),
    ):
        told = run(*command, *options)
        assert told.returncode == 2 and words in told.stderr, told.stderr
