"""`edgecal.compare_requests`: each row is what it says, and the label-free ones see no answer."""

import copy
import json

import pytest
from support.calibrated import BASE
from support.sharp_pair import TEMPLATE, sharp_chat, tiny_requests

import edgecal
from edgecal import CaptureSettings, DecisionOptions, InputError, RunOptions

ONE_THREAD = RunOptions(CaptureSettings(n_threads=1))


def labelled(every):
    """Requests with right answers, of which every so many-th is replaced by a wrong one."""
    requests = copy.deepcopy(tiny_requests(50, answers=True))
    for number, request in enumerate(requests):
        which, so = request["questions"].values()
        so["answer"] = number % 2 == 0
        if number % every == 0:
            which["answer"] = next(option for option in which["criteria"] if option != which["answer"])
    return requests


@pytest.fixture(scope="module")
def one_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("requests-cache")


@pytest.fixture(autouse=True)
def use_one_cache(one_cache, _own_cache, monkeypatch):
    monkeypatch.setenv("EDGECAL_CACHE_DIR", str(one_cache))


def compare(requests, *, orders=2, **options):
    how = DecisionOptions(readout="labels", orders=orders, template=TEMPLATE)
    return edgecal.compare_requests(
        BASE,
        sharp_chat(),
        requests,
        **({"decisions": how, "run": ONE_THREAD, "n_splits": 2, "fit_share": 0.6, "shots": 0} | options),
    )


def rows(result, kind="choice"):
    (group,) = [group for group in result.groups if group["name"] == kind]
    return {row["name"]: row for row in group["rows"]}


def test_rows_are_ways_of_asking_and_temperatures():
    result = compare(labelled(4))
    found = rows(result)
    assert found["bare"]["withheld"] is None and "several tokens" in rows(result, "noul")["bare"]["withheld"]
    assert list(found) == ["bare", "sums", "orders", "sums-orders", "decide", "dual-align", "daca", "ts"]
    assert [group["name"] for group in result.groups] == ["choice", "noul"]
    assert found["decide"]["figures"] == found["sums-orders"]["figures"] != found["sums"]["figures"]
    assert found["daca"]["temperature"]["mean"] == pytest.approx(2.0, rel=1e-3)
    assert found["ts"]["uses_labels"] and not found["daca"]["uses_labels"]
    once = rows(compare(labelled(4), orders=1))
    assert once["decide"]["figures"] == once["sums"]["figures"] == found["sums"]["figures"]
    assert once["sums-orders"]["figures"] == found["sums-orders"]["figures"]
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False)) == result.to_dict()


def test_answers_reach_no_label_free_temperature():
    first, second = (rows(compare(labelled(every))) for every in (4, 7))
    for name in ("dual-align", "daca"):
        assert first[name]["temperature"] == second[name]["temperature"]
    assert first["ts"]["temperature"] != second["ts"]["temperature"]
    assert first["decide"]["figures"]["nll"] != second["decide"]["figures"]["nll"]


def test_the_order_of_the_requests_changes_nothing():
    requests = labelled(4)
    assert compare(requests).groups == compare(requests[::-1]).groups


def test_what_it_refuses():
    for options, words in (
        ({"method": "ts"}, "label-free"),
        ({"n_splits": 0}, "splits"),
        ({"limit": 0}, "limit"),
        ({"fit_share": 1.0}, "share"),
        ({"decisions": DecisionOptions(readout="texts")}, "texts"),
    ):
        with pytest.raises(InputError, match=words):
            compare(labelled(4), **options)
    with pytest.raises(InputError, match="answer"):
        compare(tiny_requests(3))
