"""Every function and command that takes a template means the same by it, and refuses a mistyped one."""

import re
from pathlib import Path

import click
import pytest
from support.calibrated import BASE, CHAT
from support.options import grouped

import edgecal
from edgecal.api import QuestionOptions
from edgecal.cli.commands import cli, run_command
from edgecal.prompts import OWN_CHAT_TEMPLATE, TEMPLATES, PromptTemplate

RECORDS = [{"question": f"Which {i}?", "choices": ["this", "that"], "answer": i % 2} for i in range(60)]
FAILS = "{{ nothing_of_that_name }}"  # whoever renders it says its name


def choose(**options):
    with edgecal.load(CHAT) as model:
        return model.choose("Which?", ["this", "that"], **options)


def generate(**options):
    with edgecal.load(CHAT) as model:
        return model.generate("Hello", **options)


def command(*arguments):
    """A command as a function of its options; `RECORDS` are in data.jsonl."""

    def call(**options):
        words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        return run_command([*map(str, arguments), *words])

    return call


PYTHON = {
    "load_prompts": lambda **options: edgecal.load_prompts(RECORDS, **options),
    "read_questions": lambda **options: edgecal.read_questions(RECORDS, **grouped(**options)),
    "fit": lambda **options: edgecal.fit(BASE, CHAT, RECORDS, **grouped(**options)),
    "plan": lambda **options: edgecal.plan(BASE, CHAT, RECORDS, **grouped(**options)),
    "evaluate": lambda **options: edgecal.evaluate(CHAT, RECORDS, **grouped(**options)),
    "compare": lambda **options: edgecal.compare(BASE, CHAT, RECORDS, **grouped(**options)),
    "Model.choose": choose,
}
COMMANDS = {
    "edgecal fit": command("fit", BASE, CHAT, "--data=data.jsonl"),
    "edgecal fit --plan": command("fit", BASE, CHAT, "--data=data.jsonl", "--plan"),
    "edgecal eval": command("eval", CHAT, "--data=data.jsonl"),
    "edgecal compare": command("compare", BASE, CHAT, "--data=data.jsonl"),
    "edgecal questions": command("questions", "data.jsonl"),
    "edgecal ask": command("ask", CHAT, "Which?", "-c", "this", "-c", "that"),
}
ASK_NO_CHAT_MODEL = {"load_prompts", "read_questions", "edgecal questions"}
TAKE_TEMPLATES = PYTHON | COMMANDS
TAKE_CHAT_TEMPLATES = {
    name: call for name, call in TAKE_TEMPLATES.items() if name not in ASK_NO_CHAT_MODEL
} | {"Model.generate": generate}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    from support.prompts import write_json_lines

    monkeypatch.chdir(tmp_path)
    write_json_lines(tmp_path / "data.jsonl", RECORDS)
    (tmp_path / "my.j2").write_text(FAILS, "utf-8")
    (tmp_path / "literal.txt").write_text("Answer:", "utf-8")
    (tmp_path / "folder").mkdir()
    return tmp_path


def refused(call, **options):
    with pytest.raises(edgecal.InputError) as caught:
        call(**options)
    told = str(caught.value)
    assert caught.value.exit_code == 2 and "\n" not in told
    return told


@pytest.mark.parametrize("template", ["defualt", "my.j3", "folder", "", "~/my.j2"])
@pytest.mark.parametrize("name", TAKE_TEMPLATES)
def test_a_mistyped_template_is_refused(name, template):
    told = refused(TAKE_TEMPLATES[name], template=template)
    assert told.startswith(f"the template is {template!r}, which cannot be read as a file (")
    assert ", ".join(TEMPLATES) in told


@pytest.mark.parametrize("name", TAKE_TEMPLATES)
def test_a_file_without_jinja_is_refused(name):
    assert refused(TAKE_TEMPLATES[name], template="literal.txt").startswith(
        "literal.txt: the template has no Jinja"
    )


@pytest.mark.parametrize("name", PYTHON)
def test_what_is_no_template_is_refused(name):
    assert refused(PYTHON[name], template=5).startswith("the template is 5; give a built-in template's name")
    told = refused(PYTHON[name], template=Path("default"))
    assert told.startswith("the template is 'default', which cannot be read as a file (")


@pytest.mark.parametrize(
    ("name", "template", "called"),
    [(name, "my.j2", "my.j2") for name in TAKE_TEMPLATES]
    + [(name, FAILS, "the template") for name in TAKE_TEMPLATES]
    + [(name, Path("my.j2"), "my.j2") for name in PYTHON]
    + [(name, PromptTemplate(FAILS, "an object"), "an object") for name in PYTHON],
)
def test_a_file_a_text_and_an_object_are_templates(name, template, called):
    assert refused(TAKE_TEMPLATES[name], template=template).startswith(f"{called}: cannot render ")


@pytest.mark.parametrize("template", [None, *TEMPLATES])
def test_a_name_is_a_template(template):
    source = TEMPLATES[template or "default"]
    expected = PromptTemplate(source)
    by_object = edgecal.load_prompts(RECORDS, template=expected)
    assert edgecal.load_prompts(RECORDS, template=template) == by_object
    assert edgecal.load_prompts(RECORDS, template=source) == by_object
    Path("copy.j2").write_text(source, "utf-8")
    assert edgecal.load_prompts(RECORDS, template="copy.j2") == by_object
    assert len({prompt.text for prompt in by_object}) == len(RECORDS)


@pytest.mark.parametrize("chat_template", ["onw", "my.j3", "folder", "", "~/my.j2"])
@pytest.mark.parametrize("name", TAKE_CHAT_TEMPLATES)
def test_a_mistyped_chat_template_is_refused(name, chat_template):
    told = refused(TAKE_CHAT_TEMPLATES[name], chat_template=chat_template)
    assert told.startswith(f"the chat template is {chat_template!r}, which cannot be read as a file (")
    assert 'give "own"' in told


@pytest.mark.parametrize("name", TAKE_CHAT_TEMPLATES)
def test_own_and_a_file_are_chat_templates(name):
    told = refused(TAKE_CHAT_TEMPLATES[name], chat_template=OWN_CHAT_TEMPLATE)
    assert told.startswith(f"{CHAT}: holds no chat template")
    Path("own").write_text("{% for m in messages %}{{ m.nothing.at.all }}{% endfor %}", "utf-8")
    told = refused(TAKE_CHAT_TEMPLATES[name], chat_template="./own")
    assert told.startswith("./own: cannot render a plain question")


def test_a_typo_is_told_before_questions_are_read():
    assert "'defualt'" in refused(lambda **o: edgecal.load_prompts("none.jsonl", **o), template="defualt")
    assert "'defualt'" in refused(
        lambda **o: edgecal.read_questions("none.jsonl", **grouped(**o)), template="defualt"
    )
    for option in ("template", "chat_template"):
        told = refused(
            lambda **o: edgecal.fit(BASE, CHAT, "none.jsonl", **grouped(**o)), **{option: "defualt"}
        )
        assert told.startswith(f"the {option.replace('_', ' ')} is 'defualt'")


@pytest.mark.parametrize("option", ["template", "chat_template", "shots_from"])
def test_no_output_takes_a_named_file_s_place(option, here):
    content = {
        "template": "{{ question }}",
        "chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}",
        "shots_from": Path("data.jsonl").read_text("utf-8"),
    }[option]
    path = here / "named.txt"
    path.write_text(content, "utf-8")
    shots = int(option == "shots_from")
    for named in (str(path), path, "named.txt"):
        assert QuestionOptions(**{option: named, "shots": shots}).files == [Path(named)]
        told = refused(PYTHON["fit"], **{option: named}, shots=shots, output=path, force=True)
        assert "named.txt" in told and "is an input" in told
    assert path.read_text("utf-8") == content


def test_options_name_no_files_of_their_own():
    assert QuestionOptions().files == QuestionOptions(template=FAILS, chat_template="own").files == []
    named = QuestionOptions(template="brief", chat_template=Path("own"), shots=1, shots_from="data.jsonl")
    assert named.files == [Path("data.jsonl"), Path("own")]


def test_an_option_s_file_is_read_once(here):
    options = QuestionOptions(template="my.j2")
    assert options.prompt_template.source == FAILS
    (here / "my.j2").unlink()
    options.check()
    assert options.files == [Path("my.j2")]


def test_the_command_line_s_words_are_the_resolvers():
    """They are said a second time in the commands, which would load Jinja otherwise."""
    for name in cli.list_commands(None):
        command = cli.get_command(None, name)
        for parameter in command.params:
            if parameter.name == "template" and name != "decide":  # whose templates are others
                assert f"{', '.join(TEMPLATES)}, a Jinja file" in parameter.help
            if parameter.name == "chat_template":
                assert parameter.flag_value == OWN_CHAT_TEMPLATE
                assert isinstance(parameter, click.Option) and re.search(
                    r"\(no value, or own\)", parameter.help
                )
