"""The check of the lens on real models: what a right lens is off by at any seed and on real prompts, and that a wrong
one is refused by all that run it. `pytest tests/real/test_real_lens.py -s` prints the figures."""

from dataclasses import replace

import numpy as np
import pytest
from support.real_runs import edgecal_json

import edgecal as api
from edgecal.calibration import METHODS
from edgecal.errors import ModelError
from edgecal.gguf.shards import find_shards
from edgecal.lens import ALLOWED_RMS
from edgecal.lens.weight_rows import read_rows
from edgecal.llama.library import dequantize_rows
from edgecal.llama.settings import CaptureSettings
from edgecal.pair import lens_judge
from edgecal.pair.model_capture import CaptureRequest
from edgecal.pair.resident_model import RESIDENT
from edgecal.pair.worker_capture import capture_model
from edgecal.pair.worker_examine import ExamineRequest, examine_layers

SETTINGS = CaptureSettings()
SEEDS = range(10)
N_PROMPTS = 200

# What is left when llama.cpp's roundings are reproduced is float32's.
NOISE = 1e-5


@pytest.fixture(scope="module", autouse=True)
def _let_go():
    """The models that worker processes keep are kept in this one here."""
    yield
    if RESIDENT._model is not None:
        RESIDENT._model.close()
        RESIDENT._model = None


@pytest.fixture(scope="module")
def prompts(real_data):
    """Half of them ARC's, half MMLU's."""
    half = N_PROMPTS // 2
    arc, mmlu = (api.load_prompts(real_data / name) for name in ("arc-easy-test.jsonl", "mmlu/test"))
    return (*arc[:half], *mmlu[:: len(mmlu) // half][:half])


def examine(path, seed=0):
    """`edgecal doctor --run`, in this process, which keeps the model."""
    return examine_layers(ExamineRequest(str(path), SETTINGS, seed), lambda _: None)


def observe(path, prompts):
    """What `fit` and `compare` do with each model, in this process, with nothing kept."""
    return capture_model(CaptureRequest(str(path), "the model", prompts, True, SETTINGS), lambda _: None)


def test_random_tokens_of_any_seed(real_name, real_model):
    found = [examine(real_model, seed) for seed in SEEDS]
    print(f"\n{real_name}: {len(found)} seeds, at most {100 * max(one.lens_rms for one in found):.1e} %")
    assert all(one.refusal is None and one.lens_rms < NOISE for one in found)
    said = edgecal_json("doctor", real_model, "--run", "--seed", 7, "-q")
    assert said["exit_code"] == 0 and said["methods"] == list(METHODS)
    assert said["lens_rms"] == found[7].lens_rms


def test_real_prompts(real_name, real_model, prompts):
    seen = observe(real_model, prompts)
    worst = float(np.sqrt(seen.lens_errors.max()))
    print(
        f"\n{real_name}: {len(prompts)} prompts, {100 * seen.lens_error:.1e} %, the worst {100 * worst:.1e} %"
    )
    assert len(seen.lens_errors) == N_PROMPTS and worst < NOISE < ALLOWED_RMS


def some(head, low, high):
    return np.where(np.arange(head.n_embd) % 3 == 1, np.float32(high), np.float32(low))


WRONG = {
    "epsilon x10": lambda head: replace(head, eps=10 * head.eps),
    "norm up by 3 %": lambda head: replace(head, norm_weight=head.norm_weight * np.float32(1.03)),
    "norm down by 3 %": lambda head: replace(head, norm_weight=head.norm_weight * np.float32(0.97)),
    "norm off by 3 %": lambda head: replace(head, norm_weight=head.norm_weight * some(head, 0.97, 1.03)),
    "a cap of 30": lambda head: replace(head, soft_cap=30.0),
    "a scale of 1.01": lambda head: replace(head, logit_scale=1.01),
    "LayerNorm": lambda head: replace(head, centered=True),
}


@pytest.mark.parametrize("wrong", [*WRONG, "the embedding"])
def test_a_wrong_lens_is_refused(real_name, real_model, prompts, wrong, monkeypatch):
    right = lens_judge.read_head

    def embedding(head):
        place = find_shards(real_model).find_tensor("token_embd.weight")
        return replace(head, rows=read_rows(*place, head.token_ids, dequantize_rows))

    if wrong == "the embedding" and find_shards(real_model).find_tensor("output.weight") is None:
        pytest.skip("the head is the embedding")
    change = WRONG.get(wrong, embedding)
    monkeypatch.setattr(lens_judge, "read_head", lambda *given: change(right(*given)))
    found = examine(real_model)
    print(f"\n{real_name}, {wrong}: {100 * found.lens_rms:.2g} %")
    assert found.lens_rms > 4 * ALLOWED_RMS and "at most 0.3 % rms" in found.refusal
    with pytest.raises(ModelError, match=r"at most 0\.3 % rms"):
        observe(real_model, prompts[:8])
