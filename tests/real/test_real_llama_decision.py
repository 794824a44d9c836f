"""Exported files in llama.cpp's real server (the package xllamacpp, see tests/llama_server.txt)."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest
from support.decision_server import DecisionServer
from tools.llama_decision import by_the_same_build, differences, export, requests

MISSING = [
    name for name in ("xllamacpp", "jevcompat", "typesafe_sdk") if importlib.util.find_spec(name) is None
]


@pytest.fixture(scope="module")
def exported(real_name, real_model, real_folder):
    """SmolLM2 and Qwen2.5 Coder 0.5B, exported with a temperature for each type of question."""
    if not os.environ.get("EDGECAL_LLAMA_SERVER"):
        pytest.skip("`make test-llama-server` runs the tests with llama.cpp's server")
    if MISSING:
        pytest.skip(f"not installed: {', '.join(MISSING)}; pip install -r tests/llama_server.txt")
    if real_name not in ("smollm2", "qwen-0.5b"):
        pytest.skip("two models show it")
    return export(real_model, real_folder / f"{real_name}.decision.gguf")


@pytest.fixture(scope="module")
def server(exported):
    with DecisionServer(exported) as server:
        yield server


def test_the_probabilities_are_edgecals(exported, server):
    """edgecal's tokens, labels, temperatures and softmax, on the logits of the same build of llama.cpp: another build
    rounds the products of quantized weights differently (docs/log.md)."""
    bodies = list(requests(100))
    found = differences(list(map(server.probabilities, bodies)), by_the_same_build(exported, bodies, server))
    assert len(found) == 100 and found.max() < 1e-6


def test_chats_still_work(server):
    asked = [{"role": "user", "content": "Write one short sentence about rain."}]
    (choice,) = server.call("chat_completions", {"messages": asked, "max_tokens": 16})["choices"]
    assert choice["message"]["content"].strip()


def test_the_acceptance_test_of_the_format(server, tmp_path):
    """What is missing is llama.cpp's: more than 52 options, and a level that is null is not refused."""
    report = tmp_path / "report.json"
    code = "import sys; from jevcompat.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "test", server.address, "--key", "any", "--json", str(report)]
    subprocess.run(command, capture_output=True, check=False, timeout=1800)
    told = json.loads(report.read_text("utf-8"))["summary"]
    assert told["MUST"]["passed"] >= 30, told
