"""Texts from a worker process: stop rules, giving up, and what is counted."""

import re
from dataclasses import replace

import pytest
from support.chat_templates import CHATML
from support.tiny_models import tiny_folder, write_tiny_llama
from support.tiny_vocab import CHAT_TOKENS

from edgecal import InputError, ModelError
from edgecal.llama.settings import CaptureSettings
from edgecal.pair.worker_generate import GenerateRequest, GiveUp, generate_texts
from edgecal.prompts import ChatTemplate, Prompt, Question, render_verbalized
from edgecal.worker import run_in_worker

QUESTIONS = [
    Question(f"Which {'one ' * i}is it?", ("x", "y", "z"), 1, source=f"line {i}") for i in range(6, 0, -1)
]


def request(**changes):
    path = tiny_folder() / "pair generate.gguf"
    if not path.exists():
        write_tiny_llama(path, seed=3, n_layer=1, vocab="bpe", extra_tokens=CHAT_TOKENS)
    prompts = tuple(render_verbalized(question, ChatTemplate(CHATML, name="c")) for question in QUESTIONS)
    return replace(
        GenerateRequest(str(path), "the chat model m", prompts, 6, CaptureSettings(n_threads=1)), **changes
    )


def here(wanted):
    signs = []
    return generate_texts(wanted, signs.append), signs


def test_in_a_worker_as_in_this_process():
    signs = []
    wanted = request()
    said = run_in_worker(
        "edgecal.pair.worker_generate:generate_texts",
        wanted,
        what="the chat model m",
        on_progress=signs.append,
    )
    again, local_signs = here(wanted)
    assert said == again
    assert len(said.texts) == len(QUESTIONS) == len(set(said.texts)) and said.n_generated == 36
    last = signs[-1]
    assert (last.stage, last.done, last.total) == ("run", 6, 6)
    assert (
        last.n_tokens_done == said.n_prompt_tokens + 6 * 5
        and last.n_tokens_total == said.n_prompt_tokens + 36
    )
    assert signs[0].stage == "load" and len(signs) == len(local_signs)


def test_texts_are_in_the_order_of_the_prompts():
    turned = request(prompts=request().prompts[::-1])
    assert here(turned)[0].texts == here(request())[0].texts[::-1]


def test_a_stop_pattern():
    whole = here(request())[0]
    cut = here(request(stop_pattern=r"\w"))[0]
    for before, after in zip(whole.texts, cut.texts, strict=True):
        assert before.startswith(after) or "\ufffd" in after
        assert not re.search(r"\w", after[:-12]) and (re.search(r"\w", after) or before == after)
    assert cut.n_generated < whole.n_generated and cut.n_prompt_tokens == whole.n_prompt_tokens


@pytest.mark.parametrize(
    ("give_up", "n_texts"),
    [
        (GiveUp(2, "no such text", 0.5), 2),
        (GiveUp(4, "no such text", 0.001), 4),
        (GiveUp(0, "no such text", 0.5), 1),
        (GiveUp(2, "no such text", 0.0), 6),
        (GiveUp(2, "", 1.0), 6),
        (GiveUp(6, "no such text", 0.5), 6),
        (GiveUp(99, "no such text", 0.5), 6),
    ],
)
def test_giving_up(give_up, n_texts):
    whole = here(request())[0]
    said, signs = here(request(give_up=give_up))
    assert said.texts == whole.texts[:n_texts]
    assert signs[-1].done == n_texts and said.n_generated == 6 * n_texts
    assert (said.n_prompt_tokens == whole.n_prompt_tokens) == (n_texts == 6)
    assert [sign.n_tokens_done for sign in signs] == sorted(sign.n_tokens_done for sign in signs)


def test_token_prompts_go_on_too():
    prompts = (
        Prompt(tokens=(40, 41, 42), choice_tokens=(1, 2)),
        Prompt(text="Answer:", labels=("nonsense", "labels")),
    )
    assert len(here(request(prompts=prompts))[0].texts) == 2


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"max_tokens": 2000},
            r"line 6: the prompt has \d+ tokens and 2000 are to be generated, more than the context",
        ),
        ({"max_tokens": 0}, "at least 1, got 0"),
        ({"stop_pattern": "("}, r"'\(' is not a regular expression"),
        ({"give_up": GiveUp(1, "[", 0.5)}, r"'\[' is not a regular expression"),
        (
            {"prompts": (Prompt(tokens=(10**6,), choice_tokens=(1, 2), source="line 1"),)},
            "line 1: token id 1000000",
        ),
        ({"path": "/no/such/file.gguf"}, "no such model file"),
    ],
)
def test_bad_requests_are_one_line(changes, told):
    with pytest.raises(InputError, match=told) as caught:
        here(request(**changes))
    assert "\n" not in str(caught.value)


def test_a_damaged_file_is_a_models_error(tmp_path):
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + bytes(60))
    with pytest.raises(ModelError, match=r"bad\.gguf"):
        here(request(path=str(tmp_path / "bad.gguf")))
