"""From the records of audits to what people read: tables, figures and one self-contained page.

``read_run`` reads a run folder, ``summarize`` and ``table`` turn it into numbers, ``to_rich``,
``to_markdown``, ``to_csv`` and ``to_latex`` write the comparison, ``box_plot`` and ``gallery`` draw
it, and ``write_report`` brings all of it into one HTML file.
"""

from holdfast.report.figures import box_plot, gallery
from holdfast.report.html import write_report
from holdfast.report.records import AuditedRun, read_run
from holdfast.report.summary import Row, Table, summarize, table
from holdfast.report.tables import to_csv, to_latex, to_markdown, to_rich

__all__ = [
    "AuditedRun",
    "Row",
    "Table",
    "box_plot",
    "gallery",
    "read_run",
    "summarize",
    "table",
    "to_csv",
    "to_latex",
    "to_markdown",
    "to_rich",
    "write_report",
]
