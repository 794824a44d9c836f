"""A seeded simulation of what evaluations measure.

A base model that is honest, a chat model that post-training made far too sure, ten subjects, eight layers: the
figures are computed from drawn answers, so that pictures of them look as real ones do.
"""

import numpy as np

SUBJECTS = [
    "astronomy", "biology", "chemistry", "computer science", "geography",
    "history", "law", "mathematics", "medicine", "philosophy",
]  # fmt: skip
N_QUESTIONS = 1200
N_LAYERS = 8
CHOSEN = 3.84


def draw_world(seed=0):
    """Logits of both models and right answers: [n, 4], [n, 4], [n]."""
    rng = np.random.Generator(np.random.PCG64(seed))
    subject = np.arange(N_QUESTIONS) % len(SUBJECTS)
    hardness = np.linspace(2.3, 0.7, len(SUBJECTS))[subject]
    truth = rng.normal(size=(N_QUESTIONS, 4)) * hardness[:, None]
    probs = np.exp(truth) / np.exp(truth).sum(axis=1, keepdims=True)
    labels = (rng.random(N_QUESTIONS)[:, None] < probs.cumsum(axis=1)).argmax(axis=1)
    base = truth + 0.25 * rng.normal(size=truth.shape)
    chat = CHOSEN * (0.78 * truth + 0.42 * rng.normal(size=truth.shape))
    return base, chat, labels, subject


def softmax(logits, temperature=1.0):
    z = logits / temperature
    z = z - z.max(axis=1, keepdims=True)
    return np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)


def _binned(sure, hit, edges):
    index = np.clip(np.searchsorted(edges[1:-1], sure, side="left"), 0, len(edges) - 2)
    n = np.bincount(index, minlength=len(edges) - 1)
    return n, np.bincount(index, sure, len(edges) - 1), np.bincount(index, hit, len(edges) - 1)


def _ece(sure, hit, edges):
    n, sums, hits = _binned(sure, hit, edges)
    return float(np.abs(sums - hits).sum() / n.sum())


def figures_once(probs, labels):
    sure, hit = probs.max(axis=1), (probs.argmax(axis=1) == labels).astype(float)
    n = len(labels)
    counts, sums, hits = _binned(sure, hit, np.linspace(0, 1, 11))
    some = counts > 0
    gaps = np.abs(sums[some] - hits[some]) / counts[some]
    accuracy = hits[some] / counts[some]
    noise = accuracy * (1 - accuracy) / np.maximum(counts[some] - 1, 1)
    debiased = float((counts[some] / n * np.maximum(gaps**2 - noise, 0)).sum())
    order = np.argsort(-sure, kind="stable")
    grid = np.linspace(0, 1, 101)
    kernel = np.exp(-0.5 * ((grid[:, None] - sure[None]) / 0.05) ** 2)
    right, wrong = np.sort(sure[hit == 1]), sure[hit == 0]
    ranks = np.searchsorted(right, wrong, "left") + 0.5 * (
        np.searchsorted(right, wrong, "right") - np.searchsorted(right, wrong, "left")
    )
    one_hot = np.eye(probs.shape[1])[labels]
    return {
        "accuracy": hit.mean(),
        "confidence": sure.mean(),
        "ece": _ece(sure, hit, np.linspace(0, 1, 11)),
        "ece_15": _ece(sure, hit, np.linspace(0, 1, 16)),
        "ece_equal_mass": _ece(sure, hit, np.quantile(sure, np.linspace(0, 1, 11))),
        "ece_debiased": float((counts[some] / n * np.maximum(gaps - np.sqrt(noise) / 2, 0)).sum()),
        "rmsce_debiased": debiased**0.5,
        "mce": gaps[counts[some] >= 5].max(initial=0.0),
        "smece": np.abs((kernel * (hit - sure)).mean(axis=1)).mean() / kernel.mean(axis=1).mean(),
        "brier": ((sure - hit) ** 2).mean(),
        "brier_multiclass": ((probs - one_hot) ** 2).sum(axis=1).mean(),
        "nll": -np.log(np.maximum(probs[np.arange(n), labels], 1e-12)).mean(),
        "auroc": 1 - ranks.mean() / max(len(right), 1) if len(wrong) and len(right) else np.nan,
        "aurc": (np.cumsum(1 - hit[order]) / np.arange(1, n + 1)).mean(),
        "classwise_ece": np.mean(
            [_ece(probs[:, k], one_hot[:, k], np.linspace(0, 1, 11)) for k in range(probs.shape[1])]
        ),
    }


def finite(value):
    return None if value is None or not np.isfinite(value) else float(value)


def _interval(value, samples):
    low, high = np.nanquantile(samples, [0.025, 0.975]) if np.isfinite(samples).any() else (np.nan, np.nan)
    return {"value": finite(value), "low": finite(low), "high": finite(high)}


def figures_of(sets, labels, n_boot=60):
    """Figures of several probability tables of the same questions, and the last's minus the first's."""
    rng = np.random.Generator(np.random.PCG64(7))
    values = [figures_once(probs, labels) for probs in sets]
    draws = [[] for _ in sets]
    for _ in range(n_boot):
        pick = rng.integers(0, len(labels), len(labels))
        for drawn, probs in zip(draws, sets, strict=True):
            drawn.append(figures_once(probs[pick], labels[pick]))
    out = []
    for value, drawn in zip(values, draws, strict=True):
        out.append({k: _interval(value[k], np.array([d[k] for d in drawn])) for k in value})
    first, last = draws[0], draws[-1]
    difference = {
        k: _interval(
            values[-1][k] - values[0][k], np.array([b[k] - a[k] for a, b in zip(first, last, strict=True)])
        )
        for k in values[0]
    }
    return out, difference


def reliability_of(probs, labels):
    sure, hit = probs.max(axis=1), (probs.argmax(axis=1) == labels).astype(float)
    edges = np.linspace(0, 1, 11)
    n, sums, hits = _binned(sure, hit, edges)
    out = {"edges": edges.tolist(), "n": n.tolist(), "confidence": [], "accuracy": [], "low": [], "high": []}
    for count, total, right in zip(n, sums, hits, strict=True):
        if count == 0:
            for key in ("confidence", "accuracy", "low", "high"):
                out[key].append(None)
            continue
        share, z = right / count, 1.96
        middle = (share + z * z / (2 * count)) / (1 + z * z / count)
        half = z / (1 + z * z / count) * (share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5
        out["confidence"].append(float(total / count))
        out["accuracy"].append(float(share))
        out["low"].append(float(max(middle - half, 0)))
        out["high"].append(float(min(middle + half, 1)))
    return out


def risk_coverage_of(probs, labels):
    sure, miss = probs.max(axis=1), (probs.argmax(axis=1) != labels).astype(float)
    risk = np.cumsum(miss[np.argsort(-sure, kind="stable")]) / np.arange(1, len(miss) + 1)
    at = np.unique(np.linspace(9, len(miss) - 1, 200).astype(int))
    return {"coverage": ((at + 1) / len(miss)).tolist(), "risk": risk[at].tolist()}


BRACKET = {"low": 2.7, "high": 3.9, "low_interval": [2.6, 2.8], "high_interval": [3.8, 4.0]}


def loss_of(base, chat):
    g = softmax(base)
    agree = base.argmax(axis=1) == chat.argmax(axis=1)
    grid = np.geomspace(0.05, 50, 121)
    curve = []
    for t in grid:
        f = softmax(chat, t)
        curve.append(float((g * np.log(g / np.maximum(f, 1e-9)))[agree].sum(axis=1).mean()))
    return {
        "method": "dual-align", "unit": "nats", "temperature": grid.tolist(), "loss": curve,
        "chosen": float(grid[int(np.argmin(curve))]),
        "interval": [float(grid[int(np.argmin(curve))] * 0.97), float(grid[int(np.argmin(curve))] * 1.035)],
        "bracket": BRACKET,
    }  # fmt: skip


def draw_layers():
    rng = np.random.Generator(np.random.PCG64(3))
    layer = np.arange(1, N_LAYERS + 1)
    agree = 0.004 + 0.05 / (1 + np.exp(-(layer - 6.2) * 1.6)) + 0.002 * rng.random(N_LAYERS)
    differ = 0.006 + 0.33 / (1 + np.exp(-(layer - 6.4) * 2.1)) + 0.004 * rng.random(N_LAYERS)
    part = rng.choice(layer, size=251, p=[0, 0.01, 0.02, 0.03, 0.05, 0.14, 0.6, 0.15])
    return {
        "layer": layer.tolist(), "agreement": agree.tolist(), "disagreement": differ.tolist(),
        "pdl_histogram": np.bincount(part - 1, minlength=N_LAYERS).tolist(),
        "n_agreement": 949, "n_disagreement": 251,
    }  # fmt: skip


def wrong_of(before, after, labels, subject, n=6):
    predicted, sure = before.argmax(axis=1), before.max(axis=1)
    worst = [i for i in np.argsort(-sure, kind="stable") if predicted[i] != labels[i]][:n]
    names = [("Mercury", "Venus", "Mars", "Jupiter"), ("ribosome", "nucleus", "membrane", "vacuole"),
             ("1215", "1415", "1618", "1815"), ("Lima", "Quito", "Bogota", "Caracas")]  # fmt: skip
    return [
        {
            "where": f"test.jsonl, line {i + 1}",
            "subject": SUBJECTS[subject[i]],
            "question": f"Which of these did the text of lesson {i} name as the one that the others depend on?",
            "choices": list(names[i % 4]),
            "answer": int(labels[i]),
            "predicted": int(predicted[i]),
            "confidence_before": float(sure[i]),
            "confidence_after": None if after is None else float(after[i].max()),
        }
        for i in worst
    ]
