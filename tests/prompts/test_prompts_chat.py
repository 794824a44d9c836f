"""Chat templates of the shapes that are about: rendered as their models expect, refused in one line otherwise."""

from pathlib import Path

import jinja2
import pytest
from support.chat_templates import CHAT_TEMPLATES

from edgecal import InputError
from edgecal.prompts import OWN_CHAT_TEMPLATE, ChatTemplate, resolve_chat_template, special_tokens
from edgecal.prompts.chat_template import TEMPLATE_KEY

TALK = [
    {"role": "user", "content": "First?"},
    {"role": "assistant", "content": "B"},
    {"role": "user", "content": " Which? \nAnswer:"},
]
ASKED = TALK[:1]


def compiled(name):
    return ChatTemplate(CHAT_TEMPLATES[name], bos_token="<s>", eos_token="</s>", name="t")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("chatml", "<|im_start|>user\nFirst?<|im_end|>\n<|im_start|>assistant\n"),
        (
            "chatml thinking",
            "<|im_start|>user\nFirst?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
        ),
        ("llama 2", "<s>[INST] First? [/INST]"),
        ("gemma", "<s><start_of_turn>user\nFirst?<end_of_turn>\n<start_of_turn>model\n"),
        ("phi 3", "<|user|>\nFirst?<|end|>\n<|assistant|>\n"),
        ("deepseek", "<s><｜User｜>First?<｜Assistant｜>"),
        (
            "llama 3",
            "<s><|start_header_id|>system<|end_header_id|>\n\nToday Date: 26 Jul 2024\n\n<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nFirst?<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
    ],
)
def test_the_turn_is_opened(name, text):
    template = compiled(name)
    assert template.render(ASKED) == text
    assert (template.completion, template.warning) == ("", None)


@pytest.mark.parametrize(
    ("name", "end", "told"),
    [
        (
            "chatml always thinking",
            "assistant\n<think>\n\n</think>\n\n",
            "opens a block of thoughts (<think>)",
        ),
        (
            "chatml unopened",
            "<|im_end|>\n<|im_start|>assistant\n",
            "'<|im_start|>assistant\\n', which stands before",
        ),
        (
            "channels",
            "<|start|>assistant<|channel|>final<|message|>",
            "'<|channel|>final<|message|>', which stands",
        ),
    ],
)
def test_what_a_template_leaves_out_is_added_and_said(name, end, told):
    template = compiled(name)
    assert template.render(ASKED).endswith(end) and template.render(TALK).endswith(end)
    assert template.warning.startswith("t: ") and told in template.warning and "\n" not in template.warning


def test_a_turn_that_is_always_open_needs_nothing():
    """As Cohere's: add_generation_prompt is not looked at, and earlier answers begin in another way."""
    source = (
        "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}<reply>{% endif %}{{ m.content }}<end>"
        "{% endfor %}<assistant><no-plan>"
    )
    template = ChatTemplate(source, name="t")
    assert template.render(ASKED) == "<user>First?<end><assistant><no-plan>" and template.warning is None


@pytest.mark.parametrize(
    ("opened", "end"),
    [
        ("<think>", "<think>\n</think>\n\n"),
        ("[THINK] ", "[THINK] [/THINK]\n\n"),
        ("<seed:think>\n", "<seed:think>\n\n</seed:think>\n\n"),
        ("<|START_THINKING|>", "<|START_THINKING|>\n<|END_THINKING|>\n\n"),
        ("<think></think>", "<think></think>"),
        ("<|START_THINKING|><|END_THINKING|>", "<|START_THINKING|><|END_THINKING|>"),
    ],
)
def test_thoughts_are_closed(opened, end):
    source = CHAT_TEMPLATES["chatml"].removesuffix("{% endif %}") + opened + "{% endif %}"
    assert ChatTemplate(source, name="t").render(ASKED).endswith("assistant\n" + end)


@pytest.mark.parametrize("name", CHAT_TEMPLATES)
def test_earlier_turns_are_told_apart(name):
    text = compiled(name).render(TALK)
    assert text.count("First?") == text.count("Which?") == 1
    before, after = text.split("First?")[1].split("Which?")
    assert "B" in before and not before.strip().startswith("B") and not before.rstrip().endswith("B")
    # What opens the last answer also opens the first, but for thoughts.
    assert "B" not in after


def test_rendered_as_transformers_would_but_for_what_is_added():
    """The same Jinja, set up as transformers' documentation says."""
    from datetime import datetime

    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(jinja2.ext.Extension):
        tags = {"generation"}  # noqa: RUF012 (Jinja's own way)

        def parse(self, parser):
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation]
    )
    environment.globals["strftime_now"] = datetime(2024, 7, 26).strftime
    for name, source in CHAT_TEMPLATES.items():
        expected = environment.from_string(source).render(
            messages=TALK,
            add_generation_prompt=True,
            bos_token="<s>",
            eos_token="</s>",
            enable_thinking=False,
        )
        template = compiled(name)
        assert template.render(TALK) == expected + template.completion, name


def test_functions_that_templates_use():
    source = (
        "{{ messages[0].content }}{{ {'a': ['<b>', 'é']} | tojson }}{{ {'b': 1} | tojson(indent=2) }}"
        "{{ strftime_now('%Y-%m-%d') }}{{ tools is none }}{{ documents is none }}{{ nothing }}{{ enable_thinking }}"
        "{% for x in [1, 2, 3] %}{% if x == 2 %}{% break %}{% endif %}{{ x }}{% endfor %}"
        "{% if add_generation_prompt %}\n  {% if true %}\n>{% endif %}{% endif %}"
    )
    assert ChatTemplate(source, name="t").render(ASKED) == (
        'First?{"a": ["<b>", "é"]}{\n  "b": 1\n}2024-07-26TrueTrueFalse1>'
    )


def test_the_same_whatever_the_day():
    assert "26 Jul 2024" in compiled("llama 3").render(ASKED)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (
            "{{ raise_exception('Not\nwith me') }}",
            "cannot render a plain question: the template says: Not with me",
        ),
        ("{% for m in messages %}", "line 1: not a valid template"),
        ("fine\n{% if %}", "line 2: not a valid template"),
        ("{% generation %}", "not a valid template"),
        ("", "renders an empty prompt"),
        ("Hello", "leaves out what the user says"),
        ("{{ messages[0].content }}{{ bos_token.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ messages[0].content * 9999999 }}", "too large"),
        ("{{ messages[0].content }}{% for i in range(99999999) %}x{% endfor %}", "cannot render"),
        (
            "{% for i in range(99999) %}{% for j in range(99999) %}xxxxx{% endfor %}{% endfor %}",
            "longer than 1000000",
        ),
        ("{{ messages[0].content.nothing.more }}", "cannot render"),
        ("{{ messages[7].content }}", "leaves out|cannot render|empty"),
        ("{{ messages[0].content + 1 }}", "cannot render"),
        ('{{ messages[0].content }}{{ "\\ud800" }}', "surrogate"),
        ("{{ messages[0].content }}:{% if messages | length > 1 %}gone{% endif %}", "does not open"),
        ("{{ strftime_now(5) }}", "cannot render"),
        ("{{ [1] | tojson(indent='x', default=3) }}{{ raise_exception() }}", "cannot render"),
        ("{{ 5 | dictsort }}", "cannot render"),
        ("{% include 'x' %}", "cannot render|loader"),
    ],
)
def test_what_cannot_be_used_is_one_line(source, told):
    with pytest.raises(InputError, match=told) as caught:
        ChatTemplate(source, name="chat.jinja")
    assert str(caught.value).startswith("chat.jinja") and "\n" not in str(caught.value)


def test_a_refusal_later_names_the_question():
    with pytest.raises(
        InputError, match=r"t: cannot render f, line 3: the template says: No system role here"
    ):
        compiled("gemma").render([{"role": "system", "content": "x"}, *ASKED], "f, line 3")


class Header(dict):
    """What a GGUF file's header says of its tokens and its template."""

    path = Path("m.gguf")


HEADER = Header(
    {
        "tokenizer.ggml.tokens": ["<b>", "<e>"],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        TEMPLATE_KEY: CHAT_TEMPLATES["chatml"],
    }
)


def test_none_is_none():
    assert resolve_chat_template(None, HEADER) is None is resolve_chat_template(None, None)
    with pytest.raises(InputError, match="needs a chat model"):
        resolve_chat_template(OWN_CHAT_TEMPLATE, None)


def test_from_a_file(tmp_path, monkeypatch):
    path = tmp_path / "own"
    path.write_text(CHAT_TEMPLATES["llama 2"], "utf-8-sig")
    monkeypatch.chdir(tmp_path)
    for chosen in (path, str(path), "./own", Path("own")):
        template = resolve_chat_template(chosen, HEADER)
        assert template.render(TALK) == "<b>[INST] First? [/INST] B <e><b>[INST] Which? \nAnswer: [/INST]"
        assert template.name == str(chosen)
    own = resolve_chat_template("own", HEADER)
    assert (own.source, own.name) == (CHAT_TEMPLATES["chatml"], "the chat template of m.gguf")


@pytest.mark.parametrize(
    "chosen", ["onw", Path("none.jinja"), "", ".", "a\0b", "x" * 5000, 5, b"own", "~/c.j2"]
)
def test_neither_own_nor_a_file(chosen):
    with pytest.raises(
        InputError, match=r'give "own" \(the one in .*, or the path of a Jinja file'
    ) as caught:
        resolve_chat_template(chosen, HEADER)
    told = str(caught.value)
    assert told.startswith(f"the chat template is {chosen if isinstance(chosen, int) else ''}")
    assert "\n" not in told and ("~ is not expanded" in told) == (chosen == "~/c.j2")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\xff", "not UTF-8"),
        (b"", "renders an empty prompt"),
        (b"no Jinja", "leaves out what the user says"),
        (b"x" * 1_000_001, "longer than 1000000 characters"),
    ],
)
def test_files_that_are_no_chat_templates(content, told, tmp_path):
    path = tmp_path / "c.jinja"
    path.write_bytes(content)
    with pytest.raises(InputError, match=told) as caught:
        resolve_chat_template(path, HEADER)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_from_a_header(tmp_path):
    from support.tiny_models import write_tiny_llama
    from support.tiny_vocab import spm_vocab

    from edgecal.gguf.header import read_header

    for name, template in (("with", CHAT_TEMPLATES["llama 2"]), ("without", None)):
        write_tiny_llama(
            tmp_path / f"{name}.gguf", seed=1, n_layer=1, vocab=spm_vocab(), chat_template=template
        )
    template = resolve_chat_template("own", read_header(tmp_path / "with.gguf"))
    assert template.render(ASKED) == "<s>[INST] First? [/INST]"
    assert template.name == f"the chat template of {tmp_path / 'with.gguf'}"
    header = read_header(tmp_path / "without.gguf")
    assert special_tokens(header) == ("<s>", "</s>")
    with pytest.raises(InputError, match=r"without\.gguf: holds no chat template; .* --chat-template FILE"):
        resolve_chat_template("own", header)


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"tokenizer.ggml.tokens": ["a"], "tokenizer.ggml.bos_token_id": 5, "tokenizer.ggml.eos_token_id": -1},
        {"tokenizer.ggml.tokens": "a", "tokenizer.ggml.bos_token_id": "0"},
    ],
)
def test_special_tokens_that_are_not_there(header):
    assert special_tokens(header) == ("", "")
    with pytest.raises(InputError, match="holds no chat template"):
        resolve_chat_template("own", Header({**header, "tokenizer.chat_template": ["not", "text"]}))
