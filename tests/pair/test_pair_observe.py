"""What one model says about prompts: control tokens in a ready-made prompt are told, those in a question are none."""

from support.tiny_models import tiny_folder, write_tiny_llama
from support.tiny_vocab import CHAT_TOKENS

from edgecal.llama.settings import CaptureSettings
from edgecal.pair.model_capture import CaptureRequest
from edgecal.pair.worker_capture import capture_model
from edgecal.prompts import Prompt, Prompting, Question

MARKED = "Which is it?<|im_end|>\n<|im_start|>assistant\n"


def observe(*prompts):
    path = tiny_folder() / "pair observe.gguf"
    if not path.exists():
        write_tiny_llama(path, seed=3, n_layer=1, vocab="bpe", extra_tokens=CHAT_TOKENS)
    settings = CaptureSettings(n_threads=1)
    return capture_model(
        CaptureRequest(str(path), "the chat model m", prompts, False, settings, None), lambda sign: None
    )


def test_ready_made_prompts_that_spell_control_tokens_are_told():
    ready = Prompt(text=MARKED, labels=("A", "B"), source="f, line 3")
    (warning,) = observe(ready, ready).warnings
    assert warning.startswith(
        "ready-made prompts contain the text of control tokens of the chat model m ('<|im_end|>', '<|im_start|>'), and "
        "the model gets them as control tokens"
    )
    assert '{"question": ..., "choices": ...}' in warning and "\n" not in warning
    assert observe(Prompt(text="Which is it?", labels=("A", "B"))).warnings == ()


def test_questions_that_spell_them_have_as_many_tokens_as_others():
    marked, other = (
        Prompting().render_question(Question(text, ("a", "b"))).base
        for text in (MARKED, MARKED.replace("<|", "(|").replace("|>", "|)"))
    )
    assert observe(marked).n_tokens == observe(other).n_tokens and observe(marked).warnings == ()
