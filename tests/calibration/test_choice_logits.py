"""ChoiceLogits: what it accepts, what it makes of it, and what it refuses in which words."""

import numpy as np
import pytest
from support.choice_data import make_choice_logits, rebuild

from edgecal.errors import InputError, ModelError


def test_padding_becomes_minus_infinity_and_the_last_layer_the_final_logits():
    data = make_choice_logits(6, 3, (2, 5), seed=1)
    layers = data.chat_layers.copy()
    layers[:, -1, :] = 7.0
    layers[np.isinf(layers)] = np.nan  # padding may hold anything
    again = rebuild(data, chat_layers=layers)
    np.testing.assert_array_equal(again.chat_layers, data.chat_layers)
    np.testing.assert_array_equal(again.chat_layers[:, -1], again.chat_final)
    for i, k in enumerate(again.n_choices):
        assert np.all(np.isneginf(again.base_layers[i, :, k:]))
        assert np.all(np.isfinite(again.base_layers[i, :, :k]))


def test_arrays_are_converted_and_copied():
    final = np.arange(8, dtype=np.float64).reshape(4, 2)
    data = rebuild(
        make_choice_logits(4, 1, 2, layers=False),
        base_final=final,
        chat_final=np.asfortranarray(final),
        n_choices=[2, 2, 2, 2],
        labels=[-1, 0, 1, -1],
    )
    final[0, 0] = 99.0
    assert data.base_final[0, 0] == 0.0
    assert data.base_final.dtype == data.chat_final.dtype == np.float32
    assert data.chat_final.flags.c_contiguous
    assert data.n_choices.dtype == data.labels.dtype == np.int32
    assert (data.n_prompts, data.n_layer) == (4, None)


def test_agreement_breaks_ties_towards_the_lowest_index():
    data = rebuild(
        make_choice_logits(3, 1, 3, layers=False),
        base_final=np.array([[1, 1, 0], [0, 1, 1], [0, 0, 0]], dtype=np.float32),
        chat_final=np.array([[2, 0, 0], [0, 0, 2], [-1, -1, -1]], dtype=np.float32),
    )
    assert data.agreement.tolist() == [True, False, True]


def test_take_selects_repeats_and_keeps_order():
    data = make_choice_logits(9, 2, (2, 4), seed=3)
    part = data.take([4, 0, 4])
    for name in ("base_final", "chat_final", "base_layers", "chat_layers", "n_choices", "labels"):
        np.testing.assert_array_equal(getattr(part, name), getattr(data, name)[[4, 0, 4]])
    assert data.take([]).n_prompts == 0
    assert data.take(data.labels == 0).n_prompts == int((data.labels == 0).sum())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"base_final": np.zeros(3, np.float32)}, "base_final has 1 dimensions"),
        ({"base_final": np.zeros((3, 1), np.float32)}, "at least 2"),
        ({"chat_final": np.zeros((4, 3), np.float32)}, r"chat_final has shape \(4, 3\), expected \(3, 3\)"),
        ({"chat_final": np.zeros((3, 3), np.int32)}, "chat_final has dtype int32"),
        ({"n_choices": [3, 3]}, r"n_choices has shape \(2,\)"),
        ({"n_choices": [3.0, 3.0, 3.0]}, "whole numbers"),
        ({"n_choices": [3, 1, 3]}, "n_choices of prompt 1 is 1, expected 2 to 3"),
        ({"n_choices": [3, 3, 4]}, "n_choices of prompt 2 is 4"),
        ({"labels": [0, 0, 3]}, "labels of prompt 2 is 3, expected -1 to 2"),
        ({"labels": [-2, 0, 0]}, "labels of prompt 0 is -2"),
        ({"n_choices": [2, 3, 3], "labels": [2, 0, 0]}, "labels of prompt 0 is 2, expected -1 to 1"),
        ({"base_layers": None}, "of both models"),
        ({"chat_layers": np.zeros((3, 5, 3), np.float32)}, "chat_layers has shape"),
        (
            {"base_layers": np.zeros((3, 0, 3), np.float32), "chat_layers": np.zeros((3, 0, 3), np.float32)},
            "no layer",
        ),
    ],
)
def test_what_does_not_fit_is_refused(change, words):
    with pytest.raises(InputError, match=words):
        rebuild(make_choice_logits(3, 2, 3), **change)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
def test_a_logit_that_is_not_finite_is_named(value):
    data = make_choice_logits(5, 3, 4)
    final = data.chat_final.astype(np.float64)
    final[3, 2] = value
    with pytest.raises(ModelError, match=r"chat model's logit of choice 2 is .* at prompt 3;"):
        rebuild(data, chat_final=final)
    layers = data.base_layers.astype(np.float64)
    layers[4, 1, 0] = value
    with pytest.raises(ModelError, match=r"base model's logit of choice 0 is .* at prompt 4, layer 2;"):
        rebuild(data, base_layers=layers)
