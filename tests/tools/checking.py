"""What real llama.cpp programs do with the bundled chat model: as it is, stamped, and baked.

What they should say is computed from edgecal's own logits of the same file. llama.cpp's programs use flash attention
by default and edgecal does not, which moves logits by up to a few hundredths.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import programs
from support.calibrated import CHAT, MODELS, TEMPERATURE, bake, stamp

import edgecal
from edgecal.gguf.header import read_header
from edgecal.gguf.rewrite import write_edited
from edgecal.gguf.values import Value
from edgecal.prompts import PromptTemplate, Question
from edgecal.runtime import Model, load
from edgecal.runtime.llama_logits import log_softmax, start

EXAMPLE = Path(__file__).parents[2] / "examples/llama_tools.sh"
AUTHORS = 0.7  # an author's own sampling temperature
DEFAULT = 0.8  # llama.cpp's own
N_RUNS = 100
LOG_PROB_TOLERANCE = 0.1  # nats; undivided and calibrated ones differ by several
PROB_TOLERANCE = 0.02


@dataclass(frozen=True)
class Check:
    """One line of the table."""

    what: str
    file: str
    expected: str
    found: str
    ok: bool


@dataclass(frozen=True)
class Asked:
    """A prompt, its undivided next-token logits, float32 [n_vocab], and its answer as `edgecal.load` gives it."""

    prompt: str
    logits: np.ndarray
    probs: tuple[float, ...]
    letters: tuple[str, ...]


def make_files(folder: Path) -> dict[str, Path]:
    """Copies of the chat model, by what was done to them."""
    for old in folder.glob("*.gguf"):
        old.unlink()
    authors = folder / "authors.gguf"
    changes = {"general.sampling.temp": Value.float32(AUTHORS)}
    write_edited(read_header(CHAT), authors, changes=changes, remove=frozenset())
    stamped_authors = stamp(folder / "stamped-authors.gguf", source=authors)
    return {
        "as it is": CHAT,
        "author's 0.7": authors,
        "stamped": stamp(folder / "stamped.gguf"),
        "stamped, keys only": stamp(folder / "keys-only.gguf", sampling_key=False),
        "stamped over 0.7": stamped_authors,
        "baked": bake(folder / "baked.gguf", source=folder / "stamped.gguf", temperature=None),
        "baked over 0.7": bake(folder / "baked-authors.gguf", source=stamped_authors, temperature=None),
    }


def ask(stamped: Path) -> Asked:
    """The first question of the development set on which the model, undivided, is 0.95 to 0.99 sure."""
    with load(CHAT) as plain, load(stamped) as model:
        for line in (MODELS / "questions/dev.jsonl").read_text("utf-8").splitlines():
            record = json.loads(line)
            choices = tuple(record["choices"])
            if 0.95 < plain.choose(record["question"], choices).confidence < 0.99:
                question = Question(record["question"], choices)
                prompt = PromptTemplate().render(question).text or ""
                answer = model.choose(question.question, choices)
                return Asked(prompt, _logits(plain, prompt), answer.probs, question.labels)
    raise RuntimeError("no question with such a confidence")


def _logits(model: Model, prompt: str) -> np.ndarray:
    tokens = np.array(model.llama.tokenize(prompt.encode(), special=True), dtype=np.int32)
    return start(model.llama, tokens, "the prompt")


def check_all(bin_folder: Path, folder: Path) -> Iterator[Check]:
    """Every check, as it is made."""
    files = make_files(folder)
    asked = ask(files["stamped"])
    yield from _check_props(bin_folder, files)
    yield from _check_completion(bin_folder, files, asked)
    yield from _check_server_sampling(bin_folder, files, asked)
    yield from _check_log_probs(bin_folder, files, asked)
    yield _check_example(bin_folder, files["stamped"], asked)


def _check_props(bin_folder: Path, files: dict[str, Path]) -> Iterator[Check]:
    cases: list[tuple[str, float, tuple[str, ...]]] = [
        ("as it is", DEFAULT, ()),
        ("author's 0.7", AUTHORS, ()),
        ("stamped", TEMPERATURE, ()),
        ("stamped", 1.5, ("--temp", "1.5")),
        ("stamped, keys only", DEFAULT, ()),
        ("stamped over 0.7", TEMPERATURE, ()),
        ("baked", DEFAULT, ()),
        ("baked over 0.7", AUTHORS, ()),
    ]
    for name, expected, options in cases:
        with programs.serve(bin_folder, files[name], *options) as url:
            found = programs.default_temperature(url)
        what = " ".join(["llama-server /props", *options])
        yield Check(what, name, f"{expected:g}", f"{found:.4g}", math.isclose(found, expected, rel_tol=1e-5))


def _check_completion(bin_folder: Path, files: dict[str, Path], asked: Asked) -> Iterator[Check]:
    """How often llama-completion draws the likeliest token: with nothing but the temperature, and with its own cuts
    before the temperature, which leave the likeliest token alone where the model is sure."""
    for name, temperature, cuts in (
        ("as it is", DEFAULT, False),
        ("stamped", TEMPERATURE, False),
        ("stamped", TEMPERATURE, True),
        ("baked", DEFAULT * TEMPERATURE, False),
    ):
        options = () if cuts else ("--samplers", "temperature")
        drawn = [
            programs.complete(bin_folder, files[name], asked.prompt, (*options, "--seed", str(seed)))
            for seed in range(1, N_RUNS + 1)
        ]
        likeliest = asked.letters[int(np.argmax(asked.probs))]
        share = np.mean([text.strip() == likeliest for text, _ in drawn])
        expected = 1.0 if cuts else float(np.exp(log_softmax(asked.logits, temperature).max()))
        allowed = 4 * math.sqrt(expected * (1 - expected) / N_RUNS) + PROB_TOLERANCE
        said = drawn[0][1]
        what = f"llama-completion, {N_RUNS} draws" + (", own cuts" if cuts else "")
        told = DEFAULT if name != "stamped" else TEMPERATURE
        yield Check(
            what,
            name,
            f"temp {told:g}, likeliest {expected:.1%}",
            f"temp {said:g}, likeliest {share:.1%}",
            abs(share - expected) <= allowed and math.isclose(said, told, abs_tol=1e-3),
        )


def _check_server_sampling(bin_folder: Path, files: dict[str, Path], asked: Asked) -> Iterator[Check]:
    """The probabilities that llama-server draws from, as it says itself."""
    for name, temperature in (
        ("as it is", DEFAULT),
        ("stamped", TEMPERATURE),
        ("baked", DEFAULT * TEMPERATURE),
    ):
        with programs.serve(bin_folder, files[name]) as url:
            found = programs.next_token(
                url, asked.prompt, n_probs=10, post_sampling_probs=True, samplers=["temperature"], seed=1
            )
        expected = np.exp(log_softmax(asked.logits, temperature))
        off = max(abs(each["prob"] - expected[each["id"]]) for each in found["top_probs"])
        yield Check(
            "llama-server draws from softmax(logits / T)",
            name,
            f"T {temperature:.4g}, off by < {PROB_TOLERANCE}",
            f"off by {off:.4f}",
            off < PROB_TOLERANCE,
        )


def _check_log_probs(bin_folder: Path, files: dict[str, Path], asked: Asked) -> Iterator[Check]:
    """The log-probabilities that llama-server reports, at two temperatures of the request."""
    undivided, calibrated = log_softmax(asked.logits, 1.0), log_softmax(asked.logits, TEMPERATURE)
    for name in ("as it is", "stamped", "baked"):
        with programs.serve(bin_folder, files[name]) as url:
            replies = [
                programs.next_token(url, asked.prompt, n_probs=200, temperature=temperature)["top_logprobs"]
                for temperature in (0.1, 1.5)
            ]
        off = {
            kind: max(abs(each["logprob"] - log_probs[each["id"]]) for reply in replies for each in reply[:5])
            for kind, log_probs in (("undivided", undivided), ("calibrated", calibrated))
        }
        right, other = ("calibrated", "undivided") if name == "baked" else ("undivided", "calibrated")
        yield Check(
            "llama-server log-probabilities, top 5",
            name,
            f"{right} within {LOG_PROB_TOLERANCE}, not {other}",
            f"{right} {off[right]:.4f} off, {other} {off[other]:.2f} off",
            off[right] < LOG_PROB_TOLERANCE and off[other] > 1.0,
        )
        same = replies[0] == replies[1]
        yield Check("the same at request temperature 0.1 and 1.5", name, "yes", "yes" if same else "no", same)
        letters = {each["token"].strip(): math.exp(each["logprob"]) for each in reversed(replies[0])}
        powers = np.array([letters.get(letter, 0.0) for letter in asked.letters])
        distance = float(np.abs(powers / powers.sum() - asked.probs).max())
        is_calibrated = distance < PROB_TOLERANCE
        yield Check(
            "letters' probabilities as edgecal.load has them",
            name,
            "yes" if name == "baked" else "no",
            f"{'yes' if is_calibrated else 'no'}, off by {distance:.4f}",
            is_calibrated == (name == "baked"),
        )


def _check_example(bin_folder: Path, stamped: Path, asked: Asked) -> Check:
    result = subprocess.run(
        ["sh", str(EXAMPLE), str(stamped), asked.prompt],
        env={**os.environ, "LLAMA_BIN": str(bin_folder), "PORT": str(programs.free_port())},
        capture_output=True,
        text=True,
        check=False,
        timeout=programs.START_S,
    )
    said = re.search(r"sampling temperature: ([\d.]+)", result.stdout)
    ok = (
        result.returncode == 0
        and said is not None
        and math.isclose(float(said[1]), TEMPERATURE, rel_tol=1e-5)
    )
    found = f"exit code {result.returncode}, says {said[1] if said else 'nothing'}"
    return Check("examples/llama_tools.sh", "stamped", f"says {TEMPERATURE:g}", found, ok)


def describe() -> str:
    """What is checked, with what."""
    return f"edgecal {edgecal.__version__}, temperature {TEMPERATURE}, {CHAT.name}"
