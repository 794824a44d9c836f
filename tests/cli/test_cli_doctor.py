"""`edgecal doctor` from a shell: what it says of good, odd, refused and broken files, and how it ends."""

import json
import subprocess
import sys

import numpy as np
import pytest
from support.tiny_archs import tiny_arch
from support.tiny_models import write_gguf, write_tiny_llama
from support.tiny_vocab import bpe_vocab

import edgecal
from edgecal import RunOptions
from edgecal.calibration import METHODS
from edgecal.gguf.header import read_header
from edgecal.gguf.rewrite import write_edited

OUTPUTS_ONLY = ["daca", "naive", "anchored", "ts", "vanilla"]


def doctor(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "edgecal", "doctor", *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )


def examined(*arguments):
    result = doctor(*arguments, "--json")
    assert "Traceback" not in result.stderr
    return result.returncode, json.loads(result.stdout)


def fit(path, folder):
    """`edgecal fit` of the file against one that differs by a bit, by prompts that need no tokenizer's help."""
    base, data = folder / "base.gguf", folder / "prompts.jsonl"
    changed = bytearray(path.read_bytes())
    changed[read_header(path).tensors["token_embd.weight"].data_offset] ^= 1
    base.write_bytes(changed)
    lines = [{"tokens": [5, 6, 7 + i], "choice_tokens": [1, 2]} for i in range(40)]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = [sys.executable, "-m", "edgecal", "fit", base, path, "--data", data, "--no-cache"]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_llama(tmp_path_factory.mktemp("doctor") / "model.gguf", seed=1, n_layer=3)


def test_from_the_header(model):
    code, said = examined(model)
    assert (code, said["exit_code"]) == (0, 0)
    assert (said["architecture"], said["n_layer"], said["known"]) == ("llama", 3, True)
    assert (said["methods"], said["reason"]) == (list(METHODS), None)
    assert said["captured_layers"] is said["lens_rms"] is said["llama_cpp"] is said["seed"] is None
    assert said["head"]["type"] == "F32" and said["ending"]["norm"] == "rms"
    assert said["bakeable"] is True and said["tokenizer"] == "gpt2"


def test_by_running(model):
    code, said = examined(model, "--run")
    assert code == 0 and said["methods"] == list(METHODS) and said["reason"] is None
    assert said["captured_layers"] == said["n_layer"] == 3
    assert 0 < said["lens_rms"] < 1e-5 and said["logit_spread"] > 0.1
    assert "llama.cpp" in said["llama_cpp"]


def test_the_seed_draws_the_tokens(model):
    first, again, other = (examined(model, "--run", "--seed", seed)[1]["logit_spread"] for seed in (0, 0, 1))
    assert first == again != other


def test_the_text(model):
    result = doctor(model, "--run")
    assert result.returncode == 0
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines() if not line.startswith("lens"))
    assert lines["architecture"] == "llama" and lines["blocks"] == "3" and lines["baking"] == "can be baked"
    assert lines["methods"] == ", ".join(METHODS)
    assert "RMSNorm, head of " in lines["ending"]
    assert "lens check    3 blocks captured" in result.stdout
    assert "8 of 8 prompts" in result.stderr
    assert doctor(model, "--run", "--quiet").stderr == ""


def test_scale_cap_and_streams_are_told():
    shown = doctor(tiny_arch("grok-cap")).stdout
    assert "times 0.4" in shown and "soft cap 2" in shown
    assert "4 streams merged" in doctor(tiny_arch("gemma3n")).stdout


def test_a_file_without_tokenizer(tmp_path):
    path = write_tiny_llama(tmp_path / "model.gguf", seed=1, vocab="none", n_vocab=100)
    code, said = examined(path, "--run")
    assert code == 0 and said["methods"] == list(METHODS) and said["lens_rms"] < 1e-5
    assert any("no tokenizer" in note for note in said["notes"])


def test_one_block_leaves_the_methods_without_layers(tmp_path):
    path = write_tiny_llama(tmp_path / "model.gguf", seed=1, n_layer=1)
    for arguments in ((), ("--run",)):
        code, said = examined(path, *arguments)
        assert code == said["exit_code"] == 2
        assert said["methods"] == OUTPUTS_ONLY and "one block" in said["reason"]
        assert said["lens_rms"] is None
    result = fit(path, tmp_path)
    assert result.returncode == 2 and "1 block each" in result.stderr


def test_a_head_of_zeros_leaves_the_methods_without_layers(tmp_path):
    """Logits without any spread: the header cannot tell, a run can."""
    path = write_tiny_llama(tmp_path / "model.gguf", seed=1, n_layer=2)
    head = read_header(path).tensors["output.weight"]
    data = bytearray(path.read_bytes())
    data[head.data_offset : head.data_offset + head.n_bytes] = bytes(head.n_bytes)
    path.write_bytes(data)
    assert examined(path)[0] == 0
    code, said = examined(path, "--run")
    assert code == said["exit_code"] == 3 and said["methods"] == OUTPUTS_ONLY
    assert said["captured_layers"] == 2 and said["lens_rms"] is None and "no finite numbers" in said["reason"]
    result = fit(path, tmp_path)
    assert result.returncode == 3 and said["reason"].split(": expected")[1] in result.stderr


def test_layers_that_are_on_no_way_to_the_logits(tmp_path):
    path = tiny_arch("hrm_text")
    for arguments in ((), ("--run",)):
        code, said = examined(path, *arguments)
        assert code == said["exit_code"] == 2 and said["methods"] == OUTPUTS_ONLY
    result = fit(path, tmp_path)
    assert result.returncode == 2 and said["reason"].split(": ", 1)[1][:40] in result.stderr


def test_layers_that_the_graph_does_not_have(tmp_path, model):
    """An architecture that llama.cpp knows and our table does not, with no epsilon: the header tells, and a run too."""
    path = tmp_path / "model.gguf"
    write_edited(read_header(model), path, changes={}, remove=["llama.attention.layer_norm_rms_epsilon"])
    for arguments in ((), ("--run",)):
        code, said = examined(path, *arguments)
        assert code == said["exit_code"] == 3 and "layer_norm_rms_epsilon" in said["reason"]


@pytest.mark.parametrize(
    ("architecture", "why"),
    [("bert", "encoder"), ("t5", "encoder with a decoder"), ("llada", "diffusion"), ("eagle3", "drafts")],
)
def test_what_predicts_no_next_token_is_refused(architecture, why, tmp_path):
    path = write_gguf(
        tmp_path / "model.gguf",
        architecture,
        {f"{architecture}.block_count": 2, **bpe_vocab().metadata()},
        {"token_embd.weight": np.ones((4, 32), np.float32)},
    )
    for arguments in ((), ("--run",)):
        code, said = examined(path, *arguments)
        assert code == said["exit_code"] == 2
        assert said["methods"] == [] and why in said["reason"] and said["reason"].startswith(str(path))
    result = fit(path, tmp_path)
    assert result.returncode == 2 and why in result.stderr


def test_an_architecture_that_nobody_knows(tmp_path):
    path = write_gguf(
        tmp_path / "model.gguf",
        "unheard-of",
        {
            "unheard-of.block_count": 2,
            "unheard-of.attention.layer_norm_rms_epsilon": 1e-5,
            **bpe_vocab().metadata(),
        },
        {"token_embd.weight": np.ones((4, 32), np.float32)},
    )
    code, said = examined(path)
    assert code == 0 and said["methods"] == OUTPUTS_ONLY and "--run" in said["reason"]
    code, said = examined(path, "--run")
    assert code == 3 and said["methods"] == [] and "unheard-of" in said["reason"]
    assert said["captured_layers"] == 0


def test_missing_weights_end_with_llama_cpps_reason(model, tmp_path):
    data = model.read_bytes()
    short = tmp_path / "short.gguf"
    short.write_bytes(data[: len(data) - 5000])
    result = doctor(short, "--run", "--json")
    assert result.returncode in (2, 3) and "Traceback" not in result.stderr


@pytest.mark.parametrize("content", [b"", b"GGUF", b"not a model at all" * 10])
def test_what_is_no_gguf(content, tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    result = doctor(path, "--run", "--json")
    assert result.returncode == 2 and result.stdout == "" and result.stderr.count("\n") == 1


def test_the_python_face(model):
    result = edgecal.doctor(model)
    assert isinstance(result, edgecal.DoctorResult) and result.to_dict() == examined(model)[1]
    with pytest.raises(edgecal.InputError, match="timeout"):
        edgecal.doctor(model, run=RunOptions(timeout_s=0))
