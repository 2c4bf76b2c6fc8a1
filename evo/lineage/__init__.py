"""Lineage: who was tried, where they came from, how they scored. ``open(run_dir)`` reads a run's."""

from evo.lineage.comparison import Comparison
from evo.lineage.many import Lineages
from evo.lineage.opening import open_lineage as open
from evo.lineage.reader import Lineage
from evo.lineage.schema import SCHEMAS

__all__ = ["SCHEMAS", "Comparison", "Lineage", "Lineages", "open"]
