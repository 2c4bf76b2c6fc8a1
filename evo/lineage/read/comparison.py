"""Two individuals on the same examples: where they differ, and by how much, with an interval."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from fitness.statistics import paired_bootstrap

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Comparison:
    """What one individual gets right and the other wrong.

    Attributes:
        a: id of the one.
        b: id of the other.
        split: of which split the examples are.
        items: task, split, example, a and b (the scores), a_answer and b_answer.
        difference: mean of a minus mean of b, over the tasks as fitness weighs them: positive where a
            is better, also in tasks whose lower scores are better.
        low: lower end of the 95 % interval of the difference, by a paired bootstrap over the examples of
            each task.
        high: its upper end.
        gained: examples that a gets right and b does not; where scores are more than right or wrong,
            those where a's is better.
        lost: the same for b.
    """

    a: str
    b: str
    split: str
    items: pa.Table
    difference: float
    low: float
    high: float
    gained: int
    lost: int

    def describe(self) -> str:
        """For people, a few lines."""
        count = self.items.num_rows
        certain = "" if self.low > 0 or self.high < 0 else ": no clear difference"
        return (
            f"{self.a[:12]} against {self.b[:12]} on {count} examples of {self.split}\n"
            f"difference {self.difference:+.4f} ({CONFIDENCE:.0%} from {self.low:+.4f} to "
            f"{self.high:+.4f}){certain}\n"
            f"better in {self.gained}, worse in {self.lost}, the same in "
            f"{count - self.gained - self.lost}"
        )


def compared(
    a: str, b: str, split: str, items: pa.Table, shares: Mapping[str, float], *, seed: int = 0
) -> Comparison:
    """The comparison of ``items``, which are as in :class:`Comparison`, and at least one.

    ``shares`` are the tasks' weights in the fitness, negative where a lower score is better. An example
    counts as much as any other of its task: a metric that weighs its examples differs a little.
    """
    names, task = np.unique(items.column("task").to_numpy(), return_inverse=True)
    share = np.array([shares[str(name)] for name in names])
    sign = np.sign(share)[task]
    scores = [items.column(name).to_numpy() * sign for name in ("a", "b")]
    weights = (np.abs(share) / np.bincount(task))[task]
    difference, low, high = paired_bootstrap(
        *scores, weights=weights, strata=task.tolist(), seed=seed
    )
    ahead = scores[0] - scores[1]
    gained, lost = int((ahead > 0).sum()), int((ahead < 0).sum())
    return Comparison(a, b, split, items, difference, low, high, gained, lost)
