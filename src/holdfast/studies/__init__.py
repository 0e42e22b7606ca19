"""Studies: a table or figure of a paper by one command, published and measured side by side.

`read_study` reads one, `Reproduction` says how it is to be made, `cells` lists its trainings and
audits, `run_cell` does one of them, anywhere, and `reproduce` does it all.
"""

from holdfast.studies.cells import Auditing, Cell, Retraining, Training, run_cell, stages
from holdfast.studies.measured import Results, Value, measured
from holdfast.studies.orderings import Ordering, orderings
from holdfast.studies.plan import Reproduction, cells
from holdfast.studies.reproduce import Written, reproduce, write
from holdfast.studies.study import (
    Column,
    Figure,
    Row,
    Study,
    entries,
    read_study,
    selected,
    study_names,
)

__all__ = [
    "Auditing",
    "Cell",
    "Column",
    "Figure",
    "Ordering",
    "Reproduction",
    "Results",
    "Retraining",
    "Row",
    "Study",
    "Training",
    "Value",
    "Written",
    "cells",
    "entries",
    "measured",
    "orderings",
    "read_study",
    "reproduce",
    "run_cell",
    "selected",
    "stages",
    "study_names",
    "write",
]
