"""Order, duplicates and answers: what reaches a digest and a draw, and what must not."""

import random

from edgecal.prompts import (
    Prompt,
    PromptPair,
    canonical_order,
    compute_prompts_sha256,
    count_repeats,
    draw_pairs,
)

PROMPTS = [Prompt(text=f"q{i}", labels=(" A", " B"), answer=i % 2, source=f"line {i}") for i in range(50)]


def shuffled(seed):
    return random.Random(seed).sample(PROMPTS, len(PROMPTS))


def draw_prompts(prompts, limit, seed):
    return [pair.base for pair in draw_pairs([PromptPair(each, each) for each in prompts], limit, seed)]


def test_order_in_the_file_reaches_nothing():
    assert canonical_order(shuffled(1)) == canonical_order(shuffled(2)) != PROMPTS
    assert compute_prompts_sha256(shuffled(1)) == compute_prompts_sha256(PROMPTS)
    assert draw_prompts(shuffled(1), 9, seed=4) == draw_prompts(shuffled(2), 9, seed=4)


def test_a_draw_depends_on_the_seed_and_takes_no_more_than_there_is():
    assert draw_prompts(PROMPTS, 9, seed=4) != draw_prompts(PROMPTS, 9, seed=5)
    assert len(set(draw_prompts(PROMPTS, 9, seed=4))) == 9
    assert draw_prompts(PROMPTS, 99, seed=4) == canonical_order(PROMPTS)


def test_digest_sees_content_and_answers_only_when_asked():
    other = [Prompt(text=p.text, labels=p.labels, answer=None) for p in PROMPTS]
    assert compute_prompts_sha256(other) == compute_prompts_sha256(PROMPTS)
    assert compute_prompts_sha256(other, with_answers=True) != compute_prompts_sha256(
        PROMPTS, with_answers=True
    )
    assert compute_prompts_sha256(PROMPTS[1:]) != compute_prompts_sha256(PROMPTS)
    assert compute_prompts_sha256([*PROMPTS, PROMPTS[0]]) != compute_prompts_sha256(PROMPTS)
    text, tokens = Prompt(text="a", labels=("b", "c")), Prompt(tokens=(1,), choice_tokens=(2, 3))
    assert compute_prompts_sha256([text]) != compute_prompts_sha256([tokens])


def test_repeats_are_counted_whatever_their_answers_and_sources():
    assert count_repeats([]) == count_repeats(PROMPTS) == 0
    again = [Prompt(text=p.text, labels=p.labels, answer=None) for p in PROMPTS[:3]]
    assert count_repeats([*PROMPTS, *again, *again]) == 6
    assert count_repeats([*PROMPTS, Prompt(text="q0", labels=(" A", " C"))]) == 0
