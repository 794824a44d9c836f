"""Whatever is wrong with what the user gives: one clear line on stderr, the documented exit code, nothing lost."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.prompts import random_token_prompts, write_json_lines
from support.tiny_models import tiny_folder, write_tiny_llama, write_tiny_pair
from support.tiny_vocab import spm_vocab

from edgecal.gguf.header import read_header

QUESTION = {"question": "Which one?", "choices": ["this", "that"]}


def edgecal(*arguments, stdin=None, **options):
    return subprocess.run(
        [sys.executable, "-m", "edgecal", *map(str, arguments)],
        capture_output=True,
        input=stdin,
        timeout=120,
        **options,
    )


@pytest.fixture(scope="module")
def pair():
    folder = tiny_folder() / "bad-input"
    folder.mkdir(exist_ok=True)
    return write_tiny_pair(folder / "base.gguf", folder / "chat.gguf", seed=5)


@pytest.fixture
def here(pair, tmp_path):
    """A folder of the test's own with base.gguf, chat.gguf and data.jsonl (60 random prompts)."""
    for path in pair:
        shutil.copy(path, tmp_path / path.name)
    write_json_lines(tmp_path / "data.jsonl", random_token_prompts(60, seed=1))
    return tmp_path


def refused(result, code, *parts):
    text = result.stderr.decode()
    assert result.returncode == code, text
    assert result.stdout == b""
    complaint = [line for line in text.splitlines() if "edgecal: warning:" not in line][-1]
    assert "Traceback" not in text
    for part in parts:
        assert part in complaint, complaint


def fit(here, *options, base="base.gguf", chat="chat.gguf", data="data.jsonl", **more):
    """Runs a fit in `here` and checks that a refusal leaves the folder as it was."""
    before = snapshot(here)
    arguments = ["fit", "-q", "--unsettled", base, chat, *(["--data", data] if data else []), *options]
    result = edgecal(*arguments, cwd=here, **more)
    if result.returncode:
        assert snapshot(here) == before
    return result


def snapshot(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if path.is_file() or path.is_dir()
    }


# Model files


def test_missing_model(here):
    refused(fit(here, chat="none.gguf"), 2, "none.gguf", "no such file")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "empty"),
        (b"GGUF", "truncated"),
        (b'{"model": 1}' * 100, "not a GGUF file"),
        (b"PK\x03\x04" + bytes(200), "not a GGUF file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git-lfs"),
    ],
)
@pytest.mark.parametrize("which", ["base", "chat"])
def test_files_that_are_no_gguf(here, which, content, told):
    (here / "bad.gguf").write_bytes(content)
    refused(fit(here, **{which: "bad.gguf"}), 2, "bad.gguf", told)


@pytest.mark.parametrize("share", [0.01, 0.4, 0.99])
def test_truncated_models(here, share):
    data = (here / "chat.gguf").read_bytes()
    (here / "cut.gguf").write_bytes(data[: int(len(data) * share)])
    refused(fit(here, chat="cut.gguf"), 2, "cut.gguf")


def test_model_without_tensors(here):
    from support.tiny_models import write_gguf

    write_gguf(here / "none.gguf", "llama", {"llama.block_count": 2}, {})
    refused(fit(here, chat="none.gguf"), 2, "none.gguf", "no tensors")


def test_text_for_a_model_without_tokenizer(here):
    for name, seed in (("b.gguf", 1), ("c.gguf", 2)):
        write_tiny_llama(here / name, seed=seed, vocab="none")
    write_json_lines(here / "text.jsonl", [{**QUESTION, "question": f"Number {i}?"} for i in range(60)])
    refused(fit(here, base="b.gguf", chat="c.gguf", data="text.jsonl"), 2, "c.gguf", "no tokenizer")


def test_model_that_says_nothing_of_a_tokenizer(here):
    write_tiny_llama(here / "mute.gguf", seed=5, metadata={"tokenizer.ggml.model": None})
    refused(fit(here, base="mute.gguf"), 2, "mute.gguf", "tokenizer.ggml.model is missing")


@pytest.mark.parametrize("keys", [{"tokenizer.ggml.model": "bert"}, {"llama.attention.causal": False}])
def test_models_that_embed_or_classify(here, keys):
    write_tiny_llama(here / "both.gguf", seed=5, metadata=keys)
    refused(
        fit(here, chat="both.gguf"),
        2,
        "both.gguf",
        "reads text in both directions",
        "a causal language model",
    )


def test_text_that_a_model_cannot_spell(here):
    """llama.cpp would abort."""
    vocab = spm_vocab(byte_tokens=False)
    for name, seed in (("b.gguf", 1), ("c.gguf", 2)):
        write_tiny_llama(here / name, seed=seed, vocab=vocab)
    records = [{**QUESTION, "question": f"Number {i}{'é' if i == 7 else ''}?"} for i in range(60)]
    write_json_lines(here / "text.jsonl", records)
    result = fit(here, "--strict", base="b.gguf", chat="c.gguf", data="text.jsonl")
    refused(result, 2, "text.jsonl, line 8: the tokenizer of", "c.gguf", "no token for 'é' (U+00E9)")


@pytest.mark.parametrize(("blocks", "code"), [(0, 2), (600, 2), (2**31 - 1, 2)])
def test_absurd_block_counts(here, blocks, code):
    write_tiny_llama(here / "absurd.gguf", seed=5, metadata={"llama.block_count": blocks})
    refused(fit(here, chat="absurd.gguf"), code, "absurd.gguf", "block_count", str(blocks))


def test_other_depth_and_other_vocabulary_offer_daca(here):
    write_tiny_llama(here / "deep.gguf", seed=5, n_layer=6)
    refused(fit(here, base="deep.gguf"), 2, "6 blocks (base) and 4 blocks (chat)", "--method daca")
    write_tiny_llama(here / "spm.gguf", seed=5, vocab="spm")
    refused(fit(here, base="spm.gguf"), 2, "tokenizer", "--method daca")


def test_a_later_shard(here):
    write_tiny_llama(here / "split.gguf", seed=5, split_max_tensors=20)
    shards = sorted(here.glob("split*-of-*.gguf"))
    assert len(shards) > 1
    refused(fit(here, chat=shards[1].name), 2, shards[0].name)
    shards[-1].unlink()
    refused(fit(here, chat=shards[0].name), 2, shards[-1].name)


# Prompts


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"question": "q?", "choices": ["a"', "line 2: not valid JSON"),
        ('{"question": "q?", "choices": ["a"]}', "line 2: "),
        ('{"question": "q?", "choices": ["a", "a"]}', "are the same"),
        ('{"question": "q?", "choices": ["a", "", "b"]}', "is empty"),
        ('{"prompt": "Say:", "labels": [" A", " surely not one token"]}', "not one token"),
        ('{"tokens": [1, 999999], "choice_tokens": [3, 4]}', "outside the vocabulary"),
    ],
)
def test_bad_prompts(here, line, told):
    first = json.dumps(QUESTION)
    many = "\n".join(json.dumps({**QUESTION, "question": f"Number {i}?"}) for i in range(60))
    (here / "bad.jsonl").write_text(f"{first}\n{line}\n{many}\n")
    refused(fit(here, "--strict", data="bad.jsonl"), 2, "bad.jsonl", told)


def test_a_prompt_longer_than_the_context(here):
    write_json_lines(
        here / "long.jsonl",
        [*random_token_prompts(60, seed=1), *random_token_prompts(1, seed=2, length=5000)],
    )
    refused(fit(here, "--strict", data="long.jsonl"), 2, "long.jsonl, line 61", "5000", "2048")


def test_no_prompts_and_no_file(here):
    (here / "empty.jsonl").write_text("\n")
    refused(fit(here, data="empty.jsonl"), 2, "empty.jsonl", "empty", "at least one question")
    refused(fit(here, data="none.jsonl"), 2, "none.jsonl", "no such file")


def test_standard_input(here):
    data = (here / "data.jsonl").read_bytes()
    assert fit(here, "--dry-run", "--method", "naive", data="-", stdin=data).returncode == 0
    refused(fit(here, data="-", stdin=b"nonsense"), 2, "standard input, line 1")


def test_ts_without_answers(here):
    refused(fit(here, "--method", "ts"), 2, '"answer"', "dual-align")


def test_a_bad_template(here):
    (here / "t.j2").write_text("{% if")
    refused(fit(here, "--template", "t.j2"), 2, "t.j2, line 1")
    result = fit(here, "--template", "defualt", data="none.jsonl")
    refused(
        result, 2, "the template is 'defualt'", "default, question-answer, plain, subject, bracketed, brief"
    )
    assert result.stderr.count(b"\n") == 1
    refused(fit(here, "--chat-template", "onw"), 2, "the chat template is 'onw'", '"own"')


# Options


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--method", "daca", "--ise", "mean"], "ise does not apply"),
        (["--combine", "stratified", "--lambda", "0.5"], "lambda applies only"),
        (["--combine", "sum", "--lambda", "-1"], "lambda is -1"),
        (["--in-place", "--output", "x.gguf"], "exclude each other"),
        (["--method", "magic"], "magic"),
        (["--limit", "0"], "0"),
        (["--threads", "100000"], "at most 512"),
        (["--timeout", "nan"], "timeout"),
    ],
)
def test_bad_options(here, options, told):
    refused(fit(here, *options), 2, told)


# Not identified


def test_too_few_prompts(here):
    write_json_lines(here / "few.jsonl", random_token_prompts(10, seed=1))
    refused(fit(here, data="few.jsonl"), 4, "10 prompts cannot determine a temperature")


@pytest.mark.parametrize("how", ["the same", "symlink", "hard link", "copy", "stamped"])
def test_a_model_against_itself(here, how):
    """Whatever it is called, and before a prompt is read or a model is run."""
    other = here / ("base.gguf" if how == "the same" else "other.gguf")
    if how == "symlink":
        other.symlink_to("base.gguf")
    elif how == "hard link":
        other.hardlink_to(here / "base.gguf")
    elif how == "copy":
        shutil.copy(here / "base.gguf", other)
    elif how == "stamped":
        assert (
            edgecal("stamp", "base.gguf", "--temperature", "2.5", "-o", other.name, cwd=here).returncode == 0
        )
    told = f"base.gguf and {other.name} are the same model, and a model cannot be fitted against itself"
    for command in (["fit"], ["fit", "--plan"], ["compare"]):
        arguments = [command[0], "base.gguf", other.name, "--data", "none.jsonl", *command[1:]]
        result = edgecal(*arguments, cwd=here)
        refused(result, 2, told)
        assert result.stderr.count(b"\n") == 1


def nearly_the_same(here):
    """The base model but for one bit of one number."""
    data = bytearray((here / "base.gguf").read_bytes())
    header = read_header(here / "base.gguf")
    data[max(info.data_offset for info in header.tensors.values())] ^= 1
    (here / "near.gguf").write_bytes(data)


def test_models_that_agree_on_everything(here):
    nearly_the_same(here)
    refused(fit(here, chat="near.gguf"), 4, "disagreement")


def test_warnings_are_told_where_nothing_is_identified(here):
    """One of them may be the reason."""
    nearly_the_same(here)
    write_json_lines(here / "twice.jsonl", 2 * random_token_prompts(30, seed=1))
    arguments = ["fit", "base.gguf", "near.gguf", "--data", "twice.jsonl", "-t", "1"]
    result = edgecal(*arguments, cwd=here)
    refused(result, 4, "disagreement")
    assert "warning: 30 of 60 prompts repeat another" in result.stderr.decode()
    assert b"warning" not in edgecal(*arguments, "-q", cwd=here).stderr


# Output


def test_outputs_that_are_refused(here):
    (here / "folder").mkdir()
    (here / "link.gguf").symlink_to("elsewhere.gguf")
    (here / "there.gguf").write_bytes(b"precious")
    os.link(here / "base.gguf", here / "hard.gguf")
    for name, told in [
        ("chat.gguf", "is an input"),
        ("base.gguf", "is an input"),
        ("hard.gguf", "is an input"),
        ("folder", "is a directory"),
        ("link.gguf", "symbolic link"),
        ("there.gguf", "--force"),
        ("nowhere/x.gguf", "nowhere"),
    ]:
        refused(fit(here, "--output", name), 2, name, told)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("general.sampling.temp", "hot", "--no-sampling-key"),
        ("edgecal.temperature", float("nan"), "edgecal.temperature is nan"),
    ],
)
def test_keys_that_cannot_be_replaced_are_told_before_the_run(here, key, value, told):
    write_tiny_llama(here / "odd.gguf", seed=5, metadata={key: value, "llama.attention.head_count": 0})
    refused(fit(here, chat="odd.gguf"), 2, "odd.gguf", told)


def test_in_place_refuses_links_and_model_caches(here):
    (here / "link.gguf").symlink_to("chat.gguf")
    refused(fit(here, "--in-place", chat="link.gguf"), 2, "symbolic link")
    (here / "blobs").mkdir()
    blob = here / "blobs" / ("sha256-" + "0" * 64)
    shutil.copy(here / "chat.gguf", blob)
    refused(fit(here, "--in-place", chat=f"blobs/{blob.name}"), 2, blob.name)
    os.link(here / "chat.gguf", here / "hard.gguf")
    refused(fit(here, "--in-place"), 2, "hard links")


def test_a_full_disk(here):
    """The file size limit stands in for a full disk: the write fails after some megabytes in the same way."""
    limit = (here / "chat.gguf").stat().st_size // 2

    def lower():
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    refused(fit(here, "--method", "naive", preexec_fn=lower), 5, "chat.calibrated.gguf")


def test_a_folder_that_cannot_be_written(here):
    """No one may create files in /sys, root neither."""
    refused(fit(here, "--output", "/sys/chat.gguf"), 5, "/sys", "cannot be written")


# Native failure and interruption


def test_a_header_that_makes_llama_cpp_abort(here):
    """Zero heads divide by zero inside llama.cpp: the process dies, edgecal does not."""
    write_tiny_llama(here / "abort.gguf", seed=5, metadata={"llama.attention.head_count": 0})
    refused(fit(here, chat="abort.gguf"), 3, "abort.gguf")


def test_ctrl_c_within_a_second(here):
    prompts = random_token_prompts(20_000, seed=1, length=200)
    write_json_lines(here / "much.jsonl", prompts)
    before = snapshot(here)
    process = subprocess.Popen(
        [sys.executable, "-m", "edgecal", "fit", "base.gguf", "chat.gguf", "--data", "much.jsonl"],
        cwd=here,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    line = b""
    while b"running the base model" not in line:
        line = process.stderr.readline()
        assert line, "the run ended by itself"
    time.sleep(0.3)
    began_s = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    took_s = time.monotonic() - began_s
    assert (process.returncode, out) == (130, b"")
    assert b"interrupted" in err and b"Traceback" not in err
    assert took_s < 1.5, took_s  # one second, and half a one for a machine that is busy
    assert snapshot(here) == before


def test_show_refuses_nonsense_politely(here):
    (here / "bad.gguf").write_bytes(b"nonsense" * 10)
    refused(edgecal("show", here / "bad.gguf"), 2, "not a GGUF file")
    refused(edgecal("show", here), 2)
    refused(edgecal("show", Path("no\nwhere")), 2)
