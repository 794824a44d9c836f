"""The table of architectures: it is whole, nothing is in it twice, and the streams of a file are found."""

import pytest
from gguf.constants import MODEL_ARCH_NAMES

from edgecal.architectures import (
    FAMILIES,
    PLAIN_STREAM,
    REFUSALS,
    ResidualStream,
    family_of,
    refusal_of,
    stream_of,
    why_no_layers,
)
from edgecal.errors import ModelError


def test_every_architecture_that_gguf_py_names_is_known_or_refused():
    named = set(MODEL_ARCH_NAMES.values()) - {"mmproj"}
    assert len(named) > 100
    assert named <= set(FAMILIES) | set(REFUSALS)


def test_no_architecture_is_both_known_and_refused():
    assert not set(FAMILIES) & set(REFUSALS)


def test_a_merge_is_of_a_graph_that_was_read():
    assert all(family.is_known for family in FAMILIES.values())
    assert {family.merge for family in FAMILIES.values()} == {None, "sigmoid", "mean", "gated", "altup"}
    # Without a norm of its own a family must have it in its merge, and a cap must have a value.
    for family in FAMILIES.values():
        assert family.norm is not None or family.merge is not None
        assert family.soft_cap != "fixed" or family.cap_default is not None


def test_what_is_not_in_the_table():
    family = family_of("unheard-of")
    assert not family.is_known and family.merge is None and family.scale is None
    assert refusal_of("unheard-of") is None and why_no_layers("unheard-of", {}.get) is None
    assert stream_of("unheard-of", {}.get, "model.gguf") == PLAIN_STREAM


@pytest.mark.parametrize(
    ("architecture", "keys", "expected"),
    [
        ("llama", {}, ResidualStream("l_out", 1)),
        ("plamo2", {}, ResidualStream("ffn_residual", 1)),
        ("deepseek4", {"deepseek4.hyper_connection.count": 4}, ResidualStream("l_last", 4)),
        ("glm5-next", {"glm5-next.hyper_connection.count": 2}, ResidualStream("l_out", 2)),
        ("gemma3n", {}, ResidualStream("l_out", 4, by_stream=True)),
    ],
)
def test_streams(architecture, keys, expected):
    assert stream_of(architecture, keys.get, "model.gguf") == expected


@pytest.mark.parametrize("count", [None, 0, -1, 65, True, "4", 4.0])
def test_a_file_that_does_not_say_how_many_streams(count):
    keys = {"hy_v4.hyper_connection.count": count}
    with pytest.raises(
        ModelError, match=r"model\.gguf: hy_v4\.hyper_connection\.count is .*expected 1 to 64"
    ):
        stream_of("hy_v4", keys.get, "model.gguf")


def test_layers_that_no_lens_can_read():
    assert "several times" in why_no_layers("hrm_text", {}.get)
    assert "outputs of earlier blocks" in why_no_layers("kimi-k3", {"kimi-k3.attn_res.block_size": 12}.get)
    assert why_no_layers("kimi-k3", {"kimi-k3.attn_res.block_size": 0}.get) is None
    assert why_no_layers("llama", {}.get) is None
