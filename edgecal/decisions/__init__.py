"""Typed decisions: questions about a state, how they are put to a model, and what its logits answer.

`questions` holds `Noul`, `Choice` and `Score` and reads requests of the format `POST /v1/systemone`; `prompting`
renders a question in one order of its options, with the `labels` that may answer it; `orders` says in which orders,
`answers` makes a `Decision` of the logits, `temperatures` says what they are divided by, and `options` holds the user's
choices. Nothing here runs a model.
"""

from edgecal.decisions.answers import Decision, Decisions, answer_question, label_logits
from edgecal.decisions.labels import LETTERS, READOUTS, Readout, two_letter_labels
from edgecal.decisions.options import AUTO_CHAT_TEMPLATE, DEFAULT_READOUT, DecisionOptions
from edgecal.decisions.orders import DEFAULT_ORDERS, Orders, is_decided, list_orders, parse_orders
from edgecal.decisions.prompting import (
    DEFAULT_DECISION_TEMPLATE,
    DecisionPrompt,
    DecisionPrompting,
    resolve_decision_template,
)
from edgecal.decisions.questions import (
    Choice,
    Noul,
    Problem,
    Question,
    Request,
    RequestError,
    Score,
    check_state,
    detail_of,
    parse_question,
    parse_request,
    read_json,
)
from edgecal.decisions.temperatures import (
    BUCKETS,
    TYPES,
    TypedTemperature,
    TypedTemperatures,
    UsedTemperature,
    bucket_of,
)

__all__ = [
    "AUTO_CHAT_TEMPLATE",
    "BUCKETS",
    "DEFAULT_DECISION_TEMPLATE",
    "DEFAULT_ORDERS",
    "DEFAULT_READOUT",
    "LETTERS",
    "READOUTS",
    "TYPES",
    "Choice",
    "Decision",
    "DecisionOptions",
    "DecisionPrompt",
    "DecisionPrompting",
    "Decisions",
    "Noul",
    "Orders",
    "Problem",
    "Question",
    "Readout",
    "Request",
    "RequestError",
    "Score",
    "TypedTemperature",
    "TypedTemperatures",
    "UsedTemperature",
    "answer_question",
    "bucket_of",
    "check_state",
    "detail_of",
    "is_decided",
    "label_logits",
    "list_orders",
    "parse_orders",
    "parse_question",
    "parse_request",
    "read_json",
    "resolve_decision_template",
    "two_letter_labels",
]
