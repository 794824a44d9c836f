"""How typed questions are best put to real models: `python tests/tools/real_decisions.py` prints the tables of
docs/real.md, "Typed decisions".

Asks each model each task of real_requests.py in several orders, by letters and by words, and keeps every form's logit,
so that forms, orders and temperatures are compared on the same runs. What was run is kept (`--keep FOLDER`) and not run
again. Takes hours on 2 cores with the default numbers of questions, minutes with `--n 30`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.real_models import MODELS, fetch, models_folder, post_trained
from tools.real_requests import make_requests

from edgecal.decisions import DecisionOptions, DecisionPrompting, TypedTemperatures, parse_request
from edgecal.decisions.answers import average_orders, label_logits
from edgecal.decisions.labels import LETTERS, WORDS, forms_of
from edgecal.decisions.orders import is_decided
from edgecal.gguf.shards import find_shards
from edgecal.llama.capture import capture
from edgecal.llama.model import Model
from edgecal.llama.settings import CaptureSettings
from edgecal.llama.tokenizer import Tokenizer
from edgecal.metrics import compute_accuracy, compute_auroc, compute_ece, compute_nll, softmax_probs
from edgecal.runtime import load

# The task, how it is answered, and whether in all rotations of its options beside the order given and its reverse.
RUNS = (
    ("noul-sentiment", "labels", False),
    ("noul-spam", "labels", False),
    ("noul-sentiment", "letters", False),
    ("noul-spam", "letters", False),
    ("choice2-sentiment", "labels", False),
    ("choice4-news", "labels", True),
    ("choice4-arc", "labels", True),
    ("choice6-subjects", "labels", False),
    ("score5-sentiment", "labels", False),
    ("choice4-news-or-none", "labels", False),
    ("choice3-news-none-right", "labels", False),
)
TEXTS = ("choice2-sentiment", "choice4-news", "choice4-arc")
MARGINS = (0.5, 1.0, 2.0, 3.0)
TEMPERATURES = np.geomspace(0.1, 20, 150)

Row = dict[str, Any]
Cells = list[str]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def measure(path: Path, task: str, readout: Any, rotations: bool, n: int) -> list[Row]:
    """For each question in each order: every form's logit by place, and the logarithm of the whole."""
    header = find_shards(path).header
    way = DecisionOptions(readout=readout, orders=1).for_file(TypedTemperatures())
    prompting = DecisionPrompting.for_file(way, header)
    asked = []
    with Model(path) as model:
        tokenizer = Tokenizer(model.vocab, model.n_vocab, str(path))
        for at, body in enumerate(make_requests(task, n)):
            request = parse_request(body, f"request {at}")
            question = request.questions["q"]
            given = tuple(range(prompting.n_places(question)))
            turned = [given[shift:] + given[:shift] for shift in given[1:]] if rotations else []
            for order in (given, given[::-1], *turned):
                prompt = prompting.render(request.state, question, order, f"request {at}").prompt
                labels = prompt.labels or ()
                forms = tuple(forms_of(label, labels, "labels") for label in labels)
                prompt = type(prompt)(**{**vars(prompt), "label_forms": forms})
                asked.append((at, request.answers.get("q"), order, labels, tokenizer.resolve(prompt)))
        rows: list[Row] = [{} for _ in asked]
        for chunk in capture(model, [each[4].tokens for each in asked], CaptureSettings(), hidden=False):
            for logits, index in zip(chunk.logits.astype(np.float64), chunk.indices.tolist(), strict=True):
                at, answer, order, labels, resolved = asked[index]
                found: list[dict[str, float]] = [{} for _ in labels]
                pairs = zip(resolved.choice_tokens.tolist(), resolved.label_of.tolist(), strict=True)
                for token, label in pairs:
                    found[label][tokenizer.piece(token)] = float(logits[token])
                rows[index] = {
                    "at": at,
                    "answer": answer,
                    "order": order,
                    "forms": found,
                    "total": float(np.logaddexp.reduce(logits)),
                    "top": tokenizer.piece(int(logits.argmax())),
                    "n_tokens": len(resolved.tokens),
                }
    return rows


def measure_texts(path: Path, task: str, n: int) -> list[Row]:
    """For each question the probabilities by its options' own texts, in the order given."""
    rows = []
    with load(path) as model:
        for body in make_requests(task, n):
            request = parse_request(body)
            (answer,) = model.decide(request.state, request.questions, readout="texts", orders=1).values()
            rows.append({"answer": request.answers["q"], "probs": answer.probs, "mass": answer.label_mass})
    return rows


class Asked:
    """The answers to one task, read by some of the forms of each label.

    z: float64 [n, R, K], logits by option in each order; mass: [n, R]; tokens: [n, R]; orders: R; right: [n], -1 where
    there is none.
    """

    def __init__(self, rows: Sequence[Row], forms: str, *, words: bool) -> None:
        self.orders = [tuple(row["order"]) for row in rows if row["at"] == rows[0]["at"]]
        n, shape = len({row["at"] for row in rows}), (len(self.orders), len(self.orders[0]))
        self.z = np.full((n, *shape), -np.inf)
        self.mass, self.tokens = np.zeros((n, shape[0])), np.zeros((n, shape[0]))
        self.right = np.full(n, -1)
        counts = np.zeros(n, dtype=int)
        for row in rows:
            at = row["at"]
            by_place = np.array(
                [
                    _sum(found, WORDS[row["order"][place]] if words else LETTERS[place], forms)
                    for place, found in enumerate(row["forms"])
                ]
            )
            self.z[at, counts[at]] = label_logits(by_place, row["order"])
            self.mass[at, counts[at]] = np.exp(np.logaddexp.reduce(by_place) - row["total"])
            self.tokens[at, counts[at]] = row["n_tokens"]
            self.right[at] = -1 if row["answer"] is None else row["answer"]
            counts[at] += 1

    def averaged(self, orders: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """float64 [n, K], over some of the orders."""
        return average_orders(np.moveaxis(self.z[:, list(orders)], 1, 0))

    @property
    def rotations(self) -> list[int]:
        """The order given and its rotations; without these the two orders that there are."""
        return [0, *range(2, len(self.orders))] if len(self.orders) > 2 else [0, 1]

    @property
    def flips(self) -> float:
        """Share of the questions whose answer is another one in the reverse order."""
        return float(np.mean(self.z[:, 0].argmax(1) != self.z[:, 1].argmax(1)))


def _sum(found: dict[str, float], label: str, forms: str) -> float:
    """The label's logit: of its bare form, of that and the one with a space, or of all forms."""
    wanted = {
        "bare": {label},
        "spaced": {label, f" {label}"},
        "all": set(found),
    }[forms]
    return float(np.logaddexp.reduce([z for text, z in found.items() if text in wanted] or [-np.inf]))


def with_error(values: np.ndarray[Any, Any]) -> str:
    return f"{values.mean():.3f} ± {values.std() / len(values) ** 0.5:.3f}"


def nll_each(z: Any, right: Any, temperature: Any = 1.0) -> Any:
    probs = softmax_probs(z, np.full(len(z), z.shape[1]), 1.0 if np.ndim(temperature) else temperature)
    return -np.log(probs[np.arange(len(z)), right])


def temperature_of_labels(z: Any, right: Any) -> tuple[float, Any]:
    """A temperature fitted on one half and used on the other, both ways: their mean, and the divided logits."""
    half, divided, found = np.arange(len(z)) % 2 == 0, z.copy(), []
    for fit, use in ((half, ~half), (~half, half)):
        losses = [nll_each(z[fit], right[fit], t).mean() for t in TEMPERATURES]
        found.append(float(TEMPERATURES[int(np.argmin(losses))]))
        divided[use] = z[use] / found[-1]
    return float(np.mean(found)), divided


def figures(z: Any, right: Any) -> tuple[float, float]:
    """NLL and ECE."""
    probs = softmax_probs(z, np.full(len(z), z.shape[1]))
    return compute_nll(probs, right), compute_ece(probs.max(1), probs.argmax(1) == right)


Runs = dict[tuple[str, str, str], list[Row]]


def forms_table(runs: Runs) -> Iterator[Cells]:
    for (model, task, readout), rows in runs.items():
        words = task.startswith("noul") and readout == "labels"
        cells = []
        for forms in ("bare", "spaced", "all"):
            one = Asked(rows, forms, words=words)
            if (one.right < 0).any() or not np.isfinite(one.z[:, 0]).all():
                break
            nll, _ = figures(one.z[:, 0], one.right)
            hits = one.z[:, 0].argmax(1) == one.right
            cells += [f"{one.mass[:, 0].mean():.3f}", f"{hits.mean():.3f}", f"{nll:.3f}"]
        else:
            yield [model, task, "words" if words else "letters", str(len(one.right)), *cells]


def orders_table(runs: Runs) -> Iterator[Cells]:
    for (model, task, readout), rows in runs.items():
        words = task.startswith("noul") and readout == "labels"
        one = Asked(rows, "all", words=words)
        if (one.right < 0).any() or task.startswith("score5"):
            continue
        cells = []
        first = one.averaged([0])
        for orders in ([0], [0, 1], one.rotations if len(one.orders) > 2 else []):
            if not orders:
                cells += ["", "", ""]
                continue
            z = one.averaged(orders)
            nll, ece = figures(z, one.right)
            change = nll_each(z, one.right) - nll_each(first, one.right)
            extra = "" if orders == [0] else f" ({change.mean():+.3f} ± {change.std() / len(z) ** 0.5:.3f})"
            hits = (z.argmax(1) == one.right).astype(float)
            cells += [with_error(hits), f"{nll:.3f}{extra}", f"{ece:.3f}"]
        yield [model, task, "words" if words else "letters", f"{one.flips:.2f}", *cells]


def auto_table(runs: Runs) -> Iterator[Cells]:
    for (model, task, _), rows in runs.items():
        one = Asked(rows, "all", words=False)
        if len(one.orders) <= 2:
            continue
        orders = one.rotations
        whole = one.averaged(orders).argmax(1)
        cells = []
        for margin in MARGINS:
            used, answers = [], []
            for at in range(len(one.right)):
                for n_done in range(1, len(orders) + 1):
                    z = average_orders(one.z[at, orders[:n_done]])
                    second, top = np.sort(z)[-2:]
                    if n_done == len(orders) or is_decided(top - second, n_done, len(orders), margin):
                        break
                used.append(n_done)
                answers.append(int(z.argmax()))
            cells.append(f"{np.mean(used):.2f}, {np.mean(np.array(answers) != whole):.1%}")
        first = np.sort(one.averaged([0]))
        yield [model, task, f"{np.median(first[:, -1] - first[:, -2]):.2f}", *cells]


def second_table(runs: Runs) -> Iterator[Cells]:
    """The reverse order against half a turn, as the second of two."""
    for (model, task, _), rows in runs.items():
        one = Asked(rows, "all", words=False)
        if len(one.orders) <= 2:
            continue
        half = one.orders.index(
            one.orders[0][len(one.orders[0]) // 2 :] + one.orders[0][: len(one.orders[0]) // 2]
        )
        asked = [one.averaged(orders) for orders in ([0, 1], [0, half])]
        hits = [(z.argmax(1) == one.right).astype(float) for z in asked]
        losses = [nll_each(z, one.right) for z in asked]
        cells = [f"{hits[0].mean():.3f}", f"{hits[1].mean():.3f}", with_error(hits[1] - hits[0])]
        yield [model, task, *cells, with_error(losses[1] - losses[0])]


def together_table(runs: Runs) -> Iterator[Cells]:
    """What each part brings alone and together: NLL, ECE."""
    for (model, task, readout), rows in runs.items():
        words = task.startswith("noul") and readout == "labels"
        parts = {forms: Asked(rows, forms, words=words) for forms in ("bare", "all")}
        one = parts["all"]
        if (one.right < 0).any() or task.startswith("score5") or readout == "letters":
            continue
        cells = []
        for forms, orders, divided in (
            ("bare", [0], False),
            ("bare", [0], True),
            ("all", [0], False),
            ("bare", [0, 1], False),
            ("all", [0], True),
            ("all", [0, 1], False),
            ("all", [0, 1], True),
        ):
            z = parts[forms].averaged(orders)
            if not np.isfinite(z).all():
                cells.append("no such token")
                continue
            if divided:
                temperature, z = temperature_of_labels(z, one.right)
            nll, ece = figures(z, one.right)
            cells.append(f"{nll:.3f}, {ece:.3f}" + (f" (T {temperature:.2f})" if divided else ""))
        yield [model, task, *cells]


def scores_table(runs: Runs) -> Iterator[Cells]:
    for (model, task, _), rows in runs.items():
        if not task.startswith("score5"):
            continue
        one = Asked(rows, "all", words=False)
        cells = []
        for orders in ([0], [1], [0, 1]):
            z = one.averaged(orders)
            value = softmax_probs(z, np.full(len(z), z.shape[1])) @ np.linspace(0, 1, z.shape[1])
            cells.append(f"{compute_auroc(value, one.right == 4):.3f}")
        yield [model, str(len(one.right)), f"{one.mass[:, 0].mean():.3f}", f"{one.flips:.2f}", *cells]


def yes_table(runs: Runs) -> Iterator[Cells]:
    """How well the probability of yes ranks, which no bias spoils."""
    for (model, task, readout), rows in runs.items():
        if task.startswith("noul"):
            one = Asked(rows, "all", words=readout == "labels")
            ranks = [
                compute_auroc(
                    softmax_probs(one.averaged(orders), np.full(len(rows) // 2, 2))[:, 0], one.right == 0
                )
                for orders in ([0], [0, 1])
            ]
            share = float(np.mean(one.z[:, 0].argmax(1) == 0))
            by = "words" if readout == "labels" else "letters"
            yield [model, task, by, f"{share:.2f}", *(f"{rank:.3f}" for rank in ranks)]


def texts_table(runs: Runs) -> Iterator[Cells]:
    """The options' own texts against their letters, on the same questions."""
    for (model, task, readout), rows in runs.items():
        if readout != "texts":
            continue
        right = np.array([row["answer"] for row in rows])
        z = np.log(np.maximum(np.array([row["probs"] for row in rows]), 1e-300))
        letters = Asked(runs[model, task, "labels"], "all", words=False)
        n = min(len(right), len(letters.right))
        assert (letters.right[:n] == right[:n]).all()
        hits = [(one[:n].argmax(1) == right[:n]).astype(float) for one in (letters.averaged([0, 1]), z)]
        cells = [with_error(each) for each in hits] + [with_error(hits[1] - hits[0])]
        losses = [figures(one[:n], right[:n])[0] for one in (letters.averaged([0, 1]), z)]
        yield [model, task, str(n), *cells, *(f"{loss:.3f}" for loss in losses)]


def none_table(runs: Runs) -> Iterator[Cells]:
    """How often "none of the above" is likelier than every option, where it is right and where it is not."""
    for model in dict.fromkeys(model for model, _, _ in runs):
        try:
            there, gone, plain = (
                Asked(runs[model, task, "labels"], "all", words=False)
                for task in ("choice4-news-or-none", "choice3-news-none-right", "choice4-news")
            )
        except KeyError:
            continue
        for orders, name in (([0], "1"), ([0, 1], "2")):
            flagged = [one.averaged(orders).argmax(1) == one.z.shape[2] - 1 for one in (there, gone)]
            z = there.averaged(orders)
            n = min(len(plain.right), len(z))
            share = [
                softmax_probs(one.averaged(orders), np.full(len(one.z), one.z.shape[2]))[:, -1]
                for one in (there, gone)
            ]
            yield [
                model,
                name,
                str(len(z)),
                with_error(flagged[1]),
                with_error(flagged[0]),
                f"{compute_auroc(np.concatenate(share), np.repeat([False, True], [len(z), len(gone.z)])):.3f}",
                f"{compute_accuracy(plain.averaged(orders)[:n], plain.right[:n]):.3f}",
                f"{compute_accuracy(z[:n, :-1], there.right[:n]):.3f}",
                f"{np.mean((z.argmax(1) == there.right)[:n]):.3f}",
            ]


def table(head: str, rows: Iterator[Cells]) -> list[str]:
    return [
        f"| {head} |",
        "|" + "---|" * (head.count("|") + 1),
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
    ]


def tables(runs: Runs) -> str:
    """The section's tables, each with what its columns mean."""
    return "\n".join(
        [
            "### Forms of a label",
            "",
            "In the order given. Bare: the letter or word alone, as llama.cpp's decision mode reads it; then with the",
            "form that has a space before it; then with all cases. Mass: share of all probability on the labels.",
            "",
            *table(
                "model | task | answered by | n | bare: mass | right | NLL | with a space: mass | right | NLL | "
                "all forms: mass | right | NLL",
                forms_table(by_label(runs)),
            ),
            "### Orders",
            "",
            "All forms. Flips: how often the reverse order gives another answer. 2: the order given and its reverse;",
            "all: every rotation. In brackets the change of the NLL against 1 order, with its standard error.",
            "",
            *table(
                "model | task | answered by | flips | 1: right | NLL | ECE | 2: right | NLL | ECE | all: right | NLL | "
                "ECE",
                orders_table(by_label(runs)),
            ),
            '"auto": orders used of 4, and the share of answers that differ from all orders\', by `order_margin`.',
            "",
            *table(
                "model | task | median margin after 1 order, nats | "
                + " | ".join(f"{margin:g}" for margin in MARGINS),
                auto_table(by_label(runs)),
            ),
            "The second of two orders: half a turn in place of the reverse.",
            "",
            *table(
                "model | task | reverse: right | half a turn: right | change | change of the NLL",
                second_table(by_label(runs)),
            ),
            "### Alone and together",
            "",
            "NLL, ECE. T: a temperature from the labels of one half, judged on the other, both ways: an upper bound of",
            "what a temperature without labels can do.",
            "",
            *table(
                "model | task | bare label, 1 order | T | forms | 2 orders | forms, T | forms, 2 orders | "
                "forms, 2 orders, T",
                together_table(by_label(runs)),
            ),
            "### Yes and no",
            "",
            "How well the probability of yes ranks (AUROC), which a preference for yes or no does not spoil.",
            "",
            *table(
                "model | task | answered by | says yes, 1 order | AUROC, 1 order | AUROC, 2 orders",
                yes_table(by_label(runs)),
            ),
            "### Scores",
            "",
            "Five levels from very negative to very positive; only the ends have labels, so the expected level is",
            "judged as a ranking (AUROC). None of the tasks has more than two levels with labels.",
            "",
            *table(
                "model | n | label mass | flips | levels upwards | downwards | both",
                scores_table(by_label(runs)),
            ),
            "### The options' own texts",
            "",
            'The readout "texts" in one order, against letters in two.',
            "",
            *table(
                "model | task | n | letters: right | texts: right | change | letters: NLL | texts: NLL",
                texts_table(runs),
            ),
            "### None of the above",
            "",
            'The news with "none of the above" beside four topics of which one is right, and beside three of which',
            "none is. Flagged: it is likelier than every option. AUROC: its probability, where it is right against",
            "where it is not.",
            "",
            *table(
                "model | orders | n | flagged where it is right | flagged where it is not | AUROC | right without it | "
                "right with it, among the topics | right and not flagged",
                none_table(runs),
            ),
        ]
    )


def by_label(runs: Runs) -> Runs:
    return {key: rows for key, rows in runs.items() if key[2] != "texts"}


def gather(names: Sequence[str], paths: dict[str, Path], keep: Path, n: int) -> Runs:
    """What was kept, and what was not is run."""
    runs: Runs = {}
    keep.mkdir(parents=True, exist_ok=True)
    for name in names:
        for task, readout, rotations in RUNS:
            file = keep / f"{name}.{task}.{readout}.json"
            if not file.exists() and n:
                started = time.monotonic()
                rows = measure(paths[name], task, readout, rotations, n)
                file.write_text(json.dumps(rows), encoding="utf-8")
                say(f"{name} {task} {readout}: {time.monotonic() - started:.0f} s")
            if file.exists():
                runs[name, task, readout] = json.loads(file.read_text("utf-8"))
        for task in TEXTS:
            file = keep / f"{name}.{task}.texts.json"
            if not file.exists() and n:
                file.write_text(json.dumps(measure_texts(paths[name], task, n)), encoding="utf-8")
            if file.exists():
                runs[name, task, "texts"] = json.loads(file.read_text("utf-8"))
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", default="smollm2,gemma-post,qwen-0.5b,qwen-1.5b", help="[default: %(default)s]"
    )
    parser.add_argument(
        "--n", type=int, default=200, help="questions of each task; 0 runs nothing that is not kept"
    )
    parser.add_argument("--keep", type=Path, help="folder of what was run  [default: a temporary one]")
    parser.add_argument("--output", type=Path, help="write the tables there  [default: print them]")
    options = parser.parse_args()
    names = options.only.split(",")
    paths = {name: fetch(name, models_folder()) for name in names if name in MODELS and options.n}
    if options.n and "gemma-post" in names:
        paths["gemma-post"] = post_trained(fetch("gemma", models_folder()))
    with tempfile.TemporaryDirectory() as temporary:
        text = tables(gather(names, paths, options.keep or Path(temporary), options.n))
    if options.output is None:
        print(text)
    else:
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
