"""The named templates, and worked examples through any template."""

from dataclasses import replace
from pathlib import Path

import pytest
from support.chat_templates import CHAT_TEMPLATES

from edgecal import InputError
from edgecal.prompts import (
    DEFAULT_TEMPLATE,
    TEMPLATES,
    ChatTemplate,
    Prompting,
    PromptTemplate,
    Question,
    permute_question,
    resolve_template,
    with_shots,
)

QUESTION = Question("Which?", ("x", "y", "z"), answer=1, subject="high_school_physics", source="f, line 1")
SHOT = Question("Other?\n\nReally", ("u", "v"), answer=1, subject="high_school_physics", source="f, line 2")


def test_default_is_the_one_that_there_always_was():
    assert TEMPLATES["default"] == DEFAULT_TEMPLATE
    assert resolve_template("default").render(QUESTION) == PromptTemplate().render(QUESTION)


def test_the_names_give_different_texts_that_end_where_the_letter_comes():
    texts = {name: resolve_template(name).render(QUESTION).text for name in TEMPLATES}
    assert len(set(texts.values())) == len(TEMPLATES) >= 5
    for name, text in texts.items():
        assert text.endswith((":", " (")), name
        assert all(part in text for part in ("Which?", "x", "y", "z"))
        assert "\n\n\n" not in text and "{" not in text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("plain", "Which?\nA. x\nB. y\nC. z\nAnswer:"),
        ("brief", "Which? A) x; B) y; C) z\nCorrect letter:"),
        (
            "subject",
            "Multiple-choice questions about high school physics, each followed by its answer.\n\n"
            "Which?\nA. x\nB. y\nC. z\nAnswer:",
        ),
        (
            "bracketed",
            "Choose the correct option for this question.\n\nWhich?\n(A) x\n(B) y\n(C) z\nAnswer: (",
        ),
    ],
)
def test_what_they_say(name, text):
    assert resolve_template(name).render(QUESTION).text == text


def test_subject_can_do_without():
    text = resolve_template("subject").render(Question("Which?", ("x", "y"))).text
    assert text.startswith("Multiple-choice questions, each followed by its answer.\n\nWhich?")


def test_a_template_is_itself_and_none_is_the_default():
    literal = PromptTemplate("N/A", "content-free")
    assert resolve_template(literal) is literal
    assert resolve_template().name == resolve_template(None).name == Prompting().template.name == "default"
    assert Prompting("brief").template.source == TEMPLATES["brief"]


def test_jinja_text_is_a_template():
    for text in ("{{ question }}:", "{% if true %}Yes{% endif %}"):
        template = resolve_template(text)
        assert (template.source, template.name, template.path) == (text, "the template", None)
    with pytest.raises(InputError, match="the template, line 2: not a valid template"):
        resolve_template("fine\n{% if %}")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_file_is_its_text(encoding, tmp_path):
    path = tmp_path / "mine.j2"
    path.write_text("{{ subject }}: é {{ question }} {{ labels | join('/') }}\n", encoding)
    for chosen in (path, str(path)):
        template = resolve_template(chosen)
        assert template.render(QUESTION).text == "high_school_physics: é Which? A/B/C"
        assert (template.name, template.path) == (str(path), path)
    path.write_text("{{ question }} (changed)", encoding)
    assert resolve_template(path).render(QUESTION).text == "Which? (changed)"


def test_no_file_in_the_way_changes_what_a_name_or_a_text_means(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("plain").write_text("file {{ question }}", "utf-8")
    Path("{{ question }}").write_text("file {{ question }}", "utf-8")
    assert resolve_template("plain").source == TEMPLATES["plain"]
    assert resolve_template("{{ question }}").source == "{{ question }}"
    for chosen in ("./plain", Path("plain"), Path("{{ question }}")):
        assert resolve_template(chosen).source == "file {{ question }}"


NEITHER = [
    "defualt", "Default", " default", "", " ", ".", "a\0b", "x" * 5000, "/no/such/file.j2", "two\nlines", "{# none #}",
    "\ud800", "~/mine.j2", Path("default"), Path("no.j2"), 5, 0, True, b"default", ["default"],
]  # fmt: skip


@pytest.mark.parametrize("chosen", NEITHER, ids=lambda chosen: ascii(chosen)[:20])
def test_neither_name_nor_text_nor_file(chosen):
    with pytest.raises(
        InputError, match="default, question-answer, plain, subject, bracketed, brief"
    ) as caught:
        resolve_template(chosen)
    told = str(caught.value)
    is_path = isinstance(chosen, (str, Path))
    assert told.startswith(f"the template is {(str(chosen) if is_path else chosen)!r:.200}")
    assert ("which cannot be read as a file (" in told) == is_path
    assert "\n" not in told and ("~ is not expanded" in told) == (chosen == "~/mine.j2")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"caf\xe9 {{ question }}", "not UTF-8 text; save it as UTF-8"),
        ("{{ question }}".encode("utf-16"), "not UTF-8 text"),
        (b"", "no Jinja in it, so every prompt would be the same text"),
        (b"Answer: {question}", "no Jinja in it"),
        (b"{{ question }}\n{% if", "line 2: not a valid template"),
        (b"{{ question }}" + b" " * 1_000_000, "longer than 1000000 characters"),
    ],
)
def test_files_that_are_no_templates(content, told, tmp_path):
    path = tmp_path / "t.j2"
    path.write_bytes(content)
    with pytest.raises(InputError, match=told) as caught:
        resolve_template(str(path))
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", TEMPLATES)
def test_worked_examples_say_the_instruction_once(name):
    template = resolve_template(name)
    alone, one = template.render(QUESTION).text, template.render(QUESTION, [SHOT, SHOT]).text
    instruction, body = (part.text for part in template.split(QUESTION))
    assert instruction + body == alone
    shown = template.split(SHOT)[1].text + ("B)" if name == "bracketed" else " B") + "\n\n"
    assert one == instruction + shown + shown + body
    assert (instruction == "") == (name in ("plain", "brief"))
    assert "Which" not in instruction and one.count(instruction or "Which?") == 1
    assert template.render(QUESTION, [SHOT]).labels == ("A", "B", "C")


def test_what_counts_as_the_instruction_of_ones_own_template():
    two = PromptTemplate(
        "First.\n\nSecond, about {{ subject }} ({{ labels | join }}).\n \nQ: {{ question }}\nA:"
    )
    assert two.split(QUESTION)[0].text == "First.\n\nSecond, about high_school_physics (ABC).\n \n"
    text = two.render(QUESTION, [SHOT]).text
    assert text.startswith(
        "First.\n\nSecond, about high_school_physics (ABC).\n \nQ: Other?\n\nReally\nA: B\n\nQ: Which?"
    )
    # Without an empty line it is part of what is said of each question.
    assert (
        PromptTemplate("Do.\n{{ question }}:").render(QUESTION, [SHOT]).text
        == "Do.\nOther?\n\nReally: B\n\nDo.\nWhich?:"
    )
    # The same for all questions but some: those keep their own.
    some = PromptTemplate("{% if question == 'Which?' %}New{% else %}Old{% endif %}.\n\n{{ question }}:")
    assert some.render(QUESTION, [SHOT]).text == "Other?\n\nReally: B\n\nNew.\n\nWhich?:"


@pytest.mark.parametrize(
    ("end", "shown"), [(":", ": B"), (": ", ": B"), (":\\n", ":\nB"), (" (", " (B)"), ("[", "[B]")]
)
def test_how_the_letter_joins(end, shown):
    template = PromptTemplate("{{ question }}{{ '" + end + "' }}")
    assert template.render(QUESTION, [Question("Other", ("u", "v"), 1)]).text.startswith(
        f"Other{shown}\n\nWhich?"
    )


def test_an_example_needs_an_answer():
    with pytest.raises(InputError, match="f, line 9: has no answer"):
        PromptTemplate().render(QUESTION, [Question("Open?", ("u", "v"), source="f, line 9")])


def test_text_does_not_grow_without_bound():
    long = Question("Long " * 60_000, ("u", "v"), 0)
    with pytest.raises(InputError, match=r"f, line 1 with 4 worked examples, more than 1000000"):
        PromptTemplate().render(QUESTION, [long] * 4)


READ = replace(QUESTION, passage="A text.\n\nIts end")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("plain", "A text.\n\nIts end\n\nWhich?\nA. x\nB. y\nC. z\nAnswer:"),
        ("brief", "A text.\n\nIts end\n\nWhich? A) x; B) y; C) z\nCorrect letter:"),
        (
            "question-answer",
            "Read the question and its options, then reply with the letter of the one correct option and nothing "
            "else.\n\nPassage: A text.\n\nIts end\n\nQuestion: Which?\nA: x\nB: y\nC: z\nAnswer:",
        ),
    ],
)
def test_a_passage_comes_before_its_question(name, text):
    assert resolve_template(name).render(READ).text == text


@pytest.mark.parametrize("name", TEMPLATES)
def test_passages_everywhere(name):
    template = resolve_template(name)
    instruction, body = (part.text for part in template.split(READ))
    assert instruction == template.split(replace(READ, passage=None))[0].text
    assert template.render(READ).text == instruction + body and "A text.\n\nIts end\n\n" in body
    text = template.render(QUESTION, [READ, SHOT]).text
    assert text.startswith(instruction + body) and text.count("A text.") == 1
    chat = ChatTemplate(CHAT_TEMPLATES["chatml"], name="c")
    said = Prompting(template, chat_template=chat).render_question(READ, [SHOT]).chat.text
    assert said.split("<|im_start|>user\n")[2].count("A text.\n\nIts end\n\n") == 1


def test_ones_own_template_never_drops_a_passage():
    assert PromptTemplate("Q: {{ question }}").render(READ).text == "Q: A text.\n\nIts end\n\nWhich?"
    own = PromptTemplate("{{ question }} (after: {{ passage }})")
    assert own.render(READ).text == "Which? (after: A text.\n\nIts end)"
    assert own.render(QUESTION).text == "Which? (after: )"


def test_questions_with_other_passages_are_other_questions():
    asked = [replace(READ, passage=f"Text {i}", answer=i % 2) for i in range(3)]
    (first, *_) = with_shots(asked, 2, seed=0)
    assert {shot.passage for shot in first.shots} == {"Text 1", "Text 2"}
    orders = {tuple(permute_question(replace(READ, passage=f"Text {i}"), 6, 0)) for i in range(9)}
    assert len(orders) > 1
