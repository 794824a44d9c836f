"""The template gives METHOD's shape, is replaceable, and cannot harm whoever renders it."""

import pytest

from edgecal import InputError
from edgecal.prompts import PromptTemplate, Question

QUESTION = Question("Which?", ("x", "y {{ 1 }}"), answer=1, subject="s", source="f, line 1")


def test_the_built_in_template():
    prompt = PromptTemplate().render(QUESTION)
    assert prompt.text == (
        "Answer the following multiple-choice question. Give only the letter of the correct option.\n\n"
        "Which?\nA: x\nB: y {{ 1 }}\nAnswer:"
    )
    assert (prompt.labels, prompt.labels_verbatim, prompt.answer) == (("A", "B"), False, 1)


@pytest.mark.parametrize(
    "source",
    [
        "{{ nothing_of_that_name }}",
        "{{ question.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ 'a' * 100000000000 }}",
        "{{ 9 ** 999999999 }}",
        "{{ '%9999999d' % 3 }}",
        "{{ question | center(9999999) }}",
        "{% for i in range(99999999) %}x{% endfor %}",
        "{{ 1 / 0 }}",
        "{{ choices[7].text }}",
        "   ",
    ],
)
def test_a_template_that_fails_is_one_line(source):
    with pytest.raises(InputError) as caught:
        PromptTemplate(source, "t.j2").render(QUESTION)
    assert str(caught.value).startswith("t.j2: ") and "\n" not in str(caught.value)


def test_bad_syntax_names_the_line():
    with pytest.raises(InputError, match=r"t\.j2, line 2: not a valid template"):
        PromptTemplate("fine\n{% if %}", "t.j2")
