"""The built-in bank: unlabelled questions over many subjects, for users without prompts of their own.

Knows only where the bank is; its format is that of every other prompt file.
"""

from __future__ import annotations

from pathlib import Path

from edgecal.prompts.model import Question
from edgecal.prompts.reader import read_json_lines

__all__ = ["BANK_PATH", "read_bank"]

BANK_PATH = Path(__file__).with_name("bank.jsonl")


def read_bank() -> list[Question]:
    """The bank's questions, in the file's order, without answers."""
    return [record for record in read_json_lines(BANK_PATH) if isinstance(record, Question)]
