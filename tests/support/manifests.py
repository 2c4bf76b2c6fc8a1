"""Manifests of runs that tests write by hand, and changes of those that runs have written."""

from dataclasses import replace
from pathlib import Path

from evo.run_dir import RunDir
from evo.run_dir.manifest import RunManifest, ScoreInputs, SearchInputs


def made_manifest(examples=None, layers=0, lower_is_better=()) -> RunManifest:
    """A manifest that names nothing but what is given."""
    scores = ScoreInputs("0", {}, examples or {}, {}, {}, {}, {}, "cpu")
    search = SearchInputs({}, {}, {}, {}, {})
    return RunManifest(scores, search, layers, tuple(lower_is_better), (), {})


def change_manifest(run_dir: Path, part: str, **values: object) -> None:
    """Change ``scores`` or ``search``: a mapping is updated, anything else is replaced."""
    folder = RunDir(run_dir)
    manifest = folder.read_manifest()
    old = getattr(manifest, part)
    new = {k: {**getattr(old, k), **v} if isinstance(v, dict) else v for k, v in values.items()}
    folder.write_manifest(replace(manifest, **{part: replace(old, **new)}))
