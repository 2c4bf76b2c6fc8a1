"""The examples that the winner answers otherwise than the best founder, with what was asked."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from evo.lineage.read.comparison import Comparison
from evo.report.contract import ChangedExample, ChangedFacts
from evo.report.data.run_data import RunData
from evo.run_dir.manifest import rows_digest
from fitness.examples import TaskError, read_jsonl

EXAMPLES = 200
RIGHT = 0.5  # the score from which an example that has not changed counts as right


def changed(data: RunData, found: Comparison) -> ChangedFacts:
    """``found`` compares the winner (a) with the best founder (b).

    An example is fixed where the winner's score is better, and broken where it is worse.
    """
    counts = dict.fromkeys(("fixed", "broken", "both_right", "both_wrong"), 0)
    asked = {task: asked_of(data, task, found.split) for task in data.shares}
    examples: list[ChangedExample] = []
    for row in found.items.to_pylist():
        task, now, was = row["task"], row["a"], row["b"]
        falls = data.shares[task] < 0
        if now == was:
            right = now < RIGHT if falls else now >= RIGHT
            counts["both_right" if right else "both_wrong"] += 1
            continue
        change: Literal["fixed", "broken"] = "fixed" if (now > was) != falls else "broken"
        counts[change] += 1
        prompt, expected = asked[task].get(row["example"], (None, None))
        examples.append(
            {
                "task": task,
                "example": row["example"],
                "change": change,
                "was": row["b_answer"],
                "now": row["a_answer"],
                "was_value": was,
                "now_value": now,
                "prompt": prompt,
                "expected": expected,
            }
        )
    kept = _kept(examples)
    return {
        "against": {"id": found.b, "name": data.name(found.b)},
        "split": found.split,
        "fixed": counts["fixed"],
        "broken": counts["broken"],
        "both_right": counts["both_right"],
        "both_wrong": counts["both_wrong"],
        "left_out": len(examples) - len(kept),
        "examples": kept,
    }


def _kept(found: list[ChangedExample]) -> list[ChangedExample]:
    """As many of both kinds as there is room for, in turns, the fixed one first: both are to be seen."""
    fixed, broken = ([r for r in found if r["change"] == kind] for kind in ("fixed", "broken"))
    pairs = min(len(fixed), len(broken), EXAMPLES // 2)
    turns = [one for pair in zip(fixed[:pairs], broken[:pairs], strict=True) for one in pair]
    return (turns + fixed[pairs:] + broken[pairs:])[:EXAMPLES]


def asked_of(data: RunData, task: str, split: str) -> dict[int, tuple[str | None, str | None]]:
    """(prompt, expected answer) of each example, where the task's file is still what it was."""
    config: Mapping[str, Any] = next(
        (t for t in data.config.get("tasks", ()) if t["name"] == task), {}
    )
    path = config.get("files", {}).get(split)
    if path is None:
        return {}
    try:
        rows = [e.row for e in read_jsonl(Path(path), limit=config.get("limit", {}).get(split))]
    except (TaskError, OSError):
        return {}
    manifest = data.manifest
    if manifest is None or manifest.scores.examples.get(f"{task}.{split}") != rows_digest(rows):
        return {}
    return {i: (_text(r, "prompt") or _text(r, "text"), _expected(r)) for i, r in enumerate(rows)}


def _text(row: Mapping[str, Any], key: str) -> str | None:
    return None if row.get(key) is None else str(row[key])


def _expected(row: Mapping[str, Any]) -> str | None:
    choices, label = row.get("choices"), row.get("label")
    if isinstance(choices, list) and isinstance(label, int) and 0 <= label < len(choices):
        return str(choices[label])
    return _text(row, "answer")
