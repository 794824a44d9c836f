"""Labels' tokens in small vocabularies of every family of tokenizers, against ids read off the vocabularies."""

import dataclasses
import subprocess
import sys
from contextlib import contextmanager
from string import ascii_uppercase

import pytest
from support.tiny_models import tiny_folder, write_gguf
from support.tiny_vocab import (
    CHAT_TOKENS,
    USER_DEFINED,
    bpe_vocab,
    ids_of,
    letters,
    rwkv_vocab,
    spm_vocab,
    unigram_vocab,
    wordpiece_vocab,
)

from edgecal import InputError
from edgecal.llama.model import Model
from edgecal.llama.tokenizer import Tokenizer
from edgecal.prompts import Prompt

# As in cl100k and its like, a bracket or line ends make one token with what follows.
GLUED = ("(A", "[B", ">C", '"A', "ĊĊ")

FAMILIES = {
    "gpt-2": bpe_vocab(),
    "gpt-2 glued": bpe_vocab(glued=GLUED),
    "llama-bpe": bpe_vocab(add_bos=True, pre="llama-bpe"),
    "qwen2": bpe_vocab(pre="qwen2", glued=GLUED),
    "deepseek-llm": bpe_vocab(add_bos=True, pre="deepseek-llm"),
    "llama": spm_vocab(),
    "llama bare": spm_vocab(add_space_prefix=False),
    "llama bytes": spm_vocab(lacking="DQ"),
    "llama gaps": spm_vocab(byte_tokens=False, lacking="é["),
    "unigram": unigram_vocab(),
    "unigram bos": unigram_vocab(add_bos=True),
    "unigram bare": unigram_vocab(add_space_prefix=False),
    "rwkv": rwkv_vocab(),
    "rwkv gaps": rwkv_vocab(byte_tokens=False),
    "wordpiece": wordpiece_vocab(),
}
WHOLE = sorted(set(FAMILIES) - {"wordpiece", "llama bytes", "llama gaps", "rwkv gaps"})
# In these a digit never makes one token with a space, though the vocabulary has such tokens.
DIGITS_ALONE = ("llama-bpe", "qwen2", "deepseek-llm")


@contextmanager
def tokenizer_of(vocab, name="m", **metadata):
    path = tiny_folder() / "family.gguf"
    keys = {**vocab.metadata(), **metadata}
    write_gguf(path, "llama", {key: value for key, value in keys.items() if value is not None}, {})
    with Model(path, vocab_only=True) as model:
        yield Tokenizer(model.vocab, model.n_vocab, name)


def added(vocab, token):
    """The vocabulary with a token that its maker added, which is found in a text before all others."""
    vocab = vocab.extended((token,))
    return dataclasses.replace(vocab, token_types=(*vocab.token_types[:-1], USER_DEFINED))


def asked(text, n=4):
    return Prompt(text=text, labels=tuple(ascii_uppercase[:n]), labels_verbatim=False, source="f, line 3")


def verbatim(text, *labels):
    return Prompt(text=text, labels=labels, source="f, line 3")


def refused(tokenizer, prompt, *parts):
    with pytest.raises(InputError) as caught:
        tokenizer.resolve(prompt)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


@pytest.mark.parametrize("family", WHOLE)
@pytest.mark.parametrize("n", [2, 4, 26])
def test_after_a_word_the_letter_with_its_space(family, n):
    vocab = FAMILIES[family]
    with tokenizer_of(vocab) as tokenizer:
        text = "Which is it?\nAnswer:"
        resolved = tokenizer.resolve(asked(text, n))
        assert resolved.choice_tokens.tolist() == letters(vocab, n)
        for letter, token in zip(ascii_uppercase, resolved.choice_tokens.tolist(), strict=False):
            assert tokenizer.tokenize(f"{text} {letter}") == [*resolved.tokens.tolist(), token]


# A unigram tokenizer knows only the characters of its vocabulary.
@pytest.mark.parametrize(
    ("family", "end"),
    [
        (family, end)
        for family in WHOLE
        for end in (
            *("Answer: (", "(", 'Answer: "'),
            *(
                ()
                if family.startswith("unigram")
                else ("\n(", "\n[", "\n<answer>", "\n", "\n\n", "\t", "\u00a0", "\u7b54\uff1a")
            ),
        )
    ],
)
def test_where_a_word_follows_directly_the_letter_alone(family, end):
    vocab = FAMILIES[family]
    with tokenizer_of(vocab) as tokenizer:
        resolved = tokenizer.resolve(asked(f"Which is it?{end}"))
        assert resolved.choice_tokens.tolist() == letters(vocab, space=False)
        assert resolved.tokens.tolist() == tokenizer.tokenize(f"Which is it?{end}")


@pytest.mark.parametrize("family", ["gpt-2 glued", "qwen2"])
def test_the_tokens_of_a_letter_joined_with_a_bracket_are_really_there(family):
    """Else the test above would prove nothing."""
    with tokenizer_of(FAMILIES[family]) as tokenizer:
        joined = {tokenizer.piece(tokenizer.tokenize(text)[-1]) for text in ("\n(A", "\n[B", "\n<answer>C")}
        assert joined == ({"(A", "[B", ">C"} if family == "qwen2" else {"A", "B", "C"})
        line_ends = tokenizer.tokenize("x\n\n"), tokenizer.tokenize("x\n\nA")
        assert (line_ends[1][:-1] == line_ends[0]) == (family == "qwen2")


@pytest.mark.parametrize("family", [name for name in WHOLE if not name.startswith("unigram")])
def test_after_a_plain_space_the_letter_with_another(family):
    vocab = FAMILIES[family]
    with tokenizer_of(vocab) as tokenizer:
        resolved = tokenizer.resolve(asked("Answer: "))
        assert resolved.choice_tokens.tolist() == letters(vocab)
        assert tokenizer.tokenize("Answer:  A") == [*resolved.tokens.tolist(), letters(vocab)[0]]


def test_a_space_that_would_be_joined_with_the_letters_is_to_be_left_out():
    vocab = added(bpe_vocab(), "  ")  # as GPT-NeoX and Gemma
    with tokenizer_of(vocab) as tokenizer:
        last = (
            "'A' becomes tokens that also change the end of the prompt: ' A'; leave out the space at the end"
        )
        refused(tokenizer, asked("Answer: "), "f, line 3: the label 'A' is not one token", last)
        assert tokenizer.resolve(asked("Answer:")).choice_tokens.tolist() == letters(vocab)
        assert tokenizer.resolve(asked("Answer:  ")).choice_tokens.tolist() == letters(vocab, space=False)


@pytest.mark.parametrize("family", ["gpt-2", "llama-bpe", "qwen2", "llama", "llama bare", "unigram", "rwkv"])
def test_after_a_special_token_the_letter_as_the_tokenizer_begins_a_text(family):
    vocab = FAMILIES[family]
    with tokenizer_of(vocab.extended(CHAT_TOKENS)) as tokenizer:
        resolved = tokenizer.resolve(asked("Which is it?<|im_start|>"))
        puts_space = family in ("llama", "unigram")
        assert resolved.choice_tokens.tolist() == letters(vocab, space=puts_space)
        assert tokenizer.tokenize("Which is it?<|im_start|>A") == [
            *resolved.tokens,
            resolved.choice_tokens[0],
        ]


@pytest.mark.parametrize("family", WHOLE)
def test_digits_as_labels(family):
    vocab = FAMILIES[family]
    bare = ids_of(vocab, "123456789", space=False)
    with tokenizer_of(vocab) as tokenizer:
        assert tokenizer.resolve(verbatim("Answer: ", *"123456789")).choice_tokens.tolist() == bare
        assert tokenizer.resolve(verbatim("Answer: (", *"123456789")).choice_tokens.tolist() == bare
        spaced = verbatim("Answer:", *(f" {digit}" for digit in "123456789"))
        if family in DIGITS_ALONE:
            told = "2 tokens: ' ', '1'); end the prompt with the space, and give the label as '1'"
            refused(tokenizer, spaced, "f, line 3: the label ' 1' is not one token", told)
        else:
            assert tokenizer.resolve(spaced).choice_tokens.tolist() == ids_of(vocab, "123456789")
        refused(
            tokenizer,
            verbatim("Answer: (", "9", "10"),
            "the label '10' is not one token",
            "2 tokens: '1', '0'",
        )


@pytest.mark.parametrize("family", ["llama", "llama bare"])
def test_a_character_is_preferred_to_its_byte(family):
    """`Answer: A` joins the space with the letter, so each label's own token is looked up: `A`, not `<0x41>`."""
    vocab = FAMILIES[family]
    with tokenizer_of(vocab) as tokenizer:
        for labels in (tuple("ABCD"), tuple("abcd"), ("yes", "no")):
            resolved = tokenizer.resolve(verbatim("Answer: ", *labels))
            assert resolved.choice_tokens.tolist() == [vocab.id_of(label) for label in labels]
        assert tokenizer.token_of("A") == vocab.id_of("A") > vocab.id_of("<0x41>")
        assert tokenizer.token_of("\x07") == vocab.id_of("<0x07>") and tokenizer.token_of("\u4e2d") is None


def test_a_vocabulary_without_quotes_is_not_asked_for_them():
    with tokenizer_of(spm_vocab(byte_tokens=False, lacking='"')) as tokenizer:
        refused(tokenizer, verbatim("Answer: ", "A", "B"), "f, line 3: the label 'A' is not one token")


def test_an_added_token_is_preferred_to_one_of_the_language():
    vocab = added(bpe_vocab(), " yes")
    with tokenizer_of(vocab) as tokenizer:
        assert tokenizer.token_of(" yes") == vocab.id_of(" yes") != vocab.id_of("Ġyes")
        assert tokenizer.tokenize(" yes") == [vocab.id_of(" yes")]


def test_an_added_letter_is_no_mark():
    vocab = added(bpe_vocab(), "я")  # DeepSeek's vocabularies have such letters
    with tokenizer_of(vocab) as tokenizer:
        assert tokenizer.is_special(tokenizer.tokenize("Имя")[-1])
        assert tokenizer.resolve(asked("Имя")).choice_tokens.tolist() == letters(vocab)


def test_letters_that_exist_as_bytes_only():
    vocab = FAMILIES["llama bytes"]
    with tokenizer_of(vocab) as tokenizer:
        expected = [*letters(vocab, 3, space=False), vocab.id_of("<0x44>")]
        assert tokenizer.resolve(asked("Answer\n")).choice_tokens.tolist() == expected
        assert tokenizer.resolve(asked("Answer: (")).choice_tokens.tolist() == expected
        assert tokenizer.resolve(verbatim("Answer: (", "A", "D")).choice_tokens.tolist() == expected[::3]
        # ` D` is two tokens, so no letter has its space.
        assert tokenizer.resolve(asked("Answer:")).choice_tokens.tolist() == expected
        assert tokenizer.resolve(asked("Answer:", 3)).choice_tokens.tolist() == letters(vocab, 3)
        refused(
            tokenizer, verbatim("Answer\n", "é", "A"), "the label 'é' is not one token", "2 tokens: '�', '�'"
        )


def test_a_label_of_several_bytes_is_one_token_where_the_vocabulary_has_it():
    vocab = bpe_vocab(glued=("Ã©", "Ã¨"))  # é and è
    with tokenizer_of(vocab) as tokenizer:
        expected = [vocab.id_of("Ã©"), vocab.id_of("Ã¨")]
        assert tokenizer.resolve(verbatim("Answer\n", "é", "è")).choice_tokens.tolist() == expected


def test_a_unigram_tokenizer_does_not_know_everything():
    with tokenizer_of(FAMILIES["unigram"]) as tokenizer:
        refused(tokenizer, verbatim("Answer:", "é", "A"), "the label 'é' is not one token", "'<unk>'")
        assert tokenizer.resolve(asked("Né?\nAnswer:")).choice_tokens.tolist() == letters(FAMILIES["unigram"])


def test_rwkv_tokens_are_stored_escaped():
    vocab = FAMILIES["rwkv"]
    with tokenizer_of(vocab) as tokenizer:
        tokens = tokenizer.tokenize("é\n\n'\\")
        stored = [vocab.tokens[token].decode() for token in tokens]
        assert stored == [r"\xc3", r"\xa9", r"\n\n", "'", r"\\"]
        assert b"".join(map(tokenizer.piece_bytes, tokens)) == "é\n\n'\\".encode()


def test_wordpiece_is_refused():
    with tokenizer_of(FAMILIES["wordpiece"], "the chat model m") as tokenizer:
        refused(
            tokenizer,
            asked("Answer:"),
            "the chat model m: its tokenizer is WordPiece",
            "give a causal language",
        )
        assert tokenizer.resolve(Prompt(tokens=(5, 6), choice_tokens=(7, 8))).tokens.tolist() == [5, 6]


# Over each of these llama.cpp would end the process (or, for RWKV, never come back).
@pytest.mark.parametrize(
    ("family", "text", "character"),
    [
        ("llama gaps", "né", "'é' (U+00E9)"),
        ("llama gaps", "Answer: [", "'[' (U+005B)"),
        ("llama gaps", "\u4e2d", "'\u4e2d' (U+4E2D)"),
        ("rwkv gaps", "Answer?", "'?' (U+003F)"),
        ("rwkv gaps", "né", "'é' (U+00E9)"),
    ],
)
def test_what_a_vocabulary_cannot_spell_is_refused(family, text, character):
    vocab = FAMILIES[family]
    with tokenizer_of(vocab.extended(("<|im_start|>",)), "the chat model m") as tokenizer:
        told = f"the tokenizer of the chat model m has no token for {character}, nor for each of its bytes"
        refused(tokenizer, asked(text), f"f, line 3: {told}")
        refused(tokenizer, verbatim("Answer:", "A", text), f"f, line 3: {told}")
        # The rest can be used, and a special token needs no spelling.
        assert len(tokenizer.resolve(asked("<|im_start|>Answer:")).choice_tokens) == 4


def test_a_vocabulary_that_cannot_spell_a_space():
    with tokenizer_of(spm_vocab(byte_tokens=False, lacking="▁")) as tokenizer:
        refused(tokenizer, asked("Answer:"), "has no token for ' ' (U+0020)")


GEMMA_4 = dataclasses.replace(spm_vocab(), model="gemma4", merges=("▁ A",))


@pytest.mark.parametrize(
    ("vocab", "metadata", "token"),
    [
        (unigram_vocab(add_bos=True), {"tokenizer.ggml.bos_token_id": None}, "bos"),
        (GEMMA_4, {"tokenizer.ggml.bos_token_id": None}, "bos"),
        (GEMMA_4, {"tokenizer.ggml.eos_token_id": None, "tokenizer.ggml.add_eos_token": True}, "eos"),
    ],
)
def test_a_token_that_is_to_be_added_and_missing_is_named(vocab, metadata, token):
    with tokenizer_of(vocab, "the chat model m", **metadata) as tokenizer:
        told = f"to add a {token.upper()} token to every text, but the file names none"
        refused(tokenizer, asked("Answer:"), told, f"(tokenizer.ggml.{token}_token_id)", "or give prompts as")
        assert tokenizer.resolve(Prompt(tokens=(5, 6), choice_tokens=(7, 8))).tokens.tolist() == [5, 6]


def test_llama_cpp_does_abort():
    """Should it learn to refuse a text itself, `Spelling` can go."""
    path = tiny_folder() / "gaps.gguf"
    write_gguf(path, "llama", FAMILIES["llama gaps"].metadata(), {})
    code = "import sys, llama_cpp; m = llama_cpp.Llama(sys.argv[1], vocab_only=True, verbose=False); m.tokenize(b'[')"
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, env={"GGML_NO_BACKTRACE": "1"}
    )
    assert done.returncode < 0
