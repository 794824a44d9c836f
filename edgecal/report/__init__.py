"""A result as one HTML page, as pictures, and as tables: pure functions of an `EvalResult` or a `CompareResult`.

So whatever `--json` printed can be drawn later and elsewhere. matplotlib and jinja2 are loaded when something is drawn.
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
