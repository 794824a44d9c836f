"""The built-in bank: unlabelled questions over many subjects, for users without prompts of their own.

Knows only where the bank is; its format is that of every other prompt file.
"""

from __future__ import annotations

import json
from pathlib import Path

from edgecal.prompts.model import Question
from edgecal.prompts.reader import parse_record

__all__ = ["BANK_PATH", "read_bank"]

BANK_PATH = Path(__file__).with_name("bank.jsonl")


def read_bank() -> list[Question]:
    """The bank's questions, in the file's order, without answers."""
    lines = BANK_PATH.read_text("utf-8").splitlines()
    records = [parse_record(json.loads(line), f"the bank, line {n}") for n, line in enumerate(lines, start=1)]
    return [record for record in records if isinstance(record, Question)]
