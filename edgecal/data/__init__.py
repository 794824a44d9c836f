"""Reads multiple-choice questions from data sets as people have them, in many layouts and containers.

A row passes through these modules: `sources` finds the files that a path names; `containers` unpacks a file and has it
decoded to rows (`json_text`, `delimited_text`, `parquet_arrow`; `decoded_rows` holds rows and reads cells);
`raw_questions` makes questions of them, by the data set's layout (`layouts`), the columns' roles (`column_roles`,
`column_map`) and the shapes that options come in (`answer_options`); `gold_readings` lists what a gold answer can mean,
and `gold_answers` decides it from all rows; `dataset` ties this together and checks each record. Nothing here depends
on models or templates.
"""

from edgecal.data.dataset import Data, SkippedRow, read_data
from edgecal.data.layouts import FORMATS

__all__ = ["FORMATS", "Data", "SkippedRow", "read_data"]
