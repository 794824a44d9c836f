"""`edgecal export --to llama-decision`: which keys it writes, what it refuses, and that strip restores the bytes."""

import json

import pytest
from support.calibrated import CHAT, bake, stamp
from support.chat_templates import CHATML, CHATML_ALWAYS_THINKING
from support.tiny_models import write_tiny_llama

from edgecal import InputError, UnsettledError, strip, unbake
from edgecal.cli import main as exit_with
from edgecal.gguf.header import read_header
from edgecal.gguf.rewrite import write_edited
from edgecal.gguf.values import Value, ValueType
from edgecal.runtime.llama_decision import Systemone, plan_llama_decision
from edgecal.stamping.changes import decision_edits
from edgecal.stamping.decision_export import EXPORT_KEY, TEMPLATE_KEY
from edgecal.stamping.decision_record import DecisionRecord, GroupRecord, read_decisions
from edgecal.stamping.edit import Place
from edgecal.stamping.edit import stamp as stamp_again

MADE = Systemone("{{ state }}", "ab" * 32, (), ())
ASKED = {"readout": "letters", "orders": "1", "prompt_sha256": MADE.prompt_sha256}
PREFIX = "llama.decision."


@pytest.fixture
def quick(monkeypatch):
    """No process is started to make the template."""
    monkeypatch.setattr("edgecal.worker.run_in_worker", lambda *_, **__: MADE)


def export(source, target, **options):
    return plan_llama_decision(source, Place(target, force=True), **options).write()


def typed(source, target, groups, **asked):
    header = read_header(source)
    record = DecisionRecord({name: GroupRecord(*values) for name, values in groups.items()}, **asked)
    changes, remove = decision_edits(header, record)
    write_edited(header, target, changes=changes, remove=remove)
    return target


def edited(source, target, **changes):
    values = {name.replace("__", "."): Value.of(ValueType.STRING, text) for name, text in changes.items()}
    write_edited(read_header(source), target, changes=values, remove=())
    return target


def temperatures(path):
    header = read_header(path)
    start = f"{PREFIX}temperature."
    return {key.removeprefix(start): header.get(key) for key in header.keys if key.startswith(start)}


def main(arguments):
    with pytest.raises(SystemExit) as ended:
        exit_with(arguments)
    return ended.value.code


def one(x):
    return {"choice": x, "score": x, "noul": x}


def test_a_stamped_file(tmp_path, quick):
    source, target = stamp(tmp_path / "s.gguf", temperature=2.5), tmp_path / "d.gguf"
    done = export(source, target)
    header = read_header(target)
    assert temperatures(target) == one(2.5)
    assert header.get(f"{PREFIX}type") == "openjev" and header.get(TEMPLATE_KEY) == MADE.template
    assert (read_decisions(header).readout, read_decisions(header).orders) == ("letters", "1")
    assert "fitted on multiple-choice questions" in done.warnings[0]
    strip(target, tmp_path / "back.gguf")
    assert (tmp_path / "back.gguf").read_bytes() == CHAT.read_bytes()


def test_temperatures_by_type_and_size(tmp_path, quick):
    groups = {"choice": (2.0,), "choice.3_5": (1.5,), "noul": (0.75, None, None, True)}
    source = typed(stamp(tmp_path / "s.gguf", temperature=2.5), tmp_path / "t.gguf", groups, **ASKED)
    done = export(source, tmp_path / "d.gguf")
    assert temperatures(tmp_path / "d.gguf") == {"choice": 2.0, "choice.3_5": 1.5, "noul": 0.75, "score": 2.5}
    assert any("score get the file's one temperature, 2.5" in warning for warning in done.warnings)
    assert strip(tmp_path / "d.gguf", in_place=True)
    assert (tmp_path / "d.gguf").read_bytes() == CHAT.read_bytes()


def test_without_calibration(tmp_path, quick):
    done = export(CHAT, tmp_path / "d.gguf")
    assert temperatures(tmp_path / "d.gguf") == one(1.0)
    (warning,) = done.warnings
    assert "the probabilities are the model's own" in warning


def test_a_baked_file(tmp_path, quick):
    source, target = bake(tmp_path / "b.gguf"), tmp_path / "d.gguf"
    assert not export(source, target).warnings
    assert temperatures(target) == one(1.0)
    strip(target, in_place=True)
    assert target.read_bytes() == source.read_bytes()
    unbake(target, tmp_path / "back.gguf")
    assert (tmp_path / "back.gguf").read_bytes() == CHAT.read_bytes()
    with pytest.raises(InputError, match="use edgecal unbake"):
        strip(target, in_place=True)


def test_again_and_in_place(tmp_path, quick):
    path = stamp(tmp_path / "m.gguf", temperature=2.0)
    plan_llama_decision(path, Place(None, in_place=True)).write()
    once = path.read_bytes()
    plan_llama_decision(path, Place(None, in_place=True)).write()
    assert path.read_bytes() == once
    done = stamp_again(path, in_place=True, temperature=3.0)
    assert any("Run edgecal export again" in warning for warning in done.warnings)
    assert (
        not temperatures(path)
        and TEMPLATE_KEY not in read_header(path)
        and EXPORT_KEY not in read_header(path)
    )
    plan_llama_decision(path, Place(None, in_place=True)).write()
    assert temperatures(path) == one(3.0)
    strip(path, in_place=True)
    assert path.read_bytes() == CHAT.read_bytes()


def test_baking_takes_the_export_out(tmp_path, quick):
    source = tmp_path / "d.gguf"
    export(stamp(tmp_path / "s.gguf"), source)
    bake(tmp_path / "b.gguf", source=source, temperature=None)
    assert not temperatures(tmp_path / "b.gguf") and EXPORT_KEY not in read_header(tmp_path / "b.gguf")
    unbake(tmp_path / "b.gguf", tmp_path / "back.gguf")
    assert (tmp_path / "back.gguf").read_bytes() == source.read_bytes()


@pytest.mark.parametrize(
    ("groups", "asked", "reason", "left"),
    [
        (
            {"choice": (2.0,)},
            ASKED | {"readout": "labels", "orders": "2"},
            "--readout letters --orders 1",
            False,
        ),
        ({"choice": (2.0,)}, ASKED | {"prompt_sha256": "00" * 32}, "another prompt", False),
        ({"score.2": (2.0, None, None, False)}, ASKED, "score.2 is unsettled", False),
        ({"noul": (2.0, None, None, True)}, ASKED | {"noul_bias": 0.5}, "which llama.cpp cannot add", False),
    ],
)
def test_what_speaks_against_the_temperatures(tmp_path, quick, groups, asked, reason, left):
    source = typed(CHAT, tmp_path / "t.gguf", groups, **asked)
    with pytest.raises(UnsettledError) as refused:
        export(source, tmp_path / "d.gguf")
    assert reason in "; ".join(refused.value.warnings)
    assert not (tmp_path / "d.gguf").exists()
    done = export(source, tmp_path / "d.gguf", unsettled=True)
    assert any(reason in warning for warning in done.warnings)
    record = read_decisions(read_header(tmp_path / "d.gguf"))
    assert record.noul_bias is None
    assert {group.settled for group in record.groups.values()} == {left}
    strip(tmp_path / "d.gguf", in_place=True)
    assert (tmp_path / "d.gguf").read_bytes() == CHAT.read_bytes()


def test_an_unsettled_file(tmp_path, quick):
    source = stamp(tmp_path / "s.gguf", settled=False, reasons=("the bracket is wide",))
    with pytest.raises(UnsettledError) as refused:
        export(source, tmp_path / "d.gguf")
    assert "the bracket is wide" in refused.value.warnings
    assert export(source, tmp_path / "d.gguf", unsettled=True)


def test_other_decision_models_are_refused(tmp_path, quick):
    for changes, reason in (
        ({"llama__decision__type": "lev"}, r"is 'lev'\), and edgecal did not write"),
        ({"llama__decision__block_count": "2"}, "llama.decision.block_count"),
        ({"tokenizer__chat_template__systemone": "{{ state }}"}, "systemone"),
    ):
        with pytest.raises(InputError, match=reason):
            export(edited(CHAT, tmp_path / "m.gguf", **changes), tmp_path / "d.gguf")
    with pytest.raises(InputError, match="only six decimals"):
        export(stamp(tmp_path / "s.gguf", temperature=1e-3), tmp_path / "d.gguf")


def test_a_list_of_keys_that_edgecal_did_not_write_removes_nothing_else(tmp_path, quick):
    listed = Value.array(
        ValueType.STRING, ["general.architecture", "llama.block_count", "llama.decision.type"]
    )
    write_edited(read_header(CHAT), tmp_path / "m.gguf", changes={EXPORT_KEY: listed}, remove=())
    strip(tmp_path / "m.gguf", in_place=True)
    assert (tmp_path / "m.gguf").read_bytes() == CHAT.read_bytes()


def test_on_the_command_line(tmp_path, capsys):
    path = write_tiny_llama(
        tmp_path / "m.gguf",
        seed=1,
        n_layer=1,
        chat_template=CHATML_ALWAYS_THINKING,
        extra_tokens=("<|im_start|>", "<|im_end|>"),
        split_max_tensors=5,
    )
    before = path.read_bytes()
    command = ["export", str(path), "--to", "llama-decision"]
    assert main([*command, "-q"]) == 2
    assert main([*command, "--in-place", "--no-sampling"]) == 2
    assert main(["export", str(path), "--to", "json", "--in-place"]) == 2
    assert "--in-place is for --to llama-decision only" in capsys.readouterr().err
    assert main([*command, "--in-place"]) == 4
    assert (
        "edgecal: refused: its chat template leaves a block of thoughts open (<think>)"
        in capsys.readouterr().err
    )
    assert path.read_bytes() == before
    assert main([*command, "--in-place", "--unsettled", "--verify"]) == 0
    shown = capsys.readouterr()
    assert "temperature 1 is written" in shown.err and "+ tokenizer.chat_template.systemone" in shown.out
    template = read_header(path).get(TEMPLATE_KEY)
    assert template.count("</think>") == 1 and CHATML not in template
    assert main([*command, "--in-place", "--unsettled", "--json", "-q"]) == 0
    assert json.loads(capsys.readouterr().out)["in_place"] is True
    assert main(["strip", str(path), "--in-place", "-q"]) == 0
    assert path.read_bytes() == before
