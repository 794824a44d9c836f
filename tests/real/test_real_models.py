"""Each real model as an ordinary user has it: what the doctor says, its logits, its answers, its temperature."""

import numpy as np
import pytest
from support.real_runs import ONE_THREAD, edgecal, edgecal_json, plain_llama

import edgecal as api
from edgecal import OutputOptions
from edgecal.prompts import PromptTemplate, Question

# name: architecture, blocks, tokens of the vocabulary, and whether the head is the embedding
FACTS = {
    "smollm2": ("llama", 30, 49_152, True),
    "gemma": ("gemma3", 18, 262_144, True),
    "qwen-0.5b": ("qwen2", 24, 151_936, False),
    "qwen-1.5b": ("qwen2", 28, 151_936, False),
}
# Between which shares of the first 60 questions of ARC Easy each gets right, asked without examples: chance is 25 %.
ACCURACY = {
    "smollm2": (0.1, 0.45),
    "gemma": (0.1, 0.45),
    "qwen-0.5b": (0.15, 0.65),
    "qwen-1.5b": (0.55, 0.95),
}


def test_the_doctor_reads_the_header(real_name, real_model):
    said = edgecal_json("doctor", real_model)
    architecture, n_layer, n_vocab, _ = FACTS[real_name]
    assert (said["architecture"], said["n_layer"], said["head"]["n_vocab"]) == (
        architecture,
        n_layer,
        n_vocab,
    )
    assert said["exit_code"] == 0 and said["bakeable"] and {"dual-align", "process"} <= set(said["methods"])


def test_probabilities_are_those_of_llama_cpp_python(real_stamped, real_questions):
    """`edgecal.load`, against llama-cpp-python alone and a softmax by hand."""
    with api.load(real_stamped, **ONE_THREAD) as model, plain_llama(real_stamped) as logits:
        assert model.temperature == 2.5
        for record in real_questions[:12]:
            question = Question(record["question"], tuple(record["choices"]))
            labels = [f" {letter}" for letter in "ABCDE"[: len(record["choices"])]]
            z = logits(PromptTemplate().render(question).text, labels).astype(np.float64)
            answer = model.choose(record["question"], record["choices"])
            assert sum(answer.probs) == pytest.approx(1, abs=1e-9)
            assert answer.choice == int(z.argmax()) == int(np.argmax(answer.probs))
            assert answer.confidence == max(answer.probs)
            expected = np.exp((z - z.max()) / 2.5)
            np.testing.assert_allclose(answer.probs, expected / expected.sum(), atol=2e-5)


def test_abstaining_and_generating(real_stamped):
    with api.load(real_stamped, **ONE_THREAD) as model:
        sure = model.choose("How many legs does a spider have?", ["eight", "two"], min_confidence=0)
        unsure = model.choose("How many legs does a spider have?", ["eight", "two"], min_confidence=1)
        assert (sure.abstained, unsure.abstained) == (False, True) and sure.probs == unsure.probs
        said = [model.generate("The capital of France is", max_tokens=6) for _ in range(2)]
        assert said[0] == said[1] and said[0].text.strip()
        assert all(token.log_prob <= 0 for token in said[0].tokens)


def test_asking(real_stamped):
    question = ("Which planet is largest?", "-c", "Mars", "-c", "Jupiter", "-c", "Venus")
    told = edgecal_json("ask", real_stamped, *question)["answer"]
    with api.load(real_stamped, **ONE_THREAD) as model:
        answer = model.choose(question[0], ["Mars", "Jupiter", "Venus"])
    assert told["text"] == answer.text
    assert told["probs"] == pytest.approx(list(answer.probs), abs=1e-6)
    assert answer.text in edgecal("ask", real_stamped, *question).stdout


@pytest.fixture(scope="module")
def asked(real_questions):
    return real_questions[:60]


@pytest.fixture(scope="module")
def logits(real_model, real_sharpened, asked):
    return api.capture(real_model, real_sharpened, api.load_prompts(asked)).logits


def test_the_temperature_of_a_sharpened_copy_is_found(real_model, real_sharpened, asked, logits):
    """Its logits are its base's twice, so that every method that needs no disagreement has its minimum at 2, and both
    ends of the bracket are there."""
    assert np.array_equal(logits.chat_final, 2 * logits.base_final)
    unlabelled = [{key: record[key] for key in ("question", "choices")} for record in asked]
    for method in ("naive", "daca"):
        result = api.fit(
            real_model,
            real_sharpened,
            unlabelled,
            method=method,
            tolerance=None,
            output=OutputOptions(unsettled=True),
        )
        assert result.temperature == pytest.approx(2, rel=1e-4) and result.agreement_rate == 1
        assert (result.bracket["low"], result.bracket["high"]) == pytest.approx((2, 2), rel=1e-3)
        assert result.settled == (result.choice_mass["base"] >= 0.8) == (result.reasons == [])
    for method in ("dual-align", "process"):
        with pytest.raises(api.NotIdentifiedError, match="disagreement"):
            api.fit(real_model, real_sharpened, unlabelled, method=method, tolerance=None)


def test_the_figures_of_eval(real_name, real_model, asked, logits):
    """Worked out anew from the logits, and such as this model is known for."""
    said = api.evaluate(real_model, asked, temperature=2.5, effect_sample=0, n_bootstrap=20).figures
    labels = logits.labels  # prompts come in an order of their own
    assert sorted(labels) == sorted(record["answer"] for record in asked)
    for when, temperature in (("before", 1.0), ("after", 2.5)):
        z = logits.base_final.astype(np.float64) / temperature
        probs = np.exp(z - z.max(axis=1, keepdims=True))
        probs /= probs.sum(axis=1, keepdims=True)
        confidence, right = probs.max(axis=1), probs.argmax(axis=1) == labels
        bins = np.ceil(confidence * 10)
        gaps = [abs((confidence - right)[bins == each].sum()) for each in np.unique(bins)]
        expected = {
            "accuracy": right.mean(),
            "confidence": confidence.mean(),
            "ece": sum(gaps) / len(labels),
            "nll": -np.log(probs[np.arange(len(labels)), labels]).mean(),
        }
        found = {name: said[when][name]["value"] for name in expected}
        assert found == pytest.approx(expected, abs=1e-6)
    lowest, highest = ACCURACY[real_name]
    assert lowest < said["before"]["accuracy"]["value"] < highest
