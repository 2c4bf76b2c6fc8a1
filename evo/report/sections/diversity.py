"""How different the members of the populations were, by what they got right."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from evo.report.contract import DiversityFacts
from evo.report.data.run_data import Floats, RunData
from fitness.splits import DEV

GENERATIONS = 100
ITEMS = 2_000_000  # read for this at most, but for one generation always: half a second or so


def diversity(data: RunData) -> DiversityFacts | None:
    """Of the populations at the ends of generations; evenly thinned where there are many.

    Raises:
        EvoError: a file of examples is damaged.
    """
    members = _members(data)
    found: DiversityFacts = {"generation": [], "disagreement": [], "distinct": []}
    for number, values in _matrices(data, members):
        found["generation"].append(number)
        found["disagreement"].append(disagreement(values) if len(values) > 1 else None)
        found["distinct"].append(distinct(values))
    return found if found["generation"] else None


def disagreement(values: Floats) -> float:
    """The chance that two different members score otherwise on an example; the mean over examples.

    ``values``: (members, examples), two members at least.
    """
    members = len(values)
    ordered = np.sort(values, axis=0)
    rank = np.arange(members)[:, None]
    starts = np.zeros(values.shape, np.int64)
    starts[1:] = np.where(ordered[1:] != ordered[:-1], rank[1:], 0)
    alike = (rank - np.maximum.accumulate(starts, axis=0)).sum(axis=0)  # pairs of equals
    return float(1.0 - alike.mean() / (members * (members - 1) / 2))


def distinct(values: Floats) -> float:
    """The share of members whose row of (members, examples) is nobody else's."""
    _, counts = np.unique(values, axis=0, return_counts=True)
    return float((counts == 1).sum() / len(values))


def _members(data: RunData) -> dict[int, list[str]]:
    """Those who are alive, did not fail and have examples, by generation: of as many as may be read."""
    table = data.population
    alive: dict[int, list[str]] = {}
    numbers = np.unique(table.column("generation").to_numpy())
    count = min(GENERATIONS, len(numbers))
    while count:
        chosen = numbers[np.linspace(0, len(numbers) - 1, count).round().astype(np.int64)]
        rows = table.filter(pc.is_in(table.column("generation"), value_set=pa.array(chosen)))
        alive = {int(n): [] for n in chosen}
        pairs = zip(
            *(rows.column(c).to_pylist() for c in ("generation", "individual")), strict=True
        )
        for number, individual in pairs:
            if data.dev_scores.of(individual) is not None:
                alive[number].append(individual)
        if _cost(data, alive) <= ITEMS or count == 1:
            break
        count //= 2
    return {number: members for number, members in alive.items() if members}


def _cost(data: RunData, members: dict[int, list[str]]) -> int:
    """How many items are in the files that the members' are in."""
    evaluated = data.dev_scores
    wanted = {evaluated.generation[evaluated.place[i]] for group in members.values() for i in group}
    return int(evaluated.examples[np.isin(evaluated.generation, list(wanted))].sum())


def _matrices(data: RunData, members: dict[int, list[str]]) -> Iterator[tuple[int, Floats]]:
    """(members, examples) of each generation; only members of later generations are kept in memory."""
    last: dict[str, int] = {}
    for number, group in members.items():
        last |= dict.fromkeys(group, number)
    evaluated = data.dev_scores
    wanted = {int(evaluated.generation[evaluated.place[i]]) for i in last if i in evaluated.place}
    held: dict[str, Floats] = {}
    for number, group in sorted(members.items()):
        for generation in sorted(g for g in wanted if g <= number):
            wanted.discard(generation)
            for commit in data.commits_of(generation):
                rows = data.rows_in(commit, "items", ["individual", "split", "value"])
                if rows.num_rows:
                    held |= {i: v for i, v in values_of(rows).items() if i in last}
        known = [held[i] for i in group if i in held]
        if known:
            # A function of the user's own may score another number of examples for each model.
            alike = [values for values in known if len(values) == len(known[0])]
            yield number, np.stack(alike)
        held = {i: v for i, v in held.items() if last[i] > number}


def values_of(rows: pa.Table) -> dict[str, Floats]:
    """Each individual's dev values, one after the other over tasks and examples."""
    dev = rows.filter(pc.field("split") == DEV).combine_chunks()
    if not dev.num_rows:
        return {}
    values = dev.column("value").to_numpy()
    who = dev.column("individual").combine_chunks().dictionary_encode()
    code = who.indices.to_numpy(zero_copy_only=False)
    starts = np.flatnonzero(np.diff(code, prepend=-1))
    names = who.dictionary.to_pylist()
    parts: Sequence[NDArray[np.float64]] = np.split(values, starts[1:])
    return {names[code[at]]: part for at, part in zip(starts, parts, strict=True)}
