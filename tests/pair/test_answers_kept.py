"""What is kept of a model's answers, and for whom: only what is the same is used again."""

import shutil
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from support.prompts import random_token_prompts
from support.questions import make_questions
from support.tiny_models import tiny_folder, write_tiny_llama, write_tiny_pair
from support.tiny_vocab import bpe_vocab

import edgecal
from edgecal.cache import list_stores
from edgecal.gguf.header import read_header
from edgecal.gguf.output import plan_output
from edgecal.gguf.shards import find_shards
from edgecal.llama.settings import CaptureSettings
from edgecal.pair.capture_cache import prompt_key
from edgecal.pair.model_capture import CaptureRequest
from edgecal.pair.resident_model import _ResidentModel
from edgecal.prompts import Prompt
from edgecal.stamping.edit import write_calibrated
from edgecal.stamping.record import CalibrationRecord

ONE_THREAD = CaptureSettings(n_threads=1)
RECORDS = random_token_prompts(12, seed=3, length=12)


@cache
def pair():
    folder = tiny_folder() / "answers-kept"
    folder.mkdir()
    return write_tiny_pair(folder / "base.gguf", folder / "chat.gguf", seed=5, n_layer=2, n_embd=32)


@pytest.fixture
def observe(monkeypatch, tmp_path):
    """Runs as a new process would: with nothing loaded. Returns the observation and the numbers of prompts that
    were run, None where no model was loaded."""
    from edgecal.pair import worker_capture as module

    def run(path, records=RECORDS, *, layers=False, settings=ONE_THREAD, folder=tmp_path / "cache"):
        prompts = records if not isinstance(records[0], dict) else edgecal.load_prompts(records)
        loaded = _ResidentModel()
        monkeypatch.setattr(module, "RESIDENT", loaded)
        signs = []
        request = CaptureRequest(str(path), "the model m", tuple(prompts), layers, settings, folder)
        seen = module.capture_model(request, signs.append)
        if loaded._model is not None:
            loaded._model.close()
        started = [sign for sign in signs if sign.stage == "run"]
        if not any(sign.stage == "load" for sign in signs):
            assert not started
            return seen, None
        return seen, int(started[0].total - started[0].done) if started else 0

    return run


def assert_same(one, other):
    np.testing.assert_array_equal(one.final_logits, other.final_logits)
    np.testing.assert_array_equal(one.choice_mass, other.choice_mass)
    assert (one.outside, one.n_tokens) == (other.outside, other.n_tokens)
    assert (one.layer_logits is None) == (other.layer_logits is None)
    if one.layer_logits is not None:
        np.testing.assert_array_equal(one.layer_logits, other.layer_logits)
        assert one.lens_error == other.lens_error


@pytest.mark.parametrize("layers", [True, False])
def test_what_is_kept_needs_no_model(observe, layers):
    first, n_first = observe(pair()[1], layers=layers)
    again, n_again = observe(pair()[1], layers=layers)
    assert (n_first, n_again) == (len(RECORDS), None)
    assert_same(first, again)
    bare, n_bare = observe(pair()[1], layers=layers, folder=None)
    assert n_bare == len(RECORDS)
    assert_same(first, bare)
    assert first.warnings == again.warnings == bare.warnings == ()


def test_answers_with_layers_serve_those_without_but_not_the_other_way_round(observe):
    without, _ = observe(pair()[0])
    layered, n_layered = observe(pair()[0], layers=True)
    assert n_layered == len(RECORDS)
    again, n_again = observe(pair()[0])
    assert n_again is None
    assert_same(without, again)
    assert observe(pair()[0], layers=True)[1] is None  # what has layers was not replaced by what has none
    np.testing.assert_array_equal(layered.final_logits, without.final_logits)


def test_a_longer_list_costs_only_what_is_new(observe):
    observe(pair()[1], RECORDS[:7], layers=True)
    whole, n_run = observe(pair()[1], RECORDS[::-1], layers=True)
    assert n_run == 5
    assert_same(whole, observe(pair()[1], RECORDS[::-1], layers=True, folder=None)[0])


def test_choices_are_part_of_the_question_and_so_is_their_order(observe):
    prompts = edgecal.load_prompts(RECORDS)
    first, _ = observe(pair()[1], prompts)
    turned = [replace(prompt, choice_tokens=prompt.choice_tokens[::-1]) for prompt in prompts]
    seen, n_run = observe(pair()[1], turned)
    assert n_run == len(RECORDS)
    np.testing.assert_array_equal(seen.final_logits[:, ::-1], first.final_logits)
    fewer = [{**record, "choice_tokens": record["choice_tokens"][:2]} for record in RECORDS]
    assert observe(pair()[1], fewer)[1] == len(RECORDS)


def test_keys_tell_tokens_from_choices():
    ids = [np.array(ids, dtype=np.int32) for ids in ([1, 2, 3], [4, 5])]
    same = {
        prompt_key(*ids),
        prompt_key(ids[1], ids[0]),
        prompt_key(ids[0], ids[1][::-1]),
        prompt_key(ids[0][:2], np.array([3, 4, 5], dtype=np.int32)),
        prompt_key(np.array([1, 2, 3, 4], dtype=np.int32), np.array([5], dtype=np.int32)),
    }
    assert len(same) == 5 and {len(key) for key in same} == {32}
    assert prompt_key(*ids) == prompt_key(*(part.copy() for part in ids))


def test_an_answer_or_a_source_changes_nothing(observe):
    observe(pair()[1])
    labelled = [{**record, "answer": 1} for record in RECORDS]
    assert observe(pair()[1], labelled)[1] is None


def test_another_template_is_another_question(observe):
    questions = make_questions(6, seed=2)
    plain = edgecal.load_prompts(questions)
    other = edgecal.load_prompts(
        questions, template="{{ question }}\n{% for c in choices %}{{ c.label }} {{ c.text }}\n{% endfor %}="
    )
    assert observe(pair()[1], plain)[1] == len(plain)
    assert observe(pair()[1], other)[1] == len(plain)
    assert observe(pair()[1], plain)[1] is None


def test_another_model_or_a_changed_byte_of_a_tensor_is_another_model(observe, tmp_path):
    observe(pair()[1])
    assert observe(pair()[0])[1] == len(RECORDS)
    changed = tmp_path / "chat.gguf"  # by the same name
    content = bytearray(pair()[1].read_bytes())
    content[-5] ^= 1  # the last tensor's last number but one byte
    changed.write_bytes(content)
    assert observe(changed)[1] == len(RECORDS)
    content[-5] ^= 1
    changed.write_bytes(content)
    assert observe(changed)[1] is None


def test_a_copy_with_a_temperature_in_it_says_the_same_under_any_name(observe, tmp_path):
    before, _ = observe(pair()[1])
    copy = tmp_path / "elsewhere.gguf"
    shutil.copy(pair()[1], copy)
    seen, n_run = observe(copy)
    assert n_run is None
    stamped = tmp_path / "stamped.gguf"
    shards = find_shards(pair()[1])
    output = plan_output(shards, stamped, in_place=False, force=False, inputs=[])
    write_calibrated(shards, output, CalibrationRecord(temperature=2.5), sampling_key=True, force_baked=False)
    assert read_header(stamped).get("edgecal.temperature") == 2.5
    seen, n_run = observe(stamped)
    assert n_run is None
    assert_same(before, seen)
    assert len(list_stores(tmp_path / "cache")) == 1


def test_what_changes_no_bit_is_no_other_setting_and_fast_is(observe):
    exact, _ = observe(pair()[1])
    for settings in (
        replace(ONE_THREAD, n_threads=2),
        replace(ONE_THREAD, n_ubatch=64, n_batch=128, n_seq_max=5),
        replace(ONE_THREAD, share=False),
    ):
        assert observe(pair()[1], settings=settings)[1] is None
    assert_same(exact, observe(pair()[1], settings=settings, folder=None)[0])
    fast_settings = replace(ONE_THREAD, flash_attn=True)
    fast, n_run = observe(pair()[1], settings=fast_settings)
    assert n_run == len(RECORDS)
    (warning,) = fast.warnings
    assert "--fast" in warning and "\n" not in warning
    again, n_run = observe(pair()[1], settings=fast_settings)
    assert n_run is None and again.warnings == fast.warnings
    assert_same(fast, again)
    assert_same(exact, observe(pair()[1])[0])  # nothing of it reached the exact ones
    # How many threads there are may matter then.
    assert observe(pair()[1], settings=replace(fast_settings, n_threads=2))[1] == len(RECORDS)


def test_a_damaged_store_costs_a_run_and_one_warning(observe, tmp_path):
    first, _ = observe(pair()[1])
    (store,) = (tmp_path / "cache").glob("captures-*")
    content = bytearray(store.read_bytes())
    content[:100] = b"not a database" + bytes(86)
    store.write_bytes(content)
    seen, n_run = observe(pair()[1])
    assert n_run == len(RECORDS)
    assert_same(first, seen)
    assert len(seen.warnings) == 1 and "\n" not in seen.warnings[0]
    assert observe(pair()[1])[1] is None  # recreated


def test_a_folder_that_cannot_be_written_costs_one_warning(observe, tmp_path):
    first, _ = observe(pair()[1])
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "cache"):  # a file is no folder, for root either
        seen, n_run = observe(pair()[1], folder=folder)
        assert n_run == len(RECORDS)
        assert_same(first, seen)
        assert len(seen.warnings) == 1 and "\n" not in seen.warnings[0]
    assert (tmp_path / "file").read_text() == ""


def test_an_answer_whose_value_was_damaged_is_run_again(observe, tmp_path):
    """One bit of one answer: a checksum finds it, and only the damaged ones are run."""
    first, _ = observe(pair()[1])
    (store,) = (tmp_path / "cache").glob("captures-*")
    needle = first.final_logits[3].tobytes()
    content = bytearray(store.read_bytes())
    at = content.find(needle)
    assert at > 0
    content[at] ^= 1
    store.write_bytes(content)
    seen, n_run = observe(pair()[1])
    assert n_run is not None and n_run >= 1
    assert_same(first, seen)


@cache
def speller():
    path = tiny_folder() / "forms.gguf"
    write_tiny_llama(path, seed=2, n_layer=2, vocab=bpe_vocab())
    return path


FORMS = (("A", " A"), ("B", " B", " C"), ("D",))
ASKED = Prompt(text="Which is it?\nAnswer:", labels=("A", "B", "D"), label_forms=FORMS)


def test_forms_are_summed_at_every_layer(observe):
    summed, _ = observe(speller(), [ASKED], layers=True)
    flat, n_flat = observe(speller(), [replace(ASKED, labels=sum(FORMS, ()), label_forms=None)], layers=True)
    assert n_flat == 1
    for name in ("final_logits", "layer_logits"):
        wide = getattr(flat, name).astype(np.float64)
        parts = [np.logaddexp.reduce(wide[..., span], axis=-1) for span in (slice(2), slice(2, 5))]
        expected = np.stack([*parts, wide[..., 5]], axis=-1)
        np.testing.assert_allclose(getattr(summed, name), expected, rtol=1e-6)
    np.testing.assert_array_equal(summed.choice_mass, flat.choice_mass)
    assert summed.lens_error == flat.lens_error and summed.outside == flat.outside


def test_the_same_tokens_in_other_groups_are_another_question(observe):
    first, _ = observe(speller(), [ASKED])
    regrouped = replace(ASKED, label_forms=(("A", " A"), ("B", " B"), (" C", "D")))
    assert observe(speller(), [regrouped])[1] == 1
    again, n_again = observe(speller(), [replace(ASKED, labels=("x", "y", "z"))])
    assert n_again is None
    assert_same(first, again)


def test_two_hundred_and_fifty_six_labels(observe):
    ids = np.random.default_rng(5).permutation(300)[:256].tolist()
    prompts = [Prompt(tokens=(11, 12, n), choice_tokens=tuple(ids)) for n in range(3)]
    seen, _ = observe(pair()[0], prompts, layers=True)
    turned, _ = observe(pair()[0], [replace(p, choice_tokens=p.choice_tokens[::-1]) for p in prompts])
    assert seen.final_logits.shape == (3, 256) and np.isfinite(seen.layer_logits).all()
    np.testing.assert_array_equal(seen.final_logits[:, ::-1], turned.final_logits)
