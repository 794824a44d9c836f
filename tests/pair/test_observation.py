"""Laws of putting observations together: parts in any grouping and any order are the whole."""

import numpy as np
import pytest

from edgecal.pair.model_capture import ModelCapture


def observation(n, k, seed, *, layers=True, warnings=(), peak=7):
    rng = np.random.default_rng(seed)
    final = rng.normal(size=(n, k)).astype(np.float32)
    return ModelCapture(
        final_logits=final,
        layer_logits=rng.normal(size=(n, 3, k)).astype(np.float32) if layers else None,
        choice_mass=rng.random(n),
        outside=tuple(rng.choice([None, "", "x", "y"], n).tolist()),
        lens_errors=rng.random(n) if layers else None,
        n_tokens=int(rng.integers(100)),
        llama_cpp="llama.cpp",
        system_info="AVX",
        peak_memory_bytes=peak,
        warnings=tuple(warnings),
    )


def assert_same(one, other):
    for name in ("final_logits", "layer_logits", "choice_mass", "lens_errors"):
        left, right = getattr(one, name), getattr(other, name)
        assert (left is None) == (right is None), name
        if left is not None:
            assert left.dtype == right.dtype, name
            np.testing.assert_array_equal(left, right, err_msg=name)
    for name in ("outside", "n_tokens", "llama_cpp", "system_info", "peak_memory_bytes", "warnings"):
        assert getattr(one, name) == getattr(other, name), name


@pytest.fixture(params=[True, False], ids=["layers", "no layers"])
def parts(request):
    return [
        observation(4, 2, 1, layers=request.param, warnings=["odd"], peak=3),
        observation(1, 5, 2, layers=request.param, warnings=["odd", "odder"], peak=9),
        observation(6, 3, 3, layers=request.param, peak=5),
    ]


def test_then_is_associative(parts):
    a, b, c = parts
    assert_same(a.then(b).then(c), a.then(b.then(c)))


def test_then_keeps_every_number_and_pads_with_nothing_probable(parts):
    whole = parts[0].then(parts[1]).then(parts[2])
    assert whole.final_logits.shape == (11, 5) and whole.final_logits.dtype == np.float32
    at = 0
    for part in parts:
        n, k = part.final_logits.shape
        np.testing.assert_array_equal(whole.final_logits[at : at + n, :k], part.final_logits)
        assert np.all(whole.final_logits[at : at + n, k:] == -np.inf)
        if part.layer_logits is None:
            assert whole.layer_logits is None and whole.lens_errors is None
        else:
            np.testing.assert_array_equal(whole.layer_logits[at : at + n, :, :k], part.layer_logits)
            assert np.all(whole.layer_logits[at : at + n, :, k:] == -np.inf)
        at += n
    assert whole.outside == sum((part.outside for part in parts), ())
    assert whole.n_tokens == sum(part.n_tokens for part in parts)
    assert whole.peak_memory_bytes == 9  # one process had them all: the most that it ever took
    assert whole.warnings == ("odd", "odder")  # each once, however many parts say it


def test_ordered_by_the_identity_changes_nothing(parts):
    whole = parts[0].then(parts[1])
    assert_same(whole.ordered(range(5)), whole)


def test_ordered_there_and_back_changes_nothing(parts):
    whole = parts[0].then(parts[2])
    order = np.random.default_rng(0).permutation(10).tolist()
    turned = whole.ordered(order)
    back = sorted(range(10), key=order.__getitem__)
    assert_same(turned.ordered(back), whole)
    for place, was in enumerate(order):
        np.testing.assert_array_equal(turned.final_logits[place], whole.final_logits[was])
        assert turned.choice_mass[place] == whole.choice_mass[was]
        assert turned.outside[place] == whole.outside[was]


def test_orders_one_after_the_other_are_one_order(parts):
    whole = parts[1].then(parts[2])
    rng = np.random.default_rng(1)
    first, second = rng.permutation(7).tolist(), rng.permutation(7).tolist()
    assert_same(whole.ordered(first).ordered(second), whole.ordered([first[i] for i in second]))


def test_parts_in_any_order_are_the_same_when_put_in_order(parts):
    a, _, c = parts
    assert_same(c.then(a).ordered([*range(6, 10), *range(6)]), a.then(c))


def test_what_is_counted_does_not_depend_on_the_grouping(parts):
    whole = parts[0].then(parts[1]).then(parts[2])
    assert whole.n_outside == sum(part.n_outside for part in parts)
    if whole.lens_error is not None:
        errors = np.concatenate([part.lens_errors for part in parts])
        assert whole.lens_error == np.sqrt(errors.mean())
