"""Where a result may be written: each rule, decided before anything runs, and nothing left behind."""

import os
import shutil
from pathlib import Path

import pytest
from support.gguf_files import bare_tensor, key, raw_gguf, write_bytes

from edgecal.errors import InputError, OutputError
from edgecal.gguf.header import read_header
from edgecal.gguf.output import content_store, default_output, plan_output
from edgecal.gguf.placing import write_output
from edgecal.gguf.shards import find_shards
from edgecal.gguf.values import Value
from edgecal.stamping.edit import write_calibrated
from edgecal.stamping.record import CalibrationRecord, read_calibration

MODEL = raw_gguf([key("general.architecture", Value.string("llama"))], [bare_tensor("w", [4])], bytes(16))
SHA = "5e" * 32


def model(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return find_shards(write_bytes(path, MODEL))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def refused(*args, error=InputError, **kwargs):
    with pytest.raises(error) as caught:
        plan_output(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_default_stands_beside_the_chat_model(tmp_path):
    for name, expected in {
        "model.gguf": "model.calibrated.gguf",
        "model.Q4_K.GGUF": "model.Q4_K.calibrated.gguf",
        "model": "model.calibrated.gguf",
        ".gguf": ".gguf.calibrated.gguf",
    }.items():
        chat = model(tmp_path / name)
        assert plan_output(chat, None).path == default_output(chat) == tmp_path / expected
    assert len(names(tmp_path)) == 4


def test_write_and_read_back(tmp_path):
    chat = model(tmp_path / "m.gguf")
    plan = plan_output(chat, None)
    assert write_calibrated(chat, plan, CalibrationRecord(2.5)) == []
    assert read_calibration(read_header(plan.path)) == CalibrationRecord(2.5)
    assert chat.path.read_bytes() == MODEL
    assert names(tmp_path) == ["m.calibrated.gguf", "m.gguf"]


def test_in_place(tmp_path):
    chat = model(tmp_path / "m.gguf")
    write_calibrated(chat, plan_output(chat, None, in_place=True), CalibrationRecord(2.5))
    assert read_header(chat.path).get("edgecal.temperature") == 2.5
    assert names(tmp_path) == ["m.gguf"]


def test_an_existing_file_needs_force(tmp_path):
    chat = model(tmp_path / "m.gguf")
    output = write_bytes(tmp_path / "out.gguf", b"old")
    assert "--force" in refused(chat, output)
    assert output.read_bytes() == b"old"
    write_output(plan_output(chat, output, force=True), changes={})
    assert output.read_bytes() == MODEL


def test_no_input_is_ever_the_output(tmp_path):
    chat, base = model(tmp_path / "m.gguf"), model(tmp_path / "base.gguf")
    data = write_bytes(tmp_path / "data.jsonl", b"{}")
    os.link(base.path, tmp_path / "link.gguf")
    (tmp_path / "folder").symlink_to(tmp_path)
    inputs = [base.path, data, tmp_path / "missing.jsonl"]
    for output in (chat.path, base.path, data, tmp_path / "link.gguf", tmp_path / "folder" / "m.gguf"):
        assert "is an input" in refused(chat, output, inputs=inputs, force=True)
    relative = Path(os.path.relpath(chat.path))
    assert "is an input" in refused(chat, relative, inputs=inputs, force=True)
    assert plan_output(chat, tmp_path / "missing.jsonl", inputs=inputs).path


def test_no_directory_no_symbolic_link_no_missing_folder(tmp_path):
    chat = model(tmp_path / "m.gguf")
    assert "is a directory" in refused(chat, tmp_path, force=True)
    (tmp_path / "link.gguf").symlink_to("elsewhere.gguf")
    assert "a symbolic link to elsewhere.gguf" in refused(chat, tmp_path / "link.gguf", force=True)
    (tmp_path / "chat.gguf").symlink_to("m.gguf")
    assert "a symbolic link to m.gguf" in refused(chat, tmp_path / "chat.gguf", force=True)
    os.mkfifo(tmp_path / "pipe.gguf")
    assert "not a regular file" in refused(chat, tmp_path / "pipe.gguf", force=True)
    assert "does not exist" in refused(chat, tmp_path / "no" / "out.gguf")
    assert "not a file name" in refused(chat, tmp_path / ("x" * 300))
    (tmp_path / "link.gguf").unlink()
    assert names(tmp_path) == ["chat.gguf", "m.gguf", "pipe.gguf"]


def test_in_place_wants_a_plain_file_of_its_own(tmp_path):
    chat = model(tmp_path / "m.gguf")
    assert "exclude each other" in refused(chat, tmp_path / "out.gguf", in_place=True)
    (tmp_path / "link.gguf").symlink_to("m.gguf")
    assert "a symbolic link to m.gguf" in refused(find_shards(tmp_path / "link.gguf"), None, in_place=True)
    assert "is also read as" in refused(chat, None, in_place=True, inputs=[chat.path])
    os.link(chat.path, tmp_path / "second.gguf")
    assert "has 2 names" in refused(chat, None, in_place=True)
    (tmp_path / "second.gguf").unlink()
    chat.path.chmod(0o444)
    assert "read-only" in refused(chat, None, in_place=True, error=OutputError)
    assert chat.path.read_bytes() == MODEL


STORES = {
    "Ollama": f"ollama/models/blobs/sha256-{SHA}",
    "Ollama on Windows": f"ollama/models/blobs/sha256:{SHA}",
    "Hugging Face blob": f"hub/models--a--b/blobs/{SHA}",
    "Hugging Face git blob": f"hub/models--a--b/blobs/{'ab' * 20}",
    "Hugging Face snapshot": "hub/models--a--b/snapshots/0123abc/model.gguf",
    "Hugging Face subfolder": "hub/models--a--b/snapshots/0123abc/Q4/model.gguf",
    "container image": f"docker/models/blobs/sha256/{SHA}",
}


@pytest.mark.parametrize("store", STORES)
def test_model_caches_are_left_alone(tmp_path, store):
    chat = model(tmp_path / STORES[store])
    assert content_store(chat.path) is not None
    assert "must not change" in refused(chat, None, in_place=True)
    assert "give --output" in refused(chat, None)
    assert "give --output outside it" in refused(chat, chat.path.with_name("new.gguf"))
    plan = plan_output(chat, tmp_path / "new.gguf")
    write_output(plan, changes={})
    assert (tmp_path / "new.gguf").read_bytes() == chat.path.read_bytes() == MODEL
    assert names(chat.path.parent) == [chat.path.name]


def test_a_cache_behind_links_is_recognised(tmp_path):
    blob = model(tmp_path / STORES["Hugging Face blob"])
    snapshot = tmp_path / STORES["Hugging Face snapshot"]
    snapshot.parent.mkdir(parents=True)
    snapshot.symlink_to(blob.path)
    chat = find_shards(snapshot)
    for in_place in (True, False):
        text = refused(chat, None, in_place=in_place)
        assert "Hugging Face cache" in text and "give --output outside it" in text
    (tmp_path / "mine").symlink_to(snapshot.parent)
    assert "Hugging Face cache" in refused(chat, tmp_path / "mine" / "out.gguf")


def test_ordinary_folders_are_no_caches(tmp_path):
    for name in ("models/m.gguf", "blobs/m.gguf", "snapshots/today/m.gguf", "sha256/m.gguf"):
        chat = model(tmp_path / name)
        assert content_store(chat.path) is None
        assert plan_output(chat, None).path.parent == chat.path.parent
        assert plan_output(chat, None, in_place=True).path == chat.path


def test_a_folder_that_cannot_be_written(tmp_path):
    chat = model(tmp_path / "m.gguf")
    assert "cannot be written to" in refused(chat, Path("/sys/edgecal.gguf"), error=OutputError)


def test_a_disk_without_room(tmp_path, monkeypatch):
    chat = model(tmp_path / "m.gguf")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: usage._replace(free=1000))
    line = refused(chat, None, error=OutputError)
    assert f"{len(MODEL) + 65536} bytes are needed" in line
    assert "1000 are free" in line
    assert "a copy first" in refused(chat, None, in_place=True, error=OutputError)
    assert names(tmp_path) == ["m.gguf"]


def test_planning_leaves_nothing_behind_and_reads_no_tensor(tmp_path):
    chat = model(tmp_path / "m.gguf")
    plan_output(chat, None)
    plan_output(chat, None, in_place=True)
    assert names(tmp_path) == ["m.gguf"]


def test_a_target_that_appears_during_the_run_is_not_replaced(tmp_path):
    chat = model(tmp_path / "m.gguf")
    plan = plan_output(chat, None)
    write_bytes(plan.path, b"somebody else's")
    with pytest.raises(OutputError, match="appeared"):
        write_output(plan, changes={})
    assert plan.path.read_bytes() == b"somebody else's"
    assert len(names(tmp_path)) == 2
