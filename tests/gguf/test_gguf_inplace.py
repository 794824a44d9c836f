"""Editing in place: which way is taken, and that every other byte stays; on every file system at hand."""

import contextlib
import dataclasses
import mmap
import os
import random
import shutil
import struct
import subprocess
import sys
import textwrap
import time

import gguf
import pytest
from support.file_systems import MADE, can_insert, mounted
from support.gguf_files import bare_tensor, key, raw_gguf, write_bytes

from edgecal.errors import InputError, OutputError
from edgecal.gguf.header import FILLER_KEY, read_header
from edgecal.gguf.inplace.engine import edit_in_place
from edgecal.gguf.inplace.journal import recover
from edgecal.gguf.inplace.layout import MAX_FILLER_BYTES
from edgecal.gguf.rewrite import padding_edits, write_edited
from edgecal.gguf.values import Value, ValueType

DATA = random.Random(1).randbytes(300_000)
NEW = {"edgecal.temperature": Value.float32(1.5), "edgecal.method": Value.string("dual-align")}


def model(n_floats=70_000, *, alignment=32, extra=(), **options):
    aligned = [] if alignment == 32 else [key("general.alignment", Value.uint32(alignment))]
    keys = [
        *aligned,
        key("general.sampling.temp", Value.float32(0.7)),
        key("tokens", Value.array(ValueType.STRING, [f"token {i}" for i in range(2000)])),
        key("empty", Value.string("")),
        key("nested", Value.array(ValueType.ARRAY, [Value.array(ValueType.UINT8, [1, 2])] * 3)),
        *extra,
    ]
    data = DATA[: 4 * n_floats]
    return raw_gguf(keys, [bare_tensor("w", [n_floats])], data, alignment=alignment, **options)


MODELS = {
    "version 2": model(version=2),
    "version 3": model(),
    "alignment 8": model(alignment=8),
    "alignment 4096": model(alignment=4096),
    "alignment 65536": model(alignment=65536),
    "padding of its own": model(padding=b"\x55"),
    "bytes behind the tensors": model() + b"signature",
    "several tensors": raw_gguf(
        [key("k", Value.uint32(0))],
        [bare_tensor("a", [3]), bare_tensor("b", [70_000], offset=32)],
        DATA[: 32 + 280_000],
    ),
    "tiny": raw_gguf([key("k", Value.uint32(0))], [bare_tensor("w", [4])], bytes(16)),
    "no tensors": raw_gguf([key("k", Value.uint32(0))]),
    "no keys": raw_gguf([], [bare_tensor("w", [70_000])], DATA[:280_000]),
}


@pytest.fixture(params=["here", *MADE])
def folder(request, tmp_path):
    if request.param == "here":
        yield tmp_path
    else:
        with mounted(request.param, tmp_path) as there:
            yield there


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != "lost+found")


def edit(path, changes, remove=()):
    """The header that comes back must be the one that reading the file gives."""
    found = edit_in_place(read_header(path), changes, remove)
    assert dataclasses.asdict(found) == dataclasses.asdict(read_header(path))
    return found


def values(header):
    return {name: header.value(name) for name in header.keys if name != FILLER_KEY}


def data_of(path):
    return path.read_bytes()[read_header(path).data_start :]


def test_in_and_out_again(folder):
    """Twice in and once out gives the original bytes, whatever the file looks like."""
    inserts = can_insert(folder)
    for name, raw in MODELS.items():
        path = write_bytes(folder / "m.gguf", raw)
        inode, before = path.stat().st_ino, read_header(path)
        old = values(before)
        first = edit(path, NEW)
        assert values(first) == old | NEW, name
        assert first.keys[: len(before.keys)] == before.keys
        assert data_of(path) == raw[before.data_start :]
        second = edit(
            path, {"edgecal.temperature": Value.float32(2.5), "edgecal.note": Value.string("again")}
        )
        assert values(second)["edgecal.temperature"].python() == 2.5
        assert data_of(path) == raw[before.data_start :]
        edit(path, {}, [*NEW, "edgecal.note", FILLER_KEY])
        assert path.read_bytes() == raw or (name == "padding of its own" and not inserts), name
        assert names(folder) == ["m.gguf"]
        if inserts and name not in ("tiny", "no tensors"):
            assert path.stat().st_ino == inode, f"{name}: was copied"


def test_padding_that_is_not_zero_is_not_used_up(tmp_path):
    """A key so small that the padding has room for it: what the padding held must come back."""
    if not can_insert(tmp_path):
        return  # a copy makes padding zero; `stamp` keeps what was there in a key
    for n in range(32):
        raw = model(padding=b"\x55", extra=[key("e", Value.string("e" * n))])
        path = write_bytes(tmp_path / "m.gguf", raw)
        edit(path, {"k": Value.of(ValueType.UINT8, 1)})
        edit(path, {}, ["k", FILLER_KEY])
        assert path.read_bytes() == raw, n


def test_padding_that_was_kept_in_a_key_comes_back(tmp_path):
    """Copied to a new file, which makes the padding zero, by whole blocks; then taken out in place."""
    raw = model(padding=b"\x55", extra=[key("e", Value.string("e" * 7))])
    header = read_header(write_bytes(tmp_path / "m.gguf", raw))
    kept = padding_edits(header)
    assert kept
    room = 4096 - sum(8 + len(name) + 4 + len(value.raw) for name, value in kept.items()) - (8 + 1 + 4 + 8)
    copy = tmp_path / "copy.gguf"
    write_edited(header, copy, changes={**kept, "k": Value.string("x" * room)})
    assert read_header(copy).header_end == header.header_end + 4096
    edit(copy, {}, [*kept, "k", FILLER_KEY])
    assert copy.read_bytes() == raw


def test_nothing_is_copied_where_a_range_can_be_inserted(folder):
    path = write_bytes(folder / "m.gguf", MODELS["version 3"])
    inode = path.stat().st_ino
    found = edit(path, NEW)
    if can_insert(folder):
        block = os.statvfs(folder).f_bsize
        assert path.stat().st_ino == inode
        assert found.keys[-1] == FILLER_KEY
        assert not any(found.array(FILLER_KEY))
        assert found.file_size - len(MODELS["version 3"]) == block
        again = edit(path, {"edgecal.more": Value.string("m" * 300)})
        assert (again.file_size, again.data_start) == (found.file_size, found.data_start)
        assert again.array_length(FILLER_KEY) == found.array_length(FILLER_KEY) - 300 - 8 - 12 - 4 - 8
    else:
        assert path.stat().st_ino != inode
        assert FILLER_KEY not in found
        write_edited(
            read_header(write_bytes(folder / "o.gguf", MODELS["version 3"])), folder / "n.gguf", changes=NEW
        )
        assert path.read_bytes() == (folder / "n.gguf").read_bytes()


def test_a_value_that_keeps_its_size_is_overwritten(folder):
    raw = MODELS["version 3"]
    path = write_bytes(folder / "m.gguf", raw)
    entry = read_header(path).entries["general.sampling.temp"]
    inode = path.stat().st_ino
    with path.open("rb") as reader, mmap.mmap(reader.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        edit(path, {"general.sampling.temp": Value.float32(1.25)})
        expected = raw[: entry.value_start] + struct.pack("<f", 1.25) + raw[entry.end :]
        assert path.read_bytes() == expected == mapped[:]
    assert path.stat().st_ino == inode


@pytest.mark.parametrize("future_s", [0, 3600])
def test_whoever_read_the_file_before_an_edit_is_refused(folder, future_s):
    """However fast edits of one size follow each other, and however coarse the clock is that stamps them."""
    path = write_bytes(folder / "m.gguf", model())
    os.utime(path, ns=(0, (int(time.time()) + future_s) * 10**9))
    for value in range(20):
        before = read_header(path)
        edit(path, {"general.sampling.temp": Value.float32(value)})
        with pytest.raises(InputError, match="changed since"):
            edit_in_place(before, {"general.sampling.temp": Value.float32(-1)})
        assert path.stat().st_mtime_ns > before.identity.mtime_ns
    assert read_header(path).get("general.sampling.temp") == value


def test_many_edits_against_copies(folder):
    """A random history in place against the same history of new files: equal but for the filler."""
    chance = random.Random(5)
    path, copy = folder / "m.gguf", folder / "copy.gguf"
    original = model(padding=b"\0")
    for each in (path, copy):
        write_bytes(each, original)
    own = [f"k{i}" for i in range(6)]
    for _ in range(40):
        changes = {
            name: chance.choice(
                [Value.uint32(chance.randrange(9)), Value.string("x" * chance.choice([0, 3, 40, 900, 9000]))]
            )
            for name in chance.sample([*own, "empty", "general.sampling.temp"], chance.randrange(3))
        }
        remove = [name for name in chance.sample(own, chance.randrange(3)) if name not in changes]
        edit(path, changes, remove)
        write_edited(read_header(copy), copy, changes=changes, remove=remove)
        assert values(read_header(path)) == values(read_header(copy))
        assert [name for name in read_header(path).keys if name != FILLER_KEY] == list(read_header(copy).keys)
        assert data_of(path) == data_of(copy)
    back = {
        name: read_header(write_bytes(folder / "o.gguf", original)).value(name)
        for name in ("empty", "general.sampling.temp")
    }
    edit(path, back, [*own, FILLER_KEY])
    assert path.read_bytes() == original


def test_a_large_key_that_goes_leaves_no_large_filler(folder):
    path = write_bytes(folder / "m.gguf", MODELS["version 3"])
    edit(path, {"big": Value.string("b" * 3 * MAX_FILLER_BYTES)})
    found = edit(path, {"small": Value.string("s")}, ["big"])
    assert found.file_size <= len(MODELS["version 3"]) + MAX_FILLER_BYTES
    assert data_of(path) == data_of(write_bytes(folder / "o.gguf", MODELS["version 3"]))


OPEN = {
    "open": "file = open(sys.argv[1], 'rb')",
    "mapped": "import mmap; f = open(sys.argv[1], 'rb'); m = mmap.mmap(f.fileno(), 0, access=1); f.close()",
}


@pytest.mark.parametrize("how", OPEN)
def test_a_file_in_use_is_never_shifted(folder, how):
    raw = MODELS["version 3"]
    path = write_bytes(folder / "m.gguf", raw)
    look = "m[:]" if how == "mapped" else "file.read()"
    code = f"import sys; {OPEN[how]}; print(flush=True); input(); sys.stdout.write(({look}).hex())"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdout is not None
        reader.stdout.readline()
        inode = path.stat().st_ino
        found = edit(path, NEW)
        seen, _ = reader.communicate("\n")
    assert bytes.fromhex(seen) == raw, "the reader saw other bytes than it had opened"
    assert path.stat().st_ino != inode
    assert FILLER_KEY not in found
    assert values(found)["edgecal.temperature"].python() == 1.5


def test_opening_waits_for_the_edit(tmp_path):
    """Readers that open the file again and again, while it is edited, never see anything between."""
    path = write_bytes(tmp_path / "m.gguf", MODELS["version 3"])
    code = textwrap.dedent("""
        import sys
        seen = set()
        print(flush=True)
        while True:
            with open(sys.argv[1], "rb") as file:
                raw = file.read()
            seen.add(hash(raw))
            if b"stop" in raw:
                break
        print(len(seen))
    """)
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True
    ) as reader:
        assert reader.stdout is not None
        reader.stdout.readline()
        states = {path.read_bytes()}
        for index in range(30):
            edit(path, {"k": Value.string("x" * (1 + 700 * (index % 9)))}, [] if index % 4 else ["other"])
            states.add(path.read_bytes())
        edit(path, {"k": Value.string("stop")})
        assert int(reader.stdout.readline()) <= len(states) + 1


def test_refusals(tmp_path):
    raw = MODELS["version 3"]
    path = write_bytes(tmp_path / "m.gguf", raw)
    header = read_header(path)
    link, other = tmp_path / "link.gguf", tmp_path / "other.gguf"
    link.symlink_to(path)
    with pytest.raises(InputError, match="symbolic link"):
        edit(link, NEW)
    other.hardlink_to(path)
    with pytest.raises(InputError, match="hard links"):
        edit(path, NEW)
    other.unlink()
    store = tmp_path / "models--a--b" / "snapshots" / "c"
    store.mkdir(parents=True)
    with pytest.raises(InputError, match="Hugging Face"):
        edit(write_bytes(store / "m.gguf", raw), NEW)
    with pytest.raises(InputError, match=FILLER_KEY):
        edit(path, {FILLER_KEY: Value.uint32(1)})
    with pytest.raises(InputError, match="both set and removed"):
        edit(path, {"k": Value.uint32(1)}, ["k"])
    with pytest.raises(InputError, match="alignment"):
        edit(path, {"general.alignment": Value.uint32(64)})
    path.chmod(0o444)
    with pytest.raises(OutputError, match="read-only"):
        edit(path, NEW)
    path.chmod(0o644)
    edit_in_place(header, {}, ["not there"])
    assert path.read_bytes() == raw
    os.utime(path, ns=(1, 1))
    with pytest.raises(InputError, match="changed since"):
        edit_in_place(header, NEW)
    assert path.read_bytes() == raw


def test_an_immutable_file_or_folder(tmp_path):
    """What chattr +i protects: the file from every edit, the folder from all but overwriting a value."""
    raw = MODELS["version 3"]
    folder = tmp_path / "folder"
    folder.mkdir()
    path = write_bytes(folder / "m.gguf", raw)
    if subprocess.run(["chattr", "+i", str(path)], check=False, capture_output=True).returncode:
        path.chmod(0o444)
        folder.chmod(0o555)
    with pytest.raises(OutputError, match="read-only"):
        edit(path, NEW)
    assert path.read_bytes() == raw
    if subprocess.run(["chattr", "-i", str(path)], check=False, capture_output=True).returncode:
        path.chmod(0o644)
    else:
        subprocess.run(["chattr", "+i", str(folder)], check=True)
    try:
        with pytest.raises(OutputError) as caught:
            edit(path, NEW)
        assert "\n" not in str(caught.value)
        assert path.read_bytes() == raw
        edit(path, {"general.sampling.temp": Value.float32(3.0)})
        assert read_header(path).get("general.sampling.temp") == 3.0
    finally:
        subprocess.run(["chattr", "-i", str(folder)], check=False, capture_output=True)
        folder.chmod(0o755)


def edit_or_refused(path, raw):
    try:
        return edit(path, {"k": Value.string("x" * 20_000)})
    except OutputError as error:
        assert "No space left" in str(error)
        assert "\n" not in str(error)
        assert path.read_bytes() == raw
        assert names(path.parent) == ["fill", "m.gguf"]
        return None


@pytest.mark.parametrize("kind", ["ext4", "ext4 with 1 KiB blocks", "tmpfs"])
def test_a_full_disk(tmp_path, kind):
    """With no space, then a little more each time, until the edit goes through."""
    raw = MODELS["version 3"]
    failures = 0
    with mounted(kind, tmp_path) as folder:
        path = write_bytes(folder / "m.gguf", raw)
        with (folder / "fill").open("wb", buffering=0) as fill:
            for size in (1 << 16, 1024):
                with contextlib.suppress(OSError):
                    while fill.write(bytes(size)) == size:
                        pass
            os.fsync(fill.fileno())
        edit(path, {"general.sampling.temp": Value.float32(0.7)})
        while (found := edit_or_refused(path, raw)) is None:
            failures += 1
            os.truncate(folder / "fill", (folder / "fill").stat().st_size - 4096)
        assert values(found)["k"].python() == "x" * 20_000
        assert data_of(path) == raw[-len(DATA[:280_000]) :]
    assert failures >= 3


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, OSError(5, "Input/output error")])
@pytest.mark.parametrize("n", range(4))
def test_any_call_may_fail(tmp_path, monkeypatch, error, n):
    """The n-th flush or write fails: the old bytes are back, and no journal is left."""
    raw = MODELS["version 3"]
    path = write_bytes(tmp_path / "m.gguf", raw)
    calls = iter(range(1000))

    def counted(real):
        def call(*arguments):
            if next(calls) == 2 * n + 1:
                raise error
            return real(*arguments)

        return call

    header = read_header(path)
    monkeypatch.setattr(os, "fsync", counted(os.fsync))
    monkeypatch.setattr(os, "pwrite", counted(os.pwrite))
    with pytest.raises((OutputError, KeyboardInterrupt, MemoryError)):
        edit_in_place(header, NEW | {"general.sampling.temp": Value.float32(9.0)})
    monkeypatch.undo()
    assert path.read_bytes() == raw
    assert names(tmp_path) == ["m.gguf"]
    assert recover(path) is None


def test_other_readers_know_the_filler(tmp_path):
    path = write_bytes(tmp_path / "m.gguf", MODELS["several tensors"])
    edit(path, NEW)
    reader = gguf.GGUFReader(path)
    assert reader.fields["edgecal.temperature"].contents() == 1.5
    assert reader.tensors[1].data.tobytes() == DATA[32 : 32 + 280_000]


def test_another_users_file(tmp_path):
    """Without a lease on somebody else's file nobody can tell who has it open: it is copied, or refused."""
    if os.geteuid() != 0:
        return  # only root can make another user's file
    raw = MODELS["version 3"]
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o777)
    path = write_bytes(folder / "m.gguf", raw)
    folder.chmod(0o777)
    path.chmod(0o666)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setuid(65534)
            edit(path, NEW)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) in (0, 1)
    header = read_header(path)
    assert FILLER_KEY not in header
    assert path.read_bytes()[header.data_start :] == raw[-280_000:]
    shutil.rmtree(folder)


def test_a_file_whose_header_ends_it(folder):
    """There is nothing that could be shifted; Linux 6.18 sets the file's time before it says so."""
    for infos in ([], [bare_tensor("w", [0])]):
        path = write_bytes(folder / "m.gguf", raw_gguf([key("long", Value.string("x" * 300))], infos, b""))
        for size in (200, 5, 28, 51, 300, 5000, 70_000, 3):
            edit(path, {"long": Value.string("x" * size)})
            assert read_header(path).get("long") == "x" * size
            edit(path, {f"k{size}": Value.of(ValueType.INT64, size)})
            assert read_header(path).get(f"k{size}") == size
        assert names(folder) == ["m.gguf"]
    filler = key(FILLER_KEY, Value.array(ValueType.UINT8, [0] * 378))
    path = write_bytes(folder / "m.gguf", raw_gguf([filler, key("later", Value.string("x" * 13))]))
    edit(path, {"k15": Value.of(ValueType.INT64, -1)})
    assert read_header(path).get("k15") == -1
