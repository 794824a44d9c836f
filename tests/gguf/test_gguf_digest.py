"""The model's identities: the SHA-256 of its bytes, and of what llama.cpp computes with."""

import hashlib
import random
import struct
import time
import tracemalloc

import pytest
from support.bake_files import SHAPES
from support.gguf_files import bare_key, bare_tensor, key, raw_gguf, write_bytes
from support.tiny_models import write_tiny_llama

from edgecal.baking.bake import bake as bake_model
from edgecal.baking.bake import unbake as unbake_model
from edgecal.errors import InputError
from edgecal.gguf.hashes import content_sha256, sha256_of
from edgecal.gguf.header import read_header
from edgecal.gguf.inplace.engine import edit_in_place
from edgecal.gguf.rewrite import write_edited
from edgecal.gguf.shards import find_shards
from edgecal.gguf.values import Value, ValueType
from edgecal.stamping.changes import calibration_edits, strip_edits
from edgecal.stamping.record import CalibrationRecord

KEYS = [
    key("general.architecture", Value.string("llama")),
    key("general.name", Value.string("Tiny")),
    key("llama.rope.freq_base", Value.float32(10000.0)),
    key("tokenizer.ggml.tokens", Value.array(ValueType.STRING, [f"token {i}" for i in range(2000)])),
]
DATA = random.Random(0).randbytes(1024)
# (name, ne, type id, offset); sizes 256, 512 and 34 bytes.
TENSORS = [("a", [8, 8], 0, 0), ("b", [128], 0, 256), ("c", [32], 8, 768)]


def model(path, keys=KEYS, tensors=TENSORS, data=DATA, **how):
    return write_bytes(path, raw_gguf(keys, [bare_tensor(*tensor) for tensor in tensors], data, **how))


def content(path):
    return content_sha256(find_shards(path))


def test_one_file(tmp_path):
    data = raw_gguf([], [bare_tensor("w", [1 << 20])], bytes(range(256)) * (1 << 14))
    shards = find_shards(write_bytes(tmp_path / "m.gguf", data))
    seen = []
    assert sha256_of(shards, lambda *counts: seen.append(counts)) == hashlib.sha256(data).hexdigest()
    assert seen[-1] == (len(data), len(data))
    assert len(seen) >= 4


def test_shards_in_order(tmp_path):
    shards = find_shards(write_tiny_llama(tmp_path / "t.gguf", seed=1, n_layer=1, split_max_tensors=4))
    whole = b"".join(path.read_bytes() for path in shards.paths)
    assert shards.count > 1
    assert sha256_of(shards) == hashlib.sha256(whole).hexdigest()


def test_a_file_that_changed_is_an_input_error(tmp_path):
    path = write_bytes(tmp_path / "m.gguf", raw_gguf([], [bare_tensor("w", [1])], bytes(4)))
    shards = find_shards(path)
    path.write_bytes(path.read_bytes() + b"more")
    for digest in (sha256_of, content_sha256):
        with pytest.raises(InputError, match="changed"):
            digest(shards)
    path.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        sha256_of(shards)
    with pytest.raises(InputError, match="no such file"):
        content_sha256(shards)


@pytest.mark.parametrize("change", ["longer", "shorter", "rewritten"])
def test_a_file_that_changes_while_it_is_read_is_an_input_error(tmp_path, change):
    size = 1 << 23
    path = write_bytes(tmp_path / "m.gguf", raw_gguf([], [bare_tensor("w", [size // 4])], bytes(size)))
    shards = find_shards(path)

    def meddle(done, _total):
        time.sleep(0.01)  # the clock of a file system has ticked
        with path.open("r+b") as file:
            if change == "shorter":
                file.truncate(done)
            else:
                file.seek(0, 2 if change == "longer" else 0)
                file.write(b"GGUF")

    with pytest.raises(InputError, match="changed while it was read"):
        content_sha256(shards, meddle)


def test_progress_counts_every_byte(tmp_path):
    whole = write_tiny_llama(tmp_path / "t.gguf", seed=1, n_layer=2)
    split = write_tiny_llama(tmp_path / "s.gguf", seed=1, n_layer=2, split_max_tensors=4)
    big = model(
        tmp_path / "big.gguf", tensors=[*TENSORS, ("d", [1 << 20], 0, 832)], data=DATA[:832] + bytes(5 << 20)
    )
    for path in (whole, split, big, model(tmp_path / "m.gguf")):
        shards = find_shards(path)
        seen = []
        content_sha256(shards, lambda *counts, seen=seen: seen.append(counts))
        assert seen[-1] == (shards.n_bytes, shards.n_bytes)
        assert seen == sorted(seen)


def test_the_digest_written_down(tmp_path):
    """A kept digest must mean the same in the next version, or CONTENT_REVISION has to grow."""

    def sized(raw):
        return struct.pack("<Q", len(raw)) + raw

    path = model(tmp_path / "m.gguf")
    header = read_header(path)
    wanted = hashlib.sha256(b"edgecal content 1\n" + struct.pack("<Q", len(KEYS)))
    for name in sorted(header.keys):
        value = header.value(name)
        wanted.update(sized(name.encode()) + struct.pack("<I", value.type) + sized(value.raw))
    wanted.update(struct.pack("<Q", len(TENSORS)))
    for (name, ne, type_id, offset), size in zip(TENSORS, (256, 512, 34), strict=True):
        wanted.update(sized(name.encode()) + struct.pack(f"<IQ{len(ne)}Q", type_id, len(ne), *ne))
        wanted.update(struct.pack("<Q", size) + hashlib.sha256(DATA[offset : offset + size]).digest())
    assert content(path) == wanted.hexdigest()
    assert content(path) == "18c1c4a1c843f9e0bb85cb49f31cfb023a8931ddd281f326dee663c1f925a66b"


def test_what_is_not_computed_with_does_not_count(tmp_path):
    wanted = content(model(tmp_path / "m.gguf"))
    sampling = [
        key("general.sampling.temp", Value.float32(0.6)),
        key("general.sampling.top_k", Value.uint32(40)),
    ]
    ours = [key("edgecal.temperature", Value.float32(2.0)), bare_key("edgecal.filler", 8, bytes(8))]
    variants = {
        "sampling": model(tmp_path / "1.gguf", [*KEYS, *sampling]),
        "edgecal": model(tmp_path / "2.gguf", [*ours, *KEYS]),
        "order of keys": model(tmp_path / "3.gguf", KEYS[::-1]),
        "order of tensors": model(tmp_path / "4.gguf", tensors=TENSORS[::-1]),
        "padding": model(tmp_path / "5.gguf", padding=b"\x07"),
        "tail": model(tmp_path / "6.gguf", data=DATA + b"tail"),
        "version": model(tmp_path / "7.gguf", version=2),
        "alignment": model(
            tmp_path / "8.gguf", [*KEYS, key("general.alignment", Value.uint32(128))], alignment=128
        ),
        "place of tensors": model(
            tmp_path / "9.gguf",
            tensors=[("a", [8, 8], 0, 64), ("b", [128], 0, 512), ("c", [32], 8, 0)],
            data=DATA[768:802].ljust(64) + DATA[:256].ljust(448) + DATA[256:768],
        ),
    }
    assert {name: content(path) for name, path in variants.items()} == dict.fromkeys(variants, wanted)
    assert len({sha256_of(find_shards(path)) for path in variants.values()}) == len(variants)


def test_everything_else_counts(tmp_path):
    other = random.Random(1)
    tokens = [f"token {i}" for i in range(1999)] + ["token X"]
    variants = [
        model(tmp_path / "0.gguf"),
        model(tmp_path / "1.gguf", [*KEYS, key("llama.attention.scale", Value.float32(0.1))]),
        model(tmp_path / "2.gguf", KEYS[1:]),
        model(tmp_path / "3.gguf", [*KEYS[:2], key("llama.rope.freq_base", Value.float32(10000.001)), KEYS[3]]),
        model(tmp_path / "4.gguf", [*KEYS[:2], key("llama.rope.freq_base", Value.uint32(0x461C4000)), KEYS[3]]),
        model(tmp_path / "5.gguf", [*KEYS[:3], key("tokenizer.ggml.tokens", Value.array(ValueType.STRING, tokens))]),
        model(tmp_path / "6.gguf", tensors=[("A", [8, 8], 0, 0), *TENSORS[1:]]),
        model(tmp_path / "7.gguf", tensors=[("a", [64], 0, 0), *TENSORS[1:]]),
        model(tmp_path / "8.gguf", tensors=[("a", [8, 8], 26, 0), *TENSORS[1:]]),
        model(tmp_path / "9.gguf", tensors=[("a", [4, 16], 0, 0), *TENSORS[1:]]),
        model(tmp_path / "9 transposed.gguf", tensors=[("a", [16, 4], 0, 0), *TENSORS[1:]]),
        model(tmp_path / "10.gguf", tensors=TENSORS[:2]),
        model(tmp_path / "11.gguf", tensors=[("b", [8, 8], 0, 0), ("a", [128], 0, 256), TENSORS[2]]),
    ]  # fmt: skip
    for at in (0, 255, 256, 767, 768, 801, *(other.randrange(802) for _ in range(20))):
        data = bytearray(DATA)
        data[at] ^= 1 << other.randrange(8)
        variants.append(model(tmp_path / f"byte {at}.gguf", data=bytes(data)))
    digests = {path.name: content(path) for path in variants}
    assert len(set(digests.values())) == len(digests)
    padded = bytearray(DATA)
    padded[810] ^= 1  # behind the last tensor
    assert content(model(tmp_path / "padded.gguf", data=bytes(padded))) == digests["0.gguf"]


def test_a_stamped_and_a_stripped_file_are_the_same_model(tmp_path):
    path = write_tiny_llama(tmp_path / "t.gguf", seed=1, n_layer=2, metadata={"general.sampling.temp": 0.7})
    wanted = content(path)
    record = CalibrationRecord(2.0, (1.9, 2.1), "daca")
    changes, remove = calibration_edits(read_header(path), record)
    stamped = tmp_path / "stamped.gguf"
    write_edited(read_header(path), stamped, changes=changes, remove=remove)
    assert stamped.read_bytes() != path.read_bytes()
    assert content(stamped) == wanted
    changes, remove = strip_edits(read_header(stamped))
    edit_in_place(read_header(stamped), changes, remove)
    assert content(stamped) == wanted
    edit_in_place(read_header(stamped), {"llama.rope.freq_base": Value.float32(5000.0)}, ())
    assert content(stamped) != wanted


def test_a_split_model_is_the_same_model(tmp_path):
    whole = write_tiny_llama(tmp_path / "t.gguf", seed=1, n_layer=2)
    split = write_tiny_llama(tmp_path / "s.gguf", seed=1, n_layer=2, split_max_tensors=4)
    assert find_shards(split).count > 2
    assert content(split) == content(whole)
    last = find_shards(split).paths[-1]
    data = bytearray(last.read_bytes())
    data[next(iter(read_header(last).tensors.values())).data_offset] ^= 1
    last.write_bytes(data)
    assert content(split) != content(whole)


def test_a_baked_file_is_another_model_until_it_is_unbaked(tmp_path):
    path = write_bytes(tmp_path / "m.gguf", SHAPES["stamped"])
    wanted = content(path)
    baked = bake_model(path, tmp_path / "b.gguf", check=False).output
    assert content(baked) != wanted
    unbaked = unbake_model(baked, tmp_path / "u.gguf").output
    assert content(unbaked) == wanted


def test_tensors_that_overlap_are_refused(tmp_path):
    path = model(tmp_path / "m.gguf", tensors=[("a", [8, 8], 0, 0), ("b", [8, 8], 0, 224)])
    with pytest.raises(InputError, match="overlaps"):
        content(path)


def test_a_type_that_is_not_known_counts_with_its_bytes(tmp_path):
    tensors = [("a", [8, 8], 99, 0), ("b", [128], 0, 256)]
    first = content(model(tmp_path / "m.gguf", tensors=tensors))
    data = bytearray(DATA)
    data[100] ^= 1
    assert content(model(tmp_path / "n.gguf", tensors=tensors, data=bytes(data))) != first


def test_memory_does_not_grow_with_the_file(tmp_path):
    size = 1 << 26
    path = tmp_path / "m.gguf"
    head = raw_gguf(KEYS, [bare_tensor("w", [size // 4])])
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + size)
    shards = find_shards(path)
    tracemalloc.start()
    try:
        whole, _ = sha256_of(shards), content_sha256(shards)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert whole == hashlib.sha256(path.read_bytes()).hexdigest()
    assert peak < 8 << 20
