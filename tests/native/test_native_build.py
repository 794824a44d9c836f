"""The native hook compiles without a warning and runs clean under sanitizers, with every compiler here."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

NATIVE = Path(__file__).resolve().parents[2] / "native"
COMPILERS = [name for name in ("gcc", "clang") if shutil.which(name)]
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror"]


def test_a_compiler_is_here() -> None:
    assert COMPILERS, "edgecal is built with a C compiler, so its tests need one: install gcc or clang"


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("optimization", ["-O0", "-O3"])
def test_compiles_without_a_warning(compiler: str, optimization: str, tmp_path: Path) -> None:
    command = [compiler, "-std=c11", optimization, *WARNINGS, "-fvisibility=hidden", "-fPIC", "-shared"]
    done = subprocess.run(
        [*command, NATIVE / "edgecal_hook.c", "-o", tmp_path / "hook.so"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("compiler", COMPILERS)
def test_unit_tests_pass_under_sanitizers(compiler: str) -> None:
    # A preloaded library of the environment would come before the sanitizer's and stop it.
    environment = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
    done = subprocess.run(
        [NATIVE / "asan.sh"], env={**environment, "EDGECAL_CC": compiler}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert done.stdout.startswith(f"{compiler}: ") and done.stdout.endswith(" 0 failed\n")


def test_the_sanitizer_script_says_when_there_is_no_compiler() -> None:
    environment = {**os.environ, "EDGECAL_CC": "no-such-compiler"}
    done = subprocess.run([NATIVE / "asan.sh"], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "no C compiler found" in done.stderr


def test_knows_no_header_of_llama_cpp() -> None:
    for name in ("edgecal_hook.c", "edgecal_hook.h"):
        included = [
            line.split()[1] for line in (NATIVE / name).read_text().splitlines() if "#include" in line
        ]
        assert not [header for header in included if "ggml" in header or "llama" in header]
