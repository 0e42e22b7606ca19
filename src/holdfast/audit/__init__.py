"""Audits: a model, a data set and a battery of attacks make records, image by image."""

from holdfast.audit.battery import Audit
from holdfast.audit.faithfulness import Deletion, Insertion

__all__ = ["Audit", "Deletion", "Insertion"]
