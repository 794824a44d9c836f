"""Tokens as llama.cpp has them, and the labels' tokens as they follow a prompt, on real vocabularies."""

from contextlib import contextmanager

import llama_cpp
import numpy as np
import pytest
from support.chat_templates import CHAT_TEMPLATES
from support.tiny_models import tiny_folder, write_tiny_llama
from support.tiny_vocab import CHAT_TOKENS, bpe_vocab, spm_vocab

from edgecal import InputError
from edgecal.llama.model import Model
from edgecal.llama.tokenizer import ResolvedPrompt, Tokenizer
from edgecal.prompts import ChatTemplate, Prompt, Prompting, Question

KINDS = {
    "bpe": {"vocab": bpe_vocab()},
    "bpe with bos": {"vocab": bpe_vocab(add_bos=True)},
    "spm": {"vocab": spm_vocab()},
    "spm without prefix": {"vocab": spm_vocab(add_space_prefix=False)},
    "chat": {"vocab": bpe_vocab(), "extra_tokens": CHAT_TOKENS},
    "chat spm": {"vocab": spm_vocab(), "extra_tokens": CHAT_TOKENS},
    "chat spm bare": {"vocab": spm_vocab(add_space_prefix=False), "extra_tokens": CHAT_TOKENS},
    "eos": {"vocab": spm_vocab(), "metadata": {"tokenizer.ggml.add_eos_token": True}},
    "none": {"vocab": "none"},
}


def path_of(kind):
    path = tiny_folder() / f"vocabulary {kind}.gguf"
    if not path.exists():
        write_tiny_llama(path, seed=1, n_layer=1, **KINDS[kind])
    return path


@contextmanager
def tokenizer_of(kind):
    path = path_of(kind)
    with Model(path) as model:
        yield Tokenizer(model.vocab, model.n_vocab, f"the chat model {path.name}")


def letters(n, text="Which is it?\nAnswer:"):
    return Prompt(
        text=text, labels=tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"[:n]), labels_verbatim=False, source="f, line 3"
    )


@pytest.mark.parametrize("kind", ["bpe", "bpe with bos", "spm", "spm without prefix", "chat"])
@pytest.mark.parametrize(
    "text", ["Answer the question", "", " two  spaces ", "né \u4e2d\n", "<|im_start|>user", "</s>x", "x<s>"]
)
def test_the_same_tokens_as_the_bindings(kind, text):
    llama = llama_cpp.Llama(str(path_of(kind)), vocab_only=True, verbose=False)
    expected = llama.tokenize(text.encode(), add_bos=True, special=True)
    llama.close()
    with tokenizer_of(kind) as tokenizer:
        assert tokenizer.tokenize(text) == expected


def test_special_tokens_in_text_are_special():
    with tokenizer_of("chat") as tokenizer:
        assert [tokenizer.piece(token) for token in tokenizer.tokenize("<|im_start|>yes")] == [
            "<|im_start|>",
            "yes",
        ]


@pytest.mark.parametrize(
    ("kind", "bos"),
    [
        ("bpe with bos", "<|bos|>"),
        ("bpe", "<|bos|>"),
        ("spm", "<s>"),
        ("spm without prefix", "<s>"),
        ("eos", "<s>"),
    ],
)
def test_one_bos_whether_the_text_spells_it_or_the_model_adds_it(kind, bos):
    with tokenizer_of(kind) as tokenizer:
        written = [tokenizer.piece(token) for token in tokenizer.tokenize(f"{bos}user")]
        bare = [tokenizer.piece(token) for token in tokenizer.tokenize("user")]
        assert written.count(bos) == 1 and written[0] == bos
        assert bare == (written if kind != "bpe" else written[1:])
        # Only the first is a beginning; whoever writes it twice means it.
        twice = tokenizer.tokenize(f"{bos}{bos}user")
        assert [tokenizer.piece(token) for token in twice].count(bos) == 2


def test_no_end_token_after_the_prompt():
    with tokenizer_of("eos") as with_eos, tokenizer_of("spm") as without:
        assert with_eos.tokenize("Which is it?") == without.tokenize("Which is it?")
        assert (
            with_eos.resolve(letters(4)).choice_tokens.tolist()
            == without.resolve(letters(4)).choice_tokens.tolist()
        )


@pytest.mark.parametrize("kind", ["bpe", "bpe with bos", "spm", "spm without prefix"])
def test_letters_after_a_colon_take_a_space(kind):
    with tokenizer_of(kind) as tokenizer:
        resolved = tokenizer.resolve(letters(26))
        pieces = [tokenizer.piece(token) for token in resolved.choice_tokens]
        assert pieces == [f" {letter}" for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
        assert resolved.tokens.tolist() == tokenizer.tokenize("Which is it?\nAnswer:")


@pytest.mark.parametrize("kind", ["bpe", "spm"])
def test_letters_after_a_line_end_take_none(kind):
    with tokenizer_of(kind) as tokenizer:
        resolved = tokenizer.resolve(letters(4, "Which is it?\nAnswer\n"))
        assert [tokenizer.piece(token) for token in resolved.choice_tokens] == list("ABCD")


@pytest.mark.parametrize("kind", ["bpe", "spm"])
@pytest.mark.parametrize("bracket", [" (", "[", "Answer: ("])
def test_letters_after_an_opening_bracket_take_none(kind, bracket):
    with tokenizer_of(kind) as tokenizer:
        resolved = tokenizer.resolve(letters(4, f"Which is it?\n{bracket}"))
        assert [tokenizer.piece(token) for token in resolved.choice_tokens] == list("ABCD")


@pytest.mark.parametrize("mark", ["<|im_end|>", "<|im_start|>"])
@pytest.mark.parametrize(
    ("kind", "pieces"),
    [("chat", list("ABCD")), ("chat spm bare", list("ABCD")), ("chat spm", [" A", " B", " C", " D"])],
)
def test_letters_after_a_special_token(kind, pieces, mark):
    """Directly; where SentencePiece puts a space of its own before the word, it is in the token."""
    with tokenizer_of(kind) as tokenizer:
        resolved = tokenizer.resolve(letters(4, f"Which is it?{mark}"))
        assert [tokenizer.piece(token) for token in resolved.choice_tokens] == pieces
        assert resolved.tokens.tolist() == tokenizer.tokenize(f"Which is it?{mark}")
        joint = [tokenizer.tokenize(f"Which is it?{mark}{letter}")[-1] for letter in "ABCD"]
        assert resolved.choice_tokens.tolist() == joint


@pytest.mark.parametrize("kind", ["chat", "chat spm", "chat spm bare"])
@pytest.mark.parametrize("label", ["{}", " {}"])
def test_verbatim_labels_after_a_special_token_are_exact(kind, label):
    labels = tuple(label.format(letter) for letter in "ABCD")
    with tokenizer_of(kind) as tokenizer:
        resolved = tokenizer.resolve(Prompt(text="Which is it?<|im_end|>", labels=labels))
        assert tuple(tokenizer.piece(token) for token in resolved.choice_tokens) == labels


def test_which_tokens_are_special_and_which_end_a_turn():
    with tokenizer_of("chat") as tokenizer:
        marks = tokenizer.tokenize("<|im_start|><|im_end|><|endoftext|>")
        words = tokenizer.tokenize("user A (")
        assert all(tokenizer.is_special(token) for token in marks)
        assert not any(tokenizer.is_special(token) for token in words)
        assert [tokenizer.ends_generation(token) for token in marks] == [False, True, True]
        assert not any(tokenizer.ends_generation(token) for token in words)


def test_prompt_tokens_do_not_need_labels():
    with tokenizer_of("bpe") as tokenizer:
        asked = letters(4)
        assert tokenizer.prompt_tokens(asked).tolist() == tokenizer.resolve(asked).tokens.tolist()
        assert tokenizer.prompt_tokens(Prompt(tokens=(5, 6), choice_tokens=(1, 2))).tolist() == [5, 6]
        assert tokenizer.prompt_tokens(Prompt(text="x")).dtype == "int32"
        with pytest.raises(InputError, match="f, line 3: the prompt has no tokens"):
            tokenizer.prompt_tokens(Prompt(text="", source="f, line 3"))
        with pytest.raises(InputError, match="f, line 3: token id 4000 is outside"):
            tokenizer.prompt_tokens(Prompt(tokens=(4000,), choice_tokens=(1, 2), source="f, line 3"))


@pytest.mark.parametrize("name", CHAT_TEMPLATES)
@pytest.mark.parametrize("kind", ["bpe with bos", "spm", "spm without prefix"])
def test_chat_prompts_of_all_shapes_resolve(kind, name):
    """In vocabularies that lack the templates' marks, too."""
    with tokenizer_of(kind) as tokenizer:
        bos = "<s>" if kind.startswith("spm") else "<|bos|>"
        template = ChatTemplate(CHAT_TEMPLATES[name], bos_token=bos, eos_token="</s>", name=name)
        question = Question("Which?", ("x", "y", "z", "u"), source="f, line 3")
        pair = Prompting(chat_template=template).render_question(question)
        resolved = tokenizer.resolve(pair.chat)
        bare = template.render([{"role": "user", "content": "x"}]).rstrip(" ")[-1:]
        expected = "ABCD" if bare == "\n" else [" A", " B", " C", " D"]
        assert [tokenizer.piece(token) for token in resolved.choice_tokens] == list(expected)
        first = [tokenizer.piece(token) for token in resolved.tokens[:2]]
        assert first[0] == bos and first[1] != bos


@pytest.mark.parametrize("kind", ["bpe", "spm"])
def test_verbatim_labels_are_the_tokens_of_that_text(kind):
    with tokenizer_of(kind) as tokenizer:
        prompt = Prompt(text="Is it so? Answer:", labels=(" yes", " no"), source="f, line 3")
        assert [tokenizer.piece(t) for t in tokenizer.resolve(prompt).choice_tokens] == [" yes", " no"]
        # Joined with the space before it the tokenizer would make another token of it; its own text still is one.
        prompt = Prompt(text="Is it so? Answer: ", labels=("yes", "no"), source="f, line 3")
        assert [tokenizer.piece(t) for t in tokenizer.resolve(prompt).choice_tokens] == ["yes", "no"]


@pytest.mark.parametrize(
    ("kind", "prompt", "told"),
    [
        (
            "bpe",
            Prompt(text="So:", labels=(" yes", " maybe not"), source="f, line 3"),
            'single token, such as " A", or the record as {"question": ..., "choices": [...]}',
        ),
        (
            "spm",
            Prompt(text="So:", labels=(" yes", " zebra"), source="f, line 3"),
            "' zebra' is not one token",
        ),
        ("none", letters(2), "has no tokenizer"),
        (
            "bpe",
            Prompt(tokens=(5, 4000), choice_tokens=(1, 2), source="f, line 3"),
            "token id 4000 is outside",
        ),
        (
            "none",
            Prompt(tokens=(5,), choice_tokens=(1, 4000), source="f, line 3"),
            "token id 4000 is outside",
        ),
    ],
)
def test_what_cannot_be_resolved_is_one_clear_line(kind, prompt, told):
    with tokenizer_of(kind) as tokenizer, pytest.raises(InputError) as caught:
        tokenizer.resolve(prompt)
    text = str(caught.value)
    assert told in text and "\n" not in text and f"the chat model vocabulary {kind}.gguf" in text


def test_letters_that_the_vocabulary_lacks():
    from dataclasses import replace

    from support.tiny_vocab import UNUSED

    whole = bpe_vocab()
    gone = {whole.id_of("ĠC"), whole.id_of("C")}
    words = tuple(b"<gone %d>" % index if index in gone else word for index, word in enumerate(whole.tokens))
    types = tuple(UNUSED if index in gone else kind for index, kind in enumerate(whole.token_types))
    merges = tuple(merge for merge in whole.merges if merge != "Ġ C")
    path = tiny_folder() / "no C.gguf"
    write_tiny_llama(
        path, seed=1, n_layer=1, vocab=replace(whole, tokens=words, token_types=types, merges=merges)
    )
    with Model(path) as model:
        tokenizer = Tokenizer(model.vocab, model.n_vocab, "m")
        assert len(tokenizer.resolve(letters(2)).choice_tokens) == 2
        with pytest.raises(
            InputError, match=r"f, line 3: the label 'C' is not one token after this prompt in m"
        ):
            tokenizer.resolve(letters(3))


def with_forms(*forms, text="Is it so?\nAnswer:"):
    labels = tuple(of_label[0] if of_label else "?" for of_label in forms)
    return Prompt(text=text, labels=labels, label_forms=forms, source="f, line 3")


@pytest.mark.parametrize("kind", ["bpe", "spm", "spm without prefix"])
def test_forms_of_one_token_stand_for_their_label(kind):
    with tokenizer_of(kind) as tokenizer:
        resolved = tokenizer.resolve(with_forms((" A", "A", " A", "a b c"), (" B", "B B")))
        pieces = [tokenizer.piece(token) for token in resolved.choice_tokens]
        bare = tokenizer.resolve(Prompt(text="Is it so?\nAnswer:", labels=(" A", " B")))
    assert list(zip(pieces, resolved.label_of.tolist(), strict=True)) == [(" A", 0), ("A", 0), (" B", 1)]
    assert resolved.has_forms and not bare.has_forms
    assert resolved.choice_tokens[[0, 2]].tolist() == bare.choice_tokens.tolist()
    assert resolved.label_of.dtype == bare.label_of.dtype == np.int32
    assert bare.label_of.tolist() == [0, 1]
    assert resolved.tokens.tolist() == bare.tokens.tolist()


def test_a_form_that_two_labels_claim_counts_for_neither():
    with tokenizer_of("bpe") as tokenizer:
        resolved = tokenizer.resolve(with_forms((" A", "C"), (" B", "C")))
        assert [tokenizer.piece(token) for token in resolved.choice_tokens] == [" A", " B"]
        assert not resolved.has_forms
        with pytest.raises(InputError, match=r"f, line 3: the label 'C' .* stands for another label too"):
            tokenizer.resolve(with_forms((" A", "C"), ("C",)))


@pytest.mark.parametrize(
    ("forms", "message"),
    [
        (
            ("a b c",),
            r"f, line 3: the label 'a b c' is not one token .* \('a b c' becomes \d+ tokens: .*; use a read",
        ),
        ((), r"the label '\?' .* \(it has no forms\)"),
    ],
)
def test_a_label_without_a_form_is_named(forms, message):
    with tokenizer_of("bpe") as tokenizer, pytest.raises(InputError, match=message):
        tokenizer.resolve(with_forms((" A",), forms))


def test_a_label_is_the_sum_of_its_forms():
    rng = np.random.default_rng(3)
    label_of = np.repeat(np.arange(256, dtype=np.int32), rng.integers(1, 5, 256))
    resolved = ResolvedPrompt(np.zeros(1, np.int32), np.arange(len(label_of), dtype=np.int32), label_of)
    logits = rng.normal(0, 300, (2, len(label_of))).astype(np.float32)
    logits[0, :4] = -np.inf
    summed = resolved.label_logits(logits)
    assert summed.shape == (2, 256) and summed.dtype == np.float64
    for row in range(2):
        for label in range(256):
            forms = logits[row, label_of == label].astype(np.float64)
            expected = np.logaddexp.reduce(forms)
            np.testing.assert_allclose(summed[row, label], expected, rtol=1e-15)
            if len(forms) == 1:
                assert summed[row, label] == forms[0]
    np.testing.assert_allclose(resolved.label_logits(logits[1] + 8) - 8, summed[1], atol=1e-4)
