"""`edgecal bake` and `edgecal unbake`: what they print, their exit codes, and that nothing is lost."""

import json
import re

import click
import pytest
from support.bake_files import SHAPES
from support.gguf_files import write_bytes
from support.tiny_archs import tiny_arch
from support.tiny_models import write_tiny_llama

from edgecal.cli.bake import bake_command, unbake_command
from edgecal.errors import InputError
from edgecal.gguf.header import read_header


def run(command, *arguments):
    command.main([str(argument) for argument in arguments], standalone_mode=False)


@pytest.fixture
def model(tmp_path):
    return write_tiny_llama(
        tmp_path / "m.gguf",
        seed=5,
        n_layer=1,
        metadata={"edgecal.temperature": 2.5, "general.sampling.temp": 0.6},
        head_quantization="Q8_0",
    )


def test_there_and_back(model, tmp_path, capsys):
    before = model.read_bytes()
    run(bake_command, model, "--output", tmp_path / "b.gguf", "--threads", "1", "--verify")
    out = capsys.readouterr().out
    assert re.search(r"temperature\s+2\.5, divided into the logits", out)
    assert re.search(r"changed\s+output_norm\.weight", out)
    assert re.search(
        r"check\s+logits within 0\.000\d+ rms of the spread, \de-0[78] of it not by rounding", out
    )
    assert "(0.0001 allowed, head Q8_0)" in out
    assert re.search(r"sampling\s+0\.6, the author's", out)
    assert str(tmp_path / "b.gguf") in out
    run(unbake_command, tmp_path / "b.gguf", "-o", tmp_path / "u.gguf", "--verify")
    assert "byte for byte the original" in capsys.readouterr().out
    assert (tmp_path / "u.gguf").read_bytes() == before == model.read_bytes()


def test_json_in_place(model, capsys):
    before = model.read_bytes()
    run(bake_command, model, "--in-place", "--temperature", "3", "--json")
    baked = json.loads(capsys.readouterr().out)
    assert baked["output"] == str(model) and baked["temperature"] == 3.0
    assert baked["changed"] == ["output_norm.weight"] and 0 < baked["error"] <= baked["allowed"] == 1e-4
    assert (baked["head_type"], baked["sampling_temperature"], baked["siblings"]) == (
        "Q8_0",
        pytest.approx(0.6),
        [],
    )
    run(unbake_command, model, "--in-place", "--json")
    assert json.loads(capsys.readouterr().out) == {
        "output": str(model),
        "temperature": 3.0,
        "exact": True,
        "siblings": [],
    }
    assert model.read_bytes() == before


def test_without_the_check(tmp_path, capsys):
    path = write_bytes(tmp_path / "m.gguf", SHAPES["stamped, no author's temperature"])
    run(bake_command, path, "-o", tmp_path / "b.gguf", "--no-check")
    out = capsys.readouterr().out
    assert re.search(r"check\s+not made \(head F32\)", out)
    assert re.search(r"sampling\s+no default", out)


def test_a_split_model_names_its_files(tmp_path, capsys):
    path = write_tiny_llama(tmp_path / "m.gguf", seed=5, n_layer=1, split_max_tensors=4)
    count = path.name[-10:-5]
    run(bake_command, path, "-o", tmp_path / f"b-00001-of-{count}.gguf", "--temperature", "2", "--no-check")
    assert f"b-00002-of-{count}.gguf (hard link)" in capsys.readouterr().out
    run(unbake_command, tmp_path / f"b-00001-of-{count}.gguf", "-o", tmp_path / f"u-00001-of-{count}.gguf")
    assert f"u-00002-of-{count}.gguf (hard link)" in capsys.readouterr().out
    assert (tmp_path / f"u-00001-of-{count}.gguf").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("command", [bake_command, unbake_command])
@pytest.mark.parametrize("options", [[], ["--output", "b.gguf", "--in-place"]])
def test_where_to_must_be_said(command, options, model):
    with pytest.raises(click.UsageError, match="give either --output or --in-place"):
        run(command, model, *options)


@pytest.mark.parametrize("value", ["0", "-1", "x"])
def test_temperatures_that_click_refuses(model, value):
    with pytest.raises(click.BadParameter):
        run(bake_command, model, "--in-place", "--temperature", value)


def test_refusals_write_nothing(model, tmp_path, capsys):
    before = model.read_bytes()
    for command, arguments, message in (
        (bake_command, [tmp_path / "nowhere.gguf", "--in-place"], "no such file"),
        (bake_command, [model, "--in-place", "--temperature", "nan"], "positive finite"),
        (
            bake_command,
            [tiny_arch("olmo"), "-o", tmp_path / "b.gguf", "--temperature", "2"],
            "architecture olmo",
        ),
        (bake_command, [tiny_arch("llama"), "-o", tmp_path / "b.gguf"], "holds no edgecal.temperature"),
        (unbake_command, [model, "--in-place"], "is not baked"),
    ):
        with pytest.raises(InputError, match=message):
            run(command, *arguments)
    assert capsys.readouterr().out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"] and model.read_bytes() == before


def test_keep_edits(tmp_path, capsys):
    from edgecal.gguf.rewrite import write_edited
    from edgecal.gguf.values import Value

    path = write_bytes(tmp_path / "m.gguf", SHAPES["calibrated"])
    run(bake_command, path, "--in-place", "--no-check")
    write_edited(read_header(path), path, changes={"general.name": Value.string("new")})
    with pytest.raises(InputError, match="--keep-edits"):
        run(unbake_command, path, "--in-place")
    run(unbake_command, path, "--in-place", "--keep-edits")
    assert "not the original: later edits were kept" in capsys.readouterr().out
    assert read_header(path).get("general.name") == "new"
