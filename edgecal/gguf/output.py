"""Decides before the long run where a result may be written: the rules for names, links, caches and space.

edgecal never changes or adds files in content-addressed model caches (Ollama, Hugging Face, container images), and
edits a file in place only if it has one plain name. `placing` carries a plan out.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from edgecal.errors import InputError, OutputError
from edgecal.gguf.draft import hidden_path, place
from edgecal.gguf.shards import ShardSet, shard_name, split_name

__all__ = [
    "OutputPlan",
    "check_editable",
    "check_target",
    "content_store",
    "default_output",
    "default_projection",
    "plan_output",
]

GROWTH_BYTES = 1 << 16  # more than edgecal's keys add, padding included


@dataclass(frozen=True, eq=False)
class OutputPlan:
    """Where the result goes: `path` (the first file) and, for a split model, new names for the later shards."""

    shards: ShardSet
    path: Path
    siblings: tuple[Path, ...]
    in_place: bool
    force: bool


def plan_output(
    chat: ShardSet,
    output: Path | None,
    *,
    in_place: bool = False,
    force: bool = False,
    inputs: Collection[Path] = (),
    room: bool = True,
) -> OutputPlan:
    """Decides where the edited `chat` model goes, and checks that it can go there.

    Without `output`: `<name>.calibrated.gguf` beside the chat model, for a split model
    `<prefix>.calibrated-00001-of-0000N.gguf` with siblings to match. `inputs` are all files that must survive (base
    model, its shards, data files; the chat model's own are added). With `room` false free space is not checked here,
    for short commands in place, which seldom need any.

    InputError: `output` is an input (by any link), a directory, a symbolic link, inside a model cache,
    existing without `force`, in a folder that does not exist, or named so that llama.cpp would not find a
    split model's other shards; in place: the chat model is a symbolic link, has other hard links, lies in a
    model cache, or is an input besides. OutputError: the folder cannot be written or has too little space.
    """
    if in_place:
        if output is not None:
            raise InputError("an output path and editing in place exclude each other: give one")
        plan = OutputPlan(chat, chat.path, (), True, True)
        _check_in_place(chat.path, inputs)
    else:
        path = default_output(chat) if output is None else Path(output)
        plan = OutputPlan(chat, path, _sibling_paths(chat, path), False, force)
        everything = (*inputs, *chat.paths)
        check_target(path, everything, force)
        for sibling in plan.siblings:
            _check_sibling(sibling, everything, force)
    if room:
        _check_room(plan)
    return plan


def plan_named_output(
    shards: ShardSet,
    output: str | Path | None,
    *,
    in_place: bool,
    force: bool,
    inputs: Collection[Path] = (),
    room: bool = True,
) -> OutputPlan:
    """As `plan_output`, but without a default name: InputError also if there is neither an `output` nor `in_place`."""
    if output is None and not in_place:
        raise InputError(f"{shards.path}: give --output for a new file, or --in-place to change this one")
    path = None if output is None else Path(output)
    return plan_output(shards, path, in_place=in_place, force=force, inputs=inputs, room=room)


def default_output(chat: ShardSet) -> Path:
    """The default name of a result, beside the chat model; checks nothing."""
    if chat.prefix is not None:
        return chat.path.with_name(shard_name(f"{chat.prefix}.calibrated", 0, chat.count))
    return chat.path.with_name(f"{_stem(chat)}.calibrated.gguf")


def default_projection(chat: ShardSet) -> Path:
    """The default name of a BaseCal map, beside the chat model; checks nothing."""
    return chat.path.with_name(f"{chat.prefix or _stem(chat)}.basecal.gguf")


def _stem(chat: ShardSet) -> str:
    name = chat.path.name
    return name[:-5] if name.lower().endswith(".gguf") and len(name) > 5 else name


def _sibling_paths(chat: ShardSet, path: Path) -> tuple[Path, ...]:
    if chat.prefix is None:
        return ()
    named = split_name(path.name)
    if named is None or named[1:] != (0, chat.count):
        stem = path.name[:-5] if path.name.lower().endswith(".gguf") else path.name
        better = shard_name(stem if named is None else named[0], 0, chat.count)
        raise InputError(
            f"{path}: llama.cpp would not find the model's other {chat.count - 1} shards; "
            f"name the output {path.with_name(better)}"
        )
    return tuple(path.with_name(shard_name(named[0], index, chat.count)) for index in range(1, chat.count))


def _check_in_place(path: Path, inputs: Collection[Path]) -> None:
    check_editable(path)
    for other in inputs:
        if _is_same(path, other):
            raise InputError(f"{path}: is also read as {other}; give --output instead of editing in place")


def check_target(path: Path, inputs: Collection[Path], force: bool) -> None:
    """InputError if a new file must not have this path; the reasons are those of `plan_output`."""
    _check_folder(path)
    store = content_store(path)
    if store is not None:
        raise InputError(f"{path}: lies in {store}, which must not be written to; give --output outside it")
    if path.is_symlink():
        raise InputError(f"{path}: a symbolic link to {path.readlink()}; give the path of a plain file")
    if path.is_dir():
        raise InputError(f"{path}: is a directory; give the path of a file")
    for other in inputs:
        if _is_same(path, other):
            raise InputError(f"{path}: is an input ({other}) and would be overwritten; choose another output")
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is not a regular file; choose another output")
    if path.exists() and not force:
        raise InputError(f"{path}: exists; give --force to overwrite it, or another --output")


def _check_sibling(path: Path, inputs: Collection[Path], force: bool) -> None:
    """Refuses a sibling that is the input itself; it may be a link to the input, made by an earlier run."""
    if any(place(path) in (place(other), Path(os.path.realpath(other))) for other in inputs):
        raise InputError(f"{path}: is an input and would be overwritten; choose another output")
    if os.path.lexists(path):
        if not path.is_symlink() and not path.is_file():
            raise InputError(f"{path}: is not a regular file; choose another output")
        if not force:
            raise InputError(f"{path}: exists; give --force to overwrite it, or another --output")


def _check_folder(path: Path) -> None:
    try:
        mode = path.parent.stat().st_mode
    except (OSError, ValueError):
        raise InputError(f"{path}: its folder {path.parent} does not exist or cannot be entered") from None
    if not stat.S_ISDIR(mode):
        raise InputError(f"{path}: {path.parent} is not a folder")
    if not path.name or "\0" in path.name or len(os.fsencode(path.name)) > 255:
        raise InputError(f"{path}: not a file name that can be written")


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except (OSError, ValueError):
        return False  # one of them does not exist


def _check_room(plan: OutputPlan) -> None:
    import shutil

    folder = plan.path.parent
    probe = hidden_path(plan.path)
    try:
        descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.close(descriptor)
        probe.unlink()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be written to: {error.strerror}; choose another output"
        ) from error
    needed = plan.shards.header.file_size + GROWTH_BYTES
    if free < needed:
        why = " (editing in place writes a copy first)" if plan.in_place else ""
        raise OutputError(f"{folder}: not enough space: {needed} bytes are needed{why}, {free} are free")


_OLLAMA = re.compile(r"sha256[-:][0-9a-f]{64}")
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REPOSITORY = re.compile(r"(models|datasets|spaces)--.+")


def content_store(path: Path) -> str | None:
    """The name of the cache that `path` lies in, as a noun for a message, or None.

    The path is checked as given and with symbolic links resolved; it need not exist.
    """
    try:
        absolute = path.absolute()
    except OSError:
        return None  # the working directory is gone, and writing will report that
    # Not Path.resolve, which in some versions of Python fails on links that lead to themselves.
    return _store_of(absolute) or _store_of(Path(os.path.realpath(absolute)))


def _store_of(path: Path) -> str | None:
    parts = path.parts
    for index, part in enumerate(parts[1:-1], start=1):
        following = parts[index + 1]
        if part == "blobs":
            if _OLLAMA.fullmatch(following):
                return "Ollama's model store"
            if _REPOSITORY.fullmatch(parts[index - 1]):
                return "the Hugging Face cache"
            if _DIGEST.fullmatch(following):
                return "a content-addressed store"
            if following == "sha256":
                return "a container image store"
            if _holds_blobs(Path(*parts[: index + 1])):
                return "a content-addressed store"
        if part == "snapshots":
            if _REPOSITORY.fullmatch(parts[index - 1]):
                return "the Hugging Face cache"
            if _holds_blobs(Path(*parts[:index], "blobs")):
                return "a content-addressed store"
    return None


def _holds_blobs(folder: Path) -> bool:
    """Whether some of a folder's names are digests; false if the folder cannot be listed."""
    try:
        names = [entry.name for entry, _ in zip(folder.iterdir(), range(16), strict=False)]
    except OSError:
        return False
    return any(_OLLAMA.fullmatch(name) or _DIGEST.fullmatch(name) for name in names)


def check_editable(path: Path) -> None:
    """Whether a file may be edited in place at all.

    InputError: a symbolic link, a file with other hard links, or one in a model cache. OutputError: read-only.
    """
    store = content_store(path)
    if store is not None:
        raise InputError(f"{path}: lies in {store}, whose files must not change; give --output outside it")
    if path.is_symlink():
        raise InputError(
            f"{path}: a symbolic link to {path.readlink()}; editing in place changes only plain files: "
            "give the file itself, or --output"
        )
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"{path}: cannot be opened: {error.strerror}") from error
    if status.st_nlink > 1:
        raise InputError(
            f"{path}: has {status.st_nlink} names (hard links), and editing it in place would separate them; give "
            "--output"
        )
    if not stat.S_IMODE(status.st_mode) & 0o222 or not os.access(path, os.W_OK):
        raise OutputError(f"{path}: is read-only; make it writable, or give --output")
