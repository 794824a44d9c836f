"""Each real model's file edited: stamped and stripped, baked and unbaked, exported to programs, and used by them."""

import json
import shlex

import llama_cpp
import numpy as np
import pytest
from support.real_runs import ONE_THREAD, edgecal, plain_llama

import edgecal as api

SPAM = "Is this spam?\n\nWIN A PRIZE NOW\n\nAnswer yes or no:"
LABELS = [" yes", " no"]


def test_stamped_and_stripped_it_is_the_same_file(real_model, tmp_path):
    stamped, stripped = tmp_path / "stamped.gguf", tmp_path / "stripped.gguf"
    edgecal("stamp", real_model, "--temperature", 1.7, "--output", stamped, "--verify")
    llama = llama_cpp.Llama(str(stamped), vocab_only=True, verbose=False)
    read = [float(llama.metadata[key]) for key in ("edgecal.temperature", "general.sampling.temp")]
    llama.close()
    assert read == pytest.approx([1.7, 1.7], rel=1e-6)
    told = edgecal("show", stamped).stdout
    assert "1.7" in told
    assert "edgecal.temperature" in edgecal("diff", real_model, stamped, code=None).stdout
    edgecal("strip", stamped, "--output", stripped)
    assert stripped.read_bytes() == real_model.read_bytes()


@pytest.fixture(scope="module")
def baked(real_stamped, real_folder):
    target = real_folder / f"{real_stamped.stem}.baked.gguf"
    edgecal("bake", real_stamped, "--output", target)
    return target


def test_baked_logits_are_divided(real_stamped, baked):
    """In llama-cpp-python, which knows nothing of edgecal: 2.5 times smaller, and as probable as edgecal says."""
    with plain_llama(real_stamped) as before, plain_llama(baked) as after:
        z, divided = before(SPAM, LABELS), after(SPAM, LABELS)
    np.testing.assert_allclose(divided, z / 2.5, atol=2e-2)
    with api.load(real_stamped, **ONE_THREAD) as model, api.load(baked, **ONE_THREAD) as done:
        assert (model.temperature, done.temperature) == (2.5, 1)
        of_key, of_weights = (each.confidence(SPAM, LABELS).probs for each in (model, done))
    np.testing.assert_allclose(of_weights, of_key, atol=2e-3)


def test_the_exported_snippet_runs(real_stamped, tmp_path):
    code = edgecal("export", real_stamped, "--to", "llama-cpp-python").stdout
    names = {}
    exec(compile(code, "snippet", "exec"), names)
    said = names["confidences"](SPAM, LABELS)
    names["llm"].close()
    with api.load(real_stamped, **ONE_THREAD) as model:
        np.testing.assert_allclose(said, model.confidence(SPAM, LABELS).probs, atol=1e-4)


def test_what_is_exported_to_other_programs(real_stamped):
    for program in ("llama-server", "llama-cli"):
        line = [
            line
            for line in edgecal("export", real_stamped, "--to", program).stdout.splitlines()
            if line[:1] != "#"
        ]
        assert shlex.split(" ".join(line)) == [program, "--model", str(real_stamped), "--temp", "2.5"]
    modelfile = edgecal("export", real_stamped, "--to", "ollama").stdout.splitlines()
    assert {f"FROM {real_stamped}", "PARAMETER temperature 2.5"} <= set(modelfile)
    preset = json.loads(edgecal("export", real_stamped, "--to", "lmstudio").stdout)
    assert preset["operation"]["fields"] == [{"key": "llm.prediction.temperature", "value": 2.5}]
    sidecar = edgecal("export", real_stamped, "--to", "json").stdout
    assert json.loads(sidecar)["divide_logits_by"] == 2.5
