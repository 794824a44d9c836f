"""Which prompts hold worked examples already."""

import pytest

from edgecal.prompts import TEMPLATES, Prompt, Question, holds_worked_examples, resolve_template

ASKED = Question("Which is red?", ("blood", "grass", "snow"), passage="Answer the letter (A).")
SHOTS = [Question("Which is blue?", ("sky", "sand", "coal"), answer) for answer in (2, 0)]


@pytest.mark.parametrize("name", [*TEMPLATES, "Pick: {{ question }} {{ choices[0].label }} or another =>"])
def test_those_of_a_template_are_seen(name):
    template = resolve_template(name)
    assert not holds_worked_examples(template.render(ASKED))
    for n in (1, 2):
        assert holds_worked_examples(template.render(ASKED, SHOTS[:n]))


@pytest.mark.parametrize(
    ("text", "labels", "has"),
    [
        ("Review: good\nSentiment: positive\n\nReview: bad\nSentiment:", (" negative", " positive"), True),
        ("Review: good. Sentiment: positive. Review: bad. Sentiment:", (" negative", " positive"), True),
        ("Review: bad\nSentiment:", (" negative", " positive"), False),
        ("Is the sentiment: positive or negative?\nReview: bad\nAnswer:", (" negative", " positive"), False),
        (
            "Review: good\nSentiment: positively glowing\n\nReview: bad\nSentiment:",
            (" positive", " no"),
            False,
        ),
        ("good => yes\nbad =>", (" yes", " no"), True),
        ("好 → 是\n坏 →", ("是", "否"), True),
        ("good -> bad\nbad ->", (" yes", " no"), False),
        ("<user>good<model>\nyes\n<user>bad<model>\n", ("yes", "no"), True),
        ("2 + 2 (right?): yes\n2 + 3 (right?):", (" yes", " no"), True),
        ("a.b|c* [x](y) yes. a.b|c* [x](y)", (" yes", " n.o"), True),
        ("yes", ("yes", "no"), False),
        ("?", ("?", "!"), False),
        ("   ", ("yes", "no"), False),
        ("Answer: \nAnswer:", (" ", "  "), False),
    ],
)
def test_those_of_a_ready_made_prompt_are_seen(text, labels, has):
    assert holds_worked_examples(Prompt(text=text, labels=labels)) == has


@pytest.mark.parametrize(
    ("tokens", "has"), [((5, 8, 2, 6, 5), True), ((5, 2, 8, 6, 5), False), ((5, 8), False), ((8,), False)]
)
def test_those_of_tokens_are_seen(tokens, has):
    assert holds_worked_examples(Prompt(tokens=tokens, choice_tokens=(8, 9))) == has
