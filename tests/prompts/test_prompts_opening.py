"""Where a word follows without a space, in texts as people end their prompts."""

import pytest
from support.chat_templates import CHAT_TEMPLATES

from edgecal.prompts import ChatTemplate, Prompting, PromptTemplate, Question
from edgecal.prompts.question_templates import find_opening, follows_directly

QUESTION = Question("Which?", ("x", "y"), source="line 1")
SHOT = Question("Other?", ("u", "v"), answer=1, source="line 2")
CHATML = ChatTemplate(CHAT_TEMPLATES["chatml"], name="c")

OPEN = [
    ("Answer: (", "(", ")"),
    ("[", "[", "]"),
    (r"\boxed{", "{", "}"),
    ("答案：【", "【", "】"),
    ("Réponse : «", "«", "»"),
    ('Answer: "', '"', '"'),
    ('"', '"', '"'),
    ('{"answer": "', '"', '"'),
    ('{"answer":"', '"', '"'),
    ("answer='", "'", "'"),
    ("Answer: `", "`", "`"),
    ("Answer: **", "**", "**"),
    ("(*", "*", "*"),
    ('**"', '"', '"'),
    ("Answer:\n<answer>", "<answer>", "</answer>"),
    ("<b>", "<b>", "</b>"),
]

CLOSED = [
    "",
    "Answer:",
    "The answer is",
    "[/INST]",
    "(A)",
    'the word "big"',
    'he asked "Really?"',
    "the students'",
    "**Answer:**",
    "**Answer**:",
    "2*",
    "</think>",
    "<|assistant|>",
    "<｜Assistant｜>",
    "a <",
    "x >",
    "Fill in: ____",
]


@pytest.mark.parametrize(("text", "opening", "closing"), OPEN)
def test_open(text, opening, closing):
    assert find_opening(text) == (opening, closing) and follows_directly(text)


@pytest.mark.parametrize("text", CLOSED)
def test_closed(text):
    assert find_opening(text) == ("", "") and not follows_directly(text)


@pytest.mark.parametrize("text", ["\n", "Answer: ", "x\t", "x\u00a0", "x\u3000", "答案：", "Yes。", "「A」"])
def test_nothing_is_open_and_yet_a_word_follows_directly(text):
    assert find_opening(text) == ("", "") and follows_directly(text)


@pytest.mark.parametrize("text", ["정답", "答案", "é"])
def test_letters_of_any_script_take_a_space(text):
    assert not follows_directly(text)


@pytest.mark.parametrize(
    ("end", "worked"),
    [
        ("Answer:", "Answer: B"),
        ("Answer: (", "Answer: (B)"),
        ('Answer: "', 'Answer: "B"'),
        ("Answer: **", "Answer: **B**"),
        ("<answer>", "<answer>B</answer>"),
        ("答案：", "答案：B"),
        ("Answer: ", "Answer: B"),
    ],
)
def test_worked_examples_are_closed_and_chat_turns_left_unopened(end, worked):
    template = PromptTemplate("{{ question }}\n" + end)
    assert template.render(QUESTION, [SHOT]).text == f"Other?\n{worked}\n\nWhich?\n{end}"
    chat = Prompting(template, n_shots=1, chat_template=CHATML).render_question(QUESTION, [SHOT]).chat.text
    said = end.strip() if end.strip()[-1] in ":：" else end.removesuffix(find_opening(end)[0]).strip()
    turn = f"Which?\n{said}".strip()
    assert f"user\n{turn}<|im_end|>" in chat and "assistant\nB<|im_end|>" in chat
