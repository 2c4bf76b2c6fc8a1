"""Budget: which limit of a search is reached."""

from evo.config.schema import BudgetConfig


def spent(
    budget: BudgetConfig,
    *,
    evaluations: int,
    generation: int,
    seconds: float,
    best: float,
    improved_in: int,
) -> str:
    """Return the key of the first limit that is reached, "" if none is.

    Args:
        budget: the limits.
        evaluations: distinct individuals evaluated on dev.
        generation: the last finished generation.
        seconds: of the search.
        best: the best fitness so far.
        improved_in: the generation of the best fitness.
    """
    limits = (
        ("evaluations", budget.evaluations, evaluations),
        ("generations", budget.generations, generation),
        ("seconds", budget.seconds, seconds),
        ("target", budget.target, best),
        ("patience", budget.patience, generation - improved_in),
    )
    return next((key for key, limit, value in limits if limit is not None and value >= limit), "")
