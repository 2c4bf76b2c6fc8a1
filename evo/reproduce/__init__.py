"""Individuals built and evaluated again from a run's lineage, and compared with it."""
