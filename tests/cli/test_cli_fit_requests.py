"""`edgecal fit --requests` from a shell: what it prints, what it writes, how it ends."""

import json

import pytest
from support.calibrated import BASE
from support.prompts import write_json_lines
from support.sharp_pair import TEMPLATE, sharp_chat, tiny_requests

from edgecal.gguf.header import read_header
from edgecal.results.schema import make_schema
from edgecal.stamping.decision_record import read_decisions

OPTIONS = ["--method", "daca", "--shots", "0", "--template", TEMPLATE, "--bootstrap", "40", "-t", "1"]


@pytest.fixture(scope="module")
def one_cache(tmp_path_factory):
    """What these tests run is run once."""
    return tmp_path_factory.mktemp("requests-cache")


@pytest.fixture(autouse=True)
def use_one_cache(one_cache, _own_cache, monkeypatch):
    monkeypatch.setenv("EDGECAL_CACHE_DIR", str(one_cache))


@pytest.fixture
def fit(here, run):
    write_json_lines(here / "traffic.jsonl", tiny_requests(35))
    return lambda *options: run("fit", BASE, sharp_chat(), "--requests", "traffic.jsonl", *OPTIONS, *options)


def test_what_is_settled_is_written_and_the_rest_is_named(here, fit, run):
    with (here / "traffic.jsonl").open("a") as file:
        file.write('{"state": "cut off\n')
    done = fit("-o", "out.gguf")
    assert done.code == 0
    lines = {line.split()[0]: line.split() for line in done.out.splitlines() if line.strip()}
    assert lines["choice"][1].startswith("2.0") or lines["choice"][1] == "2"
    assert lines["choice"][-1] == lines["choice.3_5"][-1] == "yes" and lines["noul"][-1] == "no"
    assert "70 questions of 35 requests" in done.out and "out.gguf" in lines["output"]
    assert "edgecal: unsettled: noul: the base model puts only" in done.err
    assert "warning: skipped: traffic.jsonl, line 36: the request: is not valid JSON" in done.err
    assert list(read_decisions(read_header(here / "out.gguf")).groups) == ["choice", "choice.3_5"]
    assert "settled)" in run("show", "out.gguf").out
    assert fit("-o", "out.gguf", "--strict", "--force").code == 2


def test_as_json_it_is_what_the_schema_says(here, fit, run):
    jsonschema = pytest.importorskip("jsonschema")
    done = fit("--dry-run", "--json", "-q")
    assert done.code == 0
    jsonschema.validate(done.json, make_schema("fit"))
    assert [group["name"] for group in done.json["groups"]] == ["choice", "choice.3_5", "noul"]
    assert done.json["output"] is None and not (here / "sharp.calibrated.gguf").exists()
    (here / "r.json").write_text(done.out)
    stamped = run("stamp", sharp_chat(), "--from", "r.json", "-o", "s.gguf", "--json").json
    assert stamped["temperature"] is None
    assert "edgecal.temperature.choice.3_5" in {key["name"] for key in stamped["keys"]}
    for damage in ({"groups": 5}, {"groups": [5]}, {"groups": [{"name": "odd"}]}, {"requests": None}):
        (here / "bad.json").write_text(json.dumps(done.json | damage))
        bad = run("stamp", sharp_chat(), "--from", "bad.json", "-o", "t.gguf")
        assert bad.code == 2 and "bad.json: " in bad.err
    assert not (here / "t.gguf").exists()


def test_nothing_settled_is_exit_code_4(here, fit):
    write_json_lines(here / "traffic.jsonl", tiny_requests(5))
    done = fit("-o", "out.gguf")
    assert done.code == 4 and not (here / "out.gguf").exists()
    assert "refused: choice: 5 questions are too few" in done.err and "refused: noul: " in done.err
    assert "no temperature of any type is settled" in done.err
    assert "nothing written" in done.out


@pytest.mark.parametrize(
    "options",
    [
        ["--data", "x"],
        ["--labels", "x"],
        ["--anchor"],
        ["--all"],
        ["--plan"],
        ["--tolerance", "0.1"],
        ["--subject", "x"],
        ["--no-sampling-key"],
        ["--map", "question=q"],
    ],
)
def test_options_that_say_nothing_about_requests(fit, options):
    done = fit(*options)
    assert done.code == 2 and f"{options[0]} does not go with --requests" in done.err


def test_options_that_are_for_requests_alone(here, run):
    for options in (["--readout", "letters"], ["--orders", "2"]):
        done = run("fit", BASE, sharp_chat(), *options)
        assert done.code == 2 and "are for --requests" in done.err
    write_json_lines(here / "traffic.jsonl", tiny_requests(5))
    assert run("fit", BASE, sharp_chat(), "--requests", "traffic.jsonl", "--orders", "none").code == 2
