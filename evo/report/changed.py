"""The examples that the winner answers otherwise than the best founder, with what was asked."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evo.drift import rows_digest
from evo.report.contract import ChangedExample, ChangedFacts
from evo.report.examples import items_of
from evo.report.source import Source
from fitness.examples import TaskError, read_jsonl

EXAMPLES = 200
RIGHT = 0.5  # the value from which an example counts as right


def changed(source: Source, split: str) -> ChangedFacts | None:
    """None where the winner is the best founder, or there is none.

    Raises:
        UserError: a file of examples is damaged.
    """
    winner, founder = source.winner, source.founder
    if winner is None or founder is None or winner == founder:
        return None
    rows: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
    for row in items_of(source, {winner, founder}, split).to_pylist():
        rows.setdefault((row["task"], row["example"]), {})[row["individual"]] = row
    counts = dict.fromkeys(("fixed", "broken", "both_right", "both_wrong"), 0)
    found: list[ChangedExample] = []
    asked = {task: asked_of(source, task, split) for task in source.shares}
    for (task, example), by in sorted(rows.items()):
        if winner not in by or founder not in by:
            continue
        now, was = by[winner], by[founder]
        falls = source.shares[task] < 0
        right, before = (_right(r["value"], falls) for r in (now, was))
        if right == before:
            counts["both_right" if right else "both_wrong"] += 1
            continue
        change = "fixed" if right else "broken"
        counts[change] += 1
        prompt, expected = asked[task].get(example, (None, None))
        found.append(
            {
                "task": task,
                "example": example,
                "change": "fixed" if right else "broken",
                "was": was["answer"],
                "now": now["answer"],
                "was_value": was["value"],
                "now_value": now["value"],
                "prompt": prompt,
                "expected": expected,
            }
        )
    kept = _kept(found)
    return {
        "against": {"id": founder, "name": source.name(founder)},
        "split": split,
        "fixed": counts["fixed"],
        "broken": counts["broken"],
        "both_right": counts["both_right"],
        "both_wrong": counts["both_wrong"],
        "left_out": len(found) - len(kept),
        "examples": kept,
    }


def _kept(found: list[ChangedExample]) -> list[ChangedExample]:
    """As many of both kinds as there is room for, the scarcer one first."""
    kinds = [[r for r in found if r["change"] == kind] for kind in ("broken", "fixed")]
    kinds.sort(key=len)
    few = kinds[0][: EXAMPLES // 2]
    return few + kinds[1][: EXAMPLES - len(few)]


def _right(value: float, falls: bool) -> bool:
    return value < RIGHT if falls else value >= RIGHT


def asked_of(source: Source, task: str, split: str) -> dict[int, tuple[str | None, str | None]]:
    """(prompt, expected answer) of each example, where the task's file is still what it was."""
    config: Mapping[str, Any] = next(
        (t for t in source.config.get("tasks", ()) if t["name"] == task), {}
    )
    path = config.get("files", {}).get(split)
    if path is None:
        return {}
    try:
        rows = [e.row for e in read_jsonl(Path(path), limit=config.get("limit", {}).get(split))]
    except (TaskError, OSError):
        return {}
    if source.start.get("tasks", {}).get(f"{task}.{split}") != rows_digest(rows):
        return {}
    return {i: (_text(r, "prompt") or _text(r, "text"), _expected(r)) for i, r in enumerate(rows)}


def _text(row: Mapping[str, Any], key: str) -> str | None:
    return None if row.get(key) is None else str(row[key])


def _expected(row: Mapping[str, Any]) -> str | None:
    choices, label = row.get("choices"), row.get("label")
    if isinstance(choices, list) and isinstance(label, int) and 0 <= label < len(choices):
        return str(choices[label])
    return _text(row, "answer")
