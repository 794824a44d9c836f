"""How the base model is asked for a fit of requests: after worked examples, each label in all of its forms."""

import pytest

from edgecal import Choice, InputError, Noul
from edgecal.api.yardstick import MAX_SHOTS, YardstickPrompting
from edgecal.decisions import DecisionPrompting

QUESTION = Choice("Which?", {"x": "why", "y": None})


def test_examples_stand_before_the_plain_prompt():
    plain = DecisionPrompting()
    bare = plain.render("The state.", QUESTION, (1, 0), "f").prompt
    for shots in range(MAX_SHOTS + 1):
        made = YardstickPrompting(plain, None, shots).render("The state.", QUESTION, (1, 0), "f")
        before = made.prompt.text.removesuffix(bare.text)
        assert before + bare.text == made.prompt.text and before.count("Answer:") == shots
        assert [made.prompt.text[a:b] for a, b in made.prompt.data] == [bare.text[a:b] for a, b in bare.data]
        assert (made.prompt.labels, made.prompt.label_forms, made.order) == (
            bare.labels,
            bare.label_forms,
            (1, 0),
        )
    assert "Answer: no\n\n" in before and "Answer: yes\n\n" in before and "Answer: C\n\n" in before


def test_bare_letters_are_read_in_all_forms():
    letters = DecisionPrompting(readout="letters")
    made = YardstickPrompting(letters, None, 1)
    assert "Answer: B\n\n" in made.render("s", Noul("So?"), (0, 1)).prompt.text
    assert " A" in made.render("s", QUESTION, (0, 1)).prompt.label_forms[0]
    assert letters.render("s", QUESTION, (0, 1)).prompt.labels_alone
    assert not made.render("s", QUESTION, (0, 1)).prompt.labels_alone


def test_examples_follow_the_users_template():
    template = "{{ state }} {{ instructions }}{% for o in options %} {{ o.label }}={{ o.key }}{% endfor %}"
    plain = DecisionPrompting(template)
    text = YardstickPrompting(plain, template, 2).render("s", QUESTION, (0, 1)).prompt.text
    assert text.startswith("The parcel came") and "C=a cat" in text and text.endswith("A=x B=y\nAnswer:")


@pytest.mark.parametrize("shots", [-1, 5])
def test_there_are_four(shots):
    with pytest.raises(InputError, match=f"0 to 4, got {shots}"):
        YardstickPrompting(DecisionPrompting(), None, shots)
