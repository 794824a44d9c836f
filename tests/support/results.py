"""Results of evaluations and comparisons as the command line prints them, of simulated models."""

import copy

import numpy as np
from support.simulated_figures import (
    BRACKET,
    CHOSEN,
    N_QUESTIONS,
    SUBJECTS,
    draw_layers,
    draw_world,
    figures_of,
    figures_once,
    finite,
    loss_of,
    reliability_of,
    risk_coverage_of,
    softmax,
    wrong_of,
)


def eval_result():
    """A complete result of `edgecal eval`: a model with a temperature in its file."""
    return copy.deepcopy(_built("eval"))


def compare_result():
    """A complete result of `edgecal compare`: several methods, ablations, layers."""
    return copy.deepcopy(_built("compare"))


def minimal_result(kind):
    """The least that a result of this kind may hold: null wherever null is allowed, lists empty."""
    result = eval_result() if kind == "eval" else compare_result()
    result["data"] |= {"n_skipped": 0, "skipped": [], "limit": None, "subjects": None}
    result["prompting"] |= {"shots": 0, "chat_template": None, "effects": []}
    result["subjects"] = []
    result["wrong"] = []
    result["warnings"] = []
    result["runtime"] = {}
    result["plots"] |= {"loss": None, "layers": None}
    for plot in ("reliability", "risk_coverage"):
        result["plots"][plot] |= {"base": None, "after": None}
    result["figures"] |= {"after": None, "difference": None}
    if kind == "eval":
        result["temperature"] = {"value": None, "source": None}
        result["model"]["architecture"] = None
    else:
        result["rows"] = []
        result["headline"] = None
        result["extra_runs"] = {"cape": None, "verbalized": None, "effects": None}
        result["ablations"] = {name: [] for name in result["ablations"]}
        result["learning_curve"]["lines"] = []
        result["scalings"]["rows"] = []
    return result


HOSTILE = [
    "<script>alert('owned')</script>",
    "\"><img src=x onerror=alert(1)>' onmouseover='alert(2)",
    "</svg></style></table><iframe src=//evil.example></iframe>",
    "{{ 7 * 7 }} {% for x in y %} $\\frac{1}{2}$ ${x}",
    "safe\u202etxt.exe \u2066hidden\u2069 \ufeff zero\u200bwidth",
    "null\x00bell\x07escape\x1b[31m del\x7f c1\x9b line\u2028separator",
    "lone surrogate \ud83d and \udfff",
    "0123456789" * 10_000,
    "unbroken" * 60,
    "<!-- --> ]]> &amp; &#60;script&#62; javascript:alert(1)",
    "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 \u0938\u094d\u0935\u093e\u0917\u0924 \U0001f600",
    "Z\u0351\u0300\u0301\u0302\u0303\u0304\u0305\u0306\u0307\u0308 marks",
]


ENUMERATED = {"kind", "source", "unit", "form", "chosen"}  # of these only known values pass


def hostile_result(kind):
    """A complete result in which every text of a user or of a file is an attack, a control character or huge."""
    result = eval_result() if kind == "eval" else compare_result()
    state = {"next": 0}

    def attack(*_):
        state["next"] += 1
        return HOSTILE[state["next"] % len(HOSTILE)]

    def spoil(value, keys):
        if isinstance(value, dict):
            return {key: spoil(item, (*keys, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [spoil(item, keys) for item in value]
        return attack() if isinstance(value, str) and keys[-1] not in ENUMERATED else value

    result = spoil(result, ())
    result["runtime"][HOSTILE[0]] = {HOSTILE[4]: [HOSTILE[5], None, True, 1e300]}
    result["figures"]["before"][HOSTILE[0]] = {"value": 0.5, "low": None, "high": None}
    result["prompting"]["choice_mass"][HOSTILE[1]] = 0.5
    if kind == "compare":
        result["rows"][-1]["variant"] = {HOSTILE[0]: HOSTILE[1]}
        result["ablations"][HOSTILE[2]] = result["ablations"]["ise"]
    return result


_CACHE = {}


def _built(kind):
    if kind not in _CACHE:
        _CACHE[kind] = _eval() if kind == "eval" else _compare()
    return _CACHE[kind]


def _model(role):
    return {
        "path": f"models/edgecal-tiny-{role}-Q8_0.gguf", "name": f"edgecal tiny {role}", "architecture": "llama",
        "n_tokens": 61_240, "peak_memory_bytes": 195_432_448,
    }  # fmt: skip


def _common(chat, after, labels, subject):
    before = softmax(chat)
    return {
        "data": {
            "files": ["models/questions/test.jsonl"], "formats": ["edgecal JSON Lines"],
            "decisions": ["answers counted from 0"], "n_read": N_QUESTIONS + 3,
            "n_questions": N_QUESTIONS, "n_skipped": 3,
            "skipped": [
                {"where": "test.jsonl, line 18", "reason": "the answer is 4, but there are 4 choices (0 to 3)"},
                {"where": "test.jsonl, line 402", "reason": "two of the choices are the same"},
                {"where": "test.jsonl, line 977", "reason": "the question is empty"},
            ],
            "sha256": "9f2c" * 16, "limit": None, "seed": 0, "subjects": None,
        },
        "plots": {
            "reliability": {
                "base": None, "before": reliability_of(before, labels), "after": reliability_of(after, labels),
            },
            "risk_coverage": {
                "base": None, "before": risk_coverage_of(before, labels), "after": risk_coverage_of(after, labels),
            },
            "loss": None,
            "layers": None,
        },
        "wrong": wrong_of(before, after, labels, subject),
        "bootstrap": {"n": 1000, "n_by_subject": 20, "level": 0.95, "seed": 0},
        "runtime": {
            "command": "edgecal compare models/edgecal-tiny-base-Q8_0.gguf models/edgecal-tiny-chat-Q8_0.gguf "
            "--data models/questions/test.jsonl --report report.html",
            "edgecal": "0.1.0", "llama_cpp": "b6500 (1a2b3c4)", "numpy": "2.4.6", "python": "3.11.7",
            "settings": {"n_threads": 2, "n_batch": 512, "n_ubatch": 512, "flash_attention": False},
        },
        "warnings": ["12 questions are given more than once; each is counted as often as it is given"],
    }  # fmt: skip


def _eval():
    _, chat, labels, subject = draw_world()
    before, after = softmax(chat), softmax(chat, CHOSEN)
    (was, now), difference = figures_of([before, after], labels)
    result = {
        "kind": "eval",
        "verdict": f"This model is overconfident: on average {was['confidence']['value']:.0%} sure but right "
        f"{was['accuracy']['value']:.0%} of the time. With the temperature in its file ({CHOSEN}) it is "
        f"{now['confidence']['value']:.0%} sure, and its calibration error falls from {was['ece']['value']:.1%} "
        f"to {now['ece']['value']:.1%}.",
        "model": _model("chat"),
        "prompting": {
            "template": "the built-in template", "shots": 0, "chat_template": None,
            "choice_mass": {"model": 0.998},
            "effects": [
                {"name": "zero-shot", "n": 200, "choice_mass": {"model": 0.998}},
                {"name": "few-shot", "n": 200, "choice_mass": {"model": 0.9994}},
            ],
        },
        "temperature": {"value": CHOSEN, "source": "file"},
        "figures": {"before": was, "after": now, "difference": difference},
        **_common(chat, after, labels, subject),
    }  # fmt: skip
    result["subjects"] = []
    for index, name in enumerate(SUBJECTS):
        mine = subject == index
        (a, b), _ = figures_of([before[mine], after[mine]], labels[mine], n_boot=20)
        result["subjects"].append({"subject": name, "n": int(mine.sum()), "before": a, "after": b})
    return result


def _spread(mean, sd, n=5):
    mean, sd = float(mean), float(sd)
    return {"mean": mean, "sd": sd, "values": [mean + sd * x for x in np.linspace(-1.2, 1.2, n).tolist()]}


def _row(
    name, title, probs, labels, temperature=None, *, uses_labels=False, default=False, variant=None, **more
):
    figures = {
        key: _spread(finite(v), abs(v) * 0.06 + 0.002) for key, v in figures_once(probs, labels).items()
    }
    return {
        "name": name, "title": title, "variant": variant, "uses_labels": uses_labels, "n_labelled": None,
        "default": default,
        "temperature": None if temperature is None else _spread(temperature, 0.03 * temperature),
        "figures": figures, "n": 840, "not_identified": [], "withheld": None, "parsed_share": None,
        "n_permutations": None, "n_worse": None if temperature is None else 0, **more,
    }  # fmt: skip


def _ablation_row(name, chat, labels, temperature, **more):
    figures = figures_once(softmax(chat, temperature), labels)
    return {
        "name": name, "temperature": _spread(temperature, 0.03 * temperature),
        "ece": _spread(figures["ece"], 0.006), "nll": _spread(figures["nll"], 0.01), "not_identified": 0, **more,
    }  # fmt: skip


def _point(n, error):
    return {
        "n_labels": n, "n_runs": 50, "error": {"mean": error, "error": error / 10},
        "ece": {"mean": 0.05 + error / 10, "error": 0.004}, "nll": {"mean": 0.86 + error / 50, "error": None},
        "n_harmful": int(error > 0.3), "n_at_bound": int(error > 0.3),
    }  # fmt: skip


def _scaling(form, found, gain=None, n_chosen=0):
    return {
        "form": form, "withheld": None, "n_chosen": n_chosen,
        "found": found and {"subjects": {}, "scales": None, "biases": None, **found},
        "gain": gain and {"value": gain, "low": gain - 0.01, "high": gain + 0.01},
        "accuracy": _spread(0.57, 0.01), "ece": _spread(0.05, 0.01), "nll": _spread(0.86, 0.01),
    }  # fmt: skip


def _compare():
    base, chat, labels, subject = draw_world()
    before, after, plm = softmax(chat), softmax(chat, 3.74), softmax(base)
    (was, now), difference = figures_of([before, after], labels)
    (reference,), _ = figures_of([plm], labels)
    common = _common(chat, after, labels, subject)
    common["plots"]["reliability"]["base"] = reliability_of(plm, labels)
    common["plots"]["risk_coverage"]["base"] = risk_coverage_of(plm, labels)
    common["plots"] |= {"loss": loss_of(base, chat), "layers": draw_layers()}
    variants = [
        {"ise": ise, "tau_scope": scope, "combine": combine, "lambda": lam}
        for ise in ("mixture", "mean")
        for scope in ("final", "all")
        for combine, lam in (("divergence", None), ("stratified", None), ("sum", 0.1))
    ]
    rows = [
        _row("plm", "base model", plm, labels),
        _row("polm", "chat model as delivered", before, labels),
        _row("verbalized", "confidence in words", before, labels,
             withheld="only 31 % of the answers could be parsed", parsed_share=0.31) | {"figures": {}},
        _row("cape", "permuted options", softmax(chat, 2.1), labels, n_permutations=4),
        _row("internal-consistency", "agreement of layers", softmax(chat, 1.6), labels),
        _row("basecal-reeval", "base model's probability", softmax(chat, 2.9), labels),
        _row("basecal-proj", "base model's head", softmax(chat, 2.7), labels),
        _row("naive", "all questions", softmax(chat, 4.9), labels, 4.9),
        _row("daca", "agreement only", softmax(chat, 3.42), labels, 3.42),
        _row("process", "process loss only", softmax(chat, 3.9), labels, 3.9, variant=variants[3],
             not_identified=["split 2: more than 5 % of the bootstrap refits are at a bound"]),
        *(
            _row("dual-align", "both losses", softmax(chat, t), labels, t, variant=variant, default=i == 0)
            for i, (variant, t) in enumerate(zip(variants, np.linspace(3.74, 4.6, 12).tolist(), strict=True))
        ),
        _row("ts", "supervised", softmax(chat, 3.95), labels, 3.95, uses_labels=True),
        _row("anchored", "30 labels", softmax(chat, 3.8), labels, 3.8, uses_labels=True) | {"n_labelled": 30},
    ]  # fmt: skip
    result = {
        "kind": "compare",
        "verdict": f"The chat model is far too sure of itself: on average {was['confidence']['value']:.0%} sure, right "
        f"{was['accuracy']['value']:.0%} of the time. A temperature of 3.74, found without any answers, brings its "
        f"calibration error from {was['ece']['value']:.1%} to {now['ece']['value']:.1%}; fitting on the right answers "
        "does no better.",
        "models": {"base": _model("base") | {"sha256": "b" * 64}, "chat": _model("chat")},
        "prompting": {
            "template": "the built-in template", "shots": 0, "chat_template": None,
            "choice_mass": {"base": 0.999, "chat": 0.998},
            "effects": [
                {"name": "zero-shot", "n": 200, "choice_mass": {"base": 0.999, "chat": 0.998}},
                {"name": "few-shot", "n": 200, "choice_mass": {"base": 0.9997, "chat": 0.9991}},
                {"name": "chat-template", "n": 200, "choice_mass": {"base": 0.999, "chat": 0.871}},
            ],
        },
        "bracket": dict(BRACKET), "settled": True, "harmful": False, "reasons": [],
        "splits": {"n": 5, "fit_share": 0.3, "seeds": [0, 1, 2, 3, 4], "n_fit": 360, "n_evaluate": 840},
        "rows": rows,
        "extra_runs": {
            "cape": {"n_prompts": 4800, "n_tokens": 244_960},
            "verbalized": {"n_prompts": 1200, "n_tokens": 70_100, "n_generated": 9_600},
            "effects": {"n_prompts": 600, "n_tokens": 41_000},
        },
        "ablations": {
            "tau_scope": [_ablation_row("final", chat, labels, 3.74), _ablation_row("all", chat, labels, 4.1)],
            "ise": [_ablation_row("mixture", chat, labels, 3.74), _ablation_row("mean", chat, labels, 3.77)],
            "combine": [
                _ablation_row("divergence", chat, labels, 3.74), _ablation_row("stratified", chat, labels, 4.2),
                _ablation_row("sum", chat, labels, 3.9),
            ],
            "losses": [
                _ablation_row("output only (daca)", chat, labels, 3.42),
                _ablation_row("process only", chat, labels, 3.9) | {"not_identified": 1},
                _ablation_row("both", chat, labels, 3.74),
            ],
            "lambda": [
                _ablation_row(f"lambda {lam:g}", chat, labels, t, **{"lambda": lam})
                for lam, t in [(0.0, 3.42), (0.01, 3.45), (0.03, 3.52), (0.1, 3.7), (0.3, 4.3), (1.0, 5.6), (3.0, 7.5)]
            ],
            "prompts": [
                _ablation_row(f"{name}, {n} prompts", chat, labels, t * (1 + 2.5 / n), n_prompts=n, method=name)
                | ({key: {"mean": None, "sd": None, "values": [None] * 5} for key in ("temperature", "ece", "nll")}
                   | {"not_identified": 5} if n < 60 and name == "dual-align" else {})
                for name, t in (("daca", 3.42), ("dual-align", 3.74), ("ts", 3.95))
                for n in (30, 60, 125, 250, 360)
            ],
        },
        "learning_curve": {
            "n_draws": 10,
            "lines": [
                {"method": "anchored", "uses_labels": True,
                 "points": [_point(n, 0.12 - n / 2000) for n in (0, 10, 30, 100)]},
                {"method": "ts", "uses_labels": True, "points": [_point(n, 1.0 / n**0.5) for n in (10, 30, 100)]},
                *({"method": name, "uses_labels": False, "points": [_point(0, error)]}
                  for name, error in (("daca", 0.12), ("dual-align", 0.08), ("vanilla", 1.3))),
            ],
        },
        "scalings": {
            "n_labelled": 360, "chosen": "subject",
            "rows": [
                _scaling("none", None),
                _scaling("temperature", {"temperature": 3.9}, n_chosen=1),
                _scaling("subject", {"temperature": 3.9, "subjects": dict.fromkeys(SUBJECTS, 3.5)}, 0.02, n_chosen=4),
                _scaling("bias", {"temperature": 3.8, "biases": [0.5, 0.1, -0.6, 0.0]}, -0.01),
                _scaling("vector", None) | {"withheld": "the labels differ between prompts"},
            ],
        },
        "headline": {
            "method": "dual-align", "variant": variants[0], "temperature": 3.74, "interval": [3.66, 3.83],
            "split_seed": 0, "n_fit": 360, "n_evaluate": 840,
        },
        "figures": {"base": reference, "before": was, "after": now, "difference": difference},
        **common,
    }  # fmt: skip
    result["subjects"] = []
    for index, name in enumerate(SUBJECTS):
        mine = subject == index
        (p, a, b), _ = figures_of([plm[mine], before[mine], after[mine]], labels[mine], n_boot=20)
        result["subjects"].append({"subject": name, "n": int(mine.sum()), "base": p, "before": a, "after": b})
    return result
