"""`edgecal cache`: what is kept, and forgetting it."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from support.file_systems import mounted

from edgecal.cache import CaptureCache, DigestMemo
from edgecal.cli.cache import cache_command
from edgecal.errors import OutputError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGECAL_CACHE_DIR", str(tmp_path / "c"))
    return tmp_path / "c"


@pytest.fixture
def run(capsys):
    def run_it(*arguments):
        cache_command.main(list(arguments), prog_name="edgecal cache", standalone_mode=False)
        captured = capsys.readouterr()
        assert captured.err == ""
        return captured.out

    return run_it


def fill(folder, context, n, used_s):
    with CaptureCache(folder, context) as cache:
        cache.write([(i.to_bytes(4, "big"), {"a": np.zeros(10, np.float32)}) for i in range(n)])
    os.utime(cache.path, (used_s, used_s))
    return cache.path


def test_an_empty_cache(folder, run):
    assert (
        run() == run("show") == f"folder  {folder}\nsize    0 bytes of at most 1,073,741,824\nstores  none\n"
    )
    assert json.loads(run("--json")) == {
        "folder": str(folder),
        "bytes": 0,
        "max_bytes": 1 << 30,
        "stores": [],
    }
    assert run("clear") == f"0 bytes in 0 files were freed in {folder}\n"
    assert not folder.exists()


def test_stores_are_listed(folder, run):
    first = fill(folder, {"model": "A model\n\x1b[31m", "n_threads": 2}, 1234, 1_700_000_000)
    second = fill(folder, {"content_sha256": "ab"}, 1, 1_600_000_000)
    third = fill(folder, {"model": "Damaged"}, 1, 1_500_000_000)
    third.write_bytes(b"x" * 300)
    os.utime(third, (1_500_000_000, 1_500_000_000))
    sizes = [path.stat().st_size for path in (first, second, third)]
    lines = run("show").splitlines()
    assert lines[:3] == [f"folder  {folder}", f"size    {sum(sizes):,} bytes of at most 1,073,741,824", ""]
    assert [line.split() for line in lines[3:]] == [
        ["model", "prompts", "size", "last", "used"],
        ["A", "model\\n\\x1b[31m", "1,234", f"{sizes[0]:,}", "2023-11-14", "22:13:20", "UTC"],
        ["not", "said", "1", f"{sizes[1]:,}", "2020-09-13", "12:26:40", "UTC"],
        ["cannot", "be", "read", "?", "300", "2017-07-14", "02:40:00", "UTC"],
    ]
    values = json.loads(run("show", "--json"))
    assert values["bytes"] == sum(sizes)
    assert values["stores"][0] == {
        "model": "A model\n\x1b[31m",
        "prompts": 1234,
        "bytes": sizes[0],
        "last_used": "2023-11-14T22:13:20+00:00",
        "file": first.name,
        "context": {"model": "A model\n\x1b[31m", "n_threads": 2},
    }
    assert [store["context"] for store in values["stores"][1:]] == [{"content_sha256": "ab"}, None]


def test_clearing(folder, run):
    path = fill(folder, {"model": "A"}, 10, 1_700_000_000)
    (folder / "mine.txt").write_text("kept")
    with DigestMemo(folder):
        n_bytes = path.stat().st_size + (folder / "digests.v1.sqlite").stat().st_size
    assert json.loads(run("clear", "--json")) == {"folder": str(folder), "files": 2, "freed_bytes": n_bytes}
    assert [item.name for item in folder.iterdir()] == ["mine.txt"]
    fill(folder, {"model": "A"}, 10, 1_700_000_000)
    assert run("clear").endswith(f" bytes in 1 files were freed in {folder}\n")


def test_what_cannot_be_removed(folder, run, tmp_path):
    with mounted("tmpfs", tmp_path) as mount:
        folder.symlink_to(mount)
        fill(folder, {"model": "A"}, 10, 1_700_000_000)
        subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
        with pytest.raises(OutputError, match="Read-only"):
            run("clear")


def test_no_place_at_all(folder):
    """Nowhere to look: no variable, and nobody's home, as containers have it."""
    if os.getuid() != 0:
        pytest.skip("only root may become a user who is not known")
    code = (
        "import os; from edgecal.cli.cache import cache_command\n"
        "def ask():\n"
        "    for arguments in ([], ['clear'], ['--json'], ['clear', '--json']):\n"
        "        cache_command.main(arguments, standalone_mode=False)\n"
        "ask()\n"  # what has to be imported is, by somebody who may
        "os.setuid(54321)\n"
        "for name in ('HOME', 'EDGECAL_CACHE_DIR', 'XDG_CACHE_HOME'): os.environ.pop(name, None)\n"
        "ask()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    nowhere = "folder  none: there is no home folder; set the environment variable EDGECAL_CACHE_DIR to one"
    lines = done.stdout.splitlines()[-4:]
    assert lines[:2] == [nowhere, nowhere]
    assert json.loads(lines[2]) == {"folder": None, "bytes": 0, "max_bytes": 1 << 30, "stores": []}
    assert json.loads(lines[3]) == {"folder": None, "files": 0, "freed_bytes": 0}
