"""A temperature that may do harm, from a shell: refused, or written and told of by whoever meets the file."""

import json
import subprocess
import sys

import pytest
from support.calibrated import BASE, CHAT, MODELS, bake, stamp

import edgecal
from edgecal import UnsettledWarning
from edgecal.gguf.header import read_header
from edgecal.stamping.record import read_calibration

DEV = MODELS / "questions/dev.jsonl"
REASON = "the bracket is too wide"
MARKED = "unreliable"


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "edgecal", *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("unsettled")


@pytest.fixture(scope="module")
def marked(folder):
    facts = {"bracket": (1.5, None), "settled": False, "harmful": True, "reasons": (REASON,)}
    return stamp(folder / "marked.gguf", **facts)


@pytest.fixture(scope="module")
def as_it_is(folder):
    """Questions with the chat model's own answers: it is right always, so every doubt that it is taught is wrong."""
    records = [json.loads(line) for line in DEV.read_text("utf-8").splitlines()[:150]]
    prompts = edgecal.load_prompts(records)
    chosen = edgecal.capture(BASE, CHAT, prompts, layers=False).logits.chat_final.argmax(axis=1)
    answers = dict(zip((prompt.text for prompt in prompts), map(int, chosen), strict=True))
    data = folder / "as-it-is.jsonl"
    lines = [
        json.dumps(record | {"answer": answers[edgecal.load_prompts([record])[0].text]}) for record in records
    ]
    data.write_text("\n".join(lines), "utf-8")
    return data


def fit(*options):
    return run("fit", BASE, CHAT, "-t", "1", "--bootstrap", "40", *options)


def test_right_answers_confirm_a_settled_temperature(folder):
    done = fit("--data", DEV, "--limit", "150", "--json", "-o", folder / "right.gguf")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["settled"], said["harmful"], said["reasons"]) == (True, False, [])
    bracket, check = said["bracket"], said["label_check"]
    assert bracket.keys() == {"low", "high", "low_interval", "high_interval"}
    assert (
        bracket["low"] < said["temperature"] < 1.05 * bracket["high"] and bracket["high"] < 2 * bracket["low"]
    )
    for end in ("low", "high"):
        assert bracket[f"{end}_interval"][0] < bracket[end] < bracket[f"{end}_interval"][1]
    assert (
        check["found"] == "better" and check["nll_after"] < check["nll_before"] and check["interval"][1] < 0
    )
    record = read_calibration(read_header(folder / "right.gguf"))
    assert record.bracket == pytest.approx((bracket["low"], bracket["high"]), rel=1e-6)
    assert (record.settled, record.harmful, record.doubts) == (True, False, ())


def test_a_harmful_temperature_is_refused_with_both_figures(folder, as_it_is):
    data = as_it_is
    done = fit("--data", data, "--method", "naive", "--json", "-o", folder / "harmful.gguf")
    assert done.returncode == 4 and not (folder / "harmful.gguf").exists()
    said = json.loads(done.stdout)
    assert (
        said["settled"]
        and said["harmful"]
        and said["output"] is None
        and said["label_check"]["found"] == "worse"
    )
    *reasons, last = [line for line in done.stderr.splitlines() if "refused" in line]
    assert reasons == [f"edgecal: refused: {reason}" for reason in said["reasons"]] and len(reasons) == 1
    for figure in ("nll_before", "nll_after"):
        assert f"{said['label_check'][figure]:.4f}" in reasons[0]
    assert "--unsettled" in last and done.stderr.endswith(last + "\n")

    table = fit("--data", data, "--method", "naive", "-q", "--dry-run")
    assert table.returncode == 4 and "settled      yes, but labels speak against it" in table.stdout
    written = fit("--data", data, "--method", "naive", "-q", "--unsettled", "-o", folder / "harmful.gguf")
    assert written.returncode == 0 and written.stderr == "" and "written all the same" in written.stdout
    record = read_calibration(read_header(folder / "harmful.gguf"))
    assert (record.settled, record.harmful, record.reasons) == (True, True, tuple(said["reasons"]))
    unchanged = fit("--data", data, "--method", "vanilla", "-q", "--dry-run")
    assert unchanged.returncode == 0  # it changes nothing, so it harms nothing


def test_show_says_it(marked):
    done = run("show", marked)
    assert done.returncode == 0 and MARKED in done.stderr and REASON in done.stderr
    assert "edgecal.settled" in done.stdout and "1.5, none" in done.stdout
    said = json.loads(run("show", marked, "--json").stdout)["calibration"]
    assert (said["edgecal.settled"], said["edgecal.harmful"]) == (False, True)
    assert (said["edgecal.bracket"], said["edgecal.reasons"]) == ([1.5, None], [REASON])


def test_ask_and_export_say_it(marked):
    asked = run("ask", marked, "Which?", "-c", "one", "-c", "two", "-t", "1")
    assert asked.returncode == 0 and REASON in asked.stderr and "Warning" not in asked.stderr
    quiet = run("ask", marked, "Which?", "-c", "one", "-c", "two", "-t", "1", "--json", "-q")
    assert quiet.stderr == "" and json.loads(quiet.stdout)["calibration"]["doubts"] == [REASON]
    for target in ("ollama", "llama-server", "llama-cli", "llama-cpp-python", "lmstudio", "json"):
        done = run("export", marked, "--to", target)
        told = done.stderr if target == "lmstudio" else done.stdout
        assert done.returncode == 0 and MARKED in told and REASON in told, target


def test_load_warns_in_our_own_category(marked):
    with pytest.warns(UnsettledWarning, match=REASON) as caught, edgecal.load(marked, n_threads=1) as model:
        assert model.calibration.doubts == (REASON,)
        assert MARKED in model.calibration.sentence
    assert len(caught) == 1 and caught[0].filename == __file__


def test_eval_and_compare_say_it(marked):
    options = ["--data", DEV, "--limit", "60", "-t", "1", "--bootstrap", "20"]
    done = run("eval", marked, *options, "--json")
    assert done.returncode == 0 and REASON in done.stderr
    assert any(REASON in warning for warning in json.loads(done.stdout)["warnings"])
    other = json.loads(run("eval", marked, *options, "--json", "--temperature", "2").stdout)
    assert not any(REASON in warning for warning in other["warnings"])
    compared = run("compare", BASE, marked, *options, "--json", "--permutations", "0", "--no-verbalized")
    assert any(REASON in warning for warning in json.loads(compared.stdout)["warnings"])


def test_baking_keeps_the_marks_and_what_is_left_of_the_bracket(marked, folder):
    done = run("bake", marked, "-o", folder / "baked.gguf", "--no-check")
    assert done.returncode == 0 and REASON in done.stderr
    record = read_calibration(read_header(folder / "baked.gguf"))
    was = read_calibration(read_header(marked))
    assert record.bracket == (pytest.approx(1.5 / was.temperature, rel=1e-6), None)
    assert (record.temperature, record.settled, record.harmful, record.reasons) == (
        1.0,
        False,
        True,
        (REASON,),
    )
    assert run("unbake", folder / "baked.gguf", "-o", folder / "back.gguf").returncode == 0
    assert (folder / "back.gguf").read_bytes() == marked.read_bytes()
    other = bake(folder / "other.gguf", source=marked, temperature=2.0)  # not what the marks are about
    assert read_calibration(read_header(other)).doubts == ()
