"""Greedy generation, against llama.cpp run in the plainest way, one whole prompt a token."""

from contextlib import contextmanager
from dataclasses import replace

import gguf
import numpy as np
import pytest
from support.tiny_models import n_vocab_of, tiny_folder, write_tiny_llama
from support.tiny_run import run
from support.tiny_vocab import CHAT_TOKENS, bpe_vocab

from edgecal import InputError, ModelError
from edgecal.llama.generate import generate
from edgecal.llama.model import Model
from edgecal.llama.settings import CaptureSettings
from edgecal.llama.tokenizer import Tokenizer

SETTINGS = CaptureSettings(n_threads=1)
WORDS = bpe_vocab()
PROMPTS = [np.random.default_rng(i).integers(3, 250, n).astype(np.int32) for i, n in enumerate((9, 30, 4, 9))]


@contextmanager
def loaded(name="plain", **options):
    path = tiny_folder() / f"generate {name}.gguf"
    if not path.exists():
        write_tiny_llama(path, seed=7, n_layer=2, vocab=WORDS, extra_tokens=CHAT_TOKENS, **options)
    with Model(path) as model:
        yield path, model, Tokenizer(model.vocab, model.n_vocab, "m")


def texts(model, tokenizer, prompts, settings=SETTINGS, **options):
    found = list(generate(model, tokenizer, prompts, settings, **options))
    assert sorted(item.index for item in found) == list(range(len(prompts)))
    return sorted(found, key=lambda item: item.index)


def plain_greedy(path, tokenizer, prompt, max_tokens):
    """The whole text again for every token, through the bindings."""
    tokens = prompt.tolist()
    for _ in range(max_tokens):
        token = int(run(path, [tokens]).logits[0].argmax())
        if tokenizer.ends_generation(token):
            break
        tokens.append(token)
    return tokens[len(prompt) :]


def test_the_most_probable_tokens_one_after_the_other():
    with loaded() as (path, model, tokenizer):
        found = texts(model, tokenizer, PROMPTS, max_tokens=12)
        expected = [plain_greedy(path, tokenizer, prompt, 12) for prompt in PROMPTS]
        assert [item.tokens.tolist() for item in found] == expected
        assert len({tuple(tokens) for tokens in expected}) == len(PROMPTS)
        for item in found:
            said = b"".join(tokenizer.piece_bytes(token) for token in item.tokens)
            assert item.text == said.decode("utf-8", "replace") and item.tokens.dtype == np.int32


@pytest.mark.parametrize("n", [1, 2])
def test_no_more_than_asked_for(n):
    with loaded() as (_, model, tokenizer):
        longer = texts(model, tokenizer, PROMPTS, max_tokens=12)
        short = texts(model, tokenizer, PROMPTS, max_tokens=n)
        assert [item.tokens.tolist() for item in short] == [item.tokens.tolist()[:n] for item in longer]


def test_neither_company_nor_batches_nor_sharing_reach_a_text():
    with loaded() as (_, model, tokenizer):
        expected = [item.text for item in texts(model, tokenizer, PROMPTS, max_tokens=8)]
        alone = [texts(model, tokenizer, [prompt], max_tokens=8)[0].text for prompt in PROMPTS]
        turned = [item.text for item in texts(model, tokenizer, PROMPTS[::-1], max_tokens=8)][::-1]
        small = replace(SETTINGS, n_batch=16, n_ubatch=16)
        cut = [item.text for item in texts(model, tokenizer, PROMPTS, small, max_tokens=8)]
        apart = [
            item.text
            for item in texts(model, tokenizer, PROMPTS, replace(SETTINGS, share=False), max_tokens=8)
        ]
        assert expected == alone == turned == cut == apart


def rewritten(source, name, change):
    """A copy of a model whose tensors or vocabulary were changed."""
    path = tiny_folder() / f"generate {name}.gguf"
    reader = gguf.GGUFReader(source)
    data = bytearray(source.read_bytes())
    for tensor in reader.tensors:
        values = np.array(tensor.data, dtype=np.float32)
        changed = change(tensor.name, values)
        data[tensor.data_offset : tensor.data_offset + values.nbytes] = changed.astype(np.float32).tobytes()
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("mark", ["<|endoftext|>", "<|im_end|>"])
def test_the_models_own_end_ends_a_text(mark):
    """Where a model would have said its third token, it now says the mark."""
    with loaded() as (path, model, tokenizer):
        before = texts(model, tokenizer, PROMPTS, max_tokens=12)
        token = int(before[0].tokens[2])
        (end,) = tokenizer.tokenize(mark)

    def change(name, values):
        if name == "output.weight":
            values[[token, end]] = values[[end, token]]
        return values

    with Model(rewritten(path, "ends", change)) as model:
        tokenizer = Tokenizer(model.vocab, model.n_vocab, "m")
        after = texts(model, tokenizer, PROMPTS, max_tokens=12)
        expected = [item.tokens.tolist() for item in before]
        for tokens, item in zip(expected, after, strict=True):
            cut = tokens.index(token) if token in tokens else len(tokens)
            assert item.tokens.tolist() == tokens[:cut]
            assert mark not in item.text
        assert len(after[0].tokens) <= 2


def test_a_rule_ends_a_text_after_the_token_that_fulfils_it():
    with loaded() as (_, model, tokenizer):
        whole = texts(model, tokenizer, PROMPTS, max_tokens=12)
        seen = []

        def long_enough(text):
            seen.append(text)
            return len(text) >= 6

        cut = texts(model, tokenizer, PROMPTS, max_tokens=12, is_done=long_enough)
        for before, after in zip(whole, cut, strict=True):
            assert before.text.startswith(after.text) or "\ufffd" in after.text
            assert len(after.text) >= 6 or after.text == before.text
            assert len(after.tokens) < 12
        assert set(seen) >= {item.text for item in cut}


def test_progress_counts_prompts_and_tokens():
    with loaded() as (_, model, tokenizer):
        told = []
        small = replace(SETTINGS, n_batch=16, n_ubatch=16)
        found = texts(
            model, tokenizer, PROMPTS, small, max_tokens=5, progress=lambda *args: told.append(args)
        )
        assert told[-1] == (4, sum(len(p) for p in PROMPTS) + 4 * 4)
        assert told == sorted(told) and [n for n, _ in told].count(4) == 1
        assert sum(len(item.tokens) for item in found) == 20


@pytest.mark.parametrize(
    ("length", "n", "fits"), [(60, 4, True), (60, 5, False), (64, 1, False), (5, 0, False)]
)
def test_what_does_not_fit_the_context_is_told_before_anything_runs(length, n, fits):
    with loaded("short", n_ctx_train=64) as (_, model, tokenizer):
        prompts = [PROMPTS[0], np.full(length, 40, np.int32)]
        if fits:
            assert len(texts(model, tokenizer, prompts, max_tokens=n)) == 2
            return
        with pytest.raises(InputError, match=r"context of .* is 64|at least 1, got 0") as caught:
            generate(model, tokenizer, prompts, SETTINGS, max_tokens=n)
        assert "\n" not in str(caught.value)


def test_logits_that_are_no_numbers_are_an_error():
    with loaded() as (path, _, _):
        broken = rewritten(path, "nan", lambda name, v: v * np.nan if name == "output_norm.weight" else v)
    with Model(broken) as model:
        tokenizer = Tokenizer(model.vocab, model.n_vocab, "m")
        with pytest.raises(ModelError, match="not finite numbers"):
            texts(model, tokenizer, PROMPTS[:1], max_tokens=3)


def test_half_a_character_is_a_replacement_mark():
    with loaded() as (_, model, tokenizer):
        assert n_vocab_of(WORDS, CHAT_TOKENS) == model.n_vocab
        byte = tokenizer.tokenize("é")[0]
        assert tokenizer.piece_bytes(byte) == b"\xc3" and tokenizer.piece(byte) == "\ufffd"
