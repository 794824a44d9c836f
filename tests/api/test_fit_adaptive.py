"""`edgecal.fit` with a tolerance, on real models: it stops early, and what it says is a plain fit's."""

import copy
import json
import math
from functools import cache

import pytest
from support.options import grouped
from support.prompts import random_token_prompts
from support.tiny_models import tiny_folder, write_tiny_pair

import edgecal
from edgecal import InputError, NotIdentifiedError, OutputOptions, UnsettledError
from edgecal.api.adaptive import fit_adaptively, fit_all
from edgecal.api.questions import QuestionOptions, load_questions
from edgecal.calibration import AdaptivePlan, Method, draw_order, fit_temperature
from edgecal.gguf.header import read_header
from edgecal.llama.settings import CaptureSettings
from edgecal.pair.pair_capture import PairRunner
from edgecal.pair.run import RunOptions

ONE_THREAD = CaptureSettings(n_threads=1)
RECORDS = random_token_prompts(400, seed=3, answers=True)
# With daca 346 of these 400 prompts suffice, which the plan finds by a pilot of 100 and one more stage.
TOLERANCE = 0.07


@cache
def pair():
    folder = tiny_folder() / "adaptive"
    folder.mkdir()
    return write_tiny_pair(
        folder / "base.gguf", folder / "chat.gguf", seed=5, n_layer=2, n_embd=32, perturbation=0.2
    )


@pytest.fixture(scope="module", autouse=True)
def one_cache(tmp_path_factory):
    """What these tests run is run once; that a cache changes nothing is tested by itself."""
    return tmp_path_factory.mktemp("adaptive-cache")


@pytest.fixture(autouse=True)
def use_one_cache(one_cache, _own_cache, monkeypatch):
    monkeypatch.setenv("EDGECAL_CACHE_DIR", str(one_cache))


def fit(records=RECORDS, **options):
    common = {"settings": ONE_THREAD, "n_bootstrap": 100, "method": "daca", "tolerance": TOLERANCE}
    common["unsettled"] = True  # random models put hardly any of their probability on the choices
    return edgecal.fit(*pair(), records, **grouped(**(common | options)))


def as_bytes(result):
    values = copy.deepcopy(result.to_dict())
    for model in values["models"].values():
        del model["peak_memory_bytes"]  # differs from run to run
    return json.dumps(values)


@pytest.fixture(scope="module")
def run(one_cache):
    """The first run, from an empty cache, and its progress."""
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGECAL_CACHE_DIR", str(one_cache))
        return fit(on_progress=seen.append), seen


@pytest.fixture(scope="module")
def result(run):
    return run[0]


@pytest.fixture(scope="module")
def whole(run, one_cache):
    """All questions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGECAL_CACHE_DIR", str(one_cache))
        return fit(tolerance=None)


@cache
def both_ways():
    """With Dual-Align: a run with a tolerance, and one over exactly the questions that it used, at its level."""
    method = Method("dual-align")
    base, chat = pair()
    loaded = load_questions(RECORDS, QuestionOptions(), chat_header=None)

    def runner():
        return PairRunner(
            str(base),
            str(chat),
            layers=method.needs_layers,
            options=RunOptions(ONE_THREAD, cache=False),
            model_bytes=0,
        )

    common = {"n_bootstrap": 100, "seed": 0, "on_fit": lambda: None}
    adaptively = {**common, "gives_up": False}
    told = []
    plan = AdaptivePlan(0.1)
    with runner() as running:
        found = fit_adaptively(
            running, loaded, method, plan, on_look=lambda *look: told.append(look), **adaptively
        )
    with runner() as running:
        plain = fit_all(running, found.loaded, method, level=found.looks[-1].level, **common)
    return found, plain, told, loaded


def test_stops_early_and_says_how(result):
    adaptive = result.adaptive
    assert 100 <= result.n_prompts < len(RECORDS) == adaptive["n_available"]
    assert adaptive["tolerance"] == TOLERANCE and adaptive["reached"] <= TOLERANCE
    first, last = adaptive["looks"][0], adaptive["looks"][-1]
    assert (first["n_prompts"], first["counts"]) == (100, False)
    assert last["counts"] and last["n_prompts"] == result.n_prompts
    assert last["temperature"] == result.temperature and last["interval"] == list(result.interval)
    low, high = result.interval
    assert adaptive["reached"] == (high - low) / 2 / result.temperature
    for look in adaptive["looks"]:
        assert look.keys() == {"n_prompts", "counts", "level", "temperature", "interval"}
    assert [look["n_prompts"] for look in adaptive["looks"]] == sorted(
        look["n_prompts"] for look in adaptive["looks"]
    )
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["adaptive"] == adaptive


def test_the_result_is_a_plain_fits_on_the_questions_that_were_used():
    found, plain, told, loaded = both_ways()
    assert sum(look.counts for look in found.looks) == 1 and found.fitted.n_prompts < len(RECORDS)
    assert found.fitted.temperature == plain.fitted.temperature
    assert found.fitted.interval == plain.fitted.interval
    assert found.fitted == plain.fitted  # and every other figure
    assert found.captured.logits.base_final.tobytes() == plain.captured.logits.base_final.tobytes()
    assert [prompt.tokens for prompt in found.captured.prompts] == [
        prompt.tokens for prompt in plain.captured.prompts
    ]
    used = sorted(draw_order(len(RECORDS), 0).tolist()[: found.fitted.n_prompts])
    assert [pair.base for pair in found.loaded.pairs] == [loaded.pairs[index].base for index in used]
    assert [look for look, _ in told] == list(found.looks)
    assert [is_result for _, is_result in told] == [False] * (len(told) - 1) + [True]


def test_the_temperature_is_that_of_all_on_the_same_questions():
    found, *_ = both_ways()
    used = {pair.base.tokens for pair in found.loaded.pairs}
    mine = [record for record in RECORDS if tuple(record["tokens"]) in used]
    plain = fit(mine, tolerance=None, method="dual-align")
    assert plain.adaptive is None and plain.n_prompts == len(mine) == found.fitted.n_prompts
    assert plain.temperature == found.fitted.temperature
    # The level of one counted look among possible others is above 95 %, so its interval holds the plain one.
    assert found.looks[-1].level > 0.95
    assert found.fitted.interval[0] <= plain.interval[0] < plain.interval[1] <= found.fitted.interval[1]


def test_looks_on_the_way_are_plain_fits_too():
    found, *_ = both_ways()
    order = draw_order(len(RECORDS), 0).tolist()
    used = sorted(order[: found.fitted.n_prompts])
    for look in found.looks:
        rows = [used.index(index) for index in sorted(order[: look.n_prompts])]
        plain = fit_temperature(
            found.captured.logits.take(rows), Method("dual-align"), n_bootstrap=100, seed=0, level=look.level
        )
        assert (look.temperature, look.interval) == (plain.temperature, plain.interval)


def test_neither_the_order_of_the_questions_nor_a_full_cache_changes_a_byte(result):
    assert as_bytes(fit(RECORDS[::-1])) == as_bytes(result)


def test_a_half_filled_cache_changes_no_byte(result, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGECAL_CACHE_DIR", str(tmp_path))
    prompts = edgecal.load_prompts(RECORDS[::2])
    edgecal.capture(*pair(), prompts, layers=False, run=RunOptions(settings=ONE_THREAD))
    assert as_bytes(fit()) == as_bytes(result)


def test_a_run_that_cannot_be_settled_ends_at_the_first_look_and_writes_nothing(tmp_path):
    seen = []
    with pytest.raises(UnsettledError, match="refused") as caught:
        fit(unsettled=False, output=tmp_path / "out.gguf", on_progress=seen.append)
    result = caught.value.result
    assert not list(tmp_path.iterdir()) and result.output is None
    assert (result.n_prompts, result.adaptive["stopped"], result.settled) == (100, "hopeless", False)
    assert [progress.look.hopeless for progress in seen if progress.look is not None] == [True]
    assert any("of its probability on the choices" in reason for reason in result.reasons)
    assert all("\n" not in reason for reason in result.reasons) and caught.value.warnings
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["reasons"] == result.reasons
    # Labels have no part in it, and are only those of the questions that were run.
    assert result.label_check["n"] == 100
    for answers in ({}, {"answer": 0}):
        changed = [{**without_answer(record), **answers} for record in RECORDS]
        with pytest.raises(UnsettledError) as other:
            fit(changed, unsettled=False)
        same = other.value.result
        assert (same.temperature, same.interval, same.bracket) == (
            result.temperature,
            result.interval,
            result.bracket,
        )
        assert same.adaptive == result.adaptive


def test_what_is_insisted_on_is_written_and_marked(tmp_path):
    output = tmp_path / "out.gguf"
    result = fit(tolerance=0.12, output=output)
    header = read_header(output)
    assert (header.get("edgecal.settled"), header.get("edgecal.harmful")) == (False, result.harmful)
    assert header.get("edgecal.reasons") == result.reasons != []
    ends = [result.bracket["low"], result.bracket["high"]]
    for stored, end in zip(header.get("edgecal.bracket"), ends, strict=True):
        assert math.isnan(stored) if end is None else stored == pytest.approx(end, rel=1e-6)


def test_another_seed_draws_others_and_the_file_is_told_what_was_used(result, tmp_path):
    output = tmp_path / "out.gguf"
    other = fit(seed=2, tolerance=0.12, output=output)
    assert other.n_prompts < len(RECORDS) and other.prompts_sha256 != result.prompts_sha256
    assert other.adaptive["looks"][0]["temperature"] != result.adaptive["looks"][0]["temperature"]
    header = read_header(output)
    assert header.get("edgecal.prompts.count") == other.n_prompts
    assert header.get("edgecal.prompts.sha256") == other.prompts_sha256


def test_without_a_tolerance_all_are_run(result, whole):
    assert whole.adaptive is None and whole.n_prompts == len(RECORDS)
    assert whole.bootstrap["level"] == 0.95 and whole.prompts_sha256 != result.prompts_sha256


def test_a_tolerance_that_cannot_be_reached_runs_all(whole):
    found = fit(tolerance=0.001)
    looks = found.adaptive["looks"]
    assert found.n_prompts == len(RECORDS) and found.adaptive["reached"] > 0.001
    assert looks[-1]["n_prompts"] == len(RECORDS)
    assert [look["counts"] for look in looks] == [False] * (len(looks) - 1) + [True]
    # The only look that counts spends all that there is: it is the plain fit's.
    assert looks[-1]["level"] == pytest.approx(0.95, abs=1e-12)
    assert found.temperature == whole.temperature
    assert found.interval == pytest.approx(whole.interval, rel=1e-9)


@pytest.mark.parametrize("tolerance", [TOLERANCE, None])
def test_too_few_questions_are_refused_as_ever(tolerance):
    with pytest.raises(
        NotIdentifiedError, match=r"^5 prompts cannot determine a temperature by daca"
    ) as caught:
        fit(RECORDS[:5], tolerance=tolerance)
    assert "\n" not in str(caught.value)


def test_what_no_number_of_questions_determines_is_said_after_all_of_them_with_the_warnings():
    """The answers are random: no temperature fits them better than the next, up to the bound."""
    seen = []
    with pytest.raises(NotIdentifiedError) as caught:
        fit(method="ts", on_progress=seen.append)
    assert "\n" not in str(caught.value) and any("choice tokens" in text for text in caught.value.warnings)
    assert "of 400 prompts" in " ".join(caught.value.warnings)
    looks = [progress.look for progress in seen if progress.look is not None]
    assert looks and all(look.temperature is None and look.tolerance == math.inf for look in looks)


@pytest.mark.parametrize("method", ["dual-align", "process"])
def test_a_pair_that_always_agrees_is_asked_no_more_than_it_takes_to_see_that(tmp_path, method):
    folder = tiny_folder() / f"alike-{method}"
    folder.mkdir()
    alike = write_tiny_pair(
        folder / "base.gguf", folder / "chat.gguf", seed=5, n_layer=2, n_embd=32, perturbation=1e-5
    )

    def ends(records, tolerance=TOLERANCE):
        seen = []
        with pytest.raises(NotIdentifiedError) as caught:
            edgecal.fit(
                *alike,
                records,
                method=method,
                run=RunOptions(ONE_THREAD, cache=False),
                output=OutputOptions(tmp_path / "out.gguf", unsettled=True),
                n_bootstrap=100,
                tolerance=tolerance,
                on_progress=seen.append,
            )
        assert (
            not list(tmp_path.iterdir())
            and caught.value.warnings
            and type(caught.value) is NotIdentifiedError
        )
        n_run = max(
            progress.total for progress in seen if progress.stage == "run" and progress.model == "chat"
        )
        looks = [progress.look.n_prompts for progress in seen if progress.stage == "look"]
        return str(caught.value), n_run, looks

    least = 10 if method == "dual-align" else 30
    text, n_run, looks = ends(RECORDS)
    assert (
        f"at least {least} disagreement examples" in text and "and has 0" in text and "--method daca" in text
    )
    if method == "process":  # 3.6 % of 300 are fewer than 30, not than 10
        assert "after 100 of 400 prompts; at most 3.62% of all are such (97.50% confidence)" in text
        assert "no more than 10 can be expected of the other 300, which were not run" in text
        assert (n_run, looks) == (100, [])
    else:
        assert "after 200 of 400 prompts; at most 2.17% of all are such (98.75% confidence)" in text
        assert "no more than 4 can be expected of the other 200, which were not run" in text
        assert (n_run, looks) == (100, [100])  # twice a hundred
    assert ends(RECORDS[::-1]) == (text, n_run, looks)
    text, n_run, looks = ends(RECORDS, tolerance=None)
    assert (n_run, looks) == (400, []) and "--method daca" in text and "were not run" not in text


@pytest.mark.parametrize("tolerance", [TOLERANCE, None])
def test_too_few_answers_are_counted_before_anything_is_run(tolerance):
    records = [record if n < 29 else without_answer(record) for n, record in enumerate(RECORDS)]
    seen = []
    with pytest.raises(
        NotIdentifiedError, match="at least 30 labelled examples and has 29 among 400 prompts"
    ):
        fit(records, method="ts", tolerance=tolerance, on_progress=seen.append)
    assert not seen


def without_answer(record):
    return {key: value for key, value in record.items() if key != "answer"}


@pytest.mark.parametrize("tolerance", [0, 0.0, -0.05, math.nan, math.inf, -math.inf])
def test_a_tolerance_that_is_none_is_refused_before_anything_is_read(tolerance):
    with pytest.raises(InputError, match=r"^the plan's tolerance is .*, expected a number above 0$"):
        edgecal.fit("/no/such/base.gguf", "/no/such/chat.gguf", RECORDS, tolerance=tolerance)


def test_progress_shows_each_look(run):
    result, seen = run
    looks = [progress for progress in seen if progress.stage == "look"]
    assert [
        {
            "n_prompts": progress.look.n_prompts,
            "counts": progress.look.counts,
            "level": progress.look.level,
            "temperature": progress.look.temperature,
            "interval": list(progress.look.interval),
        }
        for progress in looks
    ] == result.adaptive["looks"]
    assert all((at.done, at.total) == (at.look.n_prompts, len(RECORDS)) for at in looks)
    stages = [progress.stage for progress in seen]
    assert stages.count("fit") == len(looks)
    assert all(stages[at - 1] == "fit" for at, stage in enumerate(stages) if stage == "look")


def test_a_model_is_loaded_once_however_many_looks(run):
    result, seen = run
    assert len(result.adaptive["looks"]) > 2
    runs = [(progress.stage, progress.model) for progress in seen if progress.stage in ("load", "run")]
    begun = runs.index(("run", "chat"))
    assert {("load", "base"), ("load", "chat"), ("run", "base")} <= set(runs[:begun])
    assert set(runs[begun:]) == {("run", "base"), ("run", "chat")}
    n_run = {"base": 0, "chat": 0}
    for progress in seen:
        if progress.stage == "run" and progress.done == progress.total:
            n_run[progress.model] += progress.total
    assert n_run == {"base": result.n_prompts, "chat": result.n_prompts}  # none twice
