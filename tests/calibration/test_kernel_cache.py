"""A second process does not compile: what the first one compiled is read from the disk."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FIT = """
import numba.core.event as event
from edgecal.calibration import Method, fit_temperature
from support.choice_data import make_choice_logits
data = make_choice_logits(120, 4, 4, seed=3, noise=1.0)
with event.install_recorder("numba:compile") as recorder:
    for method in (Method("daca"), Method(combine="sum")):
        for n_bootstrap in (0, 40):
            fit_temperature(data, method, n_bootstrap=n_bootstrap)
print(len(recorder.buffer))
"""


@pytest.fixture
def environment(tmp_path):
    tests = Path(__file__).parents[1]
    return {
        **os.environ,
        "PYTHONPATH": f"{tests}{os.pathsep}{tests.parent}",
        "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
    }


def test_the_second_process_compiles_nothing(environment):
    compiled = [
        int(
            subprocess.run(
                [sys.executable, "-c", FIT], env=environment, capture_output=True, text=True, check=True
            ).stdout
        )
        for _ in range(2)
    ]
    assert compiled[0] > 0
    assert compiled[1] == 0
