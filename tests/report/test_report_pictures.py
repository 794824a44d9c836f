"""The numbers behind the pictures, and every picture as SVG and PNG."""

import copy
import dataclasses
import io
import re
from xml.etree import ElementTree

import matplotlib.image
import numpy as np
import pytest
from support.results import compare_result, eval_result, hostile_result, minimal_result

from edgecal.errors import InputError
from edgecal.report import PICTURES, available_pictures, check_result, draw, prepare
from edgecal.report.pictures import page_pictures
from edgecal.report.style import DARK, LIGHT, PAGE


@pytest.fixture(scope="module")
def compare():
    return check_result(compare_result(), "compare")


# Numbers first.


def test_reliability_numbers():
    value = {"edges": [0, 0.5, 0.75, 1], "n": [0, 10, 30], "confidence": [None, 0.6, 0.9],
             "accuracy": [None, 0.5, 0.7], "low": [None, 0.2, 0.5], "high": [None, 0.8, None]}  # fmt: skip
    found = prepare.prepare_reliability({"base": None, "before": value, "after": None})
    assert list(found) == ["before"]
    data = found["before"]
    np.testing.assert_array_equal(data.share, [0, 0.25, 0.75])
    np.testing.assert_array_equal(data.confidence, [np.nan, 0.6, 0.9])
    np.testing.assert_array_equal(data.high, [np.nan, 0.8, np.nan])
    assert data.mean_confidence == pytest.approx(0.825)
    assert data.mean_accuracy == pytest.approx(0.65)


def test_no_question_no_diagram():
    value = {
        "edges": [0, 1],
        "n": [0],
        "confidence": [None],
        "accuracy": [None],
        "low": [None],
        "high": [None],
    }
    assert prepare.prepare_reliability({"base": None, "before": value, "after": None}) is None


def test_loss_is_cut_to_what_is_worth_seeing(compare):
    data = prepare.prepare_loss(compare.plots["loss"])
    full = compare.plots["loss"]
    assert (
        full["temperature"][0]
        < data.temperature[0]
        < 1
        < data.chosen
        < data.temperature[-1]
        < full["temperature"][-1]
    )
    assert data.temperature[0] < data.low < data.chosen < data.high < data.temperature[-1]
    assert data.at_chosen == pytest.approx(min(full["loss"]))
    at_one = np.interp(0, np.log(full["temperature"]), full["loss"])
    assert data.at_one == pytest.approx(at_one)


def test_the_bracket_is_in_the_loss_picture_with_both_intervals(compare):
    from edgecal.report.prepare import loss_sentence

    data = prepare.prepare_loss(compare.plots["loss"])
    assert data.ends == ((2.7, (2.6, 2.8)), (3.9, (3.8, 4.0))) and data.missing == ()
    assert "the bracket, from 2.70 (2.60 to 2.80) to 3.90 (3.80 to 4.00)" in loss_sentence(data, None, "")
    far = copy.deepcopy(compare)
    far.plots["loss"]["bracket"] |= {
        "low": 0.4,
        "low_interval": None,
        "high": 20.0,
        "high_interval": [9.0, 30.0],
    }
    wide = prepare.prepare_loss(far.plots["loss"])
    assert wide.temperature[0] < 0.4 < 30.0 < wide.temperature[-1]
    far.plots["loss"]["bracket"] |= {"low": None}
    half = prepare.prepare_loss(far.plots["loss"])
    assert half.ends == ((20.0, (9.0, 30.0)),) and half.missing == ("low",)
    assert "lacks its low end, the other is 20.0 (9.00 to 30.0)" in loss_sentence(half, None, "")
    result = compare_result()
    del result["plots"]["loss"]["bracket"]  # a result of an earlier version
    far = check_result(result, "r")
    old = prepare.prepare_loss(far.plots["loss"])
    assert (old.ends, old.missing) == ((), ()) and "bracket" not in loss_sentence(old, None, "")
    drawn = [b"bracket" in draw(result, "loss") for result in (compare, far)]
    assert drawn == [True, False]


def test_no_method_is_called_the_best_where_the_model_as_it_is_is_better(compare):
    from edgecal.report.prepare import methods_sentence

    data = prepare.prepare_methods(compare.rows)
    assert "has the smallest error here" in methods_sentence(data, 5)
    worse = dataclasses.replace(data, as_it_is=0.001)
    assert "None of the methods that never see an answer has a smaller error" in methods_sentence(worse, 5)


def test_risk_curves_are_read_between_points():
    curve = prepare.prepare_risk_coverage(
        {"base": None, "before": {"coverage": [1.0, 0.5], "risk": [0.4, 0.2]}, "after": None}
    )["before"]
    np.testing.assert_array_equal(curve.coverage, [0.5, 1.0])
    assert curve.at(0.75) == pytest.approx(0.3)


def test_sweep_has_a_line_for_each_known_method(compare):
    sweep = prepare.prepare_sweep(compare.ablations["prompts"], "prompts")
    assert [line.method for line in sweep.lines] == ["daca", "dual-align", "ts"]
    np.testing.assert_array_equal(sweep.lines[0].x, [30, 60, 125, 250, 360])
    np.testing.assert_array_equal(sweep.lines[1].x, [60, 125, 250, 360])  # at 30 nothing was identified
    assert prepare.prepare_sweep([], "lambda") is None


def test_the_learning_curve_has_lines_and_levels(compare):
    from edgecal.report.prepare import learning_sentence

    curve = prepare.prepare_learning(compare.learning_curve)
    assert [(line.method, line.level) for line in curve.lines] == [
        ("anchored", False), ("ts", False), ("daca", True), ("dual-align", True), ("vanilla", True),
    ]  # fmt: skip
    np.testing.assert_array_equal(curve.lines[1].x, [10, 30, 100])
    assert curve.lines[1].other[1] == pytest.approx(30**-0.5)
    assert "With 30 labels the anchored temperature is off by 0.10 on average" in learning_sentence(curve)
    assert prepare.prepare_learning({"n_draws": 0, "lines": compare.learning_curve["lines"][2:]}) is None


def test_methods_are_the_default_rows_that_were_judged(compare):
    methods = prepare.prepare_methods(compare.rows)
    assert methods.titles.count("Dual-Align") == 1
    assert "Verbalized" not in methods.titles  # withheld
    assert dict(zip(methods.titles, methods.kinds, strict=True)) == {
        "Base model": "reference", "Chat model": "reference", "CAPE": "label-free",
        "Internal consistency": "label-free", "BaseCal-ReEval": "label-free", "BaseCal-Proj": "label-free",
        "Naive": "label-free", "DACA": "label-free", "Process only": "label-free", "Dual-Align": "label-free",
        "Temperature scaling": "labels", "Anchored": "labels",
    }  # fmt: skip


# Pictures second.


def test_which_pictures_there_are(compare):
    assert available_pictures(compare) == PICTURES
    assert available_pictures(check_result(eval_result(), "eval")) == ("reliability", "risk-coverage")
    assert available_pictures(check_result(minimal_result("compare"), "least")) == (
        "reliability",
        "risk-coverage",
    )


@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("dark", [False, True])
def test_png(compare, picture, dark):
    content = draw(compare, picture, "png", dark)
    pixels = matplotlib.image.imread(io.BytesIO(content), format="png")
    assert pixels.shape[0] > 500 and pixels.shape[1] > 900
    paper = [int((DARK if dark else LIGHT)["paper"][i : i + 2], 16) / 255 for i in (1, 3, 5)]
    np.testing.assert_allclose(pixels[0, 0, :3], paper, atol=0.005)
    assert len(np.unique(pixels[::4, ::4, :3].reshape(-1, 3), axis=0)) > 10  # something is drawn
    assert dark or content == draw(compare, picture, "png")


@pytest.mark.parametrize("picture", PICTURES)
def test_svg(compare, picture):
    content = draw(compare, picture, "svg")
    root = ElementTree.fromstring(content)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert len(texts) > 5  # text stays text
    assert b"date" not in content.lower()
    assert content == draw(compare, picture)
    assert content != draw(compare, picture, dark=True)


def test_plain_words_on_the_axes(compare):
    text = draw(compare, "reliability").decode()
    for words in ("how sure the model was", "how often it was right", "too sure", "Before calibration"):
        assert f">{words}</text>" in text


def test_layout_is_the_same_for_every_diagram(compare):
    """The square of each diagram has its place, whatever is in it: none is squeezed."""
    for kind in (compare, check_result(eval_result(), "eval")):
        found = page_pictures(kind)
        heights = [_axes_height(svg) for name, svg in found.items() if name.startswith("reliability")]
        assert min(heights) > 190
        assert max(heights) - min(heights) < 3


def _axes_height(svg):
    path = re.search(r'<g id="[^"]*-patch_2">\s*<path d="([^"]*)"', svg)[1]
    ys = [float(y) for _, y in re.findall(r"[ML] ([\d.]+) ([\d.]+)", path)]
    return max(ys) - min(ys)


def test_refusals(compare):
    with pytest.raises(InputError, match="there is no picture 'pie'; there are reliability, loss"):
        draw(compare, "pie")
    with pytest.raises(InputError, match="svg or png, not 'gif'"):
        draw(compare, "loss", "gif")
    with pytest.raises(InputError, match="no numbers for the picture 'loss'"):
        draw(check_result(eval_result(), "eval"), "loss")


def test_page_pictures_share_a_page(compare):
    pictures = page_pictures(compare)
    assert list(pictures) == [
        "reliability-before", "reliability-after", "reliability-base",
        "loss", "layers", "risk-coverage", "methods", "learning", "lambda", "prompts",
    ]  # fmt: skip
    everything = "".join(pictures.values())
    ids = re.findall(r'\bid="([^"]+)"', everything)
    assert len(ids) == len(set(ids))
    for reference in re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', everything):
        assert (reference[0] or reference[1]) in ids
    assert "<style" not in everything and "<metadata" not in everything and "xlink" not in everything
    assert "font-family" not in everything and "DejaVu" not in everything
    for role, colour in PAGE.items():
        assert colour not in everything
        assert f"var(--{role})" in everything
    assert not re.findall(r"#[0-9a-f]{6}\b", everything.replace("url(#", "")), (
        "a colour that dark mode cannot change"
    )
    for name, svg in pictures.items():
        root = ElementTree.fromstring(svg)
        assert root.get("role") == "img" and root.get("aria-labelledby") == f"{name}-about"


def test_pictures_hold_no_text_of_users():
    result = check_result(hostile_result("compare"), "hostile")
    pictures = page_pictures(result)
    assert set(pictures) >= {"reliability-before", "loss", "layers", "risk-coverage"}
    for svg in pictures.values():
        assert "alert" not in svg and "{{" not in svg and "evil" not in svg


def degenerate_results():
    """Complete results with the oddest numbers that the check lets pass."""
    result = compare_result()
    bins = len(result["plots"]["reliability"]["before"]["n"])
    one = [0] * (bins - 1) + [1]
    lonely = {"edges": result["plots"]["reliability"]["before"]["edges"], "n": one,
              **{key: [None] * (bins - 1) + [1.0] for key in ("confidence", "accuracy", "low", "high")}}  # fmt: skip
    result["plots"]["reliability"] = {
        "base": None,
        "before": lonely,
        "after": lonely | {"low": [None] * bins},
    }
    result["plots"]["risk_coverage"] = {
        "base": None,
        "before": {"coverage": [1.0], "risk": [0.0]},
        "after": None,
    }
    result["plots"]["loss"] |= {
        "temperature": [0.05, 50],
        "loss": [2.0, 2.0],
        "chosen": 50.0,
        "interval": [0.05, 50],
    }
    result["plots"]["layers"] = {"layer": [1], "agreement": [0.0], "disagreement": None, "pdl_histogram": [0],
                                 "n_agreement": 1, "n_disagreement": 0}  # fmt: skip
    yield result
    result = compare_result()
    result["plots"]["loss"] |= {
        "temperature": [2.0, 3.0],
        "loss": [-1e12, 1e12],
        "chosen": 1e-9,
        "interval": [9.0, 1e9],
    }
    result["plots"]["layers"] |= {"layer": list(range(1, 201)), "agreement": None, "disagreement": None,
                                  "pdl_histogram": [0] * 199 + [5]}  # fmt: skip
    for row in result["rows"]:
        row["figures"] = {"ece": {"mean": 0.0, "sd": None, "values": []}}
    for row in result["ablations"]["lambda"]:
        row["temperature"] = {"mean": None, "sd": None, "values": []}
        row["ece"]["sd"] = None
    yield result
    result = eval_result()
    empty = result["plots"]["reliability"]["before"]
    for rel in ("before", "after"):
        result["plots"]["reliability"][rel] = empty | {"n": [0] * bins}
    yield result


@pytest.mark.parametrize("index", range(3))
def test_odd_numbers_are_drawn_without_complaint(index):
    result = check_result(list(degenerate_results())[index], "odd")
    for picture in available_pictures(result):
        ElementTree.fromstring(draw(result, picture))
