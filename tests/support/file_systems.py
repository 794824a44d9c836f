"""Folders on several real file systems: the one of the test's own folder, and fresh ones where this user may
mount them (an image file through a loop device, as root)."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["MADE", "can_insert", "mounted"]

# How each file system is made in an image, and how many MiB it needs.
MADE: dict[str, tuple[list[str], int]] = {
    "ext4": (["mkfs.ext4", "-q", "-b", "4096"], 48),
    "ext4 with 1 KiB blocks": (["mkfs.ext4", "-q", "-b", "1024"], 32),
    "ext3": (
        ["mkfs.ext3", "-q", "-b", "4096", "-I", "128"],
        48,
    ),  # times in whole seconds, no ranges to insert
    "xfs": (["mkfs.xfs", "-q"], 320),
    "tmpfs": ([], 32),
}


@contextmanager
def mounted(kind: str, work: Path, mib: int | None = None) -> Iterator[Path]:
    """A fresh file system's folder in `work`; the test is skipped where it cannot be made or mounted."""
    make, least_mib = MADE[kind]
    folder, image = work / "mounted", work / "image"
    folder.mkdir()
    size = f"{mib or least_mib}M"
    if make:
        if shutil.which(make[0]) is None:
            pytest.skip(f"{make[0]} is not installed")
        image.touch()
        with image.open("r+b") as file:
            file.truncate((mib or least_mib) << 20)
        subprocess.run([*make, str(image)], check=True, capture_output=True)
        mount = ["mount", "-o", "loop", str(image), str(folder)]
    else:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = subprocess.run(mount, check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{kind} cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
        image.unlink(missing_ok=True)


def can_insert(folder: Path) -> bool:
    """Whether the file system can insert a range, asked without edgecal: util-linux's fallocate."""
    probe = folder / "probe"
    probe.write_bytes(bytes(1 << 17))
    done = subprocess.run(
        ["fallocate", "--insert-range", "--offset", "0", "--length", "65536", str(probe)],
        check=False,
        capture_output=True,
    )
    probe.unlink()
    return done.returncode == 0
