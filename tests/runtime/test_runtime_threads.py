"""Questions beside other programs are computed with the threads there is room for, and give the same numbers."""

import pytest
from support.calibrated import CHAT

import edgecal
from edgecal.llama import machine
from edgecal.llama.library import load_library
from edgecal.llama.machine import Neighbours


@pytest.mark.parametrize(
    ("n_others", "options", "n_expected"),
    [(0, {}, 2), (1, {}, 1), (1, {"flash_attn": True}, 2), (1, {"n_threads_batch": 1}, 1)],
)
def test_threads(monkeypatch, n_others, options, n_expected):
    threads = {"n_threads": 2, "n_threads_batch": 2}
    seen = []
    with edgecal.load(CHAT, n_ctx=256, **(threads | options)) as model:

        def count():
            return load_library().llama_n_threads_batch(model.llama.ctx)

        def evaluate(tokens, run=model.llama.eval):
            seen.append(count())
            run(tokens)

        alone = model.confidence("The capital is", [" A", " B"])
        monkeypatch.setattr(machine, "_neighbours", lambda: Neighbours(2, lambda: n_others, None))
        monkeypatch.setattr(model.llama, "eval", evaluate)
        assert model.confidence("The capital is", [" A", " B"]) == alone
        assert seen == [n_expected]
        assert (
            count() == (threads | options)["n_threads_batch"]
        )  # as an app finds it that uses `llama` directly
