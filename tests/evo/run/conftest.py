"""Fixtures of the tests of runs; a module may have its own ``founders``."""

from interrupted_runs import founders as founders
from path_runs import folder as folder
