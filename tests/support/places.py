"""Where things are in this checkout."""

import sys
from pathlib import Path

SUPPORT = Path(__file__).parent  # modules that tests and the processes they start import
ROOT = SUPPORT.parents[1]
EXAMPLES = ROOT / "examples"
BENCHMARKS = ROOT / "benchmarks"
GOLDEN = ROOT / "tests" / "golden"
BIN = Path(sys.executable).parent  # programs beside the Python that runs the tests
