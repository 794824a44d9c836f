"""What the temperature of every method should be, worked out anew in plain float64 NumPy.

Written from the definitions and on purpose unlike the package: probabilities first, entropies as -sum p ln p,
JSD as a difference of entropies, one prompt at a time without padding, no derivatives, and a dense scan of
tau that closes in on the lowest point. Shares no code with edgecal.
"""

import numpy as np

TAU_MIN, TAU_MAX = 0.05, 50.0


def softmax(z):
    z = np.asarray(z, dtype=np.float64)
    powers = np.exp(z - z.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def entropy(p):
    return -np.sum(p * np.log(np.where(p > 0, p, 1.0)), axis=-1)


def jsd(p, q):
    return entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2


def peak_divergence_layer(base_layers, chat_layers):
    """(PDL counted from 1, d at the PDL) of one prompt; layers [n_layer, k]."""
    d = jsd(softmax(base_layers), softmax(chat_layers))
    jumps = [abs(d[i] - d[i - 1]) for i in range(1, len(d))]
    pdl = 2 + jumps.index(max(jumps))
    return pdl, d[pdl - 1]


def ise(layers, pdl, kind, scope, taus):
    """[n_tau] of one prompt's entropy over the layers pdl..L."""
    n_layer = len(layers)
    stack = []
    for layer in range(pdl, n_layer + 1):
        z = np.asarray(layers[layer - 1], dtype=np.float64)
        tempered = scope == "all" or layer == n_layer
        stack.append(softmax(z[None, :] / (taus[:, None] if tempered else np.ones((len(taus), 1)))))
    p = np.array(stack)
    return entropy(p.mean(axis=0)) if kind == "mixture" else entropy(p).mean(axis=0)


def conf(target, z, taus):
    """[n_tau] of KL(target || softmax(z / tau))."""
    scaled = np.asarray(z, dtype=np.float64)[None, :] / taus[:, None]
    top = scaled.max(axis=1, keepdims=True)
    log_q = scaled - top - np.log(np.exp(scaled - top).sum(axis=1, keepdims=True))
    return np.sum(np.where(target > 0, target * (np.log(np.where(target > 0, target, 1)) - log_q), 0), axis=1)


def loss(data, name, taus, *, kind="mixture", scope="all", combine="stratified", lam=0.1, members=None):
    """[n_tau] of a method's loss. `data` has ChoiceLogits' attributes; `members` chooses prompts."""
    taus = np.asarray(taus, dtype=np.float64)
    members = list(range(len(data.n_choices)) if members is None else members)
    conf_list, proc_list, mixed = [], [], []
    for i in members:
        k = data.n_choices[i]
        g, f = data.base_final[i, :k].astype(np.float64), data.chat_final[i, :k].astype(np.float64)
        agree = g.argmax() == f.argmax()
        parts = {}
        if name == "ts":
            if data.labels[i] >= 0:
                mixed.append(conf(np.eye(k)[data.labels[i]], f, taus))
            continue
        if name == "naive" or (name == "daca" and agree):
            mixed.append(conf(softmax(g), f, taus))
        if name in ("naive", "daca"):
            continue
        pdl, d = peak_divergence_layer(data.base_layers[i, :, :k], data.chat_layers[i, :, :k])
        if combine == "divergence" or not agree:
            own = ise(data.base_layers[i, :, :k], pdl, kind, scope, np.ones(1))[0]
            parts["proc"] = (ise(data.chat_layers[i, :, :k], pdl, kind, scope, taus) - own) ** 2
        if combine == "divergence" or agree:
            parts["conf"] = conf(softmax(g), f, taus)
        if combine == "divergence":
            w = d / np.log(2)
            mixed.append((1 - w) * parts["conf"] + w * parts["proc"])
        elif agree:
            conf_list.append(parts["conf"])
        else:
            proc_list.append(parts["proc"])
    if name in ("ts", "naive", "daca"):
        return np.mean(mixed, axis=0)
    if name == "process":
        return np.mean(proc_list, axis=0)
    if combine == "divergence":
        return np.mean(mixed, axis=0)
    if combine == "sum":
        return np.mean(conf_list, axis=0) + lam * np.mean(proc_list, axis=0)
    return np.sum(conf_list + proc_list, axis=0) / len(members)


def temperature(data, name, *, n_scan=1501, **options):
    """The lowest point of the loss between the bounds (the lowest tau of equals), to about 1e-7 relative."""
    taus = np.geomspace(TAU_MIN, TAU_MAX, n_scan)
    for _ in range(4):
        values = loss(data, name, taus, **options)
        at = int(np.argmin(values))
        low, high = taus[max(at - 1, 0)], taus[min(at + 1, len(taus) - 1)]
        best = taus[at]
        taus = np.geomspace(low, high, 41)
    return float(best)
