"""A real base model and a real chat model, of which every label-free method would make a worse one: refused.

Few-shot prompts of three public tasks, with label words. The base puts half of its probability on other words, and
post-training really taught the chat model the tasks: both premises of the label-free methods fail.
"""

import json
from itertools import product

import llama_cpp
import numpy as np
import pytest
from support import temperature_reference
from support.methods import variant_text
from support.real_runs import ONE_THREAD, edgecal, edgecal_json

import edgecal as api
from edgecal.calibration import Method, fit_temperature
from edgecal.gguf.header import read_header

N = 200
PROMPT = "Text: WINNER!! Claim your prize now\nSpam (yes or no):"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pair")


@pytest.fixture(scope="module")
def unlabelled(real_tasks, folder):
    records = [json.loads(line) for line in real_tasks.read_text("utf-8").splitlines()]
    path = folder / "unlabelled.jsonl"
    kept = [{key: value for key, value in record.items() if key != "answer"} for record in records]
    path.write_text("\n".join(map(json.dumps, kept)), encoding="utf-8")
    return path


def test_without_labels_it_is_refused_early(real_pair, unlabelled, tmp_path):
    done = edgecal("fit", *real_pair, "--data", unlabelled, "--output", tmp_path / "out.gguf", code=4)
    assert list(tmp_path.iterdir()) == []
    refused = [line for line in done.stderr.splitlines() if line.startswith("edgecal: refused: ")]
    mass, bracket = refused
    assert "of its probability on the choices" in mass and "already" in mass and "--shots" not in mass
    assert (
        done.stderr.count("of its probability on the cho") == 1
    )  # the warning that says so too is not printed beside it
    assert "labels can" in bracket and "another base model" in bracket
    assert "nothing was written; --unsettled" in done.stderr.splitlines()[-1]
    assert "after 100 of 200 questions: no more of them would settle the result" in done.stdout
    assert "settled      no" in done.stdout and "bracket " in done.stdout


@pytest.fixture(scope="module")
def harmful(real_pair, real_tasks, folder):
    arguments = ("fit", *real_pair, "--data", real_tasks, "--all", "--output", folder / "refused.gguf", "-q")
    said = edgecal_json(*arguments, code=4)
    assert not (folder / "refused.gguf").exists() and said["output"] is None
    return said


def test_with_labels_it_is_refused_as_harmful(harmful):
    assert harmful["n_prompts"] == harmful["n_labelled"] == N
    assert (harmful["settled"], harmful["harmful"]) == (False, True) and len(harmful["reasons"]) == 3
    check = harmful["label_check"]
    assert check["n"] == N and check["interval"][1] > 0 and check["nll_after"] > check["nll_before"]
    for figure in ("nll_before", "nll_after"):
        assert f"{check[figure]:.4f}" in harmful["reasons"][-1]
    assert harmful["ece"]["after"] > 2 * harmful["ece"]["before"]


def test_the_figures_are_those_of_the_pair(harmful):
    assert 0.65 < harmful["accuracy"]["base"] < 0.80 and 0.85 < harmful["accuracy"]["chat"] < 0.95
    assert 0.45 < harmful["choice_mass"]["base"] < 0.65 and harmful["choice_mass"]["chat"] > 0.99
    bracket = harmful["bracket"]
    assert 2.3 < bracket["low"] < 4.5 and 8 < bracket["high"] < 18
    for end in ("low", "high"):
        low, high = bracket[f"{end}_interval"]
        assert low < bracket[end] < high
    assert bracket["high"] / bracket["low"] > 2
    assert max(harmful["lens"].values()) < 0.003


@pytest.fixture(scope="module")
def captured(real_pair, real_tasks):
    return api.capture(*real_pair, api.load_prompts(real_tasks)).logits


METHODS = [
    *(Method(name) for name in ("naive", "daca", "process", "ts")),
    *(
        Method("dual-align", ise=ise, tau_scope=scope, combine=combine)
        for ise, scope, combine in product(
            ("mixture", "mean"), ("all", "final"), ("stratified", "divergence", "sum")
        )
    ),
]


@pytest.mark.parametrize(
    "method", METHODS, ids=lambda method: f"{method.name} {variant_text(method)}".strip()
)
def test_every_method_finds_its_minimum(captured, method):
    """On real logits of real layers, against an independent float64 reference."""
    options = {"kind": method.ise, "scope": method.tau_scope, "combine": method.combine}
    given = {name: value for name, value in options.items() if value is not None}
    expected = temperature_reference.temperature(captured, method.name, n_scan=301, **given)
    fitted = fit_temperature(captured, method, n_bootstrap=20)
    assert fitted.temperature == pytest.approx(expected, rel=1e-4)


def test_labels_find_a_better_temperature(real_pair, real_tasks, tmp_path):
    """Supervised scaling on the same prompts: written without a doubt, and better on prompts that it has not seen."""
    output = tmp_path / "out.gguf"
    said = edgecal_json(
        "fit", *real_pair, "--data", real_tasks, "--all", "--method", "ts", "--output", output, "-q"
    )
    assert 1.5 < said["temperature"] < 4 and said["reasons"] == []
    assert said["label_check"]["nll_after"] < said["label_check"]["nll_before"]
    assert np.float32(said["temperature"]) == np.float32(
        edgecal_json("show", output)["calibration"]["edgecal.temperature"]
    )


@pytest.fixture(scope="module")
def marked(real_pair, real_tasks, folder, harmful):
    output = folder / "marked.gguf"
    arguments = ("fit", *real_pair, "--data", real_tasks, "--all", "--unsettled", "--output", output, "-q")
    said = edgecal_json(*arguments)
    assert said["temperature"] == harmful["temperature"] and said["output"] == str(output)
    assert said["reasons"] == harmful["reasons"]
    return output


def test_the_file_says_that_it_is_unsettled(marked, harmful):
    llama = llama_cpp.Llama(str(marked), vocab_only=True, verbose=False)
    said = llama.metadata
    llama.close()
    assert said["edgecal.settled"] == "false" and said["edgecal.harmful"] == "true"
    read = read_header(marked)
    assert read.get("edgecal.reasons") == harmful["reasons"]
    assert read.get("edgecal.bracket") == pytest.approx(
        [harmful["bracket"]["low"], harmful["bracket"]["high"]], rel=1e-6
    )


def test_every_command_says_that_it_is_unsettled(marked, real_pair, real_tasks):
    told = "unreliable"
    for command in (
        ("ask", marked, "Which planet is largest?", "-c", "Mars", "-c", "Jupiter"),
        ("eval", marked, "--data", real_tasks, "--effect-sample", 0),
        ("compare", real_pair[0], marked, "--data", real_tasks, "--permutations", 0, "--no-verbalized"),
        *(("export", marked, "--to", program) for program in ("llama-server", "ollama", "lmstudio", "json")),
    ):
        done = edgecal(*command)
        assert told in done.stderr + done.stdout, command
    assert "settled" in edgecal("show", marked).stdout
    with pytest.warns(api.errors.UnsettledWarning, match=told):
        model = api.load(marked, **ONE_THREAD)
    with model:
        assert sum(model.confidence(PROMPT, [" yes", " no"]).probs) == pytest.approx(1)


def test_compared_on_labels_the_chat_model_as_it_is_wins(real_pair, real_tasks):
    said = edgecal_json(
        "compare",
        *real_pair,
        "--data",
        real_tasks,
        "--permutations",
        0,
        "--no-verbalized",
        "--effect-sample",
        0,
    )
    assert (said["settled"], said["harmful"]) == (False, True)
    nll = {row["name"]: row["figures"]["nll"]["mean"] for row in said["rows"] if not row["withheld"]}
    assert nll["ts"] < nll["polm"] < min(nll["dual-align"], nll["naive"], nll["plm"])
