"""Labelling sessions on made-up questions and logits: no model runs."""

import numpy as np
from support.questions import make_questions

from edgecal.api.label_session import LabelSession
from edgecal.calibration import ChoiceLogits
from edgecal.calibration.anchored import label_free_prior
from edgecal.calibration.labelling import compute_label_sizes, draw_label_order
from edgecal.prompts import parse_record

SOURCE = {"base": "b" * 16, "chat": "c" * 16, "questions": "d" * 16, "seed": 0, "temperature": 2.0}
_ABOUT = {
    "data": {"files": [], "formats": [], "decisions": [], "n_read": 0, "n_questions": 0, "n_skipped": 0}
    | {"skipped": [], "sha256": "", "limit": None, "seed": 0, "subjects": None},
    "prompting": {"template": "default", "shots": 0, "chat_template": None},
}


def make_session(path, *, n=200, ratio=1.5, records=None, warnings=()):
    """A session whose chat model is twice as sure as is right, and each question's right option in the order asked."""
    rng = np.random.default_rng(1)
    if records is None:
        records = make_questions(n, seed=3)
    records = [parse_record(record, f"question {number}") for number, record in enumerate(records)]
    n, counts = len(records), np.array([len(record.labels) for record in records], np.int32)
    honest = rng.normal(0, 1.5, (n, counts.max()))
    honest[np.arange(counts.max()) >= counts[:, None]] = -np.inf
    truth = np.argmax(honest + rng.gumbel(size=honest.shape), axis=1)
    labels = np.full(n, -1, np.int32)
    logits = ChoiceLogits(honest.astype("f4"), (2 * honest).astype("f4"), None, None, counts, labels)
    order = draw_label_order(compute_label_sizes(logits, SOURCE["temperature"]), SOURCE["seed"])
    prior = label_free_prior(logits, 0.99)
    session = LabelSession(
        path, SOURCE, records, logits, 0.99, prior, order, ratio=ratio, warnings=list(warnings), **_ABOUT
    )
    return session, truth[order.order].tolist()
