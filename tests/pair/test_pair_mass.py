"""A model that puts little of its probability on the choices: said once, with advice that applies."""

import numpy as np
import pytest

from edgecal.pair.model_capture import ModelCapture, mass_remedy, warn_of_mass
from edgecal.pair.pair_capture import PairCapture
from edgecal.prompts import Prompt, PromptTemplate, Question

ASKED = Question("Which is red?", ("blood", "grass"))
RENDERED = PromptTemplate().render(ASKED)
WORKED = PromptTemplate().render(ASKED, [Question("Which is blue?", ("sky", "sand"), 0)])
READY = Prompt(text="Review: bad\nSentiment:", labels=(" negative", " positive"))
READY_WORKED = Prompt(text="Review: good\nSentiment: positive\nReview: bad\nSentiment:", labels=READY.labels)
TOKENS = Prompt(tokens=(1, 2), choice_tokens=(3, 4))


def seen(mass, n_outside=0, n=10, text="x"):
    outside = (text,) * n_outside + (None,) * (n - n_outside)
    none = np.zeros((n, 2), np.float32)
    return ModelCapture(none, None, np.full(n, mass), outside, None, 0, "llama.cpp", "AVX", 0)


def captured(base, chat, prompts):
    return PairCapture(tuple(prompts), tuple(prompts), base, chat, None, None)


@pytest.mark.parametrize(
    ("prompts", "advised", "not_advised"),
    [
        ([RENDERED], ["--shots 5"], ["already", "labels"]),
        ([READY], ["worked examples in the prompts"], ["--shots", "already"]),
        ([TOKENS], ["worked examples in the prompts"], ["--shots", "already"]),
        (
            [WORKED],
            ["already", "(--shots)", "--template", "--anchor", "another base model"],
            ["--shots 5"],
        ),
        (
            [READY_WORKED],
            ["already", "labels", "--anchor", "another base model"],
            ["--shots", "--template"],
        ),
        ([RENDERED, RENDERED, READY_WORKED], ["--shots 5"], ["already"]),
        ([RENDERED, READY_WORKED, READY_WORKED], ["already"], ["--shots", "--template"]),
    ],
)
def test_only_what_applies_is_advised(prompts, advised, not_advised):
    remedy = mass_remedy(prompts)
    assert all(word in remedy for word in advised) and not any(word in remedy for word in not_advised), remedy
    (warning,) = warn_of_mass("the model", seen(0.3), prompts)
    assert ("--template" in warning) == (
        prompts[0] in (RENDERED, WORKED) and prompts[1:] != [READY_WORKED] * 2
    )


def test_a_low_mass_of_the_base_is_said_once():
    low = captured(seen(0.5, 4, text=" Football"), seen(0.99), [READY_WORKED] * 10)
    (warning,) = (text for text in low.warnings() if "base model" in text)
    assert (
        "50.0%" in warning
        and "say something else on 4 of 10 prompts, most often ' Football'; at least 80%" in warning
    )
    assert not any("base model" in text for text in low.warnings(told=[warning]))
    assert not any("base model" in text for text in low.warnings(yardstick=False))


@pytest.mark.parametrize(
    ("base", "n_outside", "words"),
    [
        (0.79, 0, "at least 80% is needed"),
        (0.8, 5, None),
        (0.8, 6, "say something else on 6 of 10 prompts, most often 'x'; its confidence"),
    ],
)
def test_a_base_that_is_a_yardstick_is_warned_of_as_any_model(base, n_outside, words):
    found = captured(seen(base, n_outside), seen(0.99), [RENDERED] * 10).warnings()
    assert ([text for text in found if "base model" in text] == []) == (words is None)
    assert words is None or any(words in text for text in found)


@pytest.mark.parametrize(
    ("mass", "n_outside", "divided", "warned"),
    [(0.5, 0, False, False), (0.49, 0, False, True), (0.49, 5, True, False), (0.9, 6, True, True)],
)
def test_any_model_is_warned_of_below_half_or_where_it_mostly_says_something_else(
    mass, n_outside, divided, warned
):
    found = warn_of_mass("the model", seen(mass, n_outside, text=""), [RENDERED], divided=divided)
    assert bool(found) == warned and "often" not in " ".join(found)
