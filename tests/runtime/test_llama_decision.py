"""The template that llama.cpp's decision mode gets: rendered, it becomes the very tokens that edgecal sends."""

import json
import random

import numpy as np
import pytest
from llama_cpp import llama_model_get_vocab
from support.chat_templates import CHAT_TEMPLATES
from support.tiny_models import write_tiny_llama
from support.tiny_vocab import bpe_vocab, spm_vocab
from tools.llama_decision import TEMPERATURES, export

import edgecal
from edgecal import Choice, InputError, Noul, Score
from edgecal.decisions import DecisionOptions, DecisionPrompting
from edgecal.decisions.llama_cpp import break_marks, render_systemone, write_as_llama_cpp
from edgecal.gguf.header import read_header
from edgecal.llama.model import Model
from edgecal.llama.tokenizer import Tokenizer
from edgecal.runtime.llama_decision import make_systemone
from edgecal.runtime.llama_logits import start

MARKS = ("<|im_start|>", "<|im_end|>", "<|end|>", "<think>", "</think>")
WORDS = ("rain", "the old", "{{ dry }}", '"quoted"', "ü\n", "{% if %}", "日本", "1.50", "\\n", "</b>")


def write(path, template=None, vocab=None, **metadata):
    return write_tiny_llama(
        path,
        seed=1,
        n_layer=1,
        vocab=vocab or bpe_vocab(add_bos=True),
        chat_template=template,
        extra_tokens=MARKS,
        metadata=metadata,
    )


def make(path):
    return make_systemone(str(path), lambda _: None)


def requests(n):
    rng = random.Random(17)

    def text():
        return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 6)))

    def value():
        return rng.choice([text(), {text(): [2.0, 0.1, None], "n": 12345678.9}, [text(), True]])

    for _ in range(n):
        yield value(), Noul(value(), true=rng.choice([None, value()]))
        yield value(), Choice(value(), {f"{text()} {at}": rng.choice([None, value()]) for at in range(5)})
        yield value(), Score(value(), [value() for _ in range(rng.randint(2, 10))])


def assert_same_tokens(path, template):
    prompting = DecisionPrompting.for_file(DecisionOptions(readout="letters"), read_header(path))
    with Model(path, vocab_only=True) as model:
        tokenizer = Tokenizer(model.vocab, model.n_vocab, "the model")
        for state, question in requests(10):
            prompt = prompting.render(state, question, range(len(question.keys))).prompt
            text = render_systemone(template, state, question, "a template")
            assert tokenizer.tokenize_as_given(text) == tokenizer.prompt_tokens(prompt).tolist()


@pytest.mark.parametrize("name", sorted(CHAT_TEMPLATES))
def test_the_tokens_are_edgecals(tmp_path, name):
    path = write(tmp_path / "m.gguf", CHAT_TEMPLATES[name])
    made = make(path)
    assert_same_tokens(path, made.template)
    assert bool(made.reasons) == (name == "chatml always thinking")


@pytest.mark.parametrize(
    "vocab",
    [
        bpe_vocab(),
        bpe_vocab(add_bos=True),
        spm_vocab(),
        spm_vocab(add_bos=False),
        spm_vocab(add_space_prefix=False),
    ],
    ids=["bpe", "bpe bos", "spm", "spm no bos", "spm no space"],
)
def test_plain_models(tmp_path, vocab):
    path = write(tmp_path / "m.gguf", vocab=vocab)
    made = make(path)
    assert_same_tokens(path, made.template)
    assert made.template.count("Answer:") == 1 and not made.reasons and not made.warnings


def test_the_letters_are_those_that_llama_cpp_reads(tmp_path):
    """The token of the letter by itself: with SentencePiece that of a letter after a space, whatever the prompt."""
    path = write(tmp_path / "m.gguf", CHAT_TEMPLATES["chatml"], spm_vocab())
    prompting = DecisionPrompting.for_file(DecisionOptions(readout="letters"), read_header(path))
    prompt = prompting.render("x", Noul("Is it?"), (0, 1)).prompt
    with Model(path, vocab_only=True) as model:
        tokenizer = Tokenizer(model.vocab, model.n_vocab, "the model")
        pieces = [tokenizer.piece(token) for token in tokenizer.resolve(prompt).choice_tokens]
    assert pieces == [" A", " B"]


def test_no_text_becomes_a_control_token(tmp_path):
    path = write(tmp_path / "m.gguf", CHAT_TEMPLATES["chatml"])
    template = make(path).template
    question = Choice("<|im_end|>", {"<think>": "</think>", "<|im_<|im_end|>end|>": {"<|end|>": "<|bos|>"}})
    with Model(path, vocab_only=True) as model:
        tokenizer = Tokenizer(model.vocab, model.n_vocab, "the model")

        def count(state, asked):
            text = render_systemone(template, state, asked, "a template")
            return sum(token in tokenizer.marks for token in tokenizer.tokenize_as_given(text))

        assert count("<|im_start|>system", question) == count("x", Noul("Is it?")) == 4  # with BOS


def test_decide_asks_an_exported_file_as_llama_cpp_does(tmp_path):
    path = export(write(tmp_path / "m.gguf", CHAT_TEMPLATES["chatml"]), tmp_path / "d.gguf")
    with edgecal.load(path, n_threads=1) as model:
        noul = model.decide("It rains.", {"q": Noul("Is it dry?")})["q"]
        choice = model.decide("It rains.", {"q": Choice("What?", list("abcd"))})["q"]
        prompting = DecisionPrompting.for_file(DecisionOptions(readout="letters"), read_header(path))
        prompt = Tokenizer(
            llama_model_get_vocab(model._llama.model), model._llama.n_vocab(), "the model"
        ).resolve(prompting.render("It rains.", Noul("Is it dry?"), (0, 1)).prompt)
        z = start(model._llama, prompt.tokens, "a prompt")[prompt.choice_tokens].astype(float)
    assert (noul.n_orders, noul.temperature, noul.settled) == (1, TEMPERATURES["noul"], True)
    assert choice.temperature == TEMPERATURES["choice.3_5"]
    assert noul.probs[0] == pytest.approx(1 / (1 + np.exp((z[1] - z[0]) / noul.temperature)), abs=1e-6)


def test_marks_that_differ_in_a_number_are_told_by_its_first_digit():
    marks = ["</s>", "x", *(f"<unused{number}>" for number in range(300)), "<a1>", "<a2>"]
    assert break_marks(marks) == [
        *((f"<unused{digit}", f"< unused{digit}") for digit in range(10)),
        ("</s>", "< /s>"),
        ("<a1>", "< a1>"),
        ("<a2>", "< a2>"),
    ]


def test_json_as_llama_cpp_writes_it():
    """By its `tojson`, as xllamacpp 2026.10.11549 has it."""
    numbers = [
        2.50,
        1e-7,
        1e22,
        10**29,
        3.0,
        -0.0,
        12345678.9,
        1e5,
        0.1 + 0.2,
        2**63 - 1,
        2**63,
        2**64 - 1,
        2**64,
    ]
    assert write_as_llama_cpp(numbers) == (
        "[2.5, 1e-07, 1e+22, 1e+29, 3, -0, 1.23457e+07, 100000, 0.3, 9223372036854775807, -9223372036854775808, -1, "
        "1.84467e+19]"
    )
    others = {"b": 1, "a": [None, True, {"é\n": '<"\\'}], "": []}
    assert write_as_llama_cpp(others) == json.dumps(others, ensure_ascii=False)
    assert write_as_llama_cpp(" text\n") == " text\n"


def test_what_llama_cpp_cannot_be_told_is_refused(tmp_path):
    chatml = CHAT_TEMPLATES["chatml"]
    twice = chatml.replace("{{ m['content'] }}", "{{ m['content'] }} Again: {{ m['content'] }}")
    loud = chatml.replace("{{ m['content'] }}", "{{ m['content'] | upper }}")
    thinking = chatml.removesuffix("{% endif %}") + "<think>Let me see.{% endif %}"
    for template, reason in ((twice, "2 times"), (loud, "leaves out"), (thinking, "thoughts open")):
        with pytest.raises(InputError, match=reason):
            make(write(tmp_path / "m.gguf", template))


def test_a_letter_that_is_not_one_token_is_refused(tmp_path):
    vocab = spm_vocab(lacking="Q")
    with pytest.raises(InputError, match="the letter 'Q' is not one token"):
        make(write(tmp_path / "m.gguf", CHAT_TEMPLATES["chatml"], vocab))
