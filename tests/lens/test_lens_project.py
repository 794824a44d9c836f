"""The projection kernel against a NumPy twin, at its edges, and whether it is repeatable bit for bit."""

from dataclasses import replace

import numba
import numpy as np
import pytest

from edgecal.lens import Head, project


def make_head(n_embd=48, n_rows=10, seed=0, **changes):
    rng = np.random.default_rng(seed)

    def numbers(*shape):
        return rng.standard_normal(shape, dtype=np.float32)

    head = Head(
        architecture="llama",
        centered=False,
        eps=1e-5,
        norm_weight=1 + numbers(n_embd) / 3,
        norm_bias=numbers(n_embd),
        token_ids=np.arange(n_rows, dtype=np.int32),
        rows=numbers(n_rows, n_embd),
        row_bias=numbers(n_rows),
        logit_scale=0.7,
        soft_cap=None,
        n_vocab=n_rows,
        type_name="F32",
    )
    return replace(head, **changes)


def twin(hidden, head, row_index):
    """What `project` computes, in float64 with whole-array operations."""
    h = hidden.astype(np.float64)
    if head.centered:
        h = h - h.mean(axis=-1, keepdims=True)
    h = h / np.sqrt((h * h).mean(axis=-1, keepdims=True) + head.eps)
    h = h * head.norm_weight.astype(np.float64) + head.norm_bias.astype(np.float64)
    z = np.einsum("nle,re->nlr", h, head.rows.astype(np.float64)) + head.row_bias.astype(np.float64)
    z = z * head.logit_scale
    if head.soft_cap is not None:
        z = head.soft_cap * np.tanh(z / head.soft_cap)
    picked = np.take_along_axis(z, np.maximum(row_index, 0)[:, None, :], axis=2)
    return np.where(row_index[:, None, :] < 0, -np.inf, picked).astype(np.float32)


def make_input(n=7, n_layer=3, n_embd=48, k_max=4, n_rows=10, seed=1):
    rng = np.random.default_rng(seed)
    hidden = 3 * rng.standard_normal((n, n_layer, n_embd), dtype=np.float32) + 1
    return hidden, rng.integers(-1, n_rows, (n, k_max)).astype(np.int32)


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("soft_cap", [None, 2.5])
@pytest.mark.parametrize("n_embd", [1, 7, 8, 48, 100])
def test_twin(centered, soft_cap, n_embd):
    head = make_head(n_embd, centered=centered, soft_cap=soft_cap)
    hidden, row_index = make_input(n_embd=n_embd)
    got = project(hidden, head, row_index)
    assert got.dtype == np.float32 and got.shape == (7, 3, 4)
    np.testing.assert_allclose(got, twin(hidden, head, row_index), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("n, n_layer, k_max", [(0, 3, 4), (2, 0, 4), (2, 3, 0), (0, 0, 0)])
def test_empty(n, n_layer, k_max):
    hidden, row_index = make_input(n, n_layer, k_max=k_max)
    assert project(hidden, make_head(), row_index).shape == (n, n_layer, k_max)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("centered", [False, True])
def test_what_is_not_finite_stays_in_its_row_and_shows(bad, centered):
    head = make_head(centered=centered)
    hidden, _ = make_input()
    row_index = np.tile(np.array([0, 3, -1], np.int32), (7, 1))
    clean = project(hidden, head, row_index)
    hidden[2, 1, 5] = bad
    got = project(hidden, head, row_index)
    assert not np.isfinite(got[2, 1]).any() and np.isneginf(got[2, 1, 2])
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(np.isnan(got), np.isnan(twin(hidden, head, row_index)))
    got[2, 1] = clean[2, 1]
    np.testing.assert_array_equal(got, clean)


def test_zero_and_huge_hidden_states():
    head = make_head()
    row_index = np.zeros((2, 1), np.int32)
    hidden = np.zeros((2, 1, 48), np.float32)
    hidden[1] = 3e38  # the squares overflow float32, not float64
    np.testing.assert_allclose(project(hidden, head, row_index), twin(hidden, head, row_index), rtol=1e-6)


def test_a_result_depends_on_its_own_row_only():
    head = make_head(soft_cap=5.0)
    hidden, row_index = make_input(n=23)
    whole = project(hidden, head, row_index)
    for at in range(0, 23, 5):
        np.testing.assert_array_equal(
            project(hidden[at : at + 5], head, row_index[at : at + 5]), whole[at : at + 5]
        )
    np.testing.assert_array_equal(project(hidden[::-1], head, row_index[::-1])[::-1], whole)
    np.testing.assert_array_equal(project(hidden[:, -1:], head, row_index), whole[:, -1:])


def test_a_result_does_not_depend_on_threads():
    head = make_head()
    hidden, row_index = make_input(n=64)
    usual = project(hidden, head, row_index)
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        alone = project(hidden, head, row_index)
    finally:
        numba.set_num_threads(before)
    np.testing.assert_array_equal(alone, usual)


def test_laws():
    head = make_head(norm_bias=np.zeros(48, np.float32), row_bias=np.zeros(10, np.float32), eps=0.0)
    hidden, row_index = make_input()
    z = project(hidden, head, row_index)
    # permuting the choices permutes the output
    np.testing.assert_array_equal(project(hidden, head, row_index[:, ::-1]), z[:, :, ::-1])
    # a norm forgets the size of its input (exactly, for a power of two), a LayerNorm its mean too
    np.testing.assert_array_equal(project(4 * hidden, head, row_index), z)
    layer = replace(head, centered=True)
    np.testing.assert_allclose(
        project(hidden + 2, layer, row_index), project(hidden, layer, row_index), rtol=1e-4, atol=1e-4
    )
    # a soft cap bounds the logits and keeps their order
    capped = project(hidden, replace(head, soft_cap=1.5), row_index)
    assert (np.abs(capped[np.isfinite(capped)]) <= 1.5).all()
    np.testing.assert_array_equal(capped.argmax(axis=2), z.argmax(axis=2))


@pytest.mark.parametrize(
    "hidden_shape, index_shape, row",
    [((7, 3, 47), (7, 4), 0), ((7, 48), (7, 4), 0), ((7, 3, 48), (6, 4), 0), ((7, 3, 48), (7,), 0),
     ((7, 3, 48), (7, 4), 10), ((7, 3, 48), (7, 4), -2)],
)  # fmt: skip
def test_shapes_that_do_not_fit(hidden_shape, index_shape, row):
    with pytest.raises(ValueError, match="expected"):
        project(np.zeros(hidden_shape, np.float32), make_head(), np.full(index_shape, row, np.int32))
