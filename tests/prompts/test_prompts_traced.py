"""Which parts of a prompt come from data: exactly those characters, whatever a template does with them."""

import pytest
from support.chat_templates import CHAT_TEMPLATES

from edgecal import InputError
from edgecal.prompts import (
    TEMPLATES,
    ChatTemplate,
    Prompt,
    Prompting,
    PromptTemplate,
    Question,
    render_verbalized,
    resolve_template,
)
from edgecal.prompts.traced_text import TracedText, join

# Every word of it begins with z, and no template's does.
QUESTION = Question(
    " zwhich <|zm_", ("zend|>", "zb <zc>\nzd", "zé\U000f0000"), 1, "z_zsubject", passage="zpas\n\nzsage"
)
SHOT = Question("zother", ("zu", "zv", "zw"), 2, "z_zsubject")


def data_of(prompt):
    """The words in the parts that come from data; the letters that templates put between are theirs."""
    return " ".join(prompt.text[start:stop] for start, stop in prompt.data).split()


def without_data(prompt):
    spans = [0, *(at for span in prompt.data for at in span), len(prompt.text)]
    return "".join(prompt.text[a:b] for a, b in zip(spans[::2], spans[1::2], strict=True))


@pytest.mark.parametrize("chat", [None, *CHAT_TEMPLATES])
@pytest.mark.parametrize("name", TEMPLATES)
def test_all_of_the_data_and_nothing_else(name, chat):
    template = chat and ChatTemplate(CHAT_TEMPLATES[chat], bos_token="<s>", eos_token="</s>", name=chat)
    prompting = Prompting(resolve_template(name), chat_template=template)
    for shots in ((), (SHOT, SHOT)):
        pair = prompting.render_question(QUESTION, shots)
        for prompt in (pair.base, pair.chat):
            subject = ["z", "zsubject"] if name == "subject" else []
            said = ["zpas", "zsage", "zwhich", "<|zm_", "zend|>", "zb", "<zc>", "zd", "zé\U000f0000"]
            assert data_of(prompt) == [*subject, *["zother", "zu", "zv", "zw"] * len(shots), *said]
            assert "z" not in without_data(prompt)
            assert prompt.data == tuple(sorted(prompt.data))


def test_permuted_options_and_stated_confidence():
    chat = ChatTemplate(CHAT_TEMPLATES["chatml"], name="c")
    for template in (None, chat):
        prompt = render_verbalized(QUESTION, template)
        assert data_of(prompt)[:4] == ["zpas", "zsage", "zwhich", "<|zm_"] and len(data_of(prompt)) == 9


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ question | upper }}: {{ question }}", "[ZWHICH WAY]: [zwhich way]"),
        ("{{ question[:4] }}|{{ question[4:] | trim }}", "[zwhi]|[ch way]"),
        ("{{ question | reverse }}. {{ question.split() | join('y') }}", "[yaw hcihwz]. [zwhich]y[way]"),
        ("{{ choices | map(attribute='text') | join(', ') }} {{ question }}", "[za], [zb zwhich way]"),
        ("{% if subject == 'z_law' %}Law{% else %}No{% endif %}: {{ question }}", "Law: [zwhich way]"),
        ("{{ question ~ '?' ~ choices[0].text }} {{ question | length }}", "[zwhich way]?[za] 10"),
        ("{{ '%s!' | format(question) }}", "[zwhich way]!"),
        ("{% for char in question.split()[0] %}{{ char }}-{% endfor %}", "[z]-[w]-[h]-[i]-[c]-[h]-"),
        ("{{ question | replace(' ', '<nl>') }}", "[zwhich]<nl>[way]"),
        ("{{ question | wordwrap(3) }}", "[zwh\nich\nway]"),
        (
            "{{ subject | replace('_', ' ') }}. {{ question | replace(' ', '<nl>') }}",
            "[z law]. [zwhich<nl>way]",
        ),
        # Not to be told, and harmless.
        ("{{ question | title }}: {{ choices[0].text }}", "Zwhich Way: [za]"),
    ],
)
def test_templates_that_work_on_their_texts(source, text):
    prompt = PromptTemplate(source, "own").render(Question("zwhich way", ("za", "zb"), None, "z_law"))
    marked = TracedText(prompt.text, prompt.data).change(lambda part: f"[{part}]")
    assert marked == text


HIDES = "{{ question[:5] | upper }} {{ question }}"


def test_a_template_that_hides_what_comes_from_data():
    plain = Question("zwhich way", ("za", "zb"))
    assert PromptTemplate(HIDES, "own").render(plain).text == "ZWHIC zwhich way"
    with pytest.raises(
        InputError, match=r"own: changes a text of f, line 3 so much .* its '<' may be part"
    ) as error:
        PromptTemplate(HIDES, "own").render(Question("<eos> way", ("za", "zb"), source="f, line 3"))
    assert "\n" not in str(error.value)


def test_a_chat_template_that_cuts_thoughts_out_of_what_the_user_says():
    source = CHAT_TEMPLATES["chatml"].replace("m['content']", "m['content'].split('</think>')[-1]")
    prompting = Prompting(chat_template=ChatTemplate(source, name="thinker"))
    assert data_of(prompting.render_question(SHOT).chat) == ["zother", "zu", "zv", "zw"]
    with pytest.raises(InputError, match="thinker: changes a text"):
        prompting.render_question(Question("za</think>zb<|im_end|>", ("zu", "zv")))


def test_a_ready_made_prompt_is_verbatim_but_in_a_conversation_what_the_user_says():
    ready = Prompt(text="A <|im_end|>:", labels=(" A", " B"))
    assert Prompting().render_prompt(ready).chat.data == ()
    said = Prompting(chat_template=ChatTemplate(CHAT_TEMPLATES["chatml"], name="c")).render_prompt(ready).chat
    assert [said.text[start:stop] for start, stop in said.data] == ["A <|im_end|>:"]


def test_traced_texts():
    text = join(["ab", TracedText.of_data("cd"), "e"]) + "f"
    assert text == TracedText("abcdef", ((2, 4),))
    assert (
        text.cut(3) == TracedText("def", ((0, 1),))
        and text.cut(0, 2) == TracedText("ab")
        and text.cut(4).data == ()
    )
    assert text.change(str.upper) == "abCDef"
