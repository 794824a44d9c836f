"""Every example does what it says, on the bundled chat model, stamped and baked. (The shell script needs llama.cpp's
own programs, which `tests/tools/run.py` builds; it is run there.)"""

import json
import re
import runpy
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import llama_cpp
import numpy as np
import pytest
from support.calibrated import CHAT, MODELS, bake, stamp
from support.pages import code_block

from edgecal.prompts import PromptTemplate, Question
from edgecal.runtime import load

EXAMPLES = Path(__file__).parents[2] / "examples"
LINES = (MODELS / "questions/dev.jsonl").read_text("utf-8").splitlines()
RECORD = json.loads(LINES[5])
SITE = Path(llama_cpp.__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("examples")


@pytest.fixture(scope="module")
def stamped(folder):
    return stamp(folder / "stamped.gguf")


@pytest.fixture(scope="module")
def baked(folder, stamped):
    return bake(folder / "baked.gguf", source=stamped, temperature=None)


def run(*command, timeout=120, cwd=None):
    return subprocess.run(
        [str(word) for word in command], capture_output=True, encoding="utf-8", timeout=timeout, cwd=cwd
    )


def test_the_app_that_abstains(folder, stamped):
    (folder / "labelled.jsonl").write_text("\n".join(LINES[:150]), encoding="utf-8")
    (folder / "questions.jsonl").write_text("\n".join(LINES[150:165]), encoding="utf-8")
    arguments = [EXAMPLES / "abstain.py", stamped, folder / "labelled.jsonl", folder / "questions.jsonl"]
    result = run(sys.executable, *arguments, "0.55")
    assert result.returncode == 0, result.stderr
    about, threshold, *answers = result.stdout.splitlines()
    assert "3.843" in about
    lowest = float(re.search(r"confidence of ([\d.]+) on", threshold)[1])
    assert len(answers) == 15
    with load(stamped) as model:
        for line, text in zip(answers, LINES[150:165], strict=True):
            record = json.loads(text)
            answer = model.choose(record["question"], record["choices"])
            said = answer.text if answer.confidence >= lowest else "I do not know"
            assert line == f"{record['question']}  {said}  ({answer.confidence:.0%})"
    assert 0 < sum("I do not know" in line for line in answers) < 15
    impossible = run(sys.executable, *arguments, "0.99")
    assert impossible.returncode != 0 and "Traceback" not in impossible.stderr
    assert "no threshold can be guaranteed" in impossible.stderr


@contextmanager
def served(model, log):
    """llama-cpp-python's server with this model; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(model), "--n_ctx", "512"]
    with log.open("w") as output:
        process = subprocess.Popen([*command, "--port", str(port)], stdout=output, stderr=output)
        try:
            stop = time.monotonic() + 60
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=5).close()
                    break
                except (urllib.error.URLError, ConnectionError):
                    assert process.poll() is None and time.monotonic() < stop, log.read_text()
                    time.sleep(0.1)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait(timeout=30)


def test_a_server_of_a_baked_model_reports_calibrated_log_probabilities(folder, stamped, baked):
    with load(stamped) as model:
        expected = model.choose(RECORD["question"], RECORD["choices"]).probs
    found = {}
    for path in (baked, stamped):
        with served(path, folder / "server.log") as url:
            result = run(
                sys.executable, EXAMPLES / "ask_server.py", url, RECORD["question"], *RECORD["choices"]
            )
        assert result.returncode == 0, result.stderr
        lines = [line.split(maxsplit=2) for line in result.stdout.splitlines()]
        assert [(label, choice) for label, _, choice in lines] == list(
            zip("ABCDEFGH", RECORD["choices"], strict=False)
        )
        found[path] = np.array([float(prob) for _, prob, _ in lines])
    np.testing.assert_allclose(found[baked], expected, rtol=0, atol=2e-3)
    assert np.abs(found[stamped] - expected).max() > 0.1  # a key alone changes nothing that is reported


def test_c_code_reads_the_key_and_divides(folder, stamped, baked):
    program = folder / "confidence"
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", f"-I{SITE / 'include'}", f"-L{SITE / 'lib'}"]
    built = run(
        "cc", EXAMPLES / "confidence.c", *flags, "-lllama", "-lm", f"-Wl,-rpath,{SITE / 'lib'}", "-o", program
    )
    assert built.returncode == 0, built.stderr
    prompt = PromptTemplate().render(Question(RECORD["question"], tuple(RECORD["choices"]))).text
    labels = [f" {letter}" for letter in "ABCDEFGH"[: len(RECORD["choices"])]]
    for path, same in ((stamped, stamped), (baked, stamped), (CHAT, CHAT)):
        result = run(program, path, prompt, *labels)
        assert result.returncode == 0, result.stderr
        found = [float(line.split()[0]) for line in result.stdout.splitlines()]
        with load(same) as model:
            expected = model.choose(RECORD["question"], RECORD["choices"]).probs
        # llama.cpp's defaults have flash attention, which rounds otherwise.
        np.testing.assert_allclose(found, expected, rtol=0, atol=0.01)
    refused = run(program, stamped, prompt, " A", " several words")
    assert refused.returncode == 2 and "not one token" in refused.stderr
    assert run(program, folder / "none.gguf", prompt, *labels).returncode == 3


def test_the_shell_script_is_one():
    assert run("sh", "-n", EXAMPLES / "llama_tools.sh").returncode == 0
    assert (EXAMPLES / "llama_tools.sh").stat().st_mode & 0o111


@pytest.mark.parametrize("name", ["load", "app", "decisions"])
def test_what_the_pages_show_runs(name, tmp_path):
    """As it stands there, on a calibrated file of the name that it uses."""
    stamp(tmp_path / "chat.calibrated.gguf")
    code = code_block(name)
    done = subprocess.run(
        [sys.executable, "-c", code + ("print(confidence.sum())\n" if name == "app" else "")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    shown = {
        "load": r"0\.\d+ \(",
        "app": r"^(1\.0|0\.999)",
        "decisions": r"^(Billing|Sales) 0\.\d+ \{'model'",
    }
    assert re.search(shown[name], done.stdout)


def test_the_typed_decisions_that_the_guide_shows_run(tmp_path):
    stamp(tmp_path / "chat.calibrated.gguf")
    done = run(sys.executable, "-c", code_block("decide"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["refund", "team", "anger"]
    assert "multiple-choice questions, not on noul questions" in done.stdout


def test_the_app_that_passes_on_what_is_unsure(folder, stamped):
    tickets = ["The ball is red.", "The red ball is in the box, and the box is in the garden.", "It rains."]
    (folder / "tickets.txt").write_text("\n".join(tickets), encoding="utf-8")
    said = {}
    for least in ("0", "1"):
        done = run(sys.executable, EXAMPLES / "triage.py", stamped, folder / "tickets.txt", least)
        assert done.returncode == 0, done.stderr
        said[least] = done.stdout.splitlines()
    assert said["1"] == [f"{ticket:.40}  a person, because the probability is below 1" for ticket in tickets]
    asked = runpy.run_path(str(EXAMPLES / "triage.py"))
    with load(stamped) as model:
        for line, ticket in zip(said["0"], tickets, strict=True):
            answers = model.decide(ticket, {"team": asked["TEAM"], "urgency": asked["URGENCY"]})
            team, urgency = answers["team"], answers["urgency"]
            sent = f"{team.key} ({team.probability:.0%})  urgency {urgency.score:.1f} of 2"
            assert line == f"{ticket:.40}  {sent}"


@pytest.mark.parametrize("name", ["python", "editing"])
def test_the_python_calls_of_the_guide_run(name, tmp_path):
    """On the bundled pair and its labelled questions, under the names that the guide uses."""
    for stem in ("model-", ""):
        for role in ("base", "chat"):
            shutil.copy(MODELS / f"edgecal-tiny-{role}-Q8_0.gguf", tmp_path / f"{stem}{role}.gguf")
    shutil.copy(MODELS / "questions/dev.jsonl", tmp_path / "questions.jsonl")
    done = run(sys.executable, "-c", code_block(name), cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    written = {path.name for path in tmp_path.glob("*.*.gguf")} | {
        path.name for path in tmp_path.glob("restored*")
    }
    new = {
        "python": {"model-chat.calibrated.gguf"},
        "editing": {"chat.calibrated.gguf", "chat.baked.gguf", "restored.gguf"},
    }
    assert written == new[name]
    if name == "editing":
        assert (tmp_path / "chat.calibrated.gguf").read_bytes() == CHAT.read_bytes()
