"""Fixtures of the tests of exports; a module may have its own ``founders``."""

from exported_models import checkpoints as checkpoints
from exported_models import founders as founders
