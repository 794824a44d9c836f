"""The real llama.cpp loads calibrated files, single and split, reads the key back and computes the same."""

import contextlib
import ctypes

import llama_cpp
import numpy as np
import pytest
from support.tiny_models import n_vocab_of, write_tiny_llama
from support.tiny_run import quiet_llama, random_prompts, run

from edgecal.gguf.header import read_header
from edgecal.gguf.output import plan_output
from edgecal.gguf.shards import find_shards
from edgecal.stamping.edit import write_calibrated
from edgecal.stamping.record import CalibrationRecord

RECORD = CalibrationRecord(
    temperature=2.3125,
    interval=(2.25, 2.5),
    method="daca",
    variant="",
    prompts_count=500,
    prompts_sha256="ab" * 32,
    agreement_rate=0.75,
    base_name="Base",
    base_sha256="cd" * 32,
    llama_cpp="b1",
)


def metadata(path):
    """All metadata as llama.cpp has them, as text."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(quiet_llama())
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = 0
        model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        assert model
        stack.callback(llama_cpp.llama_model_free, model)
        texts = {}
        buffer = ctypes.create_string_buffer(1 << 16)
        for index in range(llama_cpp.llama_model_meta_count(model)):
            llama_cpp.llama_model_meta_key_by_index(model, index, buffer, len(buffer))
            name = buffer.value.decode()
            llama_cpp.llama_model_meta_val_str_by_index(model, index, buffer, len(buffer))
            texts[name] = buffer.value.decode("utf-8", "replace")
        return texts


@pytest.mark.parametrize("split", [0, 7])
@pytest.mark.parametrize("quantization", ["F32", "Q8_0"])
def test_llama_cpp_reads_the_key_and_computes_the_same(tmp_path, split, quantization):
    path = write_tiny_llama(
        tmp_path / "m.gguf",
        seed=4,
        n_layer=2,
        quantization=quantization,
        split_max_tensors=split,
        metadata={"general.sampling.temp": 0.5},
    )
    chat = find_shards(path)
    assert (chat.count > 1) == bool(split)
    plan = plan_output(chat, None)
    write_calibrated(chat, plan, RECORD)
    before, after = metadata(path), metadata(plan.path)
    assert float(after["general.sampling.temp"]) == 2.3125
    assert float(after["edgecal.temperature"]) == 2.3125
    assert float(after["edgecal.previous.sampling.temp"]) == 0.5
    assert after["edgecal.method"] == "daca"
    assert after["edgecal.prompts.count"] == "500"
    ours = {name for name in after if name.startswith("edgecal.")} | {"general.sampling.temp"}
    assert {k: v for k, v in after.items() if k not in ours} == {
        k: v for k, v in before.items() if k not in ours
    }
    prompts = random_prompts(1, 3, n_vocab_of("bpe"))
    assert np.array_equal(run(path, prompts).logits, run(plan.path, prompts).logits)


def test_llama_cpp_python_s_own_class_loads_it_and_sees_the_key(tmp_path):
    path = write_tiny_llama(tmp_path / "m.gguf", seed=4, n_layer=2)
    chat = find_shards(path)
    write_calibrated(chat, plan_output(chat, None, in_place=True), RECORD)
    with quiet_llama(), contextlib.closing(llama_cpp.Llama(str(path), n_ctx=64, verbose=False)) as model:
        assert float(model.metadata["general.sampling.temp"]) == 2.3125
        assert float(model.metadata["edgecal.temperature"]) == 2.3125
    assert read_header(path).get("edgecal.base.name") == "Base"
