"""What is read from data files, and the formats that tests write."""

from support import datasets as ds
from support.datasets import FOUR, QUESTIONS


def facts(data):
    """A passage stands before the question, as templates put it."""
    return [
        (
            f"{r.passage}\n\n{r.question}" if r.passage is not None else r.question,
            list(r.choices),
            r.answer,
            r.subject,
        )
        for r in data.records
    ]


def expected(questions=QUESTIONS, *, subjects=True, subject=None):
    return [(q, o, a, s if subjects else subject) for q, o, a, s in questions]


FLAT = {
    "edgecal": ("edgecal", ds.edgecal_rows, expected()),
    "mmlu-pro": ("mmlu", ds.mmlu_pro_rows, expected()),
    "mmlu-columns": ("mmlu", ds.mmlu_column_rows, expected(FOUR)),
    "mmlu-lower": ("mmlu", lambda: ds.mmlu_column_rows("prompt a b c d answer subject"), expected(FOUR)),
    "mmlu-options": (
        "mmlu",
        lambda: ds.mmlu_column_rows("Question option_a option_b option_c option_d Answer Subject"),
        expected(FOUR),
    ),
    "mmlu-numbered": (
        "mmlu",
        lambda: ds.mmlu_column_rows("question option1 option2 option3 option4 correct_answer category"),
        expected(FOUR),
    ),
    "mmlu-old-hub": ("mmlu", lambda: ds.mmlu_column_rows("input A B C D target subject"), expected(FOUR)),
    "arc": ("arc", ds.arc_rows, expected(subjects=False)),
    "openbookqa": ("openbookqa", ds.openbookqa_rows, expected(subjects=False)),
    "commonsenseqa": ("commonsenseqa", ds.commonsenseqa_rows, expected(subjects=False)),
    "medmcqa": ("medmcqa", ds.medmcqa_rows, expected(FOUR)),
    "medmcqa-original": ("medmcqa", lambda: ds.medmcqa_rows(base=1), expected(FOUR)),
    "mathqa": ("mathqa", ds.mathqa_rows, expected()),
    "agieval": ("agieval", ds.agieval_rows, None),
    "agieval-hub": ("agieval", ds.agieval_hub_rows, expected(subjects=False)),
    "bbh": ("bbh", ds.bbh_rows, expected(subjects=False)),
    "race": ("race", ds.race_rows, None),
    "truthfulqa-mc": ("truthfulqa", ds.truthfulqa_mc_rows, None),
    "truthfulqa": ("truthfulqa", ds.truthfulqa_rows, None),
}
