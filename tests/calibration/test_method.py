"""Method: defaults fill what applies, and what does not apply is refused."""

import pytest
from support.methods import variant_text

from edgecal.calibration import METHODS, Method
from edgecal.calibration.method import DEFAULT_LAMBDA, DEFAULT_METHOD, DEFAULTS
from edgecal.errors import InputError


def test_the_default_is_complete():
    method = Method()
    assert method.name == DEFAULT_METHOD
    assert (method.ise, method.tau_scope, method.combine) == tuple(DEFAULTS["dual-align"].values())
    assert method == Method("dual-align", **DEFAULTS["dual-align"])


@pytest.mark.parametrize("name", METHODS)
def test_variant_has_none_for_what_does_not_apply(name):
    method = Method(name)
    lensed = name in ("dual-align", "process")
    assert list(method.variant) == ["ise", "tau_scope", "combine", "lambda"]
    assert (method.variant["ise"] is not None) == lensed == method.needs_layers
    assert (method.variant["tau_scope"] is not None) == lensed
    assert (method.variant["combine"] is not None) == (name == "dual-align")
    assert method.variant["lambda"] == (DEFAULT_LAMBDA if method.combine == "sum" else None)
    assert method.needs_labels == (name in ("anchored", "ts"))


def test_variant_text_is_stable():
    assert variant_text(Method("daca")) == ""
    assert variant_text(Method("process", ise="mean", tau_scope="final")) == "ise=mean tau_scope=final"
    text = "ise=mixture tau_scope=all combine=stratified"
    assert variant_text(Method(ise="mixture", tau_scope="all", combine="stratified")) == text
    summed = Method(ise="mixture", tau_scope="all", combine="sum", lam=2)
    assert variant_text(summed) == "ise=mixture tau_scope=all combine=sum lambda=2.0"
    assert Method(combine="sum").lam == DEFAULT_LAMBDA


def test_the_fewest_prompts():
    fewest = {name: Method(name).min_examples for name in METHODS}
    assert fewest == {
        "dual-align": 40,
        **dict.fromkeys(("daca", "naive", "process", "ts"), 30),
        "anchored": 1,
        "vanilla": 0,
    }


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "dac"}, "unknown method 'dac', expected one of dual-align"),
        ({"ise": "median"}, "unknown ise 'median', expected one of mixture, mean"),
        ({"tau_scope": "first"}, "unknown tau-scope"),
        ({"combine": "mean"}, "unknown combine"),
        ({"name": "daca", "ise": "mean"}, "ise does not apply to method daca"),
        ({"name": "ts", "tau_scope": "all"}, "tau-scope does not apply to method ts"),
        ({"name": "process", "combine": "sum"}, "combine does not apply to method process"),
        ({"lam": 1.0, "combine": "stratified"}, "lambda applies only to"),
        ({"name": "naive", "lam": 1.0}, "lambda applies only to"),
        ({"combine": "sum", "lam": 0.0}, "lambda is 0.0, expected"),
        ({"combine": "sum", "lam": -1.0}, "lambda is -1.0, expected"),
        ({"combine": "sum", "lam": float("nan")}, "lambda is nan, expected"),
        ({"combine": "sum", "lam": float("inf")}, "lambda is inf, expected"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        Method(**options)
