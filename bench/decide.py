"""Typed questions about one state, against typed-gguf, llama.cpp's decision mode and plain llama-cpp-python loops.

    python bench/decide.py [WORK_FOLDER] [--models FILE ...] [--only PEER ...] [--repetitions N] [--json FILE] [--quick]

Requests of the format of `POST /v1/systemone`: 1, 8 and 32 questions about a state of 1,000 tokens, and 100 requests of
200 tokens with one question each. edgecal is asked as it comes (several orders of the options) and in one order, as
the peers ask. Each side runs in a process of its own with the model loaded and a request about another state of the
same length answered; timed is request in, answers out. The tokens are those that a side's decodes ran through the
model, the memory its process's peak. The 8 questions also run beside a program that keeps a core busy (`--beside`).

    typed-gguf     pip install typed-gguf==0.3.0: what its warm host runs for a request, in its fastest setting, the
                   context as small as the request allows (`--no-fit`); on llama-cpp-python's llama.cpp, unless
                   TYPED_GGUF_RUNTIME_DIR names another
    llama.cpp      pip install xllamacpp==2026.10.11549: llama.cpp's server, on the file that
                   `edgecal export --to llama-decision` writes
    loop, anew     pip install llama-cpp-python: edgecal's own prompts, ready-made, one question after the other, each
                   evaluated whole; of many only the first two are timed, and the time is scaled up
    loop, kept     the same, but what a prompt shares with the one before it stays, as `Llama.generate` does

A peer may also be in WORK_FOLDER/peers (pip install --no-deps --target build/bench/peers ...). One that is not there,
or does not run, is skipped and said. Peers are as they come but for the number of threads. Where the machine has other
work, `OMP_WAIT_POLICY=passive` and `--by processors` compare the work done: seconds of processors instead of time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from timing import (
    Ratio,
    Taken,
    finish,
    make_parser,
    middle,
    pair,
    peak_bytes,
    report,
    run_side,
    say_machine,
    skip,
    take_in_turn,
)

OURS = ("edgecal", "edgecal, 1 order")
_MODULES = {**dict.fromkeys(OURS, "edgecal"), "typed-gguf": "typed_gguf", "llama.cpp": "xllamacpp"}
_MODULES |= dict.fromkeys(("loop, anew", "loop, kept"), "llama_cpp")
_PACKAGES = {
    "typed_gguf": "typed-gguf==0.3.0",
    "xllamacpp": "xllamacpp==2026.10.11549",
    "llama_cpp": "llama-cpp-python",
}
_N_STATE, _N_REQUEST, _N_CTX = 1_000, 200, 2_048
# What a loop that evaluates everything anew asks at most; its time is scaled up from there.
_N_ANEW = 2
_AHEAD, _LEVEL = 1.0, 0.95
# What 8 questions may take on 2 cores, with models up to this size.
_LIMIT_S, _LIMITED_BYTES = 10.0, 600e6
_SPINNING = "while True: pass"


def main() -> None:
    if sys.argv[1:2] == ["side"]:
        _run_side(*sys.argv[2:])
        return
    arguments = _parse()
    say_machine(arguments.threads)
    ratios: list[Ratio] = []
    times: dict[str, list[Taken]] = {}
    for model in _find_models(arguments):
        found, taken = measure(model, arguments)
        ratios += found
        times |= {f"{model.name}, {case}, {peer}": runs for (case, peer), runs in taken.items()}
    finish(arguments.json, ratios, times, n_threads=arguments.threads)


def _parse() -> argparse.Namespace:
    parser = make_parser(__doc__, repetitions=3)
    parser.add_argument("--models", type=Path, nargs="+", metavar="FILE", default=[])
    parser.add_argument("--only", nargs="+", metavar="PEER", help="peers whose names begin so")
    parser.add_argument("--questions", type=int, nargs="*", default=[1, 8, 32], metavar="N")
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument(
        "--at-most", type=int, metavar="N", help="of the requests, the times scaled up from there"
    )
    parser.add_argument("--beside", type=int, nargs="*", default=[1], metavar="N", help="busy programs")
    parser.add_argument("--by", choices=("time", "processors"), default="time", help="what the ratios are of")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.questions, arguments.requests, arguments.repetitions = [1, 4], 2, 1
    return arguments


def _find_models(arguments: argparse.Namespace) -> Sequence[Path]:
    if arguments.models:
        return list(arguments.models)
    folder = Path(os.environ.get("EDGECAL_REAL_MODELS") or Path.home() / ".cache/edgecal-real-models")
    found = sorted(folder.glob("**/*.gguf"), key=lambda path: path.stat().st_size)
    if not found:
        skip(f"no model in {folder}; `make test-real` fetches real ones, --models FILE ... names others")
    return found[:1] if arguments.quick else found


def measure(
    model: Path, arguments: argparse.Namespace
) -> tuple[list[Ratio], dict[tuple[str, str], list[Taken]]]:
    """All cases of one model, printed as a table each."""
    work: Path = arguments.work_folder
    work.mkdir(parents=True, exist_ok=True)
    print(f"\n{model.name}, {model.stat().st_size / 1e6:.0f} MB", flush=True)
    peers = {
        peer: partial(_start, peer, model, arguments)
        for peer in _MODULES
        if peer in OURS or arguments.only is None or peer.startswith(tuple(arguments.only))
    }
    small = _write_requests(work, model, 1, 1, 50)
    peers = {peer: start for peer, start in peers.items() if _is_there(peer, start, small, work)}
    ratios: list[Ratio] = []
    taken: dict[tuple[str, str], list[Taken]] = {}
    for name, n_questions, n_requests, n_tokens in _cases(arguments):
        path = _write_requests(work, model, n_questions, n_requests, n_tokens)
        for n_beside in (0, *arguments.beside) if n_questions == 8 else (0,):
            case = f"{name}, beside {n_beside} busy" if n_beside else name
            with _running(n_beside):
                found = take_in_turn(
                    {peer: partial(start, path) for peer, start in peers.items()},
                    arguments.repetitions,
                    warm_up=False,
                )
            ratios += compare(model, case, n_questions * n_requests, found, arguments.by)
            taken |= {(case, peer): runs for peer, runs in found.items()}
            if n_questions == 8 and not n_beside and model.stat().st_size < _LIMITED_BYTES:
                seconds = tuple(run.time_s for run in found[OURS[0]])
                ratios.append(
                    Ratio(f"{model.name}, {case}, edgecal's seconds", seconds, ("at most", _LIMIT_S))
                )
                print(f"\n{ratios[-1]}")
    return ratios, taken


def _cases(arguments: argparse.Namespace) -> Iterator[tuple[str, int, int, int]]:
    """Name, questions of a request, requests, tokens of a state (of a whole request where there are many)."""
    for n in arguments.questions:
        yield f"{_N_STATE:,} tokens, {n} question{'s' if n > 1 else ''}", n, 1, _N_STATE
    yield f"{arguments.requests} requests of {_N_REQUEST} tokens", 1, arguments.requests, _N_REQUEST


def _write_requests(work: Path, model: Path, n_questions: int, n_requests: int, n_tokens: int) -> Path:
    """The file that a side reads: a request to warm up with, then those that are timed."""
    warm_up = make_requests(model, 2, 1, n_tokens)
    requests = make_requests(model, n_questions, n_requests, n_tokens)
    path = work / f"decide-{n_questions}-{n_requests}-{n_tokens}.json"
    path.write_text(json.dumps(warm_up + requests), "utf-8")
    return path


def _is_there(peer: str, start: Callable[[Path], Taken], small: Path, work: Path) -> bool:
    """Whether a peer answers one small request; says so where it does not."""
    module = _MODULES[peer]
    if find_spec(module) is None and not (work / "peers" / module).exists():
        print(f"  {peer}: skipped, not installed (pip install {_PACKAGES[module]})")
        return False
    try:
        start(small)
    except SystemExit as error:
        if peer in OURS:
            raise
        print(f"  {peer}: skipped, it does not run: {str(error).strip().splitlines()[-1]}")
        return False
    return True


def _start(peer: str, model: Path, arguments: argparse.Namespace, requests: Path) -> Taken:
    folders = [str(arguments.work_folder / "peers"), os.environ.get("PYTHONPATH", "")]
    environment = {} if peer in OURS else {"PYTHONPATH": os.pathsep.join(filter(None, folders))}
    if peer == "llama.cpp":
        model = _write_decision_file(model, arguments.work_folder)
    at_most = arguments.at_most or 0
    side = [__file__, "side", peer, model, requests, arguments.threads, at_most]
    return run_side(*side, environment=environment)


def _write_decision_file(model: Path, work: Path) -> Path:
    """The model with llama.cpp's keys; written once."""
    written = work / f"{model.stem}.llama-decision.gguf"
    if not written.exists():
        command = [sys.executable, "-m", "edgecal", "export", model, "--to", "llama-decision", "--unsettled"]
        done = subprocess.run(
            [*map(str, command), "--output", written], capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(f"edgecal export: {done.stderr}")
    return written


@contextmanager
def _running(n_programs: int) -> Iterator[None]:
    started = [subprocess.Popen([sys.executable, "-c", _SPINNING]) for _ in range(n_programs)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def compare(
    model: Path, case: str, n_answers: int, taken: Mapping[str, Sequence[Taken]], by: str
) -> list[Ratio]:
    """Prints a case's table and returns each peer's time / ours."""
    print(f"\n{case} (load average {os.getloadavg()[0]:.1f})\n")
    ours = [peer for peer in OURS if peer in taken]
    against = " | ".join(f"{by} / {peer}" for peer in ours)
    print(f"| | seconds | of processors | tokens computed | peak memory | {against} |")
    print("|---" * (5 + len(ours)) + "|")
    ratios: list[Ratio] = []
    for peer, runs in taken.items():
        assert all(run.said["n_answers"] == n_answers for run in runs), peer
        cells = [
            f"{middle(runs):.2f}",
            f"{middle(runs, _processor_s):.2f}",
            f"{runs[0].said['n_tokens']:,.0f}",
        ]
        cells.append(f"{max(run.peak_bytes for run in runs) / 1e6:,.0f} MB")
        wanted = None if "beside" in case else ("at least", _LEVEL if " 1 question" in case else _AHEAD)
        for one in ours if peer not in ours else ():
            of = _processor_s if by == "processors" else _time_s
            name = f"{model.name}, {case}, {peer} / {one}"
            ratios.append(pair(name, runs, taken[one], wanted=wanted, of=of))
            values = ratios[-1].values
            met = {None: "", True: ", met", False: ", NOT MET"}[ratios[-1].met]
            cells.append(f"{ratios[-1].median:.2f} ({min(values):.2f} to {max(values):.2f}){met}")
        scaled = runs[0].said["scaled"]
        cells += [""] * (4 + len(ours) - len(cells))
        print(f"| {peer}{f' (from {scaled})' if scaled else ''} | {' | '.join(cells)} |", flush=True)
    return ratios


def _time_s(run: Taken) -> float:
    return run.time_s


def _processor_s(run: Taken) -> float:
    return float(run.said["processor_s"])


# The requests.

_TEAMS = ("billing", "search", "accounts", "delivery", "payments", "mail", "reports", "mobile app")
_EVENTS = (
    "{team} reports that {n} customers see an empty page after signing in",
    "the {team} service was restarted and answered again after {n} seconds",
    "a customer writes that {team} charged order {n} twice and asks for the money back",
    "monitoring shows {n} failed calls to {team} in the last five minutes",
    "an engineer of {team} says that the change of version {n} was rolled back",
    "a partner asks {team} when the export of {n} rows will be ready",
)
_ASKED = (
    ("noul", "Should the engineer on call for {team} be woken now?"),
    ("choice", "Which team has to act next on what was reported about {team}?"),
    ("score", "How much does what happened at {team} harm customers?"),
    ("choice", "What should be done first about {team}?"),
)
_CRITERIA: Mapping[str, Sequence[Any]] = {
    "noul": ({"true": "customers are harmed right now", "false": "it can wait until the morning"},),
    "choice": (
        {
            "support": "answers customers and gives money back",
            "platform": "runs servers and networks",
            "product": "changes the program itself",
            "nobody": None,
        },
        {
            "monitor": None,
            "investigate": "look for the cause",
            "escalate": None,
            "close": "nothing is left to do",
        },
    ),
    "score": (["not at all", "a little", "noticeably", "badly"],),
}


def make_requests(model: Path, n_questions: int, n_requests: int, n_tokens: int) -> list[dict[str, Any]]:
    """Requests about states of their own, with edgecal's prompts for the loops. `n_tokens` is the state's length by the
    model's tokenizer; of many requests that of each request's texts, the question's included."""
    from edgecal.decisions import DecisionOptions, DecisionPrompting
    from edgecal.gguf.header import read_header
    from edgecal.llama.model import Model
    from edgecal.llama.tokenizer import Tokenizer

    requests = []
    prompting = DecisionPrompting.for_file(DecisionOptions(readout="labels", orders=1), read_header(model))
    with Model(model, vocab_only=True) as vocabulary:
        tokenizer = Tokenizer(vocabulary.vocab, vocabulary.n_vocab, model.name)
        for index in range(n_requests):
            questions = {f"q{at}": _make_question(at + index) for at in range(n_questions)}
            taken = len(tokenizer.tokenize(json.dumps(questions))) if n_requests > 1 else 0
            rng = random.Random(f"{n_questions} {index}")
            state = _make_state(rng, n_tokens - taken, lambda text: len(tokenizer.tokenize(text)))
            requests.append({"model": "m", "state": state, "questions": questions})
            add_prompts(requests[-1], prompting, tokenizer)
    return requests


def add_prompts(request: dict[str, Any], prompting: Any, tokenizer: Any) -> None:
    """Adds the tokens of edgecal's prompts, one for each question with its options in the order given."""
    from edgecal.decisions import parse_question

    request["prompts"] = []
    for key, asked in request["questions"].items():
        question = parse_question(asked, key)
        order = tuple(range(prompting.n_places(question)))
        resolved = tokenizer.resolve(prompting.render(request["state"], question, order).prompt)
        request["prompts"].append(
            {"tokens": resolved.tokens.tolist(), "labels": resolved.choice_tokens.tolist()}
        )


def _make_question(index: int) -> dict[str, Any]:
    kind, instructions = _ASKED[index % len(_ASKED)]
    criteria = _CRITERIA[kind]
    team = _TEAMS[index // len(_ASKED) % len(_TEAMS)]
    return {
        "type": kind,
        "instructions": instructions.format(team=team),
        "criteria": criteria[index % len(_ASKED) // 2 % len(criteria)],
    }


def _make_state(rng: random.Random, n_tokens: int, count: Callable[[str], int]) -> str:
    words: list[str] = []
    while count(" ".join(words)) < n_tokens:
        event = rng.choice(_EVENTS).format(team=rng.choice(_TEAMS), n=rng.randrange(2, 5_000))
        words += f"{rng.randrange(24):02}:{rng.randrange(60):02} {event}.".split()
    while count(" ".join(words)) > n_tokens:
        words.pop()
    return " ".join(words)


# The sides: each loads a model, warms it, and answers requests.

Answer = Callable[
    [dict[str, Any]], tuple[int, float]
]  # a request's number of answers, and the tokens computed


def _run_side(peer: str, model: str, requests: str, n_threads: str, at_most: str) -> None:
    warm_up, *asked = json.loads(Path(requests).read_text("utf-8"))
    longest = max(asked, key=lambda request: len(json.dumps(request)))
    began = time.perf_counter()
    answer = _SIDES[peer](model, int(n_threads), _asked(peer, longest))
    loaded = time.perf_counter()
    answer(_asked(peer, warm_up))
    chosen, scaled, factor = asked, "", 1.0
    n_questions = len(asked[0]["questions"])
    if peer == "loop, anew" and n_questions > _N_ANEW:
        chosen, factor = [{**asked[0], "prompts": asked[0]["prompts"][:_N_ANEW]}], n_questions / _N_ANEW
        scaled = f"{_N_ANEW} of {n_questions}"
    elif 0 < int(at_most) < len(asked):
        chosen, factor = asked[: int(at_most)], len(asked) / int(at_most)
        scaled = f"{len(chosen)} of {len(asked)}"
    n_answers, n_tokens = 0, 0.0
    warm, warm_processor = time.perf_counter(), time.process_time()
    for request in chosen:
        answers, tokens = answer(_asked(peer, request))
        n_answers, n_tokens = n_answers + answers, n_tokens + tokens
    ended, ended_processor = time.perf_counter(), time.process_time()
    report(
        time_s=(ended - warm) * factor,
        processor_s=(ended_processor - warm_processor) * factor,
        load_s=loaded - began,
        peak_bytes=peak_bytes(),
        n_answers=round(n_answers * factor),
        n_tokens=round(n_tokens * factor),
        scaled=scaled,
    )


def _asked(peer: str, request: dict[str, Any]) -> dict[str, Any]:
    """What a peer gets of a request: a loop its prompts, the others the format's fields."""
    wanted = ("prompts",) if peer.startswith("loop") else ("model", "state", "questions")
    return {name: request[name] for name in wanted}


def _edgecal(model: str, n_threads: int, longest: Mapping[str, Any], **options: Any) -> Answer:
    import edgecal

    loaded = edgecal.load(model, n_ctx=_N_CTX, n_threads=n_threads, n_threads_batch=n_threads)

    def answer(request: dict[str, Any]) -> tuple[int, float]:
        said = loaded.decide(request["state"], request["questions"], **options).to_dict()
        return len(said["answers"]), said["x_tokens_computed"]

    return answer


def _typed_gguf(model: str, n_threads: int, longest: Mapping[str, Any]) -> Answer:
    """What its host, which keeps a model loaded, runs for a request."""
    if "TYPED_GGUF_RUNTIME_DIR" not in os.environ:
        os.environ["TYPED_GGUF_RUNTIME_DIR"] = str(files("llama_cpp") / "lib")
    from typed_gguf import cli
    from typed_gguf.engine import session

    n_tokens = 0
    decode = session.ModelSession.decode

    def counted(self: Any, batch: Any) -> Any:
        nonlocal n_tokens
        n_tokens += batch.n_tokens
        return decode(self, batch)

    session.ModelSession.decode = counted
    options = {"threads": n_threads, "state_cache": False}
    first = {**longest, "model": model, "options": options}
    prepared = cli.prepare_decision(first, fit_enabled=False)
    handle = session.open_model(prepared.model_path, fit_plan=None, fit_disabled=True)

    def answer(request: dict[str, Any]) -> tuple[int, float]:
        nonlocal n_tokens
        n_tokens = 0
        payload = {**request, "model": model, "options": options}
        said = cli.decide_on_handle(prepared, payload, handle, session_load_ms=0.0)
        return len(said["answers"]), n_tokens

    return answer


def _llama_cpp(model: str, n_threads: int, longest: Mapping[str, Any]) -> Answer:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = n_threads
    params.n_ctx = _N_CTX
    params.verbosity = -1
    params.endpoint_metrics = True
    server = xllamacpp.Server(params)

    def count() -> float:
        lines = server.handle_metrics().splitlines()
        [value] = [line.split()[1] for line in lines if line.startswith("llamacpp:prompt_tokens_total ")]
        return float(value)

    def answer(request: dict[str, Any]) -> tuple[int, float]:
        before = count()
        said = server.handle_systemone(request)
        return len(said["answers"]), count() - before

    return answer


def _loop(model: str, n_threads: int, longest: Mapping[str, Any], *, keeps: bool) -> Answer:
    """One ready-made prompt for each question, and the logits of its labels."""
    import numpy as np
    from llama_cpp import Llama

    llama = Llama(model, n_ctx=_N_CTX, n_threads=n_threads, n_threads_batch=n_threads, verbose=False)

    def answer(request: dict[str, Any]) -> tuple[int, float]:
        n_tokens = 0
        for prompt in request["prompts"]:
            tokens = prompt["tokens"]
            if not keeps:
                llama.reset()
            n_tokens += len(tokens) - _n_shared(llama.input_ids[: llama.n_tokens], tokens)
            generation = llama.generate(tokens, temp=0.0)
            next(generation)  # the first token; what comes before it is the prompt's evaluation
            logits = np.ctypeslib.as_array(llama._ctx.get_logits_ith(-1), shape=(llama.n_vocab(),))
            probs = np.exp(logits[prompt["labels"]] - logits[prompt["labels"]].max())
            probs /= probs.sum()
            generation.close()
        return len(request["prompts"]), n_tokens

    return answer


def _n_shared(before: Sequence[int], tokens: Sequence[int]) -> int:
    """What `Llama.generate` keeps of the prompt before: all but the last token at most."""
    shared = 0
    for one, other in zip(before, tokens[:-1], strict=False):
        if one != other:
            break
        shared += 1
    return shared


_SIDES: Mapping[str, Callable[[str, int, Mapping[str, Any]], Answer]] = {
    OURS[0]: _edgecal,
    OURS[1]: partial(_edgecal, orders=1),
    "typed-gguf": _typed_gguf,
    "llama.cpp": _llama_cpp,
    "loop, anew": partial(_loop, keeps=False),
    "loop, kept": partial(_loop, keeps=True),
}


if __name__ == "__main__":
    main()
