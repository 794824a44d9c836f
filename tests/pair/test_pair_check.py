"""Which two files are a pair, from their headers alone."""

import pytest
from support.tiny_models import tiny_folder, write_tiny_llama, write_tiny_pair

from edgecal import InputError
from edgecal.gguf.shards import find_shards
from edgecal.pair.compatibility import check_pair


@pytest.fixture(scope="module")
def folder():
    folder = tiny_folder() / "pair-check"
    folder.mkdir()
    write_tiny_pair(folder / "base.gguf", folder / "chat.gguf", seed=5)
    write_tiny_llama(folder / "deep.gguf", seed=5, n_layer=6)
    write_tiny_llama(folder / "wide.gguf", seed=5, n_embd=128)
    write_tiny_llama(folder / "spm.gguf", seed=5, vocab="spm")
    write_tiny_llama(folder / "flat.gguf", seed=5, n_layer=1)
    write_tiny_llama(folder / "Nice-7B-Instruct.gguf", seed=5, metadata={"general.name": None})
    return folder


def check(folder, base, chat, *, layers):
    return check_pair(find_shards(folder / base), find_shards(folder / chat), layers=layers)


@pytest.mark.parametrize("layers", [True, False])
def test_a_pair_earns_no_warning(folder, layers):
    assert check(folder, "base.gguf", "chat.gguf", layers=layers) == []


@pytest.mark.parametrize(
    ("chat", "told"),
    [
        ("deep.gguf", "4 blocks (base) and 6 blocks (chat)"),
        ("wide.gguf", "embeddings of 64 (base) and 128 (chat) numbers"),
        ("spm.gguf", "tokenizer"),
    ],
)
def test_unlike_models_are_refused_with_layers_and_warned_about_without(folder, chat, told):
    with pytest.raises(InputError) as caught:
        check(folder, "base.gguf", chat, layers=True)
    assert told in str(caught.value) and "--method daca" in str(caught.value)
    warnings = check(folder, "base.gguf", chat, layers=False)
    assert any(told in warning for warning in warnings)


def test_paths_need_two_blocks_to_part(folder):
    with pytest.raises(InputError, match=r"1 block each.*--method daca"):
        check(folder, "flat.gguf", "flat.gguf", layers=True)
    check(folder, "flat.gguf", "flat.gguf", layers=False)


def test_a_base_that_looks_like_a_chat_model(folder):
    (warning,) = check(folder, "chat.gguf", "base.gguf", layers=True)
    assert "chat template" in warning and "'Tiny Llama Chat'" in warning
    assert any(
        "Nice-7B-Instruct" in text
        for text in check(folder, "Nice-7B-Instruct.gguf", "base.gguf", layers=True)
    )


def test_a_model_against_itself(folder):
    (warning,) = check(folder, "base.gguf", "base.gguf", layers=True)
    assert "same file" in warning
