"""What README and the guide show, on real models."""

import re
import shlex

import numpy as np
import pytest
from support.pages import README, code_block, read_page
from support.real_runs import ONE_THREAD, edgecal

import edgecal as api

NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")


def words_and_numbers(printed):
    """What is said, with # for every number and without the drawn histogram, and the numbers. Memory differs."""
    lines = [line for line in printed.splitlines() if not line.startswith("memory")]
    said = "\n".join(re.sub(r"\|.*\|", "", line) for line in lines)
    return NUMBER.sub("#", said), [float(each) for each in NUMBER.findall(said)]


def test_the_real_run_is_one(real_pair, real_tasks, tmp_path):
    """The words to the letter, the numbers within what another processor's roundings make of them."""
    command, _, shown = code_block("real").partition("\n")
    names = ["gemma-3-270m-q4_k_m.gguf", "gemma-270m-post.gguf", "tasks.jsonl"]
    for name, path in zip(names, (*real_pair, real_tasks), strict=True):
        (tmp_path / name).symlink_to(path)
    program, *arguments = shlex.split(command.removeprefix("$ "))
    assert program == "edgecal" and set(names) <= set(arguments)
    done = edgecal(*arguments, code=4, cwd=tmp_path)
    (said, found), (expected, numbers) = map(words_and_numbers, (done.stdout + done.stderr, shown))
    assert said == expected, done.stdout + done.stderr
    assert found == pytest.approx(numbers, rel=0.1, abs=0.05), done.stdout + done.stderr


def test_the_first_example(real_pair, tmp_path):
    """Two files and nothing else. This base model does not know what the built-in bank asks, and that is said soon."""
    for name, path in zip(("model-base.gguf", "model-chat.gguf"), real_pair, strict=True):
        (tmp_path / name).symlink_to(path)
    (example,) = re.findall(
        r"^    edgecal (fit model-base.gguf model-chat.gguf)$", read_page(README), re.MULTILINE
    )
    done = edgecal(*example.split(), code=4, cwd=tmp_path)
    reasons = [line for line in done.stderr.splitlines() if line.startswith("edgecal: refused: ")]
    assert len(reasons) == 2 and "the base model puts only" in reasons[0] and "--shots" in reasons[0]
    assert "stopped      after 100 of 506 questions: no more of them would settle the result" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model-base.gguf", "model-chat.gguf"]


def test_the_app_and_the_load(real_stamped, tmp_path, monkeypatch, capsys):
    (tmp_path / "chat.calibrated.gguf").symlink_to(real_stamped)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(code_block("app"), "README", "exec"), names)
    names["llm"].close()
    with api.load(real_stamped, **ONE_THREAD) as model:
        expected = model.confidence(names["prompt"], [" yes", " no"])
        answer = model.choose("Which planet is largest?", ["Mars", "Jupiter", "Venus"])
    np.testing.assert_allclose(names["confidence"], expected.probs, atol=1e-5)
    exec(compile(code_block("load"), "README", "exec"), {})
    said = capsys.readouterr().out
    assert said.startswith(f"{answer.text} {answer.confidence}")
    assert said.rstrip().endswith(str(answer.confidence < 0.8))
