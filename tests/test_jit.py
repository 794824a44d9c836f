"""Compiled kernels start where nothing can be cached, and survive a cache that goes bad."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

from edgecal import jit

PACKAGE = Path(jit.__file__).parent

# An editable installation finds edgecal by an import hook, which would come before PYTHONPATH.
USE = """
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if not type(finder).__module__.startswith("_editable")]
import numpy as np
from edgecal.calibration import prompt_kernels as kernels
sums = np.zeros((1, 2))
kernels.accumulate_rows(np.ones((3, 2)), np.zeros(3, dtype=np.int64), sums)
print(kernels.__file__, sums.tolist())
"""


def test_without_a_writable_folder_kernels_are_compiled_in_memory(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "edgecal", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    (tmp_path / "edgecal" / "calibration" / "__pycache__").write_text("a file where a folder would be")
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    environment |= {
        "PYTHONPATH": str(tmp_path),
        "PYTHONDONTWRITEBYTECODE": "1",
        "NUMBA_CACHE_DIR": str(blocked / "cache"),
        "XDG_CACHE_HOME": str(blocked / "xdg"),
        "HOME": str(blocked / "home"),
    }
    run = subprocess.run(
        [sys.executable, "-c", USE], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert run.stdout.split(maxsplit=1)[0].startswith(str(tmp_path))
    assert run.stdout.split(maxsplit=1)[1].strip() == "[[3.0, 3.0]]"
    assert run.stderr == ""


def test_a_cache_that_cannot_be_stored_is_done_without(monkeypatch):
    def double(values):
        return values * 2.0

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    doubled = jit.kernel()(double)
    monkeypatch.setattr(numba.core.caching.Cache, "save_overload", full_disk)
    np.testing.assert_array_equal(doubled(np.arange(3.0)), [0.0, 2.0, 4.0])


SHARED = """
from edgecal.jit import inner

@inner
def add(x):
    return x + {amount}.0
"""
MIDDLE = """
from shared_part import add
from edgecal.jit import inner

@inner
def twice(x):
    return 2.0 * add(x)
"""
CALLER = """
import numba.core.event as event
from middle_part import twice
from edgecal.jit import kernel

@kernel()
def run(x):
    return twice(x)

with event.install_recorder("numba:compile") as recorder:
    print(run(1.0), len(recorder.buffer) > 0)
"""


def test_an_edit_of_an_inner_function_elsewhere_is_seen(tmp_path):
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{PACKAGE.parent}"}
    environment["NUMBA_CACHE_DIR"] = str(tmp_path / "cache")
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    (tmp_path / "middle_part.py").write_text(MIDDLE)
    (tmp_path / "caller.py").write_text(CALLER)
    said = []
    for amount in (1, 1, 5, 5):
        (tmp_path / "shared_part.py").write_text(SHARED.format(amount=amount))
        run = subprocess.run(
            [sys.executable, "caller.py"],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        said.append(run.stdout.split())
    assert said == [["4.0", "True"], ["4.0", "False"], ["12.0", "True"], ["12.0", "False"]]


def test_a_division_by_zero_gives_what_numpy_gives():
    def divide(x, y):
        return x / y

    divided = jit.kernel()(divide)
    assert (divided(1.0, 0.0), divided(-1.0, 0.0)) == (np.inf, -np.inf)
    assert np.isnan(divided(0.0, 0.0))


def test_an_error_of_the_kernel_itself_is_not_hidden():
    def fail(values):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        jit.kernel()(fail)(np.arange(3.0))
