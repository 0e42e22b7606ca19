"""From the records of audits to what people read: tables, figures and one self-contained page.

``read_run`` reads a run folder, ``summarize`` and ``table`` turn it into numbers, ``to_rich``,
``to_markdown``, ``to_csv`` and ``to_latex`` write the comparison, ``box_plot`` and ``gallery`` draw
it, and ``write_report`` brings all of it into one HTML file. ``roar_table``, ``roar_curves`` and
``write_roar`` do the same for what ROAR has written.
"""

from holdfast.report.contents import write_tables
from holdfast.report.figures import box_plot, gallery
from holdfast.report.html import write_report
from holdfast.report.records import AuditedRun, read_run
from holdfast.report.roar import roar_curves, roar_table, write_roar
from holdfast.report.summary import Row, Table, summarize, table
from holdfast.report.tables import to_csv, to_latex, to_markdown, to_rich

__all__ = [
    "AuditedRun",
    "Row",
    "Table",
    "box_plot",
    "gallery",
    "read_run",
    "roar_curves",
    "roar_table",
    "summarize",
    "table",
    "to_csv",
    "to_latex",
    "to_markdown",
    "to_rich",
    "write_report",
    "write_roar",
    "write_tables",
]
