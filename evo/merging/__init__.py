"""Static merges: mergekit's YAML in, an ordinary checkpoint out, streamed tensor by tensor."""

from evo.merging.as_yaml import dump
from evo.merging.folder import merge_file

__all__ = ["dump", "merge_file"]
