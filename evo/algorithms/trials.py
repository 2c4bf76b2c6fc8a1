"""SearchState: what every search but breeding remembers between ask and tell."""

from collections.abc import Sequence

from evo.algorithms.genes import GeneSpace
from evo.algorithms.in_flight import InFlight
from evo.algorithms.optimizers import Proposal, Trial
from evo.algorithms.protocol import Candidate, Scored, Start, founder_candidates
from operators.recipe import Merge
from operators.variation.selection import ranking


class SearchState:
    """Generations, the last population, and the points behind the candidates in flight.

    Generation 0 is the founders; the population of a later one is what was told in it.
    """

    def __init__(self, start: Start) -> None:
        self.founders = founder_candidates(start)
        self.generation = -1
        self.population: tuple[Scored, ...] = ()
        self._in_flight: InFlight[Proposal] = InFlight()

    def candidates(
        self, space: GeneSpace, proposals: Sequence[Proposal], operator: str
    ) -> list[Candidate]:
        """The recipes at the proposed points, each once.

        A proposal that was made from nothing has the best of the generation before as its parent.
        """
        best = tuple(s.candidate.id for s in self.population[:1])
        made: dict[str, Candidate] = {}
        for proposal in proposals:
            recipe = space.decode(space.from_unit(proposal.x))
            seed = recipe.seed if isinstance(recipe, Merge) else 0
            self._in_flight.add(recipe.id, proposal)
            made.setdefault(recipe.id, Candidate(recipe, operator, proposal.parents or best, seed))
        return list(made.values())

    def forget(self) -> None:
        """The proposals in flight are of no use any more: their optimizer is gone."""
        self._in_flight.forget()

    def end_generation(self, evaluations: Sequence[Scored]) -> list[Trial]:
        """Take in evaluations of what was asked; gives the trials of their proposals, in order.

        Proposals that failed, or whose ``fitness`` is not finite, count as the worst of those told.
        """
        order = ranking([s.fitness for s in evaluations])
        self.population = tuple(evaluations[i] for i in order)
        self.generation += 1
        return [Trial(h.id, h.made_of, h.fitness) for h in self._in_flight.take(evaluations)]
