"""All golden cases as a table: how far our merges are from what reference implementations gave.

Run: ``python benchmarks/golden.py``. Writes benchmarks/results/golden.json.
"""

import sys
from collections import defaultdict
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

from results import save

sys.path.append(str(Path(__file__).parents[1] / "tests"))  # where the cases and their numbers are
from golden import merge_cases, paper_cases

Row = dict[str, str | int | float | bool]


def table(cases: Iterable[tuple[str, str, float, float]]) -> list[Row]:
    """One row for each method and tolerance: cases, the worst difference, and whether all are within."""
    grouped: dict[tuple[str, float], list[float]] = defaultdict(list)
    for method, _, worst, tolerance in cases:
        grouped[method, tolerance].append(worst)
    return [
        {
            "method": method,
            "cases": len(all_worst),
            "worst": max(all_worst),
            "tolerance": tolerance,
            "within": max(all_worst) <= tolerance,
        }
        for (method, tolerance), all_worst in sorted(grouped.items())
    ]


def headline(data: dict[str, Any]) -> str:
    within = sum(row["within"] for row in data["rows"])
    cases = sum(row["cases"] for row in data["rows"])
    return f"{within} of {len(data['rows'])} methods agree with their references ({cases} cases)"


def main() -> int:
    rows = table(chain(merge_cases.run_cases(), paper_cases.run_cases()))
    print("| method | cases | worst difference | tolerance |\n|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['method']} | {row['cases']} | {row['worst']:.2g} | {row['tolerance']:.2g} |"
            + ("" if row["within"] else " **outside**")
        )
    print(save("golden", {"rows": rows}, headline({"rows": rows})))
    return 0 if all(row["within"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
