"""The search loop: budget, rounds, racing, and the evaluator between algorithms and the pool.

Nothing here opens a file; the lineage writer is given. The end of a run is in `evo.final`.
"""
