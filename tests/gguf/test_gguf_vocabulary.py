"""Vocabularies agree but for added special tokens; the first difference that counts is named."""

import time

import pytest
from support.gguf_files import bare_tensor, key, raw_gguf, write_bytes

from edgecal.errors import InputError
from edgecal.gguf.header import read_header
from edgecal.gguf.model_checks import compare_vocabularies
from edgecal.gguf.values import Value, ValueType

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = range(1, 7)
WORDS = ["<unk>", "a", "b", "c", "<x>"]
KINDS = [UNKNOWN, NORMAL, NORMAL, NORMAL, UNUSED]


def vocabulary(path, tokens=WORDS, types=KINDS, model="gpt2"):
    keys = [
        key("general.architecture", Value.string("llama")),
        key("tokenizer.ggml.model", Value.string(model)),
        key("tokenizer.ggml.tokens", Value.array(ValueType.STRING, tokens)),
    ]
    if types is not None:
        keys.append(key("tokenizer.ggml.token_type", Value.array(ValueType.INT32, types)))
    return read_header(write_bytes(path, raw_gguf(keys)))


def without_tokenizer(path, rows=None, vocab_size=None, model=None):
    keys = [key("general.architecture", Value.string("llama"))]
    if vocab_size is not None:
        keys.append(key("llama.vocab_size", Value.uint32(vocab_size)))
    if model is not None:
        keys.append(key("tokenizer.ggml.model", Value.string(model)))
    tensors = [] if rows is None else [bare_tensor("token_embd.weight", [1, rows])]
    return read_header(write_bytes(path, raw_gguf(keys, tensors, bytes(4 * (rows or 0)))))


def compare(tmp_path, tokens, types, base_tokens=WORDS, base_types=KINDS):
    base = vocabulary(tmp_path / "base.gguf", base_tokens, base_types)
    return compare_vocabularies(base, vocabulary(tmp_path / "chat.gguf", tokens, types))


@pytest.mark.parametrize("types", [KINDS, None, [NORMAL] * 5])
def test_equal(tmp_path, types):
    match = compare(tmp_path, WORDS, types)
    assert match.equal
    assert (match.n_base, match.n_chat, match.n_special, match.index, match.reason) == (5, 5, 0, None, "")


def test_special_tokens_may_differ_and_be_added(tmp_path):
    renamed = compare(tmp_path, [*WORDS[:4], "<|im_start|>"], [*KINDS[:4], CONTROL])
    assert (renamed.equal, renamed.n_special) == (True, 1)
    for kind in (CONTROL, USER, UNUSED):
        longer = compare(tmp_path, [*WORDS, "<y>", "<z>"], [*KINDS, kind, kind])
        assert (longer.equal, longer.n_base, longer.n_chat, longer.n_special) == (True, 5, 7, 2)
    shorter = compare(tmp_path, WORDS[:4], KINDS[:4])
    assert (shorter.equal, shorter.n_special) == (True, 1)


def test_only_one_side_need_call_it_special(tmp_path):
    assert compare(tmp_path, [*WORDS[:3], "d", "<x>"], [*KINDS[:3], USER, UNUSED]).equal
    assert compare(tmp_path, [*WORDS[:4], "word"], [*KINDS[:4], NORMAL]).equal


def test_the_first_difference_is_named(tmp_path):
    match = compare(tmp_path, ["<unk>", "a", "B", "C", "<x>"], KINDS)
    assert not match.equal
    assert (match.index, match.base_text, match.chat_text) == (2, "b", "B")
    assert match.reason == "token 2 is 'b' (base) and 'B' (chat)"


def test_an_ordinary_token_more_counts(tmp_path):
    match = compare(tmp_path, [*WORDS, "<y>", "word"], [*KINDS, CONTROL, NORMAL])
    assert (match.equal, match.index, match.base_text, match.chat_text) == (False, 6, None, "word")
    match = compare(tmp_path, WORDS[:3], KINDS[:3])
    assert (match.equal, match.index, match.base_text, match.chat_text) == (False, 3, "c", None)
    assert match.reason == "token 3 is 'c' (base) and none (chat)"


def test_without_types_every_token_counts(tmp_path):
    assert not compare(tmp_path, [*WORDS, "<y>"], None, base_types=None).equal


def test_another_kind_of_tokenizer(tmp_path):
    base = vocabulary(tmp_path / "base.gguf")
    match = compare_vocabularies(base, vocabulary(tmp_path / "chat.gguf", model="llama"))
    assert match.reason == "tokenizer 'gpt2' (base) and 'llama' (chat)"
    match = compare_vocabularies(base, without_tokenizer(tmp_path / "none.gguf", rows=5))
    assert match.reason == "tokenizer 'gpt2' (base) and none (chat)"


@pytest.mark.parametrize("model", [None, "none", "no_vocab"])
def test_without_tokenizers_the_sizes_count(tmp_path, model):
    by_key = without_tokenizer(tmp_path / "a.gguf", vocab_size=7, model=model)
    by_rows = without_tokenizer(tmp_path / "b.gguf", rows=7)
    other = without_tokenizer(tmp_path / "c.gguf", rows=8)
    assert compare_vocabularies(by_key, by_rows).equal
    match = compare_vocabularies(by_key, other)
    assert (match.equal, match.reason) == (False, "7 tokens (base) and 8 (chat)")


def test_tokens_that_are_not_utf8(tmp_path):
    odd = Value(ValueType.ARRAY, Value.array(ValueType.STRING, ["x"]).raw[:-1] + b"\xff")
    keys = [key("tokenizer.ggml.model", Value.string("gpt2")), key("tokenizer.ggml.tokens", odd)]
    base = read_header(write_bytes(tmp_path / "base.gguf", raw_gguf(keys)))
    match = compare_vocabularies(base, vocabulary(tmp_path / "chat.gguf", ["y"], None))
    assert (match.equal, match.base_text) == (False, "\ufffd")


def test_malformed_tokenizers_are_input_errors(tmp_path):
    good = vocabulary(tmp_path / "good.gguf")
    wrong = {
        "no tokens": [key("tokenizer.ggml.model", Value.string("gpt2"))],
        "model a number": [key("tokenizer.ggml.model", Value.uint32(1))],
        "tokens numbers": [
            key("tokenizer.ggml.model", Value.string("gpt2")),
            key("tokenizer.ggml.tokens", Value.array(ValueType.INT32, [1])),
        ],
        "tokens no array": [
            key("tokenizer.ggml.model", Value.string("gpt2")),
            key("tokenizer.ggml.tokens", Value.uint32(1)),
        ],
        "too few types": [
            key("tokenizer.ggml.model", Value.string("gpt2")),
            key("tokenizer.ggml.tokens", Value.array(ValueType.STRING, ["a", "b"])),
            key("tokenizer.ggml.token_type", Value.array(ValueType.INT32, [1])),
        ],
        "types texts": [
            key("tokenizer.ggml.model", Value.string("gpt2")),
            key("tokenizer.ggml.tokens", Value.array(ValueType.STRING, ["a"])),
            key("tokenizer.ggml.token_type", Value.array(ValueType.STRING, ["1"])),
        ],
    }
    for keys in wrong.values():
        bad = read_header(write_bytes(tmp_path / "bad.gguf", raw_gguf(keys)))
        for pair in ((good, bad), (bad, good)):
            with pytest.raises(InputError):
                compare_vocabularies(*pair)


def test_a_large_vocabulary_is_compared_quickly(tmp_path):
    tokens = [f"token {i}" for i in range(128_000)]
    types = [NORMAL] * 128_000
    base = vocabulary(tmp_path / "base.gguf", tokens, types)
    chat = vocabulary(tmp_path / "chat.gguf", [*tokens, "<new>"], [*types, CONTROL])
    started = time.monotonic()
    assert compare_vocabularies(base, chat).equal
    assert compare_vocabularies(base, base).equal
    assert time.monotonic() - started < 5  # 0.1 s on an idle machine
