"""Examples that a method needs: counted, and foreseen not to come."""

import numpy as np
import pytest
from scipy.stats import beta
from support.choice_data import make_choice_logits, rebuild

from edgecal import NotIdentifiedError
from edgecal.calibration import AdaptivePlan, Look, Method, fit_temperature, foresee_lack

N_LAYER = 3


def logits(n_agreement, n_disagreement):
    """Prompts of four choices on which the models choose alike, and others on which they do not."""
    n = n_agreement + n_disagreement
    data = make_choice_logits(n, N_LAYER, 4, seed=2)
    chat = np.where(np.arange(n)[:, None] < n_agreement, 2 * data.base_final, -2 * data.base_final)
    layers = data.chat_layers.copy()
    layers[:, -1] = chat
    return rebuild(data, chat_final=chat, chat_layers=layers)


@pytest.mark.parametrize(
    ("method", "n_agreement", "n_disagreement", "n_total", "words"),
    [
        ("dual-align", 200, 0, 600, ["needs at least 10 disagreement", "has 0", "200 of 600", "--method daca"]),
        ("dual-align", 200, 0, 900, None),  # 2.18 % of 700 are 15
        ("dual-align", 199, 1, 600, None),  # 1 + 3.3 % of 400
        ("dual-align", 2, 98, 300, ["needs at least 30 agreement", "has 2", "100 of 300"]),
        ("process", 200, 0, 1500, ["needs at least 30 disagreement", "has 0", "--method daca"]),
        ("process", 200, 0, 1700, None),
        ("daca", 0, 100, 700, ["needs at least 30 agreement", "has 0", "is the base model"]),
        ("daca", 200, 0, 300, None),
        ("naive", 200, 0, 300, None),
        ("ts", 200, 0, 300, None),
        ("vanilla", 200, 0, 300, None),
    ],
)  # fmt: skip
def test_a_lack_is_foreseen_with_its_figures(method, n_agreement, n_disagreement, n_total, words):
    data = logits(n_agreement, n_disagreement)
    lack = foresee_lack(data, Method(method), n_total, 0.0125)
    assert (lack is None) == (words is None)
    if words is None:
        return
    assert "\n" not in lack and all(word in lack for word in words), lack
    n_left = n_total - data.n_prompts
    found = n_disagreement if "disagreement" in lack.split(";")[0] else n_agreement
    share = beta.ppf(1 - 0.0125, found + 1, data.n_prompts - found)  # Clopper-Pearson
    assert f"at most {share:.2%} of all are such (98.75% confidence)" in lack
    assert f"no more than {int(share * n_left)} can be expected of the other {n_left}," in lack


@pytest.mark.parametrize("found", [0, 1, 5, 29])
def test_the_bound_is_clopper_and_pearsons_to_the_last_prompt(found):
    data, doubt, least = logits(found, 400 - found), 0.003, 30
    share = beta.ppf(1 - doubt, found + 1, 400 - found)
    most = 400 + int(np.ceil((least - found) / share)) - 1  # the most that cannot bring enough
    assert foresee_lack(data, Method("daca"), most, doubt) is not None
    assert foresee_lack(data, Method("daca"), most + 1, doubt) is None


@pytest.mark.parametrize(
    ("method", "n_agreement", "n_disagreement", "words"),
    [
        (
            "dual-align",
            60,
            9,
            [
                "at least 10 disagreement examples (prompts on",
                "and has 9: give more prompts; use --method daca",
            ],
        ),
        (
            "dual-align",
            29,
            40,
            ["at least 30 agreement examples (prompts on", "and has 29", "is the base model"],
        ),
        ("daca", 29, 40, ["at least 30 agreement examples (prompts on", "and has 29"]),
        ("process", 60, 29, ["at least 30 disagreement examples (prompts on", "and has 29", "--method daca"]),
        ("naive", 20, 9, ["at least 30 examples and has 29: give more prompts"]),
    ],
)
def test_a_fit_counts_what_it_needs(method, n_agreement, n_disagreement, words):
    with pytest.raises(NotIdentifiedError) as caught:
        fit_temperature(logits(n_agreement, n_disagreement), Method(method), n_bootstrap=0)
    assert "\n" not in str(caught.value) and all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(("share", "most"), [(0.02, 0.05), (0.0, 1.0)])
def test_runs_seldom_end_wrongly_for_want_of_examples_and_often_rightly(share, most):
    """1,000 prompts that hold twice as many disagreements as are needed on average, or none."""
    rng = np.random.default_rng(7)
    plan, method, ended = AdaptivePlan(), Method("dual-align"), []
    whole = logits(0, 1000)
    for _ in range(300):
        differ = rng.random(1000) < share
        signs = np.where(differ, -1, 1)[:, None].astype(np.float32)
        looks = []
        while not (step := plan.next_step(looks, 1000)).stop:
            part = np.arange(step.n_prompts)
            data = rebuild(
                whole.take(part), chat_final=whole.base_final[part] * signs[part], chat_layers=None, base_layers=None
            )  # fmt: skip
            looks.append(Look(step.n_prompts, step.level, step.counts))
            if step.n_prompts == 1000 or foresee_lack(data, method, 1000, step.doubt):
                break
        ended.append(looks[-1].n_prompts < 1000)
    assert np.mean(ended) <= most and (share > 0 or np.mean(ended) == 1.0)
