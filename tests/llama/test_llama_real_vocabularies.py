"""Real models' vocabularies, out of llama.cpp's source: labels' tokens against ids looked up in the files.

They need EDGECAL_LLAMA_SOURCE, a folder with that source; `.ci/run` sets it.
"""

from dataclasses import dataclass
from string import ascii_lowercase, ascii_uppercase

import pytest
from support.chat_templates import CHAT_TEMPLATES
from support.llama_source import llama_models_folder

from edgecal import InputError
from edgecal.gguf.header import read_header
from edgecal.llama.model import Model
from edgecal.llama.tokenizer import Tokenizer
from edgecal.prompts import (
    TEMPLATES,
    ChatTemplate,
    Prompt,
    Prompting,
    Question,
    resolve_template,
)
from edgecal.prompts.chat_template import TEMPLATE_KEY


@dataclass(frozen=True)
class Family:
    """How a vocabulary writes labels.

    `space`: what a leading space is in a stored token. `spaced_digits`: ` 1` is one token. `ten`: `10` is one.
    `after_space`: letters after a plain space are "spaced", or "refused" where the tokenizer joins the two.
    `letter_a`: the published ids of ` A` and `A`, where known.
    """

    space: str = "Ġ"
    spaced_digits: bool = False
    ten: bool = False
    after_space: str = "spaced"
    letter_a: tuple[int, int] | None = None


FAMILIES = {
    "aquila": Family(ten=True),
    "baichuan": Family("▁"),
    "command-r": Family(),
    "deepseek-coder": Family(),
    "deepseek-llm": Family(),
    "falcon": Family(ten=True),
    "gemma-4": Family("▁", after_space="refused"),
    "gpt-2": Family(spaced_digits=True, ten=True, letter_a=(317, 32)),
    "gpt-neox": Family(ten=True, after_space="refused"),
    "llama-bpe": Family(ten=True, letter_a=(362, 32)),
    "llama-spm": Family("▁", letter_a=(319, 29909)),
    "mpt": Family(spaced_digits=True, ten=True, after_space="refused"),
    "phi-3": Family("▁", letter_a=(319, 29909)),
    "qwen2": Family(letter_a=(362, 32)),
    "qwen35": Family(letter_a=(362, 32)),
    "refact": Family(),
    "starcoder": Family(),
}
QUESTION = Question("Which one?", tuple(f"option {n}" for n in range(26)), source="f, line 3")


class Vocabulary:
    """A vocabulary-only file, its tokens as they are stored, and edgecal's tokenizer of it."""

    def __init__(self, name, model):
        self.name = name
        self.path = model.path
        self.family = FAMILIES.get(name, Family())
        self.header = read_header(model.path)
        stored = self.header.array_strings("tokenizer.ggml.tokens")
        self.ids = {token: index for index, token in enumerate(stored)}
        self.tokenizer = Tokenizer(model.vocab, model.n_vocab, name)

    def stored(self, labels, space):
        """Ids by the stored texts of labels in ASCII."""
        mark = self.family.space if space else ""
        return [self.ids[f"{mark}{label}".encode()] for label in labels]

    def letters(self, text, n=26):
        labels = tuple(ascii_uppercase[:n])
        return self.resolve(Prompt(text=text, labels=labels, labels_verbatim=False, source="f, line 3"))

    def verbatim(self, text, *labels):
        return self.resolve(Prompt(text=text, labels=labels, source="f, line 3"))

    def resolve(self, prompt):
        resolved = self.tokenizer.resolve(prompt)
        assert resolved.tokens.tolist() == self.tokenizer.tokenize(prompt.text)
        return resolved.choice_tokens.tolist()

    def refuses(self, text, *labels, told):
        with pytest.raises(InputError) as caught:
            self.verbatim(text, *labels) if labels else self.letters(text)
        assert told in str(caught.value) and "\n" not in str(caught.value), str(caught.value)


@pytest.fixture(scope="module", params=FAMILIES)
def vocabulary(request):
    yield from loaded(request.param)


def only(*names):
    """The test is for these vocabularies."""
    return pytest.mark.parametrize("vocabulary", sorted(names), indirect=True)


def loaded(name):
    with Model(llama_models_folder() / f"ggml-vocab-{name}.gguf", vocab_only=True) as model:
        yield Vocabulary(name, model)


@only(*(set(FAMILIES) - {"aquila", "baichuan", "gpt-neox"}))
def test_texts_become_the_tokens_that_they_should(vocabulary):
    """llama.cpp's source has texts for most, and the ids that the models' own tokenizers make of them."""
    texts = vocabulary.path.with_name(f"{vocabulary.path.name}.inp")
    pairs = zip(
        texts.read_text("utf-8").split("\n__ggml_vocab_test__\n"),
        texts.with_suffix(".out").read_text("utf-8").split("\n"),
        strict=False,
    )
    for text, ids in pairs:
        if text:
            tokens = vocabulary.tokenizer.tokenize(text)
            expected = [int(token) for token in ids.split()]
            assert tokens[len(tokens) - len(expected) :] == expected and len(tokens) <= len(expected) + 1


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_built_in_templates(vocabulary, name):
    prompt = resolve_template(name).render(QUESTION)
    space = name != "bracketed"
    tokens = vocabulary.resolve(prompt)
    assert tokens == vocabulary.stored(ascii_uppercase, space)
    for letter, token in zip("ABCD", tokens, strict=False):
        joint = vocabulary.tokenizer.tokenize(f"{prompt.text}{' ' * space}{letter}")
        assert joint == [*vocabulary.tokenizer.tokenize(prompt.text), token]


@only(*(name for name, family in FAMILIES.items() if family.letter_a is not None))
def test_the_published_ids_of_a(vocabulary):
    found = vocabulary.letters("Answer:", 2)[0], vocabulary.letters("Answer: (", 2)[0]
    assert found == vocabulary.family.letter_a


@pytest.mark.parametrize(
    "end", ["\n", "\n\n", " (", "\n(", "\n[", "\n<answer>", ' "', " **", "\t", "\u00a0", "\u7b54\u6848\uff1a"]
)
def test_where_a_word_follows_directly_the_letter_alone(vocabulary, end):
    """Also where the tokenizer would join the two: a character before its byte, if there are both."""
    assert vocabulary.letters(f"Which one?{end}") == vocabulary.stored(ascii_uppercase, space=False)


def test_after_a_plain_space(vocabulary):
    if vocabulary.family.after_space == "spaced":
        assert vocabulary.letters("Answer: ") == vocabulary.stored(ascii_uppercase, space=True)
    else:
        vocabulary.refuses("Answer: ", told="leave out the space at the end of the prompt")
    # Verbatim, each label's own token.
    assert vocabulary.verbatim("Answer: ", *ascii_uppercase) == vocabulary.stored(
        ascii_uppercase, space=False
    )


def test_digits_as_labels(vocabulary):
    family, digits = vocabulary.family, "123456789"
    bare = vocabulary.stored(digits, space=False)
    for text in ("Answer: ", "Answer: (", "Answer\n", "Answer:"):
        assert vocabulary.verbatim(text, *digits) == bare
    spaced = [f" {digit}" for digit in digits]
    if family.spaced_digits:
        assert vocabulary.verbatim("Answer:", *spaced) == vocabulary.stored(digits, space=True)
    else:
        vocabulary.refuses(
            "Answer:", *spaced, told="end the prompt with the space, and give the label as '1'"
        )
    if family.ten:
        assert vocabulary.verbatim("Answer: (", "9", "10")[1] == vocabulary.ids[b"10"]
    else:
        vocabulary.refuses("Answer: (", "9", "10", told="the label '10' is not one token")


def test_words_and_small_letters_as_labels(vocabulary):
    for words in (("yes", "no"), ("Yes", "No"), ("True", "False"), tuple(ascii_lowercase)):
        spaced = [f" {word}" for word in words]
        assert vocabulary.verbatim("Answer:", *spaced) == vocabulary.stored(words, space=True)
        assert vocabulary.verbatim("Answer\n", *words) == vocabulary.stored(words, space=False)


def test_labels_beyond_ascii(vocabulary):
    tokens = vocabulary.verbatim("Answer\n", "é", "è")
    assert [vocabulary.tokenizer.piece(token) for token in tokens] == ["é", "è"]
    vocabulary.refuses("Answer\n", "\U000f1234", "A", told="is not one token after this prompt")


@dataclass(frozen=True)
class Chat:
    """A chat template: a file of llama.cpp's, our own of that shape, or (None) the one in the vocabulary's file;
    and the stored token that the letter A is after it."""

    template: str | None
    letter: str


CHATS = {
    "command-r": [Chat(None, "A")],
    "deepseek-llm": [Chat("rwkv", "ĠA")],  # "Assistant:" in plain words, as DeepSeek LLM's own
    "gemma-4": [Chat(None, "A"), Chat("gemma", "A")],
    "llama-bpe": [Chat("meta-llama-Llama-3.1-8B-Instruct.jinja", "A"), Chat("llama 3", "A")],
    "llama-spm": [Chat("llama 2", "▁A")],
    "phi-3": [Chat(None, "▁A"), Chat("phi 3", "▁A")],
    "qwen2": [
        Chat(None, "A"),
        Chat("Qwen-Qwen2.5-7B-Instruct.jinja", "A"),
        Chat("Qwen-Qwen3-0.6B.jinja", "A"),
    ],
}


@only(*CHATS)
def test_chat_templates(vocabulary):
    bos, eos = (
        vocabulary.tokenizer.piece(vocabulary.header.get(f"tokenizer.ggml.{name}_token_id"))
        for name in ("bos", "eos")
    )
    for chat in CHATS[vocabulary.name]:
        if chat.template is None:
            source = vocabulary.header.get(TEMPLATE_KEY)
        elif chat.template.endswith(".jinja"):
            source = (llama_models_folder() / "templates" / chat.template).read_text("utf-8")
        else:
            source = CHAT_TEMPLATES[chat.template]
        template = ChatTemplate(source, bos_token=bos, eos_token=eos, name="the template")
        prompt = Prompting(chat_template=template).render_question(QUESTION).chat
        first, *others = vocabulary.resolve(prompt)
        assert first == vocabulary.ids[chat.letter.encode()] and len(set(others)) == 25
        tokens = vocabulary.tokenizer.tokenize(prompt.text)
        assert tokens[:2].count(vocabulary.header.get("tokenizer.ggml.bos_token_id")) <= 1


def test_wordpiece_is_refused():
    for vocabulary in loaded("bert-bge"):
        vocabulary.refuses("Answer:", told="bert-bge: its tokenizer is WordPiece")


def test_unigram():
    """An embedding model's; its tokenizer alone is like that of a causal one. It sees white space as one space."""
    for vocabulary in loaded("nomic-bert-moe"):
        vocabulary.family = Family("▁")
        for text in ("Which one?\nAnswer:", "Answer: ", "Answer\n", "Answer\n\n"):
            assert vocabulary.letters(text) == vocabulary.stored(ascii_uppercase, space=True)
        assert vocabulary.letters("Answer: (") == vocabulary.stored(ascii_uppercase, space=False)
        assert vocabulary.verbatim("Answer:", " 1", " 2", " 10") == vocabulary.stored(
            ("1", "2", "10"), space=True
        )
