"""The same seed and evaluations ask the same candidates as ever: a digest for each algorithm.

Add an algorithm to PINNED when its candidates shall not change any more. A change here makes runs that were begun before unresumable, and their figures unrepeatable. Numbers count
to six digits, as far as processors agree.
"""

import hashlib
import re

import pytest

from evo.algorithms import Scored, make, read_settings
from evo.algorithms.protocol import Start
from operators.recipe import Founder
from operators.recipe.canonical import to_json

PINNED = {
    "genome": "298dee96b76a",
    "genome_plus": "a29d149577a1",
    "recipe_search": "4b0ab35c6346",
    "cross_entropy": "98677ceb9e4a",
    "differential_evolution": "6f11c2f05381",
    "lorahub": "47d8adee2861",
    "dataflow": "df2d7c517a94",
    "path_ga": "44007cbe5457",
    "joint": "03952d9ecdb5",
    "sequence": "4b0ab35c6346",
    "random_search": "3d2d5f36c3f7",
}
START = Start(tuple(Founder(n, n) for n in "abcd"), Founder("base", "0"), 1, 4, evaluations=40)


def digest_of(name):
    algorithm, asked = make(read_settings(name), START), []
    for _ in range(3):
        batch = algorithm.ask()
        asked += [to_json(c.recipe) for c in batch]
        algorithm.tell([Scored(c, float((7 * i) % 5)) for i, c in enumerate(batch)])
    rounded = re.sub(r"-?\d+\.\d+(e-?\d+)?", lambda m: f"{float(m[0]):.6g}", "\n".join(asked))
    return hashlib.sha256(rounded.encode()).hexdigest()[:12]


@pytest.mark.parametrize("name", PINNED)
def test_candidates_are_as_ever(name):
    assert digest_of(name) == PINNED[name]
