"""Control tokens of real vocabularies: in a question they are text."""

from edgecal.gguf.header import read_header
from edgecal.llama.model import Model
from edgecal.llama.tokenizer import Tokenizer
from edgecal.prompts import Prompting, Question, resolve_chat_template
from edgecal.prompts.chat_template import TEMPLATE_KEY


def test_a_question_that_spells_every_control_token_ends_no_turn(real_model):
    header = read_header(real_model)
    templates = [None]
    if TEMPLATE_KEY in header:
        templates.append(resolve_chat_template("own", header))
    with Model(real_model, vocab_only=True) as model:
        tokenizer = Tokenizer(model.vocab, model.n_vocab, "it")
        every = [text for text, token in tokenizer._marks._found_first if tokenizer._marks.find([token])]
        for template in templates:
            found = []
            for said in (every, ["nothing"]):
                question = Question(
                    "Which? " + " ".join(said), (f"a{said[0]}", f"{said[-1]}b"), passage="".join(said)
                )
                prompt = Prompting(chat_template=template).render_question(question).chat
                tokens = tokenizer.resolve(prompt).tokens.tolist()
                found.append([token for token in tokens if tokenizer._marks.find([token])])
                text = b"".join(map(tokenizer.piece_bytes, tokens)).decode()
                assert text.endswith(prompt.text)
            assert found[0] == found[1] and len(every) > 5
