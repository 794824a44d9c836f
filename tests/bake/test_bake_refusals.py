"""What cannot be baked, each by name and with the reason."""

import re
from pathlib import Path

import pytest
from support.bake_files import NORM
from support.gguf_files import bare_tensor, key, raw_gguf, write_bytes

from edgecal.architectures import FAMILIES, REFUSALS
from edgecal.baking import recipe
from edgecal.baking.recipe import find_recipe, is_known, why_check
from edgecal.errors import InputError
from edgecal.gguf.shards import find_shards
from edgecal.gguf.values import Value, ValueType

NORM_INFO = bare_tensor("output_norm.weight", [4])
HEAD_INFO = bare_tensor("output.weight", [4, 3], offset=64)


def model(tmp_path, architecture, *keys, tensors=(NORM_INFO, HEAD_INFO)):
    everything = [key("general.architecture", Value.string(architecture)), *keys]
    return find_shards(write_bytes(tmp_path / "m.gguf", raw_gguf(everything, tensors, NORM + bytes(200))))


def refused(shards, message, tau=2.0):
    with pytest.raises(InputError, match=message) as caught:
        find_recipe(shards, tau)
    text = str(caught.value)
    assert text.startswith(str(shards.path)) and "\n" not in text


@pytest.mark.parametrize(
    "architecture, reason",
    [
        ("olmo", "its final norm has no weight"),
        ("hrm_text", "its final norm has no weight"),
        ("qwen4exp", "no weight divides all logits"),
        ("gemma3n", "its soft cap of 30 is fixed"),
        ("bert", "it is an encoder"),
        ("t5", "does not predict one next token"),
        ("dream", "it fills in masked tokens"),
        ("llada", "it fills in masked tokens"),
        ("eagle3", "only drafts for another model"),
        ("gemma4-assistant", "only drafts for another model"),
        ("wavtokenizer-dec", "its output is audio"),
    ],
)
def test_architectures(tmp_path, architecture, reason):
    refused(model(tmp_path, architecture), f"architecture {architecture} cannot be baked: .*{reason}")


def test_what_is_known():
    assert is_known("llama") and not is_known("unheard-of")
    assert all(is_known(name) for name in recipe._REFUSED)


def test_a_norm_without_weight(tmp_path):
    refused(model(tmp_path, "llama", tensors=(HEAD_INFO,)), "its final norm has no weight")


def test_the_embeddings_norm_is_the_final_one_in_lfm2_only(tmp_path):
    tensors = (bare_tensor("token_embd_norm.weight", [4]), HEAD_INFO)
    assert find_recipe(model(tmp_path, "lfm2", tensors=tensors), 2.0).tensors == ("token_embd_norm.weight",)
    refused(model(tmp_path, "bloom", tensors=tensors), "its final norm has no weight")
    both = (*tensors, bare_tensor("output_norm.weight", [4], offset=128))
    assert find_recipe(model(tmp_path, "lfm2", tensors=both), 2.0).tensors == ("token_embd_norm.weight",)
    assert find_recipe(model(tmp_path, "rwkv6", tensors=both), 2.0).tensors == ("output_norm.weight",)


@pytest.mark.parametrize("type_id, name", [(1, "F16"), (30, "BF16")])
@pytest.mark.parametrize("tensor", ["output_norm.weight", "output_norm.bias", "output.bias"])
def test_vectors_that_would_lose_bits(tmp_path, type_id, name, tensor):
    """llama.cpp's CPU code aborts on such a norm anyway."""
    tensors = [HEAD_INFO] if tensor == "output_norm.weight" else [NORM_INFO, HEAD_INFO]
    tensors.append(bare_tensor(tensor, [4], type_id, offset=128))
    shards = model(tmp_path, "llama", tensors=tensors)
    refused(shards, re.escape(f"{tensor} is {name}, expected F32"))


def test_no_head(tmp_path):
    refused(model(tmp_path, "llama", tensors=(NORM_INFO,)), r"neither output\.weight nor token_embd\.weight")


def test_no_architecture(tmp_path):
    data = raw_gguf([key("a", Value.uint32(1))], [NORM_INFO, HEAD_INFO], bytes(200))
    refused(find_shards(write_bytes(tmp_path / "m.gguf", data)), r"general\.architecture is missing")


def test_an_adapter(tmp_path):
    refused(
        model(tmp_path, "llama", key("general.type", Value.string("adapter"))), "general.type is 'adapter'"
    )


def test_embeddings_and_classifiers(tmp_path):
    pooled = model(tmp_path, "qwen3", key("qwen3.pooling_type", Value.uint32(3)))
    refused(pooled, "architecture qwen3 cannot be baked: it pools its hidden states")
    classifier = (NORM_INFO, HEAD_INFO, bare_tensor("cls.output.weight", [4, 2], offset=128))
    refused(model(tmp_path, "qwen3", tensors=classifier), "it holds a classifier")
    for not_pooled in (0, 2**32 - 1):  # none, and llama.cpp's "not said"
        plain = model(tmp_path, "qwen3", key("qwen3.pooling_type", Value.uint32(not_pooled)))
        assert find_recipe(plain, 2.0).tensors == ("output_norm.weight",)


@pytest.mark.parametrize(
    "keys, allowed",
    [
        ([key("nanbeige.num_loops", Value.uint32(2))], False),
        ([key("nanbeige.num_loops", Value.uint32(1))], True),
        ([], True),
        (
            [
                key("nanbeige.num_loops", Value.uint32(2)),
                key("nanbeige.skip_loop_final_norm", Value.of(ValueType.BOOL, True)),
            ],
            True,
        ),
    ],
)
def test_a_norm_that_is_also_applied_in_between(tmp_path, keys, allowed):
    shards = model(tmp_path, "nanbeige", *keys)
    if allowed:
        assert find_recipe(shards, 2.0).tensors == ("output_norm.weight",)
    else:
        refused(shards, "also applied between its loops")


@pytest.mark.parametrize("name", ["logit_scale", "final_logit_softcapping"])
def test_a_key_of_another_type_than_llama_cpp_reads(tmp_path, name):
    keys = [key(f"grok.{name}", Value.of(ValueType.FLOAT64, 2.0))]
    refused(model(tmp_path, "grok", *keys), rf"grok\.{name} is FLOAT64, expected FLOAT32")


@pytest.mark.parametrize("architecture, value, tau", [("granite", 3e38, 2.0), ("command-r", 1e-44, 30.0)])
def test_a_scale_that_float32_would_not_hold(tmp_path, architecture, value, tau):
    shards = model(tmp_path, architecture, key(f"{architecture}.logit_scale", Value.float32(value)))
    with pytest.raises(InputError, match=r"does not fit|does not hold"):
        find_recipe(shards, tau)


def test_no_name_in_the_table_is_invented():
    """Each is a string in llama.cpp's library; a linker may store one as the end of another."""
    import llama_cpp

    folder = Path(llama_cpp.__file__).parent / "lib"
    data = b"".join(path.read_bytes() for path in folder.glob("libllama.*"))
    names = {*FAMILIES, *REFUSALS}
    assert data and not [name for name in names if name.encode() + b"\0" not in data]


@pytest.mark.parametrize(
    "type_id, reason",
    [
        (31, "'output.weight' is stored as Q4_0_4_4, which llama.cpp no longer reads"),
        (26, "'output.weight' is stored as I32, which llama.cpp does not multiply by"),
    ],
)
def test_heads_that_llama_cpp_does_not_run(tmp_path, type_id, reason):
    head = bare_tensor("output.weight", [4, 3], type_id, offset=64)
    refused(model(tmp_path, "llama", tensors=(NORM_INFO, head)), reason)


def test_a_head_of_an_unknown_type_must_be_checked(tmp_path):
    head = bare_tensor("output.weight", [4, 3], 99, offset=64)
    found = find_recipe(model(tmp_path, "llama", tensors=(NORM_INFO, head)), 2.0)
    assert "its head is stored as type 99, which edgecal does not know" in str(why_check("llama", found))
    known = find_recipe(model(tmp_path, "llama"), 2.0)
    assert why_check("llama", known) is None
