"""`edgecal export`: each target's artefact is read back by, or as by, the program that it is for."""

import json
import os
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
from support.calibrated import CHAT, MODELS, TEMPERATURE, bake, stamp
from support.tiny_models import write_tiny_llama

from edgecal.errors import InputError
from edgecal.runtime import load
from edgecal.runtime.export_targets import TARGETS, export


def run(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "edgecal", "export", *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        **options,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("export")


@pytest.fixture(scope="module")
def stamped(folder):
    return stamp(folder / "stamped.gguf", interval=(3.5, 4.0), method="dual-align")


@pytest.fixture(scope="module")
def baked(folder, stamped):
    return bake(folder / "baked.gguf", source=stamped, temperature=None)


@pytest.fixture(scope="module")
def keys_only(folder):
    return stamp(folder / "keys.gguf", sampling_key=False)


def code_lines(text):
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_a_modelfile(stamped, baked, keys_only):
    assert code_lines(export(stamped, "ollama").text) == [f"FROM {stamped}", "PARAMETER temperature 3.843"]
    assert code_lines(export(baked, "ollama").text) == [f"FROM {baked}"]
    assert code_lines(export(keys_only, "ollama").text) == [f"FROM {keys_only}"]
    assert code_lines(export(keys_only, "ollama", sampling=True).text)[1] == "PARAMETER temperature 3.843"
    assert code_lines(export(stamped, "ollama", sampling=False).text) == [f"FROM {stamped}"]


@pytest.mark.parametrize("target", ["llama-server", "llama-cli"])
def test_a_command_line(stamped, baked, keys_only, target):
    (line,) = code_lines(export(stamped, target).text)
    assert shlex.split(line) == [target, "--model", str(stamped), "--temp", "3.843"]
    for path in (baked, keys_only):
        (line,) = code_lines(export(path, target).text)
        assert shlex.split(line) == [target, "--model", str(path)]


def test_a_preset(stamped, baked):
    artefact = export(stamped, "lmstudio")
    preset = json.loads(artefact.text)
    assert preset["operation"]["fields"] == [{"key": "llm.prediction.temperature", "value": 3.843}]
    assert preset["identifier"] == "@local:edgecal-edgecal-tiny-chat"
    assert set(preset) == {"identifier", "name", "changed", "operation", "load"}
    assert json.loads(export(baked, "lmstudio").text)["operation"]["fields"] == []
    assert not artefact.has_sentence


def test_a_sidecar(stamped, baked):
    said = json.loads(export(stamped, "json").text)
    assert said["kind"] == "stamped" and said["model"]["path"] == str(stamped)
    assert said["divide_logits_by"] == said["temperature"] == said["sampling"]["temperature"]
    assert np.float32(said["temperature"]) == np.float32(TEMPERATURE)
    assert said["fit"]["method"] == "dual-align" and said["fit"]["interval"] == [3.5, 4.0]
    done = json.loads(export(baked, "json").text)
    assert (done["kind"], done["divide_logits_by"]) == ("baked", 1.0)
    assert np.float32(done["temperature"]) == np.float32(TEMPERATURE)


def test_a_snippet_runs_and_agrees(stamped, baked):
    record = json.loads((MODELS / "questions/dev.jsonl").read_text("utf-8").splitlines()[3])
    from edgecal.prompts import PromptTemplate, Question

    prompt = PromptTemplate().render(Question(record["question"], tuple(record["choices"]))).text
    with load(stamped) as model:
        expected = model.choose(record["question"], record["choices"]).probs
    labels = [f" {letter}" for letter in "ABCDEFGH"[: len(expected)]]
    for path, tolerance in ((stamped, 1e-4), (baked, 1e-3)):  # the key is read as text with six decimals
        names = {}
        exec(compile(export(path, "llama-cpp-python").text, "snippet", "exec"), names)
        for _ in range(2):
            np.testing.assert_allclose(names["confidences"](prompt, labels), expected, rtol=0, atol=tolerance)
        with pytest.raises(ValueError, match="not one token"):
            names["confidences"](prompt, [" several words"])
        names["llm"].close()


@pytest.mark.parametrize("target", TARGETS)
def test_each_says_in_one_sentence_what_it_does(stamped, baked, keys_only, target):
    for path in (stamped, baked, keys_only):
        artefact = export(path, target)
        assert "\n" not in artefact.sentence and artefact.sentence.count(". ") == 0
        assert artefact.sentence.endswith(".")
        assert artefact.has_sentence == (artefact.sentence in artefact.text)
        assert ("baked into" in artefact.sentence) == (path == baked)
        result = run(path, "--to", target)
        assert (result.returncode, result.stdout) == (0, artefact.text)
        assert result.stderr == ("" if artefact.has_sentence else f"edgecal: {artefact.sentence}\n")
    if target in ("ollama", "llama-server", "lmstudio"):
        assert "edgecal bake" in export(stamped, target).sentence
        assert "calibrates nothing" in export(keys_only, target).sentence


@pytest.mark.parametrize("name", ["it's a $HOME.gguf", 'two "words".gguf', "line\nbreak.gguf", "模型.gguf"])
def test_odd_names(stamped, tmp_path, name):
    path = tmp_path / name
    os.link(stamped, path)
    for target in ("llama-server", "llama-cli"):
        text = export(path, target).text.partition("\n")[2]
        assert shlex.split(text) == [target, "--model", str(path), "--temp", "3.843"]
    assert json.loads(export(path, "json").text)["model"]["path"] == str(path)
    code = export(path, "llama-cpp-python").text
    assert f"Llama({str(path)!a}, " in code
    assert str(path) in export(path, "ollama").text
    assert json.loads(export(path, "lmstudio").text)["name"] == "edgecal: edgecal tiny Chat"


def test_a_name_that_is_no_text(stamped, tmp_path):
    path = tmp_path / os.fsdecode(b"\xff.gguf")
    os.link(stamped, path)
    for target in TARGETS:
        if target == "lmstudio":
            assert export(path, target).text  # names no path
        else:
            with pytest.raises(InputError, match="not UTF-8"):
                export(path, target)


def test_a_split_model(tmp_path):
    """Ollama is given every file, llama.cpp the first."""
    first = write_tiny_llama(
        tmp_path / "tiny.gguf",
        seed=3,
        n_layer=2,
        split_max_tensors=7,
        metadata={"edgecal.temperature": 2.5, "general.sampling.temp": 2.5},
    )
    shards = sorted(str(path) for path in tmp_path.glob("tiny-*.gguf"))
    assert len(shards) > 1 and str(first) == shards[0]
    lines = code_lines(export(first, "ollama").text)
    assert lines == [*(f"FROM {path}" for path in shards), "PARAMETER temperature 2.5"]
    (line,) = code_lines(export(first, "llama-server").text)
    assert shlex.split(line) == ["llama-server", "--model", shards[0], "--temp", "2.5"]


def test_relative_names_become_absolute(stamped):
    result = run(stamped.name, "--to", "llama-cli", cwd=stamped.parent)
    assert shlex.split(code_lines(result.stdout)[0])[2] == str(stamped)


def test_output(stamped, tmp_path):
    target = tmp_path / "Modelfile"
    first = run(stamped, "--to", "ollama", "--output", target)
    assert (first.returncode, first.stdout, first.stderr) == (0, "", "")
    assert target.read_text("utf-8") == export(stamped, "ollama").text
    again = run(stamped, "--to", "ollama", "--output", target)
    assert again.returncode == 2 and "--force" in again.stderr
    assert run(stamped, "--to", "ollama", "--no-sampling", "--output", target, "--force").returncode == 0
    assert "PARAMETER" not in target.read_text("utf-8")
    assert run(stamped, "--to", "ollama", "--output", tmp_path / "none/Modelfile").returncode == 5
    assert run(stamped, "--to", "ollama", "--force").returncode == 2


@pytest.mark.parametrize("link", [None, os.link, os.symlink])
@pytest.mark.parametrize("victim", ["itself", "another model"])
def test_a_model_is_never_overwritten(stamped, tmp_path, link, victim):
    model = tmp_path / "model.gguf"
    shutil.copy(stamped if victim == "itself" else CHAT, model)
    source = model if victim == "itself" else stamped
    target = tmp_path / "Modelfile" if link else model
    if link:
        link(model, target)
    before = model.read_bytes()
    done = run(source, "--to", "ollama", "--output", target, "--force")
    assert done.returncode == 2 and "is a model" in done.stderr and done.stderr.count("\n") == 1
    assert model.read_bytes() == before and target.read_bytes() == before


def test_outputs_that_cannot_be(stamped, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "broken").symlink_to("nowhere")
    for name, code in (("fifo", 5), ("x" * 256, 5), (".", 5)):
        done = run(stamped, "--to", "json", "--force", "--output", tmp_path / name)
        assert done.returncode == code and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert run(stamped, "--to", "json", "--output", tmp_path / "broken").returncode == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "fifo"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([CHAT, "--to", "ollama"], "no calibration"),
        (["none.gguf", "--to", "ollama"], "no such file"),
        ([CHAT, "--to", "vllm"], "--to"),
        ([CHAT], "--to"),
    ],
)
def test_what_is_refused(arguments, told):
    result = run(*arguments)
    assert result.returncode == 2 and result.stdout == ""
    assert told in result.stderr and "Traceback" not in result.stderr
