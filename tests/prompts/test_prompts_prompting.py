"""Both models' prompts for the same questions: plain for the one, a conversation for the other."""

import random

import pytest
from support.chat_templates import CHAT_TEMPLATES

from edgecal import InputError
from edgecal.prompts import (
    ChatTemplate,
    Prompt,
    Prompting,
    PromptTemplate,
    Question,
    canonical_order,
    canonical_pairs,
    draw_pairs,
    reorder,
    resolve_template,
)
from edgecal.prompts.orders import draw_indices

QUESTIONS = [
    Question(f"Q{i}?", ("x", "y", "z"), answer=i % 3, subject="s", source=f"line {i}") for i in range(20)
]
CHATML = ChatTemplate(CHAT_TEMPLATES["chatml"], name="c")
READY = Prompt(text="It is", labels=(" hot", " cold"), answer=1, subject="s", source="line 99")


def test_without_anything_both_are_the_same_object():
    pairs = Prompting().render([*QUESTIONS, READY])
    assert all(pair.chat is pair.base for pair in pairs)
    assert [pair.base for pair in pairs[:-1]] == [PromptTemplate().render(question) for question in QUESTIONS]
    assert [pair.question for pair in pairs] == [*QUESTIONS, None] and pairs[-1].base is READY


@pytest.mark.parametrize("n_shots", [0, 2])
def test_the_base_model_sees_no_chat_template(n_shots):
    plain = Prompting(n_shots=n_shots, seed=1).render(QUESTIONS)
    chat = Prompting(n_shots=n_shots, seed=1, chat_template=CHATML).render(QUESTIONS)
    assert [pair.base for pair in chat] == [pair.base for pair in plain]
    for pair in chat:
        assert pair.chat.text.startswith("<|im_start|>user\n")
        assert pair.chat.text.endswith("Answer:<|im_end|>\n<|im_start|>assistant\n")
        rest = ("labels", "labels_verbatim", "answer", "subject", "source")
        assert [getattr(pair.base, name) for name in rest] == [getattr(pair.chat, name) for name in rest]


def test_worked_examples_are_turns_and_the_instruction_is_said_once():
    pair = Prompting(n_shots=2, seed=1, chat_template=CHATML).render(QUESTIONS)[4]
    first, second = pair.shots
    instruction = "Answer the following multiple-choice question. Give only the letter of the correct option."
    assert pair.chat.text == (
        f"<|im_start|>user\n{instruction}\n\n{first.question}\nA: x\nB: y\nC: z\nAnswer:<|im_end|>\n"
        f"<|im_start|>assistant\n{'ABC'[first.answer]}<|im_end|>\n"
        f"<|im_start|>user\n{second.question}\nA: x\nB: y\nC: z\nAnswer:<|im_end|>\n"
        f"<|im_start|>assistant\n{'ABC'[second.answer]}<|im_end|>\n"
        "<|im_start|>user\nQ4?\nA: x\nB: y\nC: z\nAnswer:<|im_end|>\n<|im_start|>assistant\n"
    )
    assert pair.base.text == resolve_template("default").render(QUESTIONS[4], pair.shots).text


def test_an_open_bracket_is_not_left_in_a_users_turn():
    pair = Prompting(resolve_template("bracketed"), n_shots=1, chat_template=CHATML).render(QUESTIONS)[0]
    assert pair.base.text.endswith("Answer: (") and "(" not in pair.chat.text.replace("(A)", "").replace(
        "(B)", ""
    ).replace("(C)", "")
    assert pair.chat.text.endswith("Answer:<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.parametrize("name", CHAT_TEMPLATES)
def test_all_shapes_take_worked_examples(name):
    template = ChatTemplate(CHAT_TEMPLATES[name], bos_token="<s>", eos_token="</s>", name=name)
    for pair in Prompting(n_shots=3, chat_template=template).render(QUESTIONS):
        assert pair.chat.text.count("Answer:") == 4 and pair.question.question in pair.chat.text


def test_a_permuted_question_keeps_the_worked_examples_of_the_original():
    prompting = Prompting(n_shots=2, seed=1, chat_template=CHATML)
    pair = prompting.render(QUESTIONS)[0]
    moved = prompting.render_question(reorder(QUESTIONS[0], (2, 0, 1)), pair.shots)
    assert (
        moved.base.text
        == pair.base.text.removesuffix("A: x\nB: y\nC: z\nAnswer:") + "A: z\nB: x\nC: y\nAnswer:"
    )
    assert moved.shots == pair.shots and moved.base.answer == 1


def test_ready_made_prompts():
    pair = Prompting(chat_template=CHATML).render([READY])[0]
    assert pair.base is READY and pair.question is None
    assert pair.chat.text == "<|im_start|>user\nIt is<|im_end|>\n<|im_start|>assistant\n"
    assert (pair.chat.labels, pair.chat.labels_verbatim, pair.chat.answer) == ((" hot", " cold"), True, 1)
    tokens = Prompt(tokens=(1, 2), choice_tokens=(3, 4), source="line 7")
    assert Prompting().render([tokens])[0].chat is tokens
    with pytest.raises(InputError, match="line 7: a prompt of tokens cannot be put into a chat template"):
        Prompting(chat_template=CHATML).render([tokens])
    for prompt in (READY, tokens):
        with pytest.raises(InputError, match=r"line 9?[97]: a ready-made prompt cannot have worked examples"):
            Prompting(n_shots=1).render([*QUESTIONS, prompt])


def test_a_chat_template_that_refuses_names_the_question():
    source = (
        "{% if 'Q7' in messages[0].content %}{{ raise_exception('no sevens') }}{% endif %}"
        + CHAT_TEMPLATES["chatml"]
    )
    with pytest.raises(InputError, match="c: cannot render line 7: the template says: no sevens"):
        Prompting(chat_template=ChatTemplate(source, name="c")).render(QUESTIONS)


@pytest.mark.parametrize("chat_template", [None, CHATML])
def test_order_and_draw_are_those_of_the_base_prompts(chat_template):
    prompting = Prompting(n_shots=2, chat_template=chat_template)
    mixed = random.Random(3).sample(QUESTIONS, len(QUESTIONS))
    pairs, again = prompting.render(QUESTIONS), prompting.render(mixed)
    assert canonical_pairs(pairs) == canonical_pairs(again) != pairs
    base = [pair.base for pair in pairs]
    assert [pair.base for pair in canonical_pairs(again)] == canonical_order(base)
    for limit in (1, 5, 19, 20, 99):
        for seed in (0, 1):
            drawn = draw_pairs(again, limit, seed)
            wanted = [canonical_order(base)[index] for index in draw_indices(len(base), limit, seed)]
            assert [pair.base for pair in drawn] == wanted
            assert drawn == draw_pairs(pairs, limit, seed)
