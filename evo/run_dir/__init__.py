"""The run directory: its file names, its lock, and its typed documents (manifest, summary).

Everything that knows the name or the format of a file of a run is here, but the tables, which are in
``evo.lineage``. Imports neither torch nor the search: whatever reads a run starts with this.
"""

from evo.run_dir.folder import RunDir

__all__ = ["RunDir"]
