"""The page: well-formed, complete in itself, deterministic, escaped, and each section there when it has something."""

import itertools
import os
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from support.results import HOSTILE, compare_result, eval_result, minimal_result

from edgecal.errors import InputError
from edgecal.metrics import find_figure
from edgecal.report import render_html

VOID = {"meta", "link", "br", "img", "hr", "input", "col"}
LOADING = {"src", "srcset", "action", "data", "poster", "formaction", "background", "ping"}
ALL = ["eval", "compare", "eval-minimal", "compare-minimal", "eval-hostile", "compare-hostile"]
CSP = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


class Page(HTMLParser):
    """The page taken apart; fails on tags that are not balanced."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.text, self.ids = [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), f"an attribute twice in <{tag}>"
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text.append(data)


def words(html):
    """What can be read on the page, white space made single."""
    return " ".join(" ".join(Page(html).text).split())


def sections(html):
    return re.findall(r'<section id="([^"]+)"', html)


@pytest.mark.parametrize("name", ALL)
def test_well_formed_and_complete_in_itself(pages, name):
    html = pages[name]
    assert html.startswith('<!doctype html>\n<html lang="en">')
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "iframe", "object", "embed", "img", "form", "base", "audio", "video"}
    for tag, attributes in page.tags:
        for attribute, value in attributes.items():
            assert attribute not in LOADING, f"<{tag} {attribute}>"
            assert not attribute.startswith("on"), f"<{tag} {attribute}>"
            if attribute == "href":
                assert value == "data:," or value.removeprefix("#") in page.ids
            if attribute in ("aria-labelledby", "headers", "for"):
                assert value in page.ids
    (csp,) = [a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert csp == CSP
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)[1]
    assert "url(" not in style and "@import" not in style
    html.encode("utf-8")


@pytest.mark.parametrize("name", ALL)
def test_semantics(pages, name):
    page = Page(pages[name])
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels)), "a heading level is left out"
    count = [tag for tag, _ in page.tags].count
    assert count("caption") == count("table") >= 1
    assert count("figcaption") == count("figure") == count("svg") >= 2
    assert all("scope" in attributes for tag, attributes in page.tags if tag == "th")
    assert all(a.get("role") == "img" and a["aria-labelledby"] for t, a in page.tags if t == "svg")


@pytest.mark.parametrize("name", ["eval-hostile", "compare-hostile"])
def test_hostile_text_is_only_text(pages, name):
    html = pages[name]
    for raw in ("<script", "<img", "<iframe", "onerror=alert(1)>\"", "\u202e", "\u2066", "\ufeff", "\u200b", "\x00",
                "\x07", "\x1b", "\x7f", "\x9b", "\u2028", "<!-- -->"):  # fmt: skip
        assert raw not in html, f"{raw!r} reached the page"
    assert not any("\ud800" <= char <= "\udfff" for char in html)
    assert len(html) < 1_500_000, "texts of 100 kB are cut"
    text = words(html)
    for shown in (
        HOSTILE[0],
        HOSTILE[1],
        "{{ 7 * 7 }} {% for x in y %} $\\frac{1}{2}$ ${x}",
        "safe\\u202etxt.exe",
        "null\\x00bell\\x07escape\\x1b[31m",
        "lone surrogate \\ud83d",
        "&#60;script&#62;",
        "more characters)",
    ):
        assert shown in text, f"{shown!r} cannot be read on the page"
    assert " 49 " not in text


def test_deterministic(pages, tmp_path):
    """The same bytes again, and in another process with other settings of matplotlib, hashes and time."""
    assert render_html(eval_result()) == pages["eval"]
    (tmp_path / "matplotlibrc").write_text(
        "font.size: 30\nsvg.fonttype: path\naxes.labelpad: 30\nxtick.direction: in\n"
    )
    code = (
        "import sys; from support.results import compare_result; from edgecal.report import render_html;"
        "sys.stdout.buffer.write(render_html(compare_result()).encode())"
    )
    environment = os.environ | {"PYTHONHASHSEED": "99", "TZ": "Asia/Tokyo", "MATPLOTLIBRC": str(tmp_path),
                                "PYTHONPATH": os.pathsep.join(sys.path)}  # fmt: skip
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=True)
    assert run.stdout.decode() == pages["compare"]


def test_the_result_is_left_as_it_was():
    result, again = minimal_result("compare"), minimal_result("compare")
    render_html(result)
    assert result == again


def test_sections_in_order(pages):
    assert sections(pages["compare"]) == [
        "verdict", "reliability", "method", "risk", "figures", "methods", "labels", "ablations", "subjects", "wrong",
        "prompting", "notes", "provenance",
    ]  # fmt: skip
    assert sections(pages["eval"]) == [
        "verdict", "reliability", "risk", "figures", "subjects", "wrong", "prompting", "notes", "provenance",
    ]  # fmt: skip
    for name in ("eval-minimal", "compare-minimal"):
        assert sections(pages[name]) == [
            "verdict",
            "reliability",
            "risk",
            "figures",
            "prompting",
            "provenance",
        ]


def test_one_thing_less_one_section_less():
    def left(**changes):
        return set(sections(render_html(eval_result() | changes)))

    everything = left()
    assert everything - left(subjects=[]) == {"subjects"}
    assert everything - left(wrong=[]) == {"wrong"}
    data = eval_result()["data"]
    assert everything - left(warnings=[], data=data | {"n_skipped": 0, "skipped": []}) == {"notes"}
    prompting = eval_result()["prompting"]
    assert everything - left(prompting=prompting | {"effects": [], "choice_mass": {}}) == {"prompting"}
    result = compare_result()
    result["plots"]["loss"] = None
    assert "Where the two models part" in words(render_html(result))
    result["plots"]["layers"] = None
    assert "method" not in sections(render_html(result))


def test_the_verdict_stands_big_and_is_explained(pages):
    result = compare_result()
    html = pages["compare"]
    assert f'<p class="verdict"><bdi>{result["verdict"]}</bdi></p>' in html
    text = words(html)
    assert (
        text.index(result["verdict"]) < text.index("How to read this") < text.index("never changes an answer")
    )
    accuracy = result["figures"]["before"]["accuracy"]["value"]
    assert f"{100 * accuracy:.0f}\u00a0%" in html


def test_without_a_temperature_none_is_explained(pages):
    assert "never changes an answer" not in words(pages["eval-minimal"])


def test_figures_table(pages):
    result = compare_result()
    text = words(pages["compare"])
    for name, value in result["figures"]["before"].items():
        assert find_figure(name).title in text and find_figure(name).explanation in text
        shown = 100 * value["value"] if find_figure(name).percent else value["value"]
        digits = 1 if find_figure(name).percent else 3
        assert f"{shown:.{digits}f}" in text
        low, high = (value[key] * (100 if find_figure(name).percent else 1) for key in ("low", "high"))
        assert f"{low:.{digits}f} to {high:.{digits}f}" in text
    change = result["figures"]["difference"]["ece"]
    assert f"−{-100 * change['value']:.1f} pts" in text
    assert "; better" in text and "no clear change" in text


def test_a_worse_figure_is_called_worse():
    result = eval_result()
    result["figures"]["difference"]["ece"] = {"value": 0.1, "low": 0.05, "high": 0.2}
    result["figures"]["difference"]["auroc"] = {"value": 0.1, "low": 0.05, "high": 0.2}
    text = words(render_html(result))
    assert "+10.0 pts +5.0 to +20.0; worse" in text
    assert "+0.100 +0.050 to +0.200; better" in text


def test_an_unknown_figure_is_shown_by_its_name():
    result = eval_result()
    result["figures"]["before"]["new_figure"] = {"value": 0.25, "low": None, "high": None}
    assert "new_figure 0.250" in words(render_html(result))


def test_methods_table(pages):
    text = words(pages["compare"])
    assert "withheld: only 31 % of the answers could be parsed" in text
    assert "not identified: split 2: more than 5 % of the bootstrap refits are at a bound" in text
    assert "no 1 of 5" in text
    assert "4 orders of the options" in text
    assert "Extra runs for CAPE: 4,800 prompts, 244,960 tokens read." in text
    assert "ise mixture, tau_scope final, combine sum, lambda 0.1" in text
    row = next(row for row in compare_result()["rows"] if row["name"] == "daca")
    ece = row["figures"]["ece"]
    assert f"{100 * ece['mean']:.1f} ± {100 * ece['sd']:.1f}" in text
    assert text.count("DACA's part and the process part together") == 1  # said once, not for each variant


def test_what_labels_buy(pages):
    text = words(pages["compare"])
    assert "Anchored unlabelled questions and a few right answers together" in text
    assert (
        "ts 10 0.316 ± 0.032 8.2 ± 0.4 0.866 worse NLL than as it is in 1 of 50 runs; at an end of the range"
        in text
    )
    assert "a temperature for each subject 3.90" in text and "+0.020 (+0.010 to +0.030)" in text
    assert "biases −0.600 to 0.500" in text and "not tried: the labels differ between prompts" in text
    result = compare_result()
    del result["learning_curve"], result["scalings"]  # a result of an earlier version
    assert "labels" not in sections(render_html(result))


def test_a_method_that_was_never_identified_says_why():
    result = compare_result()
    row = next(row for row in result["rows"] if row["name"] == "process")
    row["not_identified"] = ["too few disagreement examples"] * 5
    assert "not identified in any split: too few disagreement examples" in words(render_html(result))


def test_ablations(pages):
    text = words(pages["compare"])
    for title in ("Which layers the temperature divides", "What is averaged in the stability entropy",
                  "How the two losses are combined", "Which loss is used", "How much the process loss weighs",
                  "How many prompts are used"):  # fmt: skip
        assert title in text
    assert "dual-align, 30 prompts – – – not identified on 5 of 5 splits" in text


def test_wrong_answers(pages):
    one = compare_result()["wrong"][0]
    html = pages["compare"]
    card = html[html.index('<ol class="questions">') :][:2000]
    assert one["question"] in card
    assert f'<bdi>{one["choices"][one["answer"]]}</bdi> <strong class="good">✓ right</strong>' in card
    assert f'<bdi>{one["choices"][one["predicted"]]}</bdi> <strong class="bad">✗ chosen</strong>' in card
    assert "It was over 99.9" in card  # 0.9999 is not called 100 %


def test_notes_and_provenance(pages):
    text = words(pages["compare"])
    assert "Rows left out: 3" in text and "test.jsonl, line 18 : the answer is 4" in text
    assert compare_result()["warnings"][0] in text
    assert compare_result()["runtime"]["command"] in text
    for fact in ("b" * 64, "9f2c" * 16, "b6500 (1a2b3c4)", "settings.n_threads",
                 "1,000 resamples, 95 % interval, seed 0", "0, 1, 2, 3, 4",
                 "360 and 840", "3.740 (3.660 to 3.830)"):  # fmt: skip
        assert fact in text


def test_a_command_as_a_list_is_quoted():
    result = eval_result()
    result["runtime"]["command"] = ["edgecal", "eval", "my model.gguf"]
    assert "edgecal eval 'my model.gguf'" in words(render_html(result))


def test_many_skipped_rows_are_counted():
    result = eval_result()
    result["data"]["n_skipped"] = 1000
    assert "and 997 more" in words(render_html(result))


def test_captions_say_what_is_seen(pages):
    text = words(pages["compare"])
    assert re.search(r"On average 85 % sure and right 57 % of the time: 27\.\d points too sure\.", text)
    assert re.search(
        r"The lowest point of the curve is the temperature chosen by Dual-Align: 3\.\d\d\.", text
    )
    assert re.search(r"most often layer 7 \(\d+ of 251\)", text)
    assert re.search(
        r"wrong on \d\d\.\d % of them instead of \d\d\.\d % of all\. With the temperature it would be", text
    )


def test_a_broken_result_is_refused():
    result = minimal_result("eval")
    del result["plots"]["reliability"]
    with pytest.raises(InputError, match=r"plots\.reliability is missing"):
        render_html(result)
