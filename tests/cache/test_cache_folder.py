"""Where the cache is, what it may take, and that only its own files are removed."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.file_systems import mounted

from edgecal.cache import (
    CaptureCache,
    DigestMemo,
    clear_cache,
    default_cache_folder,
    list_stores,
)
from edgecal.errors import OutputError


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ("EDGECAL_CACHE_DIR", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def fill(folder, name, n_bytes, used_s=None):
    """A store of about so many bytes; its file."""
    with CaptureCache(folder, {"model": name}) as cache:
        cache.write([(bytes([i]), {"a": np.zeros(1000)}) for i in range(n_bytes // 8000)])
        assert cache.warning is None
    if used_s is not None:
        os.utime(cache.path, (used_s, used_s))
    return cache.path


def models(folder):
    return [store.context["model"] for store in list_stores(folder)]


@pytest.mark.skipif(sys.platform != "linux", reason="each system has a place of its own")
def test_the_usual_place(home, monkeypatch):
    assert default_cache_folder() == home / ".cache" / "edgecal"
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "xdg"))
    assert default_cache_folder() == home / "xdg" / "edgecal"
    for ignored in ("", "relative/path"):  # as its specification has it
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert default_cache_folder() == home / ".cache" / "edgecal"


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_the_usual_place_elsewhere(home, monkeypatch, platform):
    monkeypatch.setattr(sys, "platform", platform)
    if platform == "darwin":
        assert default_cache_folder() == home / "Library" / "Caches" / "edgecal"
        return
    assert default_cache_folder() == home / "AppData" / "Local" / "edgecal" / "cache"
    monkeypatch.setenv("LOCALAPPDATA", str(home / "local"))
    assert default_cache_folder() == home / "local" / "edgecal" / "cache"


def test_a_chosen_place(home, monkeypatch):
    monkeypatch.chdir(home)
    for chosen, wanted in [
        ("/some/where", Path("/some/where")),
        ("here", home / "here"),
        ("~/there", home / "there"),
    ]:
        monkeypatch.setenv("EDGECAL_CACHE_DIR", chosen)
        assert default_cache_folder() == wanted
    monkeypatch.setenv("EDGECAL_CACHE_DIR", "")
    assert default_cache_folder() == home / ".cache" / "edgecal"
    assert list(home.iterdir()) == []  # asking makes nothing


def test_a_user_without_a_home():
    """A number that is nobody's, as containers give them."""
    code = (
        "import numpy, sys; from edgecal.cache import *; folder = default_cache_folder(); print(folder)\n"
        "with CaptureCache(folder, {'a': 1}) as cache: print(cache.read([b'k']), cache.warning)\n"
        "with DigestMemo(folder) as memo: print(memo.recall([], ['a'], lambda: {'a': 'b'}), memo.warning)\n"
        "print(list_stores(folder), clear_cache(folder).n_files)\n"
    )
    if os.getuid() != 0:
        pytest.skip("only root may become a user who is not known")
    forget = "import os; os.setuid(54321); os.environ.pop('HOME', None)\n"
    done = subprocess.run(
        [sys.executable, "-c", "import edgecal.cache, numpy, sqlite3\n" + forget + code],
        capture_output=True,
        text=True,
        check=True,
        env={name: value for name, value in os.environ.items() if "CACHE" not in name},
    )
    why = "there is no folder for a cache; set the environment variable EDGECAL_CACHE_DIR to one"
    assert done.stdout.splitlines() == ["None", f"[None] {why}", f"{{'a': 'b'}} {why}", "[] 0"]


def test_the_stores_that_were_used_longest_ago_go(tmp_path):
    for name, used_s in [("old", 1000), ("older", 500), ("new", 3000), ("oldest", 100)]:
        fill(tmp_path, name, 100_000, used_s)
    size = list_stores(tmp_path)[0].n_bytes
    assert models(tmp_path) == ["new", "old", "older", "oldest"]
    (tmp_path / "captures-").write_bytes(bytes(10_000_000))  # not a store
    with CaptureCache(tmp_path, {"model": "another"}, max_bytes=4 * size - 1) as cache:
        assert models(tmp_path) == ["another", "new", "old", "older"]
        cache.write([(bytes([i]), {"a": np.zeros(1000)}) for i in range(12)])
        assert models(tmp_path) == ["another", "new", "old"]
        assert cache.warning is None
    assert (tmp_path / "captures-").exists()


def test_reading_is_using(tmp_path):
    for name, used_s in [("a", 1000), ("b", 2000), ("c", 3000)]:
        fill(tmp_path, name, 100_000, used_s)
    with CaptureCache(tmp_path, {"model": "a"}) as cache:
        assert cache.read([b"\0"])[0] is not None
    assert models(tmp_path) == ["a", "c", "b"]


def test_a_store_that_is_too_large_alone_takes_nothing_more(tmp_path):
    path = fill(tmp_path, "large", 200_000)
    other = fill(tmp_path, "other", 20_000)
    size = path.stat().st_size
    with CaptureCache(tmp_path, {"model": "large"}, max_bytes=100_000) as cache:
        assert not other.exists()
        assert "full (100000 bytes)" in cache.warning
        cache.write([(b"new", {"a": np.zeros(1)})])
        assert cache.read([b"new"]) == [None]
        assert cache.read([b"\0"])[0] is not None
    assert path.stat().st_size == size
    with CaptureCache(tmp_path, {"model": "growing"}, max_bytes=100_000) as cache:
        for i in range(50):
            cache.write([(bytes([i]), {"a": np.zeros(1000)})])
        assert "is full" in cache.warning
        assert cache.path.stat().st_size < 120_000
    assert models(tmp_path) == ["growing"]


def test_listing_changes_nothing(tmp_path):
    assert list_stores(tmp_path / "nowhere") == []
    assert not (tmp_path / "nowhere").exists()
    path = fill(tmp_path, "a", 20_000, 1000)
    damaged = fill(tmp_path, "b", 20_000, 2000)
    damaged.write_bytes(b"x" * 1000)
    os.utime(damaged, (2000, 2000))
    empty = tmp_path / f"captures-{'0' * 64}.v1.sqlite"
    empty.touch()
    os.utime(empty, (500, 500))
    before = {item: (item.read_bytes(), item.stat().st_mtime_ns) for item in tmp_path.iterdir()}
    stores = list_stores(tmp_path)
    assert [(store.path, store.context, store.n_prompts) for store in stores] == [
        (damaged, None, None),
        (path, {"model": "a"}, 2),
        (empty, None, None),
    ]
    assert [store.last_used_s for store in stores] == [2000, 1000, 500]
    assert {item: (item.read_bytes(), item.stat().st_mtime_ns) for item in tmp_path.iterdir()} == before


def test_clearing_removes_what_is_ours_and_nothing_else(tmp_path):
    folder = tmp_path / "c"
    ours = [fill(folder, "a", 20_000), fill(folder, "b", 50_000)]
    ours.append(ours[0].with_name(ours[0].name + "-journal"))
    ours[-1].write_bytes(bytes(100))
    ours.append(folder / f"captures-{'0' * 64}.v23.sqlite")  # another version's
    ours[-1].write_bytes(bytes(1000))
    with DigestMemo(folder):
        ours.append(folder / "digests.v1.sqlite")
    theirs = [
        "notes.txt", "captures.sqlite", "captures-12.v1.sqlite", f"captures-{'0' * 64}.v1.sqlite.bak", "digests.sqlite",
        f"xcaptures-{'0' * 64}.v1.sqlite", f"captures-{'A' * 64}.v1.sqlite", "digests.v1.sqlite\n",
    ]  # fmt: skip
    for name in theirs:
        (folder / name).write_bytes(b"theirs")
    target = tmp_path / "target"
    target.write_bytes(b"theirs")
    link = folder / f"captures-{'1' * 64}.v1.sqlite"
    link.symlink_to(target)
    below = folder / f"captures-{'2' * 64}.v1.sqlite"
    below.mkdir()
    n_bytes = sum(path.stat().st_size for path in ours)
    cleared = clear_cache(folder)
    assert (cleared.n_files, cleared.n_bytes) == (len(ours), n_bytes)
    assert sorted(path.name for path in folder.iterdir()) == sorted([*theirs, link.name, below.name])
    assert target.read_bytes() == b"theirs"
    again = clear_cache(folder)
    assert (again.n_files, again.n_bytes) == (0, 0)
    assert clear_cache(None) == clear_cache(tmp_path / "nowhere") == again


def test_clearing_says_what_it_cannot_remove(tmp_path):
    with mounted("tmpfs", tmp_path) as folder:
        fill(folder, "a", 20_000)
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        with pytest.raises(
            OutputError, match=r"cannot be removed: Read-only file system \(0 bytes were freed\)"
        ):
            clear_cache(folder)
        assert models(folder) == ["a"]
