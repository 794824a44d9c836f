"""Structural guards of the built-in question bank.

They hold the promises that a machine can check: size, balance, form and variety.
They do not know the answers; the bank ships without them.
"""

import collections
import importlib.resources
import itertools
import json
import re
import unicodedata

import pytest

FIELDS = ("id", "subject", "question", "choices")
TOKEN = re.compile(r"[^\W_]+")
# Words too common to say that two questions are alike.
COMMON_WORDS = """
a an and are as at be been by can do does for from had has have her his how if in into is it its not of on
one or so than that the their them then there they this to was were what when where which while who whose
why will with would
"""
STOP_WORDS = frozenset(COMMON_WORDS.split())


def read_bank_text() -> str:
    path = importlib.resources.files("edgecal") / "prompts" / "bank.jsonl"
    return path.read_bytes().decode("utf-8")


def skeleton(text: str) -> str:
    """The letters of a text, one blank between words: no case, digits or punctuation."""
    words = TOKEN.findall(text.casefold())
    letters = ("".join(character for character in word if not character.isnumeric()) for word in words)
    return " ".join(word for word in letters if word)


def content_words(item: dict) -> frozenset:
    text = " ".join([item["question"], *item["choices"]])
    return frozenset(skeleton(text).split()) - STOP_WORDS


@pytest.fixture(scope="module")
def bank_text() -> str:
    return read_bank_text()


@pytest.fixture(scope="module")
def bank(bank_text: str) -> list:
    return [json.loads(line) for line in bank_text.splitlines()]


def test_file_is_one_plain_object_per_line(bank_text, bank):
    assert bank_text.endswith("\n")
    assert "\r" not in bank_text
    assert not bank_text.startswith("\ufeff")
    assert bank_text == "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in bank)
    assert unicodedata.normalize("NFC", bank_text) == bank_text
    assert all(tuple(item) == FIELDS for item in bank), "a field is missing, or an answer has slipped in"


def test_size_and_subjects(bank):
    counts = collections.Counter(item["subject"] for item in bank)
    assert 480 <= len(bank) <= 520
    assert len(counts) >= 16
    assert max(counts.values()) - min(counts.values()) <= 3
    assert len(list(itertools.groupby(bank, key=lambda item: item["subject"]))) == len(counts)


def test_ids_are_the_subject_and_a_running_number(bank):
    seen = collections.Counter()
    for item in bank:
        seen[item["subject"]] += 1
        assert item["id"] == f"{item['subject'].replace(' ', '-')}-{seen[item['subject']]:03d}"
    assert len({item["id"] for item in bank}) == len(bank)


def test_no_two_questions_alike_but_for_numbers(bank):
    repeated = [key for key, n in collections.Counter(skeleton(i["question"]) for i in bank).items() if n > 1]
    assert repeated == []


def test_choices_are_well_formed(bank):
    for item in bank:
        choices = item["choices"]
        assert 2 <= len(choices) <= 26, item["id"]
        assert all(isinstance(choice, str) and choice for choice in choices), item["id"]
        assert len({choice.casefold().rstrip(".") for choice in choices}) == len(choices), item["id"]
        assert len({choice.endswith(".") for choice in choices}) == 1, item["id"]
        assert not any(re.match(r"\(?[A-Za-z][):]", choice) for choice in choices), item["id"]


def test_most_questions_have_four_choices(bank):
    share = collections.Counter(len(item["choices"]) for item in bank)
    assert set(share) == {3, 4, 5}
    assert share[4] >= 0.75 * len(bank)
    for n_choices in (3, 5):
        assert 0.05 <= share[n_choices] / len(bank) <= 0.10


def test_text_is_clean_and_short(bank):
    for item in bank:
        for text in (item["question"], *item["choices"]):
            assert text == " ".join(text.split()), item["id"]
            assert all(unicodedata.category(character)[0] != "C" for character in text), item["id"]
        assert len(item["question"]) >= 15, item["id"]
        assert len(item["question"]) + sum(map(len, item["choices"])) <= 900, item["id"]


def test_no_choice_refers_to_the_other_choices(bank):
    forbidden = re.compile(
        r"\b(all|none|both|any|neither) of (these|the (above|following))\b|\bthe above\b", re.I
    )
    for item in bank:
        assert not any(forbidden.search(choice) for choice in item["choices"]), item["id"]


def test_nothing_depends_on_today(bank):
    dated = re.compile(r"\b(currently|nowadays|at present|today|this year|as of|so far|recently)\b", re.I)
    assert [item["id"] for item in bank if dated.search(item["question"])] == []


def test_no_near_duplicates(bank):
    """Jaccard overlap of the content words of question and choices."""
    words = [content_words(item) for item in bank]
    alike = [
        (bank[i]["id"], bank[j]["id"])
        for i, j in itertools.combinations(range(len(bank)), 2)
        if len(words[i] & words[j]) >= 0.4 * len(words[i] | words[j])
    ]
    assert alike == []


@pytest.mark.parametrize("n_words, largest_share", [(2, 0.08), (3, 0.06), (5, 0.01)])
def test_openings_vary(bank, n_words, largest_share):
    texts = [item["question"].casefold() for item in bank]
    openings = collections.Counter(tuple(TOKEN.findall(text)[:n_words]) for text in texts)
    opening, n_questions = openings.most_common(1)[0]
    assert n_questions <= largest_share * len(bank), opening


def test_no_sentence_frame_is_filled_in_again_and_again(bank):
    """A template shows as a run of six words that many questions share."""
    frames = collections.Counter()
    for item in bank:
        words = TOKEN.findall(item["question"].casefold())
        frames.update({tuple(words[i : i + 6]) for i in range(len(words) - 5)})
    frame, n_questions = frames.most_common(1)[0]
    assert n_questions <= 0.01 * len(bank), frame


def test_choice_order_follows_no_pattern(bank):
    """Shuffled choices: no position has the one longest choice much more often than the others."""
    four = [item["choices"] for item in bank if len(item["choices"]) == 4]
    assert sum(choices == sorted(choices) for choices in four) <= 0.1 * len(four)
    lengths = [[len(choice) for choice in choices] for choices in four]
    longest_at = collections.Counter(row.index(max(row)) for row in lengths if row.count(max(row)) == 1)
    for position in range(4):
        assert 0.15 <= longest_at[position] / longest_at.total() <= 0.35, longest_at
