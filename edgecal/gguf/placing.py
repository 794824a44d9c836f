"""Carries out what `output` planned: writes or links a model's files, and names them together.

If anything fails, the previous state is restored; the first file, the one that llama.cpp is given, gets its name last.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgecal.errors import InputError, OutputError
from edgecal.gguf.copying import copy_span
from edgecal.gguf.draft import Draft, drafting, hidden_path, output_errors, remove_stale
from edgecal.gguf.inplace.engine import edit_in_place
from edgecal.gguf.output import OutputPlan
from edgecal.gguf.rewrite import (
    KeyList,
    edited_keys,
    read_tensor,
    restored_padding,
    rewritten_draft,
)
from edgecal.gguf.shards import ShardSet
from edgecal.gguf.spans import Progress, data_digest
from edgecal.gguf.values import Value

if TYPE_CHECKING:
    from edgecal.results.fitting import SiblingFile

__all__ = [
    "PlacedSibling",
    "WrittenOutput",
    "placed_siblings",
    "read_tensors",
    "write_output",
    "write_shards",
]


How = Literal["hard link", "symbolic link", "copy", "already there", "written"]


@dataclass(frozen=True)
class PlacedSibling:
    """A later shard under its new name, and whether it was linked or copied."""

    source: Path
    path: Path
    how: How


@contextlib.contextmanager
def placed_siblings(pairs: Sequence[tuple[Path, Path]]) -> Iterator[tuple[PlacedSibling, ...]]:
    """Creates a file for each (existing shard, new name): a hard link, else a symbolic link, else a copy.

    All are first made under hidden names, then renamed. If that fails, or the body raises, they are removed and the
    files that they replaced are put back. A name that already is the same file is left alone. OutputError if the file
    system refuses.
    """
    undo = contextlib.ExitStack()
    cleanup = contextlib.ExitStack()
    with cleanup, undo:
        staged: list[tuple[Path | None, PlacedSibling]] = []
        for source, path in pairs:
            with output_errors(path):
                if _is_same_file(path, source):
                    staged.append((None, PlacedSibling(source, path, "already there")))
                    continue
                remove_stale(path)
                hidden = hidden_path(path)
                cleanup.callback(hidden.unlink, missing_ok=True)
                staged.append((hidden, PlacedSibling(source, path, _make(source, hidden))))
        for made, sibling in staged:
            if made is not None:
                with output_errors(sibling.path):
                    _make_way(sibling.path, undo, cleanup)
                    made.replace(sibling.path)
        yield tuple(sibling for _, sibling in staged)
        undo.pop_all()


def _is_same_file(path: Path, source: Path) -> bool:
    return not path.is_symlink() and path.exists() and path.samefile(source)


def _make(source: Path, path: Path) -> How:
    """Makes `path` another name of `source`, or a copy where the file system has no links."""
    real = source.resolve()
    try:
        os.link(real, path)
    except OSError:
        pass  # another file system, or links are not allowed here
    else:
        return "hard link"
    same_folder = source.parent.resolve() == path.parent.resolve()
    try:
        path.symlink_to(source.name if same_folder else source.absolute())
    except OSError:
        _copy(real, path)
        return "copy"
    return "symbolic link"


def _copy(source: Path, path: Path) -> None:
    with source.open("rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        with output_errors(path, status.st_size), drafting(path, like=status, source=source) as draft:
            copy_span(file.fileno(), 0, status.st_size, draft.descriptor)
            draft.publish(overwrite=False)


def _make_way(path: Path, undo: contextlib.ExitStack, cleanup: contextlib.ExitStack) -> None:
    """Frees a name for a new file; `undo` puts back what was there, or removes the new file."""
    if os.path.lexists(path):
        backup = hidden_path(path)
        cleanup.callback(backup.unlink, missing_ok=True)
        path.replace(backup)
        undo.callback(backup.replace, path)
    else:
        undo.callback(path.unlink, missing_ok=True)


@dataclass(frozen=True)
class WrittenOutput:
    """What was written: the first file, and how each later shard of a split model was placed; none in place."""

    path: Path
    siblings: tuple[PlacedSibling, ...]

    def describe_siblings(self) -> list[SiblingFile]:
        """`{"path": ..., "how": ...}` for each later shard; empty for a single file and in place."""
        return [{"path": str(sibling.path), "how": sibling.how} for sibling in self.siblings]


def write_output(
    plan: OutputPlan,
    *,
    changes: Mapping[str, Value],
    remove: Collection[str] = (),
    verify: bool = False,
    progress: Progress | None = None,
) -> WrittenOutput:
    """Carries the plan out: the edited first file, and the later shards under their new names.

    With `verify` the tensor data are compared with the original's. After an edit in place it is too late to undo that,
    so a difference is only reported. The first file is complete and checked before siblings are made, and gets its name
    after them; if anything fails, the previous state is restored. Errors as for `write_edited`.
    """
    header = plan.shards.header
    if plan.in_place:
        before = data_digest(plan.path, header.data_start) if verify else b""
        after = edit_in_place(header, changes, remove, progress=progress)
        if verify and data_digest(plan.path, after.data_start) != before:
            raise OutputError(f"{plan.path}: the tensor data have changed; restore the file from a backup")
        return WrittenOutput(plan.path, ())
    return write_shards(
        plan,
        keys=edited_keys(header, changes, remove),
        padding=restored_padding(header, remove),
        verify=verify,
        progress=progress,
    )


Inspect = Callable[[Sequence[Path], Draft], None]


def read_tensors(shards: ShardSet, names: Sequence[str]) -> dict[str, bytes]:
    """The bytes of the named tensors, from any shard; InputError if one is missing."""
    found = {}
    for name in names:
        path, _ = shards.tensor(name)
        found[name] = read_tensor(shards.headers[shards.paths.index(path)], name)
    return found


def write_shards(
    plan: OutputPlan,
    *,
    keys: KeyList,
    tensors: Mapping[str, bytes] | None = None,
    padding: bytes = b"",
    verify: bool = False,
    progress: Progress | None = None,
    inspect: Inspect | None = None,
) -> WrittenOutput:
    """Carries a plan out: the first file with exactly `keys`, each changed shard with its `tensors`.

    All new files are complete, flushed and read back before the first gets its name, and the model's first file
    is the last to get its own; if anything fails, the previous state is restored. Shards that do not change are linked
    under their new names. `inspect(paths, first)`, called before anything gets its name, gets all files of the new
    model in order and the draft of the first, and may raise.

    Raises
    ------
    InputError, OutputError: as `rewritten_draft`; also where several files would have to change in place, which
    no file system does at once.
    """
    shards, given = plan.shards, tensors or {}
    parts = [
        {name: data for name, data in given.items() if name in header.tensors} for header in shards.headers
    ]
    changed = [index for index, part in enumerate(parts) if part and index]
    if plan.in_place and changed:
        raise InputError(
            f"{shards.path}: {len(changed) + 1} of its {shards.count} files would change, which in place cannot happen "
            "at once: a power cut in between would leave a mixture; give --output"
        )
    targets = [plan.path, *(plan.siblings or shards.paths[1:])]
    with contextlib.ExitStack() as stack:
        drafts: dict[int, Draft] = {}
        for index in (*changed, 0):
            header = shards.headers[index]
            drafts[index] = stack.enter_context(
                rewritten_draft(
                    header,
                    targets[index],
                    keys=[(name, None) for name in header.keys] if index else keys,
                    tensors=parts[index],
                    padding=b"" if index else padding,
                    verify=verify,
                    progress=progress,
                )
            )
        if inspect is not None:
            inspect(
                [drafts[index].path if index in drafts else path for index, path in enumerate(shards.paths)],
                drafts[0],
            )
        linked = [index for index in range(1, shards.count) if index not in drafts] if plan.siblings else []
        pairs = [(shards.paths[index], targets[index]) for index in linked]
        if not plan.force:
            for target in targets if plan.siblings else targets[:1]:
                if os.path.lexists(target):
                    raise OutputError(
                        f"{target}: appeared while the result was written; nothing was replaced"
                    )
        with placed_siblings(pairs) as siblings, _named([drafts[index] for index in changed]):
            _publish(drafts[0], plan)
    linked_as = {sibling.path: sibling for sibling in siblings}
    renamed = zip(shards.paths[1:], plan.siblings, strict=False)  # a single file, or in place: no siblings
    return WrittenOutput(
        plan.path,
        tuple(linked_as.get(path, PlacedSibling(source, path, "written")) for source, path in renamed),
    )


def _publish(first: Draft, plan: OutputPlan) -> None:
    """Gives the first file its name. The model is then complete, and nothing is undone even if the folder cannot be
    flushed, though the name may not survive a power cut."""
    with output_errors(plan.path):
        try:
            first.publish(overwrite=plan.force)
        except OSError:
            if os.path.lexists(first.path):
                raise


@contextlib.contextmanager
def _named(drafts: Sequence[Draft]) -> Iterator[None]:
    """Gives the drafts their names; if the body raises, restores what was there before."""
    with contextlib.ExitStack() as cleanup, contextlib.ExitStack() as undo:
        for draft in drafts:
            with output_errors(draft.target):
                _make_way(draft.target, undo, cleanup)
                draft.publish(overwrite=False)
        yield
        undo.pop_all()
