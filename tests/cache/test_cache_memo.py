"""A digest that was kept is never one of other bytes."""

import hashlib
import os
import shutil
import time

import pytest

from edgecal.cache import DigestMemo, digests, identify_files


@pytest.fixture
def soon(monkeypatch):
    """Files count as settled after 0.05 s, more than a tick of this system's clock."""
    monkeypatch.setattr(digests, "_SETTLED_NS", 50_000_000)
    return lambda: time.sleep(0.06)


class Model:
    """Files whose digest can be asked for, counting how often it is made."""

    def __init__(self, *paths):
        self.paths, self.n_made = paths, 0

    def compute(self):
        self.n_made += 1
        data = b"".join(path.read_bytes() for path in self.paths)
        return {"sha256": hashlib.sha256(data).hexdigest(), "content/1": hashlib.sha1(data).hexdigest()}

    def ask(self, folder, names=("sha256",)):
        """Whether it had to be made; it is checked to be right."""
        before = self.n_made
        with DigestMemo(folder) as kept:
            found = kept.recall(self.paths, names, self.compute)
            assert kept.warning is None
        made, self.n_made = self.n_made - before, before
        now = self.compute()
        assert found == {name: now[name] for name in names}
        return made == 1


def write(path, data):
    path.write_bytes(data)
    return path


def test_a_digest_is_made_once(tmp_path, soon):
    model = Model(write(tmp_path / "m", b"data"))
    soon()
    assert model.ask(tmp_path / "c")
    assert not model.ask(tmp_path / "c")
    assert not model.ask(tmp_path / "c", ["content/1", "sha256"])
    assert model.ask(tmp_path / "d")


def test_a_digest_of_another_kind_is_made(tmp_path, soon):
    path = write(tmp_path / "m", b"data")
    soon()
    with DigestMemo(tmp_path / "c") as kept:
        assert kept.recall([path], ["a"], lambda: {"a": "1"}) == {"a": "1"}
        assert kept.recall([path], ["b"], lambda: {"b": "2"}) == {"b": "2"}
        assert kept.recall([path], ["a", "b"], dict) == {"a": "1", "b": "2"}
        with pytest.raises(KeyError):
            kept.recall([path], ["c"], dict)


@pytest.mark.parametrize(
    "change",
    ["bytes", "bytes, same time", "longer", "replaced", "replaced, same time", "touched", "moved", "copied"],
)
def test_every_change_is_seen(tmp_path, soon, change):
    path = write(tmp_path / "m", b"data")
    old = path.stat()
    soon()
    model = Model(path)
    assert model.ask(tmp_path / "c")
    assert not model.ask(tmp_path / "c")
    if change == "longer":
        write(path, b"data and more")
    elif change.startswith("bytes"):
        write(path, b"atad")
    elif change.startswith("replaced"):
        write(tmp_path / "n", b"atad").replace(path)
    elif change == "touched":
        path.touch()
    else:
        other = tmp_path / "other"
        (shutil.move if change == "moved" else shutil.copy2)(path, other)
        model = Model(other)
    if change.endswith("same time"):
        os.utime(path, ns=(old.st_atime_ns, old.st_mtime_ns))
        assert path.stat().st_mtime_ns == old.st_mtime_ns
    assert model.ask(tmp_path / "c")


def test_a_file_that_was_just_changed_is_not_remembered(tmp_path):
    """The real rule: a write within the same tick of the clock would go unseen."""
    path = write(tmp_path / "m", b"data")
    model = Model(path)
    for _ in range(20):
        assert model.ask(tmp_path / "c")
        write(path, os.urandom(4))
    os.utime(path, (1000, 1000))  # an old file that was just copied, or moved, or linked
    assert model.ask(tmp_path / "c")
    assert model.ask(tmp_path / "c")
    future = write(tmp_path / "n", b"data")
    os.utime(future, (time.time() + 1000, time.time() + 1000))
    time.sleep(3.1)
    assert model.ask(tmp_path / "c")
    assert not model.ask(tmp_path / "c")
    assert Model(future).ask(tmp_path / "c")
    assert Model(future).ask(tmp_path / "c")


def test_a_file_that_changes_while_its_digest_is_made_is_not_remembered(tmp_path, soon):
    path = write(tmp_path / "m", b"data")
    soon()
    model = Model(path)

    def compute():
        found = model.compute()
        write(path, b"atad")
        return found

    with DigestMemo(tmp_path / "c") as kept:
        kept.recall([path], ["sha256"], compute)
    soon()
    assert model.ask(tmp_path / "c")


def test_files_are_identified(tmp_path):
    first, second = write(tmp_path / "1", b"one"), write(tmp_path / "2", b"two")
    before = identify_files([first, second])
    assert before == identify_files([first, second]) != identify_files([second, first])
    time.sleep(0.02)
    write(second, b"owt")
    assert identify_files([first, second]) != before
    assert identify_files([first, tmp_path / "3"]) is None


def test_all_files_of_a_model_count(tmp_path, soon):
    first, second = write(tmp_path / "1", b"one"), write(tmp_path / "2", b"two")
    soon()
    both = Model(first, second)
    assert both.ask(tmp_path / "c")
    assert not both.ask(tmp_path / "c")
    assert Model(second, first).ask(tmp_path / "c")
    assert Model(first).ask(tmp_path / "c")
    write(second, b"owt")
    soon()
    assert both.ask(tmp_path / "c")


def test_a_file_that_cannot_be_looked_at(tmp_path):
    with DigestMemo(tmp_path / "c") as kept:
        for path in (tmp_path / "nothing", tmp_path, tmp_path / "\0"):
            for _ in range(2):
                asked = []
                kept.recall([path], ["a"], lambda asked=asked: asked.append(1) or {"a": "b"})
                assert asked
        with pytest.raises(FileNotFoundError):
            kept.recall([tmp_path / "nothing"], ["a"], lambda: {"a": (tmp_path / "nothing").read_text()})


def test_no_path_can_be_read_from_the_memo(tmp_path, soon):
    path = write(tmp_path / "a-secret-name.gguf", b"data")
    soon()
    assert Model(path).ask(tmp_path / "c")
    data = (tmp_path / "c" / "digests.v1.sqlite").read_bytes()
    assert b"secret" not in data
    assert b"a-secret-name".hex().encode() not in data


def test_old_entries_are_forgotten(tmp_path, soon, monkeypatch):
    monkeypatch.setattr(digests, "MAX_MODELS", 3)
    files = [Model(write(tmp_path / str(i), bytes([i]))) for i in range(5)]
    soon()
    assert all(model.ask(tmp_path / "c") for model in files)
    assert [model.ask(tmp_path / "c") for model in files[::-1]] == [False] * 3 + [True] * 2


def test_a_damaged_memo_is_begun_anew(tmp_path, soon):
    path = write(tmp_path / "m", b"data")
    soon()
    model = Model(path)
    assert model.ask(tmp_path / "c")
    file = tmp_path / "c" / "digests.v1.sqlite"
    whole = file.read_bytes()
    digest = model.compute()["sha256"].encode()
    at = whole.index(digest)
    file.write_bytes(whole[:at] + digest[::-1] + whole[at + 64 :])
    assert model.ask(tmp_path / "c")
    assert not model.ask(tmp_path / "c")
    file.write_bytes(b"x" * 5000)
    with DigestMemo(tmp_path / "c") as kept:
        assert kept.recall([path], ["sha256"], model.compute)["sha256"].encode() == digest
        assert "recreated" in kept.warning
    assert not model.ask(tmp_path / "c")
