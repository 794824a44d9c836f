"""`edgecal.fit_requests`: a temperature for each type and size, on a pair of which the right one is 2."""

import copy
import importlib
import json
import random
import shutil

import numpy as np
import pytest
from support.calibrated import BASE
from support.prompts import write_json_lines
from support.sharp_pair import TEMPLATE, sharp_chat, tiny_requests

import edgecal
from edgecal import CaptureSettings, DecisionOptions, InputError, OutputOptions, RunOptions, UnsettledError
from edgecal.api.asked import ask, count_orders
from edgecal.api.requests import read_requests
from edgecal.decisions import DecisionPrompting
from edgecal.gguf.header import read_header
from edgecal.stamping.decision_record import read_decisions, read_temperatures

module = importlib.import_module("edgecal.api.fit_requests")  # the package has a function of this name
REQUESTS = tiny_requests(40)
ONE_THREAD = RunOptions(CaptureSettings(n_threads=1))


@pytest.fixture(scope="module")
def one_cache(tmp_path_factory):
    """What these tests run is run once."""
    return tmp_path_factory.mktemp("requests-cache")


@pytest.fixture(autouse=True)
def use_one_cache(one_cache, _own_cache, monkeypatch):
    monkeypatch.setenv("EDGECAL_CACHE_DIR", str(one_cache))


def fit(requests=REQUESTS, *, orders=2, readout="labels", **options):
    how = DecisionOptions(readout=readout, orders=orders, template=TEMPLATE)
    # Without examples both models are asked the same, so that 2 is right exactly.
    common = {"method": "daca", "decisions": how, "shots": 0, "n_bootstrap": 40, "run": ONE_THREAD}
    return edgecal.fit_requests(BASE, sharp_chat(), requests, **(common | options))


def groups(result):
    return {group["name"]: group for group in result.groups}


def asked_of(requests, orders=2):
    """The questions as the models are asked them, and how."""
    header = read_header(BASE)
    how = DecisionOptions(readout="labels", orders=orders, template=TEMPLATE).for_file(
        read_temperatures(header)
    )
    prompting = DecisionPrompting.for_file(how, header)
    both = {"base": prompting, "chat": prompting}
    asked, _ = ask(read_requests(requests).questions, both, how, limit=None, seed=0, strict=True)
    return asked, how


def merged(requests, orders=2):
    """Both models' capture of all prompts, and of the questions."""
    asked, how = asked_of(requests, orders)
    prompts = [prompt for one in asked for prompt in one.prompts["base"]]
    captured = edgecal.capture(BASE, sharp_chat(), prompts, run=ONE_THREAD)
    return captured, module._merge(asked, captured, how)


def answered(right):
    """Requests with answers: the option that the models prefer, or the one that they like least."""
    requests = tiny_requests(40, noul=False)
    _, found = merged(requests)
    for one, z in zip(found.asked, found.logits.base_final, strict=True):
        number = int(one.question.source.split(",")[0].removeprefix("request "))
        question = requests[number - 1]["questions"]["which"]
        z = z[: one.n_options]
        question["answer"] = list(question["criteria"])[int(z.argmax() if right else z.argmin())]
    return requests


def test_the_temperature_of_each_type_and_size_is_found():
    result = fit()
    found = groups(result)
    assert list(found) == ["choice", "choice.3_5", "noul"]
    for name in ("choice", "choice.3_5"):
        group = found[name]
        assert group["temperature"] == pytest.approx(2.0, rel=1e-3) and group["settled"]
        assert group["interval"] == pytest.approx([2.0, 2.0], rel=1e-3)
        assert (group["n_questions"], group["n_labelled"], group["agreement_rate"]) == (40, 0, 1.0)
        assert group["choice_mass"]["base"] > 0.99 and group["harmful"] is None
    noul = found["noul"]
    assert not noul["settled"] and "puts only" in noul["reasons"][0]
    assert result.temperatures == {name: found[name]["temperature"] for name in ("choice", "choice.3_5")}
    assert (result.orders, result.readout, result.noul_bias) == ("2", "labels", None)
    assert result.requests["n_questions"] == 80 and result.requests["files"] == []
    json.dumps(result.to_dict(), allow_nan=False)


def test_the_order_of_the_requests_changes_nothing():
    first = fit()
    shuffled = copy.deepcopy(REQUESTS)
    random.Random(1).shuffle(shuffled)
    for request in shuffled:
        request["questions"] = {
            f"other {key}": value for key, value in reversed(request["questions"].items())
        }
    second = fit(shuffled)
    assert second.groups == first.groups
    assert second.requests["sha256"] == first.requests["sha256"] != fit(REQUESTS[1:]).requests["sha256"]


@pytest.mark.parametrize("orders", [1, 2, "all"])
def test_orders_are_averaged_and_put_back(orders):
    captured, found = merged(tiny_requests(1, noul=False), orders)
    shown = [list(order) for order in found.asked[0].orders]
    assert len(shown) == {1: 1, 2: 2, "all": 4}[orders]
    for name in ("base_final", "base_layers", "chat_final", "chat_layers"):
        by_place = getattr(captured.logits, name).astype(np.float64)
        log_probs = by_place - np.logaddexp.reduce(by_place, axis=-1, keepdims=True)
        expected = np.mean(
            [
                z[..., [order.index(option) for option in range(4)]]
                for z, order in zip(log_probs, shown, strict=True)
            ],
            axis=0,
        )
        np.testing.assert_allclose(getattr(found.logits, name)[0], expected, rtol=1e-6)
    np.testing.assert_allclose(found.masses["base"], captured.base.choice_mass.mean())


def test_auto_takes_the_orders_that_decide_takes():
    (asked,), _ = asked_of(tiny_requests(1, noul=False), "all")
    assert asked.orders[1] == (1, 2, 3, 0)
    sure = np.array([[50.0, 0, 0, 0], [0, 0, 0, 50], [0, 0, 50, 0], [0, 50, 0, 0]], np.float32)
    unsure = np.array([[3.0, 0, 0, 0]] * 4, np.float32)  # always the first place
    auto = DecisionOptions(orders="auto", order_margin=2.0)
    assert count_orders(asked, sure, auto) == 1
    assert count_orders(asked, unsure, auto) == 4
    assert count_orders(asked, sure, DecisionOptions(orders="all")) == 4


def test_what_is_settled_is_written_and_the_rest_is_not(tmp_path):
    data = write_json_lines(tmp_path / "traffic.jsonl", REQUESTS)
    before = sharp_chat().read_bytes()
    result = fit([data], output=OutputOptions(tmp_path / "out.gguf"))
    header = read_header(tmp_path / "out.gguf")
    record = read_decisions(header)
    assert list(record.groups) == ["choice", "choice.3_5"]
    group = groups(result)["choice"]
    assert record.groups["choice"].temperature == np.float32(group["temperature"])
    assert record.groups["choice"].interval == tuple(np.float32(group["interval"]).tolist())
    assert record.groups["choice"].settled is True
    assert (record.readout, record.orders, record.method) == ("labels", "2", "daca")
    assert (record.requests_count, record.requests_sha256) == (80, result.requests["sha256"])
    assert record.prompt_sha256 == result.prompt_sha256 and record.noul_bias is None
    assert "edgecal.temperature" not in header and "general.sampling.temp" not in header
    used = read_temperatures(header).find("choice", 4)
    assert (used.settled, used.doubt) == (True, None)
    assert "the file holds no temperature" in read_temperatures(header).find("noul", 2).doubt
    edgecal.strip(tmp_path / "out.gguf", tmp_path / "back.gguf")
    assert (tmp_path / "back.gguf").read_bytes() == before
    (tmp_path / "fit.json").write_text(json.dumps(result.to_dict()))
    for fitted in (result, tmp_path / "fit.json"):
        stamped = edgecal.stamp(sharp_chat(), tmp_path / "stamped.gguf", fit=fitted, force=True)
        assert stamped.temperature is None
        assert (tmp_path / "stamped.gguf").read_bytes() == (tmp_path / "out.gguf").read_bytes()
    shutil.copyfile(sharp_chat(), tmp_path / "place.gguf")
    edgecal.stamp(tmp_path / "place.gguf", temperature=3.0, in_place=True)
    edgecal.stamp(tmp_path / "place.gguf", fit=result, in_place=True)
    assert read_temperatures(read_header(tmp_path / "place.gguf")).general == 3.0
    edgecal.strip(tmp_path / "place.gguf", in_place=True)
    assert (tmp_path / "place.gguf").read_bytes() == before
    with pytest.raises(InputError, match="--temperature cannot replace"):
        edgecal.stamp(sharp_chat(), tmp_path / "no.gguf", fit=result, temperature=2.0)


def test_with_unsettled_all_are_written_and_marked(tmp_path):
    fit(output=OutputOptions(tmp_path / "out.gguf", unsettled=True))
    record = read_decisions(read_header(tmp_path / "out.gguf"))
    assert {name: group.settled for name, group in record.groups.items()} == {
        "choice": True,
        "choice.3_5": True,
        "noul": False,
    }
    assert "noul" in edgecal.show(tmp_path / "out.gguf").warnings[0]


def test_nothing_settled_is_refused(tmp_path):
    only_noul = [{**one, "questions": {"so": one["questions"]["so"]}} for one in REQUESTS]
    few = [{**one, "questions": {"which": one["questions"]["which"]}} for one in REQUESTS[:20]]
    with pytest.raises(UnsettledError, match="nothing was written; --unsettled") as caught:
        fit([*only_noul, *few], output=OutputOptions(tmp_path / "out.gguf"))
    assert not (tmp_path / "out.gguf").exists()
    names = [warning.split(":")[0] for warning in caught.value.warnings]
    assert set(names) == {"choice", "choice.3_5", "noul"}
    assert "20 questions are too few" in caught.value.warnings[0]
    assert groups(caught.value.result)["choice"]["temperature"] is None
    with pytest.raises(UnsettledError, match="no temperature of any type is settled") as again:
        edgecal.stamp(sharp_chat(), tmp_path / "out.gguf", fit=caught.value.result)
    assert list(again.value.warnings) == list(caught.value.warnings)


def test_right_answers_confirm_and_wrong_ones_refuse():
    plain = groups(fit(tiny_requests(40, noul=False)))["choice"]
    # The most likely option is right always: the doubled logits were better, and 2 does harm.
    harmed = groups(refused(answered(right=True)))["choice"]
    assert (
        harmed["harmful"]
        and harmed["label_check"]["found"] == "worse"
        and "--anchor" not in harmed["reasons"][0]
    )
    helped = groups(fit(answered(right=False)))["choice"]
    assert helped["harmful"] is False and helped["settled"] and helped["n_labelled"] == 40
    for group in (harmed, helped):  # no answer is seen by the fit
        assert (group["temperature"], group["interval"]) == (plain["temperature"], plain["interval"])


def refused(requests):
    with pytest.raises(UnsettledError) as caught:
        fit(requests)
    return caught.value.result


def test_labels_give_yes_no_questions_scale_and_bias(tmp_path):
    _, found = merged(REQUESTS)
    nouls = [at for at, one in enumerate(found.asked) if one.kind == "noul"]
    lead = {
        found.asked[at].question.source.split(",")[0]: np.subtract(*found.logits.chat_final[at, :2])
        for at in nouls
    }
    requests = copy.deepcopy(REQUESTS)
    for number, request in enumerate(requests, start=1):
        request["questions"]["so"]["answer"] = bool(
            lead[f"request {number}"] > np.quantile(list(lead.values()), 0.75)
        )
    result = fit(requests, output=OutputOptions(tmp_path / "out.gguf"))
    noul, bias = groups(result)["noul"], result.noul_bias
    assert bias["n_labels"] == 40 and bias["used"] and bias["gain_interval"][0] > 0
    assert (noul["source"], noul["settled"], noul["temperature"]) == ("labels", True, bias["temperature"])
    record = read_decisions(read_header(tmp_path / "out.gguf"))
    assert record.noul_bias == np.float32(bias["bias"]) and record.bias_labels == 40
    used = read_temperatures(read_header(tmp_path / "out.gguf")).find("noul", 2)
    assert (used.bias, used.settled) == (record.noul_bias, True)


def test_a_request_that_does_not_fit_costs_itself():
    long = {"state": "long " * 3000, "questions": {"x": {"type": "noul", "instructions": "Is it?"}}}
    bad = {"state": 5, "questions": {}}
    result = fit([*REQUESTS, long, bad])
    assert result.groups == fit().groups
    places = [row["where"] for row in result.requests["skipped"]]
    assert places == ["request 42", "request 41, question 'x'"] and result.requests["n_skipped"] == 2
    said = [warning for warning in result.warnings if warning.startswith("skipped: request 4")]
    assert "expected a text" in said[0] and "context" in said[1]
    for one in (long, bad):
        with pytest.raises(InputError, match="request 41"):
            fit([*REQUESTS, one], strict=True)


def test_a_limit_draws_by_the_seed():
    some = fit(limit=76, seed=1)
    assert some.requests["n_questions"] == 76 and some.requests["limit"] == 76
    assert some.requests["sha256"] == fit(list(reversed(REQUESTS)), limit=76, seed=1).requests["sha256"]
    assert some.requests["sha256"] != fit(limit=76, seed=2).requests["sha256"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "ts"}, "method ts does not fit requests"),
        ({"method": "vanilla"}, "expected one of dual-align, daca"),
        ({"readout": "texts"}, 'the readout "texts" has none'),
        ({"orders": 0}, "orders is 0"),
        ({"shots": 5}, "worked examples must be 0 to 4"),
        ({"limit": 0}, "limit of questions must be at least 1"),
        ({"seed": -1}, "the seed is -1"),
        ({"n_bootstrap": 5}, "at least 20 resamples"),
        ({"requests": []}, "no request that can be used"),
        ({"requests": REQUESTS[0]}, "give a list of requests"),
        ({"output": OutputOptions(BASE)}, "is an input"),
    ],
)
def test_what_cannot_be_asked_for(options, message):
    with pytest.raises(InputError, match=message):
        fit(**options)


@pytest.mark.parametrize(("kind", "shots"), [("which", 0), ("so", 4)])
def test_the_base_model_is_shown_examples_where_it_needs_them(kind, shots):
    requests = [{**one, "questions": {kind: one["questions"][kind]}} for one in REQUESTS]
    try:
        by_itself = fit(requests, shots=None)
    except UnsettledError as error:
        by_itself = error.result
    assert by_itself.shots == shots
    if not shots:
        assert by_itself.groups == fit(requests).groups


@pytest.mark.parametrize("orders", [2, "auto"])
def test_decide_divides_what_the_fit_saw(tmp_path, orders):
    fit(orders=orders, output=OutputOptions(tmp_path / "out.gguf"))
    _, found = merged(REQUESTS[:4], orders)
    by_source = {one.question.source: (at, one.n_options) for at, one in enumerate(found.asked)}
    temperature = read_temperatures(read_header(tmp_path / "out.gguf")).find("choice", 4).temperature
    with edgecal.load(tmp_path / "out.gguf", n_threads=1, n_ctx=1024) as model:
        for number, request in enumerate(REQUESTS[:4], start=1):
            answers = model.decide(request["state"], request["questions"], template=TEMPLATE)
            at, n = by_source[f"request {number}, question 'which'"]
            z = found.logits.chat_final[at, :n].astype(np.float64) / temperature
            expected = np.exp(z - np.logaddexp.reduce(z))
            np.testing.assert_allclose(answers["which"].probs, expected, atol=2e-6)
            assert (answers["which"].settled, answers["which"].doubts) == (True, ())
            assert answers["which"].temperature == temperature and answers["so"].temperature == 1.0
            assert answers["which"].label_mass == pytest.approx(found.masses["chat"][at])
