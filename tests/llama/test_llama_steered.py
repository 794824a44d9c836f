"""A last block that is pushed to a small size: what is captured is that size, and the logits are of it."""

import numpy as np
import pytest
from support.lens_checks import check_lens
from support.tiny_archs import ARCHS, tiny_arch

from edgecal.architectures import ResidualStream
from edgecal.gguf.shards import find_shards
from edgecal.lens import check_token_ids, read_head, reproduce
from edgecal.llama import steered
from edgecal.llama.library import dequantize_rows
from edgecal.llama.model import Model
from edgecal.llama.settings import CaptureSettings
from edgecal.llama.steered import run_with_small_ending

SETTINGS = CaptureSettings(n_threads=1)
SIZE = 0.003

# Not to be steered: several streams, two tensors of the same name, or one that is captured before the vector is added.
NOT_STEERED = {
    "bitnet", "deepseek4", "gemma3n", "glm5-next", "hy_v4", "nemotron_h_moe", "plamo2", "qwen4exp", "qwen4exp-ngrams",
}  # fmt: skip


def test_a_loaded_model_runs_once(monkeypatch):
    with Model(tiny_arch("llama")) as model:
        first = run_with_small_ending(model, SETTINGS, ResidualStream(), SIZE, centered=False)
        monkeypatch.setattr(steered, "_run", None)
        assert run_with_small_ending(model, SETTINGS, ResidualStream(), SIZE, centered=False) is first


@pytest.mark.parametrize("name", [name for name, spec in ARCHS.items() if spec.lens])
def test_every_architecture(name):
    spec = ARCHS[name]
    stream = ResidualStream(spec.node, spec.n_streams, spec.by_stream)
    path = tiny_arch(name)

    def run():
        with Model(path) as model:
            return run_with_small_ending(model, SETTINGS, stream, SIZE, centered=spec.norm == "layer")

    seen, again = run(), run()
    if name in NOT_STEERED:
        assert seen is None
        return
    assert seen is not None and again is not None, "is it one that cannot be steered?"
    hidden, logits = seen
    np.testing.assert_array_equal(hidden, again[0])
    np.testing.assert_array_equal(logits, again[1])
    wide = hidden.astype(np.float64)
    assert (wide.std() if spec.norm == "layer" else np.sqrt(np.mean(wide**2))) == pytest.approx(
        SIZE, rel=0.01
    )
    head = read_head(find_shards(path), check_token_ids(spec.n_vocab, np.zeros(0, int)), dequantize_rows)
    ways = reproduce(hidden[None], head)
    assert (
        check_lens(ways, logits[None, head.token_ids], np.array([logits.astype(np.float64).std()])).rms < 1e-5
    )
