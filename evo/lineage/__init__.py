"""Lineage: who was tried, where they came from, how they scored. ``open(run_dir)`` reads a run's."""

from evo.lineage.read.comparison import Comparison
from evo.lineage.read.lineage import Lineage
from evo.lineage.read.lineages import Lineages
from evo.lineage.read.opening import open_lineage as open
from evo.lineage.schema import SCHEMAS

__all__ = ["SCHEMAS", "Comparison", "Lineage", "Lineages", "open"]
