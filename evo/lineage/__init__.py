"""Lineage: who was tried, where they came from, how they scored. ``open(run_dir)`` reads a run's."""

from evo.lineage.reader import Lineage
from evo.lineage.reader import open_lineage as open
from evo.lineage.schema import SCHEMAS

__all__ = ["SCHEMAS", "Lineage", "open"]
