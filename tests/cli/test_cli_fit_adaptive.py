"""`edgecal fit` with --tolerance, --all, --plan, --no-cache and --fast as a user runs it."""

import json
import re
import subprocess
import sys

import pytest
from support.prompts import random_token_prompts, write_json_lines
from support.tiny_models import tiny_folder, write_tiny_pair

QUICK = ("--method", "daca", "--bootstrap", "50", "-t", "1", "--dry-run", "--unsettled")
LOOK = re.compile(
    r"^edgecal: after (\d+) of (\d+) questions: temperature ([\d.]+) \(([\d.]+) to ([\d.]+), ±([\d.]+)%\)$",
    re.M,
)


@pytest.fixture(scope="module")
def here():
    folder = tiny_folder() / "cli-fit-adaptive"
    folder.mkdir()
    write_tiny_pair(
        folder / "base.gguf", folder / "chat.gguf", seed=5, n_layer=2, n_embd=32, perturbation=0.2
    )
    write_json_lines(folder / "data.jsonl", random_token_prompts(300, seed=3, length=16))
    write_json_lines(folder / "few.jsonl", random_token_prompts(12, seed=4, length=16))
    write_json_lines(folder / "some.jsonl", random_token_prompts(60, seed=4, length=16))
    return folder


@pytest.fixture
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGECAL_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fit(here, *options, data="data.jsonl", chat="chat.gguf"):
    arguments = ["fit", "base.gguf", chat, "--data", data, *QUICK, *options]
    return subprocess.run(
        [sys.executable, "-m", "edgecal", *map(str, arguments)],
        cwd=here, capture_output=True, timeout=120, encoding="utf-8", check=False,
    )  # fmt: skip


def as_values(done):
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1  # the result only
    values = json.loads(done.stdout)
    for model in values["models"].values():
        del model["peak_memory_bytes"]
    return values


def test_looks_are_shown_on_stderr_and_the_result_on_stdout(here, cache_folder):
    done = fit(here, "--tolerance", "0.09", "--json")
    values = as_values(done)
    adaptive = values["adaptive"]
    assert values["n_prompts"] < 300 == adaptive["n_available"]
    looks = [tuple(map(float, found)) for found in LOOK.findall(done.stderr)]
    assert len(looks) == len(adaptive["looks"]) > 1
    for (n_used, n_all, tau, low, high, share), look in zip(looks, adaptive["looks"], strict=True):
        assert (n_used, n_all) == (look["n_prompts"], 300)
        assert (tau, low, high) == pytest.approx((look["temperature"], *look["interval"]), rel=1e-3)
        assert share == pytest.approx(50 * (high - low) / tau, abs=0.1)
    assert looks[-1][5] <= 9.0
    before = done.stderr.index("after 100 of 300")
    assert done.stderr.index("running the chat model") < before

    table = fit(here, "--tolerance", "0.09", "--quiet")
    assert table.returncode == 0 and table.stderr == ""
    assert "after 100 of 300 questions: temperature" not in table.stdout
    (line,) = (line for line in table.stdout.splitlines() if line.startswith("stopped"))
    assert f"after {values['n_prompts']} of 300 questions: interval ±" in line and "±9.0% was asked" in line


def test_no_cache_keeps_nothing_and_changes_nothing(here, cache_folder):
    kept = as_values(fit(here, "--json", data="some.jsonl"))
    # Fewer than the pilot of an adaptive run: all are run, and looked at once.
    assert [look["n_prompts"] for look in kept["adaptive"]["looks"]] == [60] == [kept["n_prompts"]]
    written = list(cache_folder.glob("captures-*.sqlite"))
    assert len(written) == 2
    cache_folder.rename(cache_folder.with_name("elsewhere"))
    done = fit(here, "--json", "--no-cache", data="some.jsonl")
    assert as_values(done) == kept
    assert not cache_folder.exists()


def test_fast_says_so_in_the_result_and_all_nothing_of_stopping(here, cache_folder):
    done = fit(here, "--fast", "--json", "--all", data="some.jsonl")
    values = as_values(done)
    (warning,) = (text for text in values["warnings"] if "--fast" in text)
    assert warning in " ".join(done.stderr.split()) and values["runtime"]["flash_attn"] is True
    assert values["adaptive"] is None and values["n_prompts"] == 60 and not LOOK.search(done.stderr)


@pytest.mark.parametrize("wrong", ["0", "-0.1", "nan"])
def test_a_tolerance_that_is_none(here, wrong):
    done = fit(here, "--tolerance", wrong)
    assert done.returncode == 2 and done.stdout == ""
    assert "Traceback" not in done.stderr and "tolerance" in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith(("Error: ", "edgecal: "))]) == 1


@pytest.mark.parametrize("options", [(), ("--all",)])
def test_too_few_prompts_exit_as_ever(here, options):
    done = fit(here, *options, "--method", "dual-align", data="few.jsonl")
    assert done.returncode == 4 and done.stdout == "" and "Traceback" not in done.stderr
    assert "12 prompts cannot determine a temperature by dual-align" in done.stderr


def test_a_pair_that_always_agrees_exits_early_and_names_the_way_out(here, cache_folder):
    write_tiny_pair(here / "seed.gguf", here / "alike.gguf", seed=5, n_layer=2, n_embd=32, perturbation=1e-5)
    assert (here / "seed.gguf").read_bytes() == (here / "base.gguf").read_bytes()
    done = fit(here, "--method", "dual-align", chat="alike.gguf")
    assert done.returncode == 4 and done.stdout == "" and "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert "has 0 after 200 of 300 prompts" in last or "has 0 after 100 of 300 prompts" in last
    assert last.endswith("were not run; use --method daca, which needs none")
    assert fit(here, chat="alike.gguf").returncode == 0  # and so it is


def test_a_plan_in_lines_and_as_json(here, cache_folder):
    before = sorted(here.iterdir())
    text = fit(here, "--plan", "--no-cache", data="few.jsonl")
    assert text.returncode == 0, text.stderr
    lines = text.stdout.splitlines()
    assert len(lines) == 1 + 2 * 4 + 1
    assert re.fullmatch(r"questions +12", lines[0])
    for first, role in ((1, "base"), (5, "chat")):
        assert re.fullmatch(rf"{role} model +{role}\.gguf: 12 prompts", lines[first])
        assert re.search(
            r"\d+ tokens to run, \d+ of them distinct; \d+ will be computed in \d+ decodes$", lines[first + 1]
        )
        assert re.search(r"tokens/s with 1 threads: about \d+ s$", lines[first + 2])
        assert "memory: file" in lines[first + 3] and "free are" in lines[first + 3]
    assert re.match(r"in all +about \d+ s for every question", lines[-1])
    done = fit(here, "--plan", "--json", "--no-cache", data="few.jsonl")
    assert done.returncode == 0 and done.stdout.count("\n") == 1
    values = json.loads(done.stdout)
    assert list(values) == ["n_questions", "data", "models", "seconds", "settings", "warnings"]
    assert f"{values['models']['base']['n_tokens']:,} tokens to run" in lines[2]
    assert f"{values['models']['chat']['n_computed']:,} will be computed" in lines[6]
    assert sorted(here.iterdir()) == before and not cache_folder.exists()


@pytest.mark.parametrize(
    ("options", "data", "code"),
    [((), "missing.jsonl", 2), (("--limit", "x"), "few.jsonl", 2)],
)
def test_a_plan_of_bad_input(here, options, data, code):
    done = fit(here, "--plan", *options, data=data)
    assert done.returncode == code and done.stdout == "" and "Traceback" not in done.stderr


def test_a_plan_of_a_model_that_cannot_be_loaded(here, tmp_path):
    bad = tmp_path / "bad.gguf"
    content = (here / "chat.gguf").read_bytes()
    bad.write_bytes(content.replace(b"blk.1.ffn_up.weight", b"blk.1.ffn_xx.weight"))
    done = fit(here, "--plan", "--no-cache", data="few.jsonl", chat=bad)
    assert done.returncode == 3 and done.stdout == "" and "Traceback" not in done.stderr
    assert "bad.gguf" in done.stderr
