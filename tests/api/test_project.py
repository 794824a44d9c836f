"""A BaseCal map, from the fit to the answer: what is stored, what it says at run time, and what is refused."""

import hashlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from support.calibrated import BASE, CHAT, MODELS, bake, stamp

import edgecal
from edgecal.errors import InputError, NotIdentifiedError, UnsettledError, UnsettledWarning
from edgecal.evaluation.linear_map import fit_linear_map
from edgecal.gguf.header import read_header
from edgecal.metrics import softmax_probs
from edgecal.pair.run import project_states
from edgecal.pair.worker_project import pick
from edgecal.stamping.projection import read_projection

RECORDS = [
    json.loads(line) for line in (MODELS / "questions/dev.jsonl").read_text("utf-8").splitlines()[:320]
]
FITTED = RECORDS[:300]  # 22 of them have a fifth choice: too few for a row
ASKED = [record for record in RECORDS[300:] if len(record["choices"]) < 5]
RUN = edgecal.RunOptions(settings=edgecal.CaptureSettings(n_threads=1))
ONE_THREAD = {"n_threads": 1, "n_threads_batch": 1}


def fit(records=FITTED, output=None, **options):
    return edgecal.fit_projection(BASE, CHAT, records, output, run=RUN, n_bootstrap=60, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("basecal")


@pytest.fixture(scope="module")
def made(folder):
    return fit(output=folder / "chat.basecal.gguf")


@pytest.fixture(scope="module")
def model(made):
    with edgecal.load(CHAT, basecal=made.output, **ONE_THREAD) as loaded:
        yield loaded


def choose(model, record):
    return model.choose(record["question"], record["choices"])


def in_process(prompts, asked):
    """The base model's probability of the chat model's choices by the map, as `compare` computes it."""
    captured = edgecal.capture(BASE, CHAT, [*prompts, *asked], hidden=True, run=RUN)
    own = project_states(str(BASE), "base", captured.prompts, captured.base.last_hidden, options=RUN)
    n = len(prompts)
    found = fit_linear_map(captured.chat.last_hidden[:n], own.logits[:n])
    logits = pick(found(captured.chat.last_hidden[n:]), own.columns[n:])
    rest = captured.logits.take(np.arange(n, n + len(asked)))
    choices = rest.chat_final.argmax(axis=1)
    return softmax_probs(logits, rest.n_choices)[np.arange(len(asked)), choices]


def test_the_answer_is_what_is_computed_with_both_models_at_hand(made, model):
    """Within 2e-6: the map is stored as float32, and a Q8_0 model's states are the same bits."""
    prompts = edgecal.load_prompts(FITTED)
    asked = [edgecal.load_prompts([record])[0] for record in ASKED]
    answers = [choose(model, record) for record in ASKED]
    assert len(answers) > 10
    assert [answer.base_confidence for answer in answers] == pytest.approx(
        in_process(prompts, asked), abs=2e-6
    )
    with edgecal.load(CHAT, **ONE_THREAD) as plain:
        for record, answer in zip(ASKED[:5], answers, strict=False):
            said = choose(plain, record)
            assert said.base_confidence is None and said.probs == answer.probs


def test_a_prompt_of_several_decodes_and_micro_batches(made, model):
    with edgecal.load(CHAT, basecal=made.output, n_batch=24, n_ubatch=16, **ONE_THREAD) as loaded:
        for record in ASKED[:6]:
            assert choose(loaded, record).n_tokens > 24
            sure = choose(loaded, record).base_confidence
            assert sure == pytest.approx(choose(model, record).base_confidence, abs=0.01)
        generated = loaded.generate("Question:", max_tokens=3)
    with edgecal.load(CHAT, n_batch=24, n_ubatch=16, **ONE_THREAD) as plain:
        assert plain.generate("Question:", max_tokens=3) == generated


def test_what_the_result_says(made, folder):
    assert made.settled and made.harmful is False and made.reasons == []
    assert made.n_prompts == made.n_labelled == 300 and 0 < made.error < 0.3
    assert made.ece["projection"] < made.ece["chat"] and made.label_check["found"] == "better"
    path = folder / "chat.basecal.gguf"
    assert made.output == str(path) and made.n_bytes == path.stat().st_size < 5000
    stored = read_projection(path)
    assert sorted(stored.labels) == sorted(made.labels) == list("ABCD")
    assert stored.weight.shape == (len(stored.labels), 128)
    sums = [hashlib.sha256(model.read_bytes()).hexdigest() for model in (BASE, CHAT)]
    assert [stored.base_sha256, stored.chat_sha256] == sums and made.models["base"]["sha256"] == sums[0]
    assert (stored.prompts_sha256, stored.ridge) == (made.prompts_sha256, made.ridge)


def test_the_same_questions_give_the_same_bytes_whatever_their_order_and_answers(made, folder):
    bare = [{key: value for key, value in record.items() if key != "answer"} for record in FITTED[::-1]]
    again = fit(bare, folder / "again.gguf")
    assert (folder / "again.gguf").read_bytes() == (folder / "chat.basecal.gguf").read_bytes()
    assert again.harmful is again.label_check is again.ece is None and again.n_labelled == 0


def test_without_the_base_model(made, folder, tmp_path):
    """In a folder, and a process, with nothing but the chat model and the map; a stamped temperature is no obstacle."""
    stamp(tmp_path / "chat.gguf")
    shutil.copy(made.output, tmp_path / "map.gguf")
    record = ASKED[0]
    options = [part for choice in record["choices"] for part in ("-c", choice)]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "edgecal", "ask", "chat.gguf", record["question"], *options),
            *("--basecal", "map.gguf", "-t", "1", "--json"),
        ],
        capture_output=True, text=True, cwd=tmp_path, check=True,
    )  # fmt: skip
    answer = json.loads(done.stdout)["answer"]
    with edgecal.load(CHAT, basecal=made.output, **ONE_THREAD) as loaded:
        assert answer["base_confidence"] == choose(loaded, record).base_confidence
    assert answer["temperature"] > 3


@pytest.mark.parametrize("other", ["base", "baked"])
def test_a_map_for_another_model_is_refused(made, tmp_path, other):
    path = BASE if other == "base" else bake(tmp_path / "baked.gguf")
    with pytest.raises(InputError, match=r"was made for another chat model .edgecal tiny Chat") as refused:
        edgecal.load(path, basecal=made.output)
    assert "\n" not in str(refused.value)


def flipped(content, at):
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def damages(content, header):
    key = content.index(b"edgecal.basecal.tokens")
    return {
        "empty": b"",
        "no GGUF": b"{}" + content[2:],
        "header truncated": content[: header.header_end - 9],
        "data truncated": content[: header.tensors["basecal.bias"].data_offset + 3],
        "a number damaged": flipped(content, header.tensors["basecal.weight"].data_offset + 17),
        "a key renamed": content[:key] + b"edgecal.basecal.tokenz" + content[key + 22 :],
        "another format": content.replace(
            b"edgecal.basecal.format\x04\x00\x00\x00\x01", b"edgecal.basecal.format\x04\x00\x00\x00\x02"
        ),
        "a model": CHAT.read_bytes(),
    }


def test_damaged_and_foreign_files_are_refused_in_one_line(made, tmp_path):
    content = (tmp_path.parent / made.output).read_bytes()
    for name, damaged in damages(content, read_header(made.output)).items():
        assert damaged != content, name
        path = tmp_path / "map.gguf"
        path.write_bytes(damaged)
        with pytest.raises(InputError) as refused:
            edgecal.load(CHAT, basecal=path)
        assert str(refused.value).startswith(str(path)) and "\n" not in str(refused.value), name
    done = subprocess.run(
        [sys.executable, "-m", "edgecal", "ask", str(CHAT), "Who?", "-c", "a", "-c", "b", "--basecal", str(path)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.endswith("is not a BaseCal map; give the file that edgecal project wrote\n")


def test_options_that_do_not_go_with_a_map(made):
    with pytest.raises(InputError, match="without a lora_path"):
        edgecal.load(CHAT, basecal=made.output, lora_path="adapter.gguf")
    with pytest.raises(InputError, match="basecal is 3, expected the path"):
        edgecal.load(CHAT, basecal=3)
    with pytest.raises(InputError, match=r"nothing\.gguf"):
        edgecal.load(CHAT, basecal="nothing.gguf")


def test_a_label_without_a_row_is_refused(model):
    with pytest.raises(
        InputError, match=r"no row for label 5 \(token 414\), only for 'A', 'B', 'C', 'D'; ask"
    ):
        model.choose("Which of them?", ["one", "two", "three", "four", "five"])


def test_too_few_prompts():
    with pytest.raises(NotIdentifiedError, match="no label is offered by 30 of the 29 prompts"):
        fit(FITTED[:29])


def test_a_map_that_labels_speak_against_is_refused_or_marked(folder, tmp_path):
    """The chat model's own choices as answers: it is right always, so every doubt is wrong."""
    prompts = edgecal.load_prompts(FITTED)
    chosen = edgecal.capture(BASE, CHAT, prompts, layers=False, run=RUN).logits.chat_final.argmax(axis=1)
    answers = dict(zip((prompt.text for prompt in prompts), map(int, chosen), strict=True))
    records = [record | {"answer": answers[edgecal.load_prompts([record])[0].text]} for record in FITTED]
    output = tmp_path / "chat.basecal.gguf"
    with pytest.raises(UnsettledError, match="the BaseCal map is refused") as refused:
        fit(records, output)
    result = refused.value.result
    assert result.harmful and result.settled and "labels say that it does harm" in result.reasons[0]
    assert not output.exists()
    assert fit(records, output, unsettled=True).reasons == result.reasons
    assert list(read_projection(output).reasons) == result.reasons
    with pytest.warns(UnsettledWarning, match="does harm"):
        edgecal.load(CHAT, basecal=output, **ONE_THREAD).close()


def test_no_input_and_no_existing_file_is_overwritten(made, folder, tmp_path):
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(json.dumps(record) for record in FITTED[:40]), "utf-8")
    for output in (CHAT, BASE, data):
        with pytest.raises(InputError, match="is an input"):
            fit(data, output, force=True)
    before = (folder / "chat.basecal.gguf").read_bytes()
    with pytest.raises(InputError, match="exists; give --force"):
        fit(data, folder / "chat.basecal.gguf")
    assert (folder / "chat.basecal.gguf").read_bytes() == before
