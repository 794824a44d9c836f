"""Labels and their forms: of any number of options, no two labels stand for the same text."""

from itertools import combinations

import pytest

from edgecal.decisions import LETTERS, READOUTS, two_letter_labels
from edgecal.decisions.labels import find_labels, forms_of
from edgecal.errors import InputError

PAIRS = two_letter_labels([[a + b for a in LETTERS for b in LETTERS]])


def forms(n, readout="labels"):
    labels = find_labels(n, PAIRS, "q")
    return labels, [forms_of(label, labels, readout) for label in labels]


def test_letters_as_llama_cpp_counts_them():
    assert LETTERS[:3] + LETTERS[25:28] + LETTERS[-1] == "ABCZabz" and len(LETTERS) == 52
    for n in (2, 26, 27, 52):
        assert find_labels(n, (), "q") == tuple(LETTERS[:n])


def test_more_options_than_letters_have_labels_of_two():
    assert PAIRS[:2] == ("AA", "AB") and PAIRS[-1] == "ZZ" and len(PAIRS) == 26 * 26
    assert find_labels(53, PAIRS, "q") == PAIRS[:53]
    assert find_labels(256, PAIRS, "q") == PAIRS[:256]


def test_labels_of_two_letters_are_tokens_of_every_model():
    assert two_letter_labels([["AA", "AB", "x"], ["ZZ", "AB", "AA"], {"AB": 1, "ZZ": 2}]) == ("AB",)
    with pytest.raises(
        InputError, match=r"^q: has 53 options, and the model has only 2 tokens of two letters"
    ):
        find_labels(53, ("AA", "AB"), "q")


@pytest.mark.parametrize("n", [2, 26, 27, 30, 52, 53, 256])
@pytest.mark.parametrize("readout", READOUTS)
def test_no_text_counts_for_two_labels(n, readout):
    labels, of_labels = forms(n, readout)
    assert len(set(labels)) == n
    for label, texts in zip(labels, of_labels, strict=True):
        assert texts[0] == label and len(set(texts)) == len(texts)
        assert {text.strip().lower() for text in texts} == {label.lower()}
    for one, other in combinations(of_labels[:60], 2):
        assert not set(one) & set(other)


def test_which_forms():
    assert forms(2) == (("A", "B"), [("A", " A", "a", " a"), ("B", " B", "b", " b")])
    labels, of_labels = forms(28)
    assert dict(zip(labels, of_labels, strict=True))["A"] == ("A", " A")
    assert dict(zip(labels, of_labels, strict=True))["a"] == ("a", " a")
    assert dict(zip(labels, of_labels, strict=True))["C"] == ("C", " C", "c", " c")
    words = ("yes", "no")
    assert forms_of("yes", words, "labels") == ("yes", " yes", "YES", " YES", "Yes", " Yes")
    assert forms(60)[1][1] == ("AB", " AB")
    assert forms(30, "letters")[1] == [(letter,) for letter in LETTERS[:30]]
