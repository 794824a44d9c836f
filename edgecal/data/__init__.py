"""Data as people have it: multiple-choice questions in many layouts and containers, read to one kind of record.

`files` says what to read and `containers` turns bytes into rows that know their place (`json_text`, `delimited`,
`columnar`). `formats` recognises what a file is, `shapes` makes plain records of odd rows, `roles` and `families` give
columns their roles, `options` and `records` read a row, `tables` a file. `spelling` says what an answer may mean,
`answers` decides it from all rows, and `settle` has it decide for all files together. `reader` ties it together.
Knows nothing of models or templates.
"""

from edgecal.data.formats import FORMATS
from edgecal.data.model import Data, SkippedRow
from edgecal.data.reader import read_data

__all__ = ["FORMATS", "Data", "SkippedRow", "read_data"]
