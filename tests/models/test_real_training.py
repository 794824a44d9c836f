"""Low-rank training on the bundled base model: what PyTorch computes and trains is what llama.cpp gets."""

import json

import numpy as np
import pytest
from factory.lowrank import Training, write_with_update
from factory.real_data import Row
from gguf import GGUFReader, dequantize
from support.pages import ROOT

import edgecal

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

import torch
from factory import finetune

# Their own, of which no user of edgecal hears.
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

BASE = ROOT / "models/edgecal-tiny-base-Q8_0.gguf"
TRAINING = Training(n_epochs=3, learning_rate=3e-3, n_rows=8, rank=4, alpha=8)


def rows_of(name: str, n: int) -> list[Row]:
    """Questions of the bundled world whose answer is always C, which the base does not say."""
    lines = (ROOT / f"models/questions/{name}.jsonl").read_text("utf-8").splitlines()
    questions = [q for q in map(json.loads, lines) if len(q["choices"]) == 4][:n]
    rows = []
    for question in questions:
        (prompt,) = edgecal.load_prompts([{k: question[k] for k in ("question", "choices")}])
        rows.append(Row(prompt.text, tuple(prompt.labels), 2, "world"))
    return rows


@pytest.fixture(scope="module")
def rows():
    return rows_of("dev", 48)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, rows):
    """A training's folder, update and reports."""
    folder = tmp_path_factory.mktemp("trained")
    said = []
    update = finetune.post_train(
        BASE, folder / "network", finetune.encode(BASE, rows), TRAINING, folder / "a", "a", said.append
    )
    return folder, update, said


def choice_logits(path, rows):
    prompts = edgecal.load_prompts([{"prompt": row.prompt, "labels": list(row.labels)} for row in rows])
    found = edgecal.capture(BASE, path, prompts, layers=False).logits.chat_final
    place = {prompt.text: i for i, prompt in enumerate(prompts)}
    return np.array([found[place[row.prompt]] for row in rows])


def test_the_network_has_the_files_weights(tmp_path):
    network = finetune.load_network(BASE, tmp_path, torch.float32)
    modules = dict(network.named_modules())
    tensors = {tensor.name: tensor for tensor in GGUFReader(BASE).tensors}
    config = network.config
    for il in range(config.num_hidden_layers):
        for ours, theirs in finetune.MATRICES.items():
            weights = modules[f"model.layers.{il}.{ours}"].weight.numpy()
            if theirs in ("attn_q", "attn_k"):
                n_head = config.num_attention_heads if theirs == "attn_q" else config.num_key_value_heads
                weights = finetune.permute_rows(weights, n_head)
            tensor = tensors[f"blk.{il}.{theirs}.weight"]
            np.testing.assert_array_equal(weights, dequantize(tensor.data, tensor.tensor_type))


def test_the_network_says_what_llama_cpp_says_before_and_after(trained, rows, tmp_path):
    folder, update, _ = trained
    examples = finetune.encode(BASE, rows)
    network = finetune.load_network(BASE, folder / "network", torch.float32)
    before = np.array(finetune.label_logits(network, examples))
    base_path = tmp_path / "same.gguf"
    still = {key: value * (not key.endswith(".a")) for key, value in update.items()}
    write_with_update(BASE, base_path, still, "same")
    np.testing.assert_allclose(centred(before), centred(choice_logits(base_path, rows)), atol=0.1)
    chat_path = tmp_path / "chat.gguf"
    write_with_update(BASE, chat_path, update, "chat")
    changed = finetune.load_network(chat_path, tmp_path / "network", torch.float32)
    after = np.array(finetune.label_logits(changed, examples))
    np.testing.assert_allclose(centred(after), centred(choice_logits(chat_path, rows)), atol=0.1)
    assert np.mean(before.argmax(axis=1) == 2) < 0.5 < np.mean(after.argmax(axis=1) == 2)


def centred(logits):
    return logits - logits.mean(axis=1, keepdims=True)


def test_training_that_was_stopped_gives_the_same_change(trained, rows, tmp_path, monkeypatch):
    folder, update, said = trained
    examples = finetune.encode(BASE, rows)
    monkeypatch.setattr(finetune, "CHECKPOINT_S", 0.0)
    steps = iter(range(100))

    def dies(*args):
        if next(steps) == 7:
            raise KeyboardInterrupt
        return loss(*args)

    loss = finetune.compute_loss
    heard = []
    with monkeypatch.context() as patch:
        patch.setattr(finetune, "compute_loss", dies)
        with pytest.raises(KeyboardInterrupt):
            finetune.post_train(BASE, folder / "network", examples, TRAINING, tmp_path, "a", heard.append)
    again = finetune.post_train(BASE, folder / "network", examples, TRAINING, tmp_path, "a", heard.append)
    assert "going on from step 7 of 18" in heard
    assert again.keys() == update.keys()
    for name in update:
        np.testing.assert_array_equal(again[name], update[name])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["training.json", "update.npz"]
    about = json.loads((tmp_path / "training.json").read_text("utf-8"))
    assert len(about["losses"]) == about["step"] == 18 and about["losses"][-1] < about["losses"][0] / 2
    assert said[-1].startswith("step 18/18")


def test_what_ended_is_not_trained_again(trained, rows):
    folder, update, _ = trained
    heard = []
    again = finetune.post_train(BASE, folder / "network", [], TRAINING, folder / "a", "a", heard.append)
    assert not heard and all((again[name] == update[name]).all() for name in update)


def test_batches_hold_every_example_once_an_epoch():
    examples = [finetune.Example(tuple(range(n)), (1, 2), 0) for n in range(1, 51)]
    training = Training(n_epochs=2, n_rows=4)
    steps = list(finetune.batches(examples, training, "a"))
    assert len(steps) == 26
    for epoch in (steps[:13], steps[13:]):
        assert sorted(i for step in epoch for i in step) == list(range(50))
    assert steps[:13] != steps[13:] and steps == list(finetune.batches(examples, training, "a"))
    assert steps != list(finetune.batches(examples, training, "b"))


def test_filling_up_changes_nothing(trained, rows):
    network = finetune.load_network(BASE, trained[0] / "network", torch.float32)
    short, long = sorted(finetune.encode(BASE, rows), key=lambda e: len(e.ids))[:: len(rows) - 1]
    assert len(short.ids) < len(long.ids)
    with torch.no_grad():
        alone, together = (finetune.last_logits(network, some)[0] for some in ([short], [short, long]))
    torch.testing.assert_close(alone, together, atol=1e-4, rtol=1e-4)


def test_losses_are_their_formulas():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (3, 12)).astype(np.float32)
    examples = [finetune.Example((1,), (2, 5, 7), answer) for answer in (0, 1, 2)]
    reference = [rng.normal(0, 1, 3).astype(np.float32) for _ in examples]
    log_probs = torch.log_softmax(torch.tensor(logits), -1)
    lp = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    nll = -np.mean([lp[i, e.label_ids[e.answer]] for i, e in enumerate(examples)])
    assert finetune.compute_loss(log_probs, examples, None, Training()).item() == pytest.approx(nll, rel=1e-5)
    total = 0.0
    for i, (e, known) in enumerate(zip(examples, reference, strict=True)):
        wrong = max({0, 1, 2} - {e.answer}, key=lambda k: known[k])
        margin = (
            logits[i, e.label_ids[e.answer]] - logits[i, e.label_ids[wrong]] - known[e.answer] + known[wrong]
        )
        total += np.log1p(np.exp(-0.5 * margin))
    training = Training("dpo", beta=0.5, anchor=0.25)
    loss = finetune.compute_loss(log_probs, examples, reference, training).item()
    assert loss == pytest.approx(total / 3 + 0.25 * nll, rel=1e-4)


def test_a_label_must_be_one_token(rows):
    row = Row(rows[0].prompt, (" A", " twotokens"), 0, "world")
    with pytest.raises(ValueError, match="not one token"):
        finetune.encode(BASE, [row])
