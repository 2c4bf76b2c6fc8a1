"""Trials: what every search but breeding remembers between ask and tell."""

import math
from collections.abc import Sequence

from evo.algorithms.genes import GeneSpace
from evo.algorithms.optimisers import Proposal, Trial
from evo.algorithms.protocol import Candidate, Scored, Start, founder_candidates
from operators.recipe import Merge
from operators.selection import ranking


class Trials:
    """Generations, the last population, and the points behind the candidates that were asked.

    Generation 0 is the founders; the population of a later one is what was asked in it.
    """

    def __init__(self, start: Start) -> None:
        self.founders = founder_candidates(start)
        self.generation = -1
        self.population: tuple[Scored, ...] = ()
        self._asked: list[tuple[str, Proposal]] = []

    def candidates(
        self, space: GeneSpace, proposals: Sequence[Proposal], operator: str
    ) -> list[Candidate]:
        """The recipes at the proposed points, each once.

        A proposal that was made from nothing has the best of the generation before as its parent.
        """
        best = tuple(s.candidate.id for s in self.population[:1])
        made: dict[str, Candidate] = {}
        self._asked = []
        for proposal in proposals:
            recipe = space.decode(space.from_unit(proposal.x))
            seed = recipe.seed if isinstance(recipe, Merge) else 0
            self._asked.append((recipe.id, proposal))
            made.setdefault(recipe.id, Candidate(recipe, operator, proposal.parents or best, seed))
        return list(made.values())

    def end_generation(self, evaluations: Sequence[Scored]) -> list[Trial]:
        """Take in the evaluations of all that was asked; gives the trial of each proposal, in order.

        Proposals that failed, or whose ``fitness`` is not finite, count as the worst of their generation.
        """
        order = ranking([s.fitness for s in evaluations])
        self.population = tuple(evaluations[i] for i in order)
        self.generation += 1
        told = {s.candidate.id: s.fitness for s in evaluations}
        worst = min((f for f in told.values() if math.isfinite(f)), default=0.0)
        asked, self._asked = self._asked, []
        return [
            Trial(id_, proposal.x, told[id_] if math.isfinite(told[id_]) else worst)
            for id_, proposal in asked
        ]
