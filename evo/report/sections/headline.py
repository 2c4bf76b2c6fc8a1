"""The headline: how much better the winner is than the best founder, and how sure that is."""

from evo.lineage.read.comparison import CONFIDENCE, Comparison
from evo.report.contract import Facts, Headline, ScoreRow, SplitScore
from evo.report.data.run_data import RunData
from evo.run_dir.summary import ResultRow
from fitness.splits import DEV, SELECT, SPLITS, TEST

WORSE = 5  # tasks that are named


def compared_on(data: RunData) -> str | None:
    """The split that says most of those on which both winner and best founder were scored."""
    winner, founder = data.winner, data.founder
    if winner is None or founder is None:
        return None
    return next(
        (s for s in reversed(SPLITS) if data.scores(winner, s) and data.scores(founder, s)), None
    )


def headline(data: RunData, found: Comparison | None) -> Headline | None:
    """None where there is no winner, or no founder that did not fail.

    ``found`` is the comparison of the two, from which the interval is; without it there is none.
    """
    winner, founder, split = data.winner, data.founder, compared_on(data)
    if winner is None or founder is None or split is None:
        return None
    score, error = data.combine(data.scores(winner, split))
    other, other_error = data.combine(data.scores(founder, split))
    low, high = (found.low, found.high) if found else (None, None)
    return {
        "split": split,
        "winner": {
            "id": winner,
            "name": data.name(winner),
            "description": data.about(winner)["description"],
        },
        "winner_score": score,
        "winner_se": error,
        "founder": {"id": founder, "name": data.name(founder)},
        "founder_score": other,
        "founder_se": other_error,
        "difference": found.difference if found else score - other,
        "low": low,
        "high": high,
        "confidence": CONFIDENCE,
        "examples": data.examples(winner, split),
        "note": _note(data, split, found, score - other),
    }


def _note(data: RunData, split: str, found: Comparison | None, difference: float) -> str:
    said = [
        "The best founder is the one with the best dev score: the one to pick without evolution."
    ]
    if split == DEV:
        said.append(
            "Scores are on dev, which drives the search: the winner's is optimistic, and only a test "
            "split says how good it is."
        )
    if split == TEST and data.summary is not None and data.summary.looks_at_test > 1:
        said.append(
            f"This is look {data.summary.looks_at_test} at test: the run was extended after it had finished. "
            "A choice that depends on an earlier look makes the test score optimistic."
        )
    if split == SELECT:
        said.append(
            "Scores are on select, which chose the winner among the finalists: a little optimistic."
        )
    if any(share < 0 for share in data.shares.values()):
        said.append("Tasks whose lower score is better count negative.")
    if found and abs(found.difference - difference) > 1e-9:
        said.append(
            "The difference counts every example alike; the scores weigh them, by their length."
        )
    if len(data.shares) > 1:
        said.append("Scores are means over the tasks, by their weights.")
        said += _worse(data, split)
    return " ".join(said)


def _worse(data: RunData, split: str) -> list[str]:
    """The tasks on which the winner loses, which a mean over tasks hides."""
    if data.winner is None or data.founder is None:
        return []
    mine, theirs = (data.scores(i, split) for i in (data.winner, data.founder))
    lost = [
        f"{task} ({mine[task][0]:.3f} against {theirs[task][0]:.3f})"
        for task, share in data.shares.items()
        if task in mine and task in theirs and share * (mine[task][0] - theirs[task][0]) < 0
    ]
    if not lost:
        return []
    more = f" and {len(lost) - WORSE} more" if len(lost) > WORSE else ""
    return [f"The winner is worse on {', '.join(lost[:WORSE])}{more}."]


def in_a_line(told: Facts) -> str:
    """``+0.304 on test (95 % interval +0.268 to +0.340) over the best founder, alpha1``."""
    headline = told["headline"]
    if headline is None:
        return "no result yet: nothing to compare with a founder"
    line = f"{headline['difference']:+.3f} on {headline['split']}"
    if headline["low"] is not None and headline["high"] is not None:
        sure = f"{headline['confidence']:.0%}".replace("%", " %")
        line += f" ({sure} interval {headline['low']:+.3f} to {headline['high']:+.3f})"
    return f"{line} over the best founder, {headline['founder']['name']}"


def scores(data: RunData) -> list[ScoreRow]:
    """The table of results; of a run that goes on, the best so far and the founders, on dev."""
    summary = data.summary
    if summary is not None:
        return [_row(data, r.name, r.kind, r.id, r) for r in summary.rows]
    found = [_row(data, name, "founder", i) for i, name in data.founders.items()]
    if data.winner is not None:
        found.insert(0, _row(data, "best so far", "winner", data.winner))
    return found


def _row(
    data: RunData,
    name: str,
    kind: str,
    individual: str | None,
    given: ResultRow | None = None,
) -> ScoreRow:
    tasks: dict[str, dict[str, SplitScore]] = {}
    measured: dict[str, tuple[float, float]] = {}
    for split in SPLITS:
        found = data.scores(individual, split) if individual else {}
        for task, (score, error) in found.items():
            tasks.setdefault(task, {})[split] = {"score": score, "se": error}
        if found:
            measured[split] = data.combine(found)
    for task, row in given.tasks.items() if given else ():
        tasks.setdefault(task, {}).setdefault(TEST, {"score": row.test, "se": row.test_se})
    if given is None:
        dev = data.dev_scores.of(individual) if individual else None
        known = {split: mean for split, (mean, _) in measured.items()}
        test_se = measured[TEST][1] if TEST in measured else None
        scored = (known.get(DEV) if dev is None else dev, known.get(SELECT), known.get(TEST))
    else:
        scored, test_se = (given.dev, given.select, given.test), given.test_se
    return {
        "name": name,
        "kind": kind,
        "id": individual,
        "dev": _number(scored[0]),
        "select": _number(scored[1]),
        "test": _number(scored[2]),
        "test_se": _number(test_se),
        "tasks": tasks,
    }


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
