"""The real llama.cpp on a file that was edited in place: the filler disturbs nothing, the logits are the same."""

import numpy as np
from support.file_systems import can_insert
from support.tiny_models import n_vocab_of, write_tiny_llama
from support.tiny_run import random_prompts, run

from edgecal.gguf.header import FILLER_KEY, read_header
from edgecal.gguf.inplace.engine import edit_in_place
from edgecal.gguf.values import Value


def test_llama_cpp_computes_the_same(tmp_path):
    path = write_tiny_llama(tmp_path / "m.gguf", seed=4, n_layer=2, quantization="Q8_0")
    original = path.read_bytes()
    prompts = random_prompts(1, 3, n_vocab_of("bpe"))
    before = run(path, prompts).logits
    edited = edit_in_place(read_header(path), {"general.sampling.temp": Value.float32(1.5)})
    assert (FILLER_KEY in edited) == can_insert(tmp_path)
    np.testing.assert_array_equal(run(path, prompts).logits, before)
    edit_in_place(edited, {}, ["general.sampling.temp", FILLER_KEY])
    assert path.read_bytes() == original
