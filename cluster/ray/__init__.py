"""Pools on Ray: actors, placement, restarts, retries. The only folder that imports ray."""
