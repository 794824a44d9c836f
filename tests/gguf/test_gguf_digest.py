"""The model's identity is the SHA-256 of its bytes."""

import hashlib

import pytest
from support.gguf_files import bare_tensor, raw_gguf, write_bytes
from support.tiny_models import write_tiny_llama

from edgecal.errors import InputError
from edgecal.gguf import find_shards, sha256_of


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
    with pytest.raises(InputError, match="changed"):
        sha256_of(shards)
    path.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        sha256_of(shards)
