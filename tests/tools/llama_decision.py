"""What llama.cpp's real server makes of an exported file: `python tests/tools/llama_decision.py MODEL.gguf [--n 100]`.

Needs what tests/llama_server.txt lists. Prints how far the probabilities of the server's decision mode are

- from edgecal's, computed by the same build of llama.cpp: edgecal's tokens, labels, temperatures and softmax on the
  logits that this server gives for these tokens;
- from `edgecal.load(...).decide(...)`, which another build of llama.cpp computes: with quantized weights each rounds
  the inputs of its products to 8 bits, and a last digit decides which way;
- from the server's own with flash attention, and of a question alone from the same one asked beside others.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.decision_server import DecisionServer

import edgecal
from edgecal.decisions import DecisionOptions, DecisionPrompting, parse_request
from edgecal.gguf.header import read_header
from edgecal.gguf.rewrite import write_edited
from edgecal.llama.model import Model
from edgecal.llama.tokenizer import Tokenizer
from edgecal.runtime.llama_decision import plan_llama_decision
from edgecal.stamping.changes import decision_edits
from edgecal.stamping.decision_record import DecisionRecord, GroupRecord, read_temperatures
from edgecal.stamping.edit import Place

Probabilities = list[dict[str, list[float]]]

# Made up, one for each type and some sizes, so that a wrong one would show.
TEMPERATURES = {
    "choice": 1.75,
    "choice.2": 0.625,
    "choice.3_5": 2.5,
    "choice.11": 1.25,
    "score": 0.8125,
    "noul": 1.375,
}

_WORDS = (
    "the cat sat on a red mat while rain fell over green hills and boats moved slowly past old towers".split()
)


def requests(n: int, seed: int = 0) -> Iterator[dict]:
    """n requests of one question each, of all three types in turn: texts, objects and lists, 2 to 52 options."""
    rng = random.Random(seed)

    def text(most: int) -> str:
        return " ".join(rng.choice(_WORDS) for _ in range(rng.randint(1, most))).capitalize()

    def value(most: int) -> object:
        number = rng.choice([3, -2.5, 100.0, round(rng.uniform(0, 1e6), rng.randint(0, 4))])
        return rng.choice(
            [
                text(most),
                {"note": text(most), "n": [number, None, True]},
                [text(most), {"ä": 'b "c"\n日本 🙂'}],
            ]
        )

    for index in range(n):
        kind = ("noul", "choice", "score")[index % 3]
        question: dict[str, object] = {"type": kind, "instructions": rng.choice([f"{text(5)}?", value(3)])}
        if kind == "noul":
            question["criteria"] = rng.choice([None, {"true": text(3)}, {"false": value(2), "true": text(2)}])
        elif kind == "choice":
            n_options = rng.choice([2, 3, 4, 6, 12, 52])
            question["criteria"] = {
                f"{text(1)} {at}": rng.choice([None, None, text(2)]) for at in range(n_options)
            }
        else:
            question["criteria"] = [rng.choice([text(2), {"level": at}]) for at in range(rng.randint(2, 10))]
        yield {"model": "any", "state": value(12), "questions": {f"q{index}": question}}


def export(source: Path | str, target: Path) -> Path:
    """A copy of a model with temperatures for questions, exported for llama.cpp."""
    header = read_header(source)
    prompting = DecisionPrompting.for_file(DecisionOptions(readout="letters"), header)
    record = DecisionRecord(
        {name: GroupRecord(tau, settled=True) for name, tau in TEMPERATURES.items()},
        readout="letters",
        orders="1",
        prompt_sha256=prompting.sha256,
    )
    changes, remove = decision_edits(header, record)
    write_edited(header, target, changes=changes, remove=remove)
    plan_llama_decision(target, Place(in_place=True)).write()
    return target


def by_the_same_build(path: Path, bodies: Iterable[dict], server: DecisionServer) -> Probabilities:
    """What edgecal's tokens, labels, temperatures and softmax make of the server's logits."""
    header = read_header(path)
    prompting = DecisionPrompting.for_file(DecisionOptions(readout="letters"), header)
    temperatures = read_temperatures(header)
    found = []
    with Model(path, vocab_only=True) as model:
        tokenizer = Tokenizer(model.vocab, model.n_vocab, str(path))
        for body in bodies:
            request = parse_request(body)
            answers = {}
            for key, question in request.questions.items():
                n = len(question.keys)
                prompt = tokenizer.resolve(prompting.render(request.state, question, range(n)).prompt)
                labels = prompt.choice_tokens.tolist()
                logits = server.log_probs(prompt.tokens.tolist(), model.n_vocab, labels[0])
                z = np.array([logits[token] for token in labels])
                z = (z - z.max()) / temperatures.find(question.type, n).temperature
                answers[key] = (np.exp(z) / np.exp(z).sum()).tolist()
            found.append(answers)
    return found


def by_edgecal(path: Path, bodies: Iterable[dict]) -> Probabilities:
    """What `edgecal.load(path).decide` answers."""
    with edgecal.load(path, n_threads=1, n_threads_batch=1) as model:
        found = []
        for body in bodies:
            request = parse_request(body)
            answers = model.decide(request.state, request.questions)
            found.append({key: list(answer.probs) for key, answer in answers.items()})
    return found


def differences(one: Probabilities, other: Probabilities) -> np.ndarray:
    """The largest difference of a probability in each request, float64 [n]."""
    return np.array(
        [
            max(abs(p - q) for key in a for p, q in zip(a[key], b[key], strict=True))
            for a, b in zip(one, other, strict=True)
        ]
    )


def in_company(bodies: list[dict]) -> list[dict]:
    """All questions in one request about the first one's state, and each alone about that state."""
    state = bodies[0]["state"]
    questions = {key: question for body in bodies for key, question in body["questions"].items()}
    alone = [{"model": "any", "state": state, "questions": {key: asked}} for key, asked in questions.items()]
    return [{"model": "any", "state": state, "questions": questions}, *alone]


def _company(server: DecisionServer, bodies: list[dict]) -> np.ndarray:
    together, *alone = map(server.probabilities, in_company(bodies))
    return differences([{key: p} for key, p in together.items()], alone)


def main() -> None:
    """Prints the differences as a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--n", type=int, default=100, help="requests")
    arguments = parser.parse_args()
    bodies = list(requests(arguments.n))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = export(arguments.model, Path(folder) / "exported.gguf")
        with DecisionServer(path) as server:
            plain = list(map(server.probabilities, bodies))
            rows.append(
                ("edgecal's, by the same build", differences(plain, by_the_same_build(path, bodies, server)))
            )
        rows.append(("edgecal's, by its own build", differences(plain, by_edgecal(path, bodies))))
        with DecisionServer(path, flash_attention=True) as server:
            rows.append(("with flash attention", differences(plain, list(map(server.probabilities, bodies)))))
        for flash in (False, True):
            with DecisionServer(path, flash_attention=flash, n_slots=4) as server:
                rows.append(
                    (f"beside 7 others, flash attention {('off', 'on')[flash]}", _company(server, bodies[:8]))
                )
    print(f"{arguments.model.name}, {len(bodies)} requests; differences of probabilities\n")
    print("| llama.cpp's server, flash attention off, compared with | mean | largest |\n|---|---|---|")
    for name, found in rows:
        print(f"| {name} | {found.mean():.2g} | {found.max():.2g} |")
    print(json.dumps({name: found.max() for name, found in rows}))


if __name__ == "__main__":
    main()
