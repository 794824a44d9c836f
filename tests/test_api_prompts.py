"""What `edgecal.load_prompts` takes from Python, and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest

import edgecal
from edgecal.prompts import Prompt, Question

QUESTION = {"question": "Which?", "choices": ["this", "that"]}


def test_every_kind_of_source_in_one_list(tmp_path):
    (tmp_path / "q.jsonl").write_text('{"prompt": "Say:", "labels": [" A", " B"]}\n')
    mixed = [
        tmp_path / "q.jsonl",
        QUESTION,
        Question("Who?", ("he", "she")),
        Prompt(tokens=(1, 2), choice_tokens=(3, 4)),
        Prompt(text="So", labels=("A", "B"), labels_verbatim=False),
    ]
    prompts = edgecal.load_prompts(item for item in mixed)
    backwards = edgecal.load_prompts(reversed(mixed))
    assert len(prompts) == 5
    assert [replace(p, source="") for p in prompts] == [replace(p, source="") for p in backwards]
    assert {prompt.source for prompt in prompts} >= {"prompt 2", "prompt 3", "prompt 4", "prompt 5"}


def test_numpy_integers_are_integers():
    ours = {"tokens": [1, 2], "choice_tokens": [3, 4], "answer": 1}
    theirs = {
        "tokens": list(np.array([1, 2])),
        "choice_tokens": list(np.array([3, 4])),
        "answer": np.int64(1),
    }
    assert edgecal.load_prompts([ours]) == edgecal.load_prompts([theirs])
    assert type(edgecal.load_prompts([theirs])[0].tokens[0]) is int


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (QUESTION, "one record"),
        ([], "no prompts"),
        ([QUESTION, 5], "prompt 2: expected a file's path, .* got int"),
        ([{"question": "Which?"}], 'prompt 1: "question" needs "choices"'),
        ([Question("Which?", ("this",))], '"choices" must hold 2 to 26 items, got 1'),
        ([Question("Which?", ("this", "that"), answer=2)], '"answer" must be an index'),
        ([Question("Which?", ("this", "that"), source="here")] * 1 + [Question("", ("a", "b"))], "prompt 2"),
        ([Prompt()], "prompt 1: expected one of"),
        ([Prompt(text="a", labels=("A", "B"), tokens=(1,))], "got both"),
        ([Prompt(tokens=(1,), choice_tokens=(-1, 2))], '"choice_tokens" item 0'),
        ([Prompt(text="a", labels=("A", "A"))], "are the same"),
    ],
)
def test_what_is_refused(source, told):
    with pytest.raises(edgecal.InputError, match=told):
        edgecal.load_prompts(source)


@pytest.mark.parametrize(
    ("options", "told"), [({"limit": 0}, "limit"), ({"seed": -1}, "seed"), ({"seed": 2**64}, "seed")]
)
def test_options_that_make_no_sense(options, told):
    with pytest.raises(edgecal.InputError, match=told):
        edgecal.load_prompts([QUESTION], **options)
