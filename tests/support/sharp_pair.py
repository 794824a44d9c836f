"""A pair whose right temperature is known: the bundled base model, and itself with every logit doubled."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from support.calibrated import BASE, MODELS, bake
from support.tiny_models import tiny_folder

from edgecal.gguf.header import read_header
from edgecal.gguf.rewrite import write_edited

# Asks in the form in which the bundled models were trained, so that letters have nearly all of the probability.
TEMPLATE = """\
Question: {{ state }} {{ instructions }}
{% for option in options %}
{{ option.label }}: {{ option.description if type == "score" else option.key }}
{% endfor %}"""


@cache
def sharp_chat() -> Path:
    """The base model with its logits divided by one half, and no sign of it in the file."""
    baked = bake(tiny_folder() / "sharp.baked.gguf", source=BASE, temperature=0.5)
    header = read_header(baked)
    path = tiny_folder() / "sharp.gguf"
    keys = [key for key in header.keys if key.startswith("edgecal.")]
    write_edited(header, path, changes={}, remove=keys)
    return path


def tiny_requests(n, *, noul=True, answers=False):
    """Requests of a choice question each, and of a yes/no question beside it."""
    requests = []
    for line in (MODELS / "questions/test.jsonl").read_text("utf-8").splitlines()[:n]:
        row = json.loads(line)
        options = dict.fromkeys(row["choices"])
        questions = {"which": {"type": "choice", "instructions": row["question"], "criteria": options}}
        if noul:
            questions["so"] = {"type": "noul", "instructions": row["question"]}
        if answers:
            questions["which"]["answer"] = row["choices"][row["answer"]]
        requests.append({"state": row["subject"], "questions": questions})
    return requests
