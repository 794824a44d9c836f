"""What edgecal does with real models: `python tests/tools/real_report.py --output docs/real.md` (`make real-report`).

Fetches the models (see real_models.py), examines, asks, bakes and fits them on real questions, and writes a page of
tables with whatever came out. Takes 10 to 20 minutes on 2 cores that are idle. Needs what lies beside the repository
(EDGECAL_SHARED).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.real_models import MODELS, fetch, models_folder, post_trained, shared_folder

import edgecal
from edgecal.errors import EdgecalError, NotIdentifiedError

N_SEEDS = 3
BAKED = 2.5
N_QUESTIONS = 40
QUESTIONS = {  # the file, and the reader that shows what people ask
    "ARC Easy": "arc-easy-test.jsonl",
    "OpenBookQA": "openbookqa-test.jsonl",
    "MMLU, six subjects": "mmlu",
    "BoolQ, without its passages": "boolq-test.jsonl",
}
N_PAIR = 200
DECISIONS = "## Typed decisions\n"  # a section that is kept
TASKS = {"all": (), "news": ("ag",), "spam": ("sms",), "sentiment": ("sst",)}

INTRODUCTION = f"""# Real models

Written by `make real-report` ({{version}}, llama-cpp-python {{llama}}): four public models, and a real base and a real
post-trained model of Gemma 3 270M. Nothing is left out for being bad. Times are wall times on {{cores}} cores; the load
average was {{load}}, and above {{cores}} other programs had a share of them.

## The models

Lens: the rms error of the re-projected last block, as a share of the logits' spread, the largest of `edgecal doctor
--run` with the seeds 0 to {N_SEEDS - 1}, and how often methods with layers were allowed. Baked: what the logits differ
by after `edgecal bake --temperature {BAKED}`, beyond the head's own roundings and with them. Unbaked: whether `edgecal
unbake` gave the original bytes.
"""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def table(head: str, rows: Iterator[list[str]] | list[list[str]]) -> list[str]:
    return [
        f"| {head} |",
        "|" + "---|" * (head.count("|") + 1),
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
    ]


def one_line(error: EdgecalError) -> str:
    return f"**refused**: {str(error).replace('|', '/')}"


def examined(names: list[str], paths: dict[str, Path], work: Path) -> Iterator[list[str]]:
    for name in names:
        say(f"doctor and bake: {name}")
        started = time.monotonic()
        found = [edgecal.doctor(paths[name], run=True, seed=seed) for seed in range(N_SEEDS)]
        took = (time.monotonic() - started) / N_SEEDS
        layered = sum("dual-align" in each.methods for each in found)
        worst = max(each.lens_rms or float("nan") for each in found)
        yield [
            paths[name].name,
            f"{found[0].architecture}, {found[0].n_layer} blocks, head {found[0].head['type']}",
            f"{100 * worst:.0e} %",
            f"{layered} of {N_SEEDS}",
            f"{took:.1f} s",
            *baked(paths[name], work),
        ]


def baked(model: Path, work: Path) -> list[str]:
    """Cells: the errors, and whether the bytes came back."""
    target, back = work / "baked.gguf", work / "back.gguf"
    done = command("bake", model, "--temperature", BAKED, "--output", target, "--json")
    if done.returncode:
        return [f"**refused**: {done.stderr.strip().splitlines()[-1]}", "–"]
    said = json.loads(done.stdout)
    undone = command("unbake", target, "--output", back)
    same = undone.returncode == 0 and back.read_bytes() == model.read_bytes()
    target.unlink(), back.unlink(missing_ok=True)
    return [f"{said['error']:.1g}, {said['plain']:.2g} with roundings", "yes" if same else "**no**"]


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgecal", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=tempfile.gettempdir(),
    )


def asked(names: list[str], paths: dict[str, Path], data: Path) -> Iterator[list[str]]:
    for name in names:
        for title, file in QUESTIONS.items():
            say(f"eval: {name}, {title}")
            started = time.monotonic()
            try:
                said = edgecal.evaluate(
                    paths[name],
                    data / file,
                    effect_sample=0,
                    questions=edgecal.QuestionOptions(limit=N_QUESTIONS),
                ).to_dict()
            except EdgecalError as error:
                yield [paths[name].name, title, one_line(error), *[""] * 5]
                continue
            figures = said["figures"]["before"]
            yield [
                paths[name].name,
                title,
                str(said["data"]["n_questions"]),
                f"{said['prompting']['choice_mass']['model']:.3f}",
                *(percent(figures[figure]) for figure in ("accuracy", "confidence", "ece")),
                f"{time.monotonic() - started:.0f} s",
            ]


def percent(figure: dict[str, Any]) -> str:
    return f"{figure['value']:.1%} ({figure['low']:.1%} to {figure['high']:.1%})"


def fitted(pair: tuple[Path, Path], data: Path) -> Iterator[list[str]]:
    """The default method on each task, written all the same, beside supervised scaling on the same prompts."""
    for title, subjects in TASKS.items():
        say(f"fit: {title}")
        options: dict[str, Any] = {
            "questions": edgecal.QuestionOptions(subjects=subjects),
            "tolerance": None,
            "output": edgecal.OutputOptions(unsettled=True),
        }
        try:
            result = edgecal.fit(*pair, data, **options)
            oracle = edgecal.fit(*pair, data, **{**options, "method": "ts"}).temperature
        except NotIdentifiedError as error:
            yield [title, "", one_line(error), *[""] * 7]
            continue
        bracket = result.bracket
        ends = ["none" if bracket[end] is None else f"{bracket[end]:.3g}" for end in ("low", "high")]
        check = result.label_check or {"nll_before": float("nan"), "nll_after": float("nan")}
        yield [
            title,
            str(result.n_prompts),
            f"{result.choice_mass['base']:.3f}",
            f"{result.accuracy['base']:.1%}, {result.accuracy['chat']:.1%}",
            f"{result.temperature:.3g} ({result.interval[0]:.3g} to {result.interval[1]:.3g})",
            f"{oracle:.3g}",
            " to ".join(ends),
            f"{result.ece['before']:.1%}, {result.ece['after']:.1%}",
            f"{check['nll_before']:.3f}, {check['nll_after']:.3f}",
            "; ".join(
                [*(["unsettled"] if not result.settled else []), *(["harmful"] if result.harmful else [])]
            )
            or "settled",
        ]


def as_users_do(pair: tuple[Path, Path], data: Path) -> Iterator[list[str]]:
    """Without any option but the data."""
    for title, arguments in (
        ("the built-in bank", ()),
        ("prompts of the three tasks", ("--data", data / "tasks-cal.jsonl")),
    ):
        say(f"fit as users do: {title}")
        started = time.monotonic()
        done = command("fit", *pair, *arguments, "--dry-run")
        lines = [line.removeprefix("edgecal: ") for line in done.stderr.splitlines()]
        reasons = [line for line in lines if line.startswith("refused: ")] or lines[-1:]
        stopped = next(
            (line.split(maxsplit=1)[1] for line in done.stdout.splitlines() if line.startswith("stopped")), ""
        )
        yield [
            title,
            str(done.returncode),
            stopped,
            "<br>".join(reason.replace("|", "/") for reason in reasons),
            f"{time.monotonic() - started:.0f} s",
        ]


def report(names: list[str]) -> str:
    shared = shared_folder() / "data"
    paths = {name: fetch(name, models_folder()) for name in names}
    pair = (paths["gemma"], post_trained(paths["gemma"]))
    started, load = time.monotonic(), []
    pages: list[str] = []
    with tempfile.TemporaryDirectory() as work:
        os.environ["EDGECAL_CACHE_DIR"] = str(Path(work) / "cache")  # nothing of an earlier run
        few = Path(work) / "tasks.jsonl"
        lines = (shared / "tasks-cal.jsonl").read_text("utf-8").splitlines()
        few.write_text("\n".join(lines[:: len(lines) // N_PAIR][:N_PAIR]), encoding="utf-8")
        pages += table(
            "model | what | lens | layers used | one run took | baked | unbaked",
            examined(names, paths, Path(work)),
        )
        load.append(os.getloadavg()[0])
        pages += [
            "## Questions",
            "",
            f"`edgecal eval --limit {N_QUESTIONS}`, each model as it is, without worked examples, by the default",
            "template. Choice mass: the share of all probability that lies on the options' letters.",
            "",
            *table(
                "model | questions | n | choice mass | accuracy | mean confidence | ECE | took",
                asked(names, paths, shared),
            ),
        ]
        load.append(os.getloadavg()[0])
        pages += [
            "## The real pair, as a user would run it",
            "",
            "`edgecal fit gemma-3-270m-q4_k_m.gguf gemma-270m-post.gguf`, with no option but the data. Exit code 4:",
            "refused.",
            "",
            *table("data | exit code | stopped | said | took", as_users_do(pair, shared)),
            "## The real pair against labels",
            "",
            f"{N_PAIR} few-shot prompts of three tasks, all run, with `--unsettled`: a temperature comes out,",
            "whatever speaks against it. The oracle is supervised scaling on the same prompts' labels.",
            "",
            *table(
                "task | prompts | base's choice mass | right: base, chat | Dual-Align | oracle | bracket | "
                "ECE before, after | NLL before, after | verdict",
                fitted(pair, few),
            ),
        ]
        load.append(os.getloadavg()[0])
    import llama_cpp

    head = INTRODUCTION.format(
        version=f"edgecal {edgecal.__version__}",
        llama=llama_cpp.__version__,
        cores=os.cpu_count(),
        load=", ".join(f"{each:.1f}" for each in load),
    )
    return "\n".join([head, *pages, f"All of it took {(time.monotonic() - started) / 60:.0f} minutes.", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--only", default=",".join(MODELS), help="models, gemma among them [default: %(default)s]"
    )
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    page = report(options.only.split(","))
    before = options.output.read_text("utf-8") if options.output.exists() else ""
    if DECISIONS in before:  # by real_decisions.py, with what was concluded from it
        page += "\n" + before[before.index(DECISIONS) :]
    options.output.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
