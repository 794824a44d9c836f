"""Loading the native library: found, missing, foreign, or of another ABI."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edgecal.errors import ModelError
from edgecal.llama.hook import ENVIRONMENT_VARIABLE, HOOK_ABI, HiddenCapture, load_hook
from edgecal.llama.library import ggml_addresses

NATIVE = Path(__file__).resolve().parents[2] / "native"


def compile_library(source: str, path: Path) -> Path:
    compiler = shutil.which("gcc") or shutil.which("clang")
    assert compiler is not None, "these tests need gcc or clang"
    path.with_suffix(".c").write_text(source)
    subprocess.run([compiler, "-shared", "-fPIC", path.with_suffix(".c"), "-o", path], check=True)
    return path


def test_loads_and_has_the_abi_of_the_header() -> None:
    header = (NATIVE / "edgecal_hook.h").read_text()
    assert re.findall(r"#define EDGECAL_HOOK_ABI (\d+)", header) == [str(HOOK_ABI)]
    assert load_hook().edgecal_hook_abi() == HOOK_ABI


def test_is_opened_once() -> None:
    assert load_hook() is load_hook()


def test_missing_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path / "none.so"))
    with pytest.raises(ModelError, match=r"missing: no file .*none\.so; correct or unset .*EDGECAL_NATIVE"):
        load_hook()


def test_a_file_that_is_no_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "text.so"
    path.write_text("not a library")
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(path))
    with pytest.raises(ModelError, match=r"text\.so cannot be loaded \(.+\); correct or unset"):
        load_hook()


def test_a_library_of_somebody_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = compile_library("int something_else(void) { return 1; }", tmp_path / "other.so")
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(path))
    with pytest.raises(ModelError, match=r"other\.so is not edgecal's native library"):
        load_hook()


def test_another_abi(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = f"int edgecal_hook_abi(void) {{ return {HOOK_ABI + 1}; }}"
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(compile_library(source, tmp_path / "new.so")))
    with pytest.raises(ModelError, match=rf"has ABI {HOOK_ABI + 1}, this edgecal needs ABI {HOOK_ABI}"):
        load_hook()


@pytest.mark.parametrize(("n_layer", "n_embd"), [(0, 8), (8, 0), (-1, 8)])
def test_impossible_sizes(n_layer: int, n_embd: int) -> None:
    with pytest.raises(ModelError, match="sizes must be positive"):
        HiddenCapture(n_layer, n_embd, ggml_addresses())
