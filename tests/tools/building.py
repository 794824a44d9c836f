"""Real llama.cpp programs, built from the source that llama-cpp-python's source distribution carries.

`python tests/tools/building.py [FOLDER]` builds nothing: it has pip fetch that source into the folder, if it is not
there yet, and prints where it lies.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

ZOO = "test-llama-archs"
PROGRAMS = ("llama-completion", "llama-server")

# Neither web page nor HTTPS: both would be fetched or need libraries of the system.
_OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_APP=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
)


def find_source(given: Path | None, work: Path) -> Path:
    """llama.cpp's source folder: the one given, or out of the archive given, or out of the one that pip fetches."""
    if given is not None and given.is_dir():
        vendored = given / "vendor/llama.cpp"
        return vendored if vendored.is_dir() else given
    return _unpack(given if given is not None else _download(work / "sdist"), work / "source")


def _download(folder: Path) -> Path:
    version = importlib.metadata.version("llama-cpp-python")
    archive = folder / f"llama_cpp_python-{version}.tar.gz"
    if not archive.exists():
        # Only this package as source: what pip needs to read it may come as wheels.
        command = [
            "download",
            "--quiet",
            "--no-deps",
            "--no-binary",
            "llama-cpp-python",
            "--dest",
            str(folder),
        ]
        subprocess.run([sys.executable, "-m", "pip", *command, f"llama-cpp-python=={version}"], check=True)
    return archive


def _unpack(archive: Path, folder: Path) -> Path:
    source = folder / archive.name.removesuffix(".tar.gz") / "vendor/llama.cpp"
    if not source.is_dir():
        with tarfile.open(archive) as tar:
            if sys.version_info >= (3, 12):
                tar.extractall(folder, filter="data")
            else:
                tar.extractall(folder)
    return source


def build(
    source: Path, folder: Path, jobs: int, programs: Sequence[str] = PROGRAMS, *, openmp: bool = False
) -> Path:
    """Builds the programs, or what is out of date of them, and returns the folder that they are in.

    `openmp`: threads as llama.cpp has them by default, for those who take the time of a program.
    """
    options = [
        *_OPTIONS,
        f"-DGGML_OPENMP={'ON' if openmp else 'OFF'}",
        f"-DLLAMA_BUILD_TESTS={'ON' if ZOO in programs else 'OFF'}",
    ]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "build.log").open("a", encoding="utf-8") as log:
        for command in (
            ["cmake", "-S", str(source), "-B", str(folder), *options],
            ["cmake", "--build", str(folder), "--parallel", str(jobs), "--target", *programs],
        ):
            result = subprocess.run(
                command, stdout=log, stderr=subprocess.STDOUT, env=os.environ, check=False
            )
            if result.returncode:
                sys.exit(f"{' '.join(command)} failed; see {log.name}")
    return folder / "bin"


if __name__ == "__main__":
    root = Path(__file__).resolve().parents[2]
    print(find_source(None, Path(sys.argv[1]) if len(sys.argv) > 1 else root / "build/llama-tools"))
