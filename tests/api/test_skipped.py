"""What does not fit is skipped and counted alike by `fit`, `plan`, `evaluate` and `compare`, and refused alike."""

import json
from functools import cache

import pytest
from support.options import grouped
from support.prompts import random_token_prompts
from support.tiny_models import tiny_folder, write_tiny_pair

import edgecal
from edgecal import InputError
from edgecal.llama.settings import CaptureSettings

ONE_THREAD = CaptureSettings(n_threads=1)
GOOD = [
    {**record, "subject": "knots" if n % 3 else "tea"}
    for n, record in enumerate(random_token_prompts(40, seed=3, answers=True))
]
TOO_LONG = {**GOOD[0], "tokens": GOOD[0]["tokens"] * 1000}
NO_TOKEN = {**GOOD[1], "choice_tokens": [1, 10**6]}
NO_CHOICES = {"tokens": [1, 2], "subject": "tea"}


@cache
def pair():
    folder = tiny_folder() / "skipped"
    folder.mkdir()
    return write_tiny_pair(
        folder / "base.gguf", folder / "chat.gguf", seed=5, n_layer=2, n_embd=32, perturbation=0.2
    )


@pytest.fixture(scope="module", autouse=True)
def one_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def use_one_cache(one_cache, _own_cache, monkeypatch):
    monkeypatch.setenv("EDGECAL_CACHE_DIR", str(one_cache))


def run(command, data, **options):
    models = pair()[1:] if command == "evaluate" else pair()
    more = {
        "fit": {"n_bootstrap": 20, "method": "vanilla", "unsettled": True},
        "plan": {},
        "evaluate": {"n_bootstrap": 0, "effect_sample": 0},
        "compare": {
            "n_bootstrap": 0,
            "effect_sample": 0,
            "n_splits": 1,
            "n_permutations": 0,
            "verbalized": False,
        },
    }[command]
    return getattr(edgecal, command)(*models, data, **grouped(settings=ONE_THREAD, **more, **options))


def write(path, *records):
    path.write_text("".join(r if isinstance(r, str) else json.dumps(r) + "\n" for r in records))
    return path


@pytest.mark.parametrize("command", ["fit", "plan", "evaluate", "compare"])
def test_records_in_memory_are_skipped_counted_and_refused_as_those_of_a_file(command):
    records = [*GOOD[:20], None, NO_CHOICES, TOO_LONG, NO_TOKEN, *GOOD[20:]]
    result = run(command, records)
    data = result.data
    assert (data["n_read"], data["n_questions"], data["n_skipped"]) == (44, 40, 4)
    assert {row["where"] for row in data["skipped"]} == {f"prompt {n}" for n in (21, 22, 23, 24)}
    assert any(
        "4 of 44 rows do not fit and were skipped: prompt 21" in warning for warning in result.warnings
    )
    with pytest.raises(InputError, match=r"^prompt 21: "):
        run(command, records, strict=True)
    with pytest.raises(InputError, match=r"^prompt 41: .*11 of 51 rows do not fit, more than a fifth"):
        run(command, [*GOOD, *[NO_CHOICES] * 11])
    assert run(command, [*GOOD, *[NO_CHOICES] * 10]).data["n_skipped"] == 10


COMMANDS = ["fit", "plan", "evaluate", "compare"]


@pytest.mark.parametrize("command", COMMANDS)
def test_what_does_not_fit_is_skipped_and_counted(tmp_path, command):
    path = write(tmp_path / "x.jsonl", *GOOD[:20], "nonsense\n", NO_CHOICES, TOO_LONG, NO_TOKEN, *GOOD[20:])
    result = run(command, path)
    data = result.data
    assert (data["n_read"], data["n_questions"], data["n_skipped"]) == (44, 40, 4)
    assert {row["where"] for row in data["skipped"]} == {f"{path}, line {n}" for n in (21, 22, 23, 24)}
    assert any("4 of 44 rows do not fit and were skipped" in warning for warning in result.warnings)
    if command == "fit":
        assert result.n_prompts == 40
    with pytest.raises(InputError, match="line 21: not valid JSON"):
        run(command, path, strict=True)
    write(path, *GOOD, NO_TOKEN)
    with pytest.raises(InputError, match="line 41"):
        run(command, path, strict=True)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("bad", "reason"), [("nonsense\n", "not valid JSON"), (TOO_LONG, "more than the context")]
)
def test_more_than_a_fifth_is_too_much(tmp_path, command, bad, reason):
    path = write(tmp_path / "x.jsonl", *GOOD, *[bad] * 10)
    assert run(command, path).data["n_skipped"] == 10
    write(path, *GOOD, *[bad] * 11)
    with pytest.raises(
        InputError, match=r"line 41.*11 of 51 (rows|questions) do not fit, more than a fifth"
    ) as caught:
        run(command, path)
    assert reason in str(caught.value)


@pytest.mark.parametrize("command", COMMANDS)
def test_counts_under_a_subject_are_about_it(tmp_path, command):
    path = write(tmp_path / "x.jsonl", *GOOD, *[NO_CHOICES] * 9, {**TOO_LONG, "subject": "Knots"})
    n_knots = sum(record["subject"] == "knots" for record in GOOD)
    data = run(command, path, subjects=["knots"]).data
    assert (data["n_read"], data["n_questions"], data["n_skipped"]) == (n_knots + 1, n_knots, 1)
    with pytest.raises(InputError, match="9 of 23 rows do not fit, more than a fifth"):
        run(command, path, subjects=["tea"])
