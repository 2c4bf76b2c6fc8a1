"""Shared by tests: taken out of test_vocabulary."""

from evo.config.schema import RunConfig


def union_config(folder, **founders):
    (folder / "task.dev.jsonl").write_text('{"prompt": "abc", "answer": "d"}\n')
    task = {"name": "t", "files": folder / "task"}
    return RunConfig.model_validate(
        {
            "base": folder / "base",
            "founders": founders,
            "vocabulary": "union",
            "tasks": [task],
            "pool": {"kind": "local"},
            "algorithm": {"name": "recipe_search", "population": 4},
            "budget": {"evaluations": 2},
        }
    )
