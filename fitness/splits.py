"""The splits of a task's examples: ``dev`` drives the search, ``select`` chooses, ``test`` reports."""

from typing import Final, Literal, TypeAlias

Split: TypeAlias = Literal["dev", "select", "test"]

DEV: Final = "dev"
SELECT: Final = "select"
TEST: Final = "test"
SPLITS: Final[tuple[Split, ...]] = (DEV, SELECT, TEST)
