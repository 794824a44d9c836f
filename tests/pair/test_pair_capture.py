"""What a run of both models says beside its numbers."""

from support.prompts import random_token_prompts
from support.tiny_models import tiny_folder, write_tiny_pair

import edgecal
from edgecal import RunOptions
from edgecal.llama.settings import CaptureSettings


def test_repeated_prompts_earn_a_warning():
    folder = tiny_folder() / "pair-capture"
    folder.mkdir()
    base, chat = write_tiny_pair(folder / "base.gguf", folder / "chat.gguf", seed=5)
    records = random_token_prompts(5, seed=1)
    prompts = edgecal.load_prompts([*records, records[0], records[0]])
    captured = edgecal.capture(
        base, chat, prompts, layers=False, run=RunOptions(settings=CaptureSettings(n_threads=1))
    )
    assert captured.warnings()[0].startswith("2 of 7 prompts repeat another")
    assert captured.base.layer_logits is None and captured.base.lens_error is None
