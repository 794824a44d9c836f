"""Renders a result as one HTML page, as pictures and as tables: pure functions of an `EvalResult` or `CompareResult`.

So any `--json` output can be drawn later and elsewhere. matplotlib and jinja2 are loaded only to draw.
"""

from edgecal.report.check import check_result
from edgecal.report.page import check_report_path, render_html, write_report
from edgecal.report.pictures import PICTURES, available_pictures, draw

__all__ = [
    "PICTURES",
    "available_pictures",
    "check_report_path",
    "check_result",
    "draw",
    "render_html",
    "write_report",
]
