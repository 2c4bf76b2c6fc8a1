"""The manifest of a run, ``manifest.json``: what the run was made with, as digests to compare.

It has two parts. Two runs that agree in :class:`ScoreInputs` give one recipe the same scores, to the last
bit: the evaluation cache compares it. A run that agrees in both parts takes the same course: a resumed run
compares both.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from evo.errors import EvoError
from evo.files import write_json

Digests = Mapping[str, str]
"""SHA-256 digests (or versions) by the name of what they are of."""


@dataclass(frozen=True, slots=True)
class ScoreInputs:
    """What decides the scores of a recipe.

    Attributes:
        base: digest of the base's tensors. Founders are named by digest in a recipe.
        base_files: the small files beside them (config, tokenizer, chat template).
        examples: of each split of each task, by ``task.split``.
        settings: keys of the config: ``engine.*``, ``tasks.NAME.*`` and ``racing.rungs``.
        code: this package's modules that decide scores, by folder or module.
        user_code: modules of the user's functions and what they import from their own folder.
        versions: of packages.
        processor: other kinds of processor round differently in the last bits.
    """

    base: str
    base_files: Digests
    examples: Digests
    settings: Digests
    code: Digests
    user_code: Digests
    versions: Digests
    processor: str


@dataclass(frozen=True, slots=True)
class SearchInputs:
    """What, beside the scores, decides which candidates a search proposes and which it chooses.

    Attributes:
        founders: digests of the founders' tensors, by name.
        settings: all other keys of the config, but those that may change on resume.
        algorithm: class of the algorithm.
        evaluations: the budget that the algorithm was made with; an extended run keeps it.
        stops: budgets of evaluations that were spent before the run was extended, ascending.
        in_flight: evaluations that a steady-state search keeps in flight; None for a generational one.
        influence: block influence of each layer by founder id, where it was measured.
    """

    founders: Digests
    settings: Digests
    code: Digests
    user_code: Digests
    versions: Digests
    algorithm: str = ""
    evaluations: int | None = None
    stops: tuple[int, ...] = ()
    in_flight: int | None = None
    influence: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RunManifest:
    """What a run was made with.

    Attributes:
        layers: of each founder; 0 for models without layers.
        lower_is_better: tasks whose lower score is better.
        notes: what was done to the founders' vocabularies.
        versions: of Python and of all packages of :func:`evo.versions.versions`, for information.
    """

    scores: ScoreInputs
    search: SearchInputs
    layers: int
    lower_is_better: tuple[str, ...]
    notes: tuple[str, ...]
    versions: Mapping[str, str]

    def as_json(self) -> dict[str, Any]:
        """Return the content of ``manifest.json``, without its check."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what :meth:`as_json` gave.

        Raises:
            KeyError, TypeError, AttributeError: ``data`` is something else.
        """
        influence = {name: tuple(v) for name, v in data["search"]["influence"].items()}
        search = {**data["search"], "influence": influence, "stops": tuple(data["search"]["stops"])}
        parts = {
            "scores": ScoreInputs(**data["scores"]),
            "search": SearchInputs(**search),
            "lower_is_better": tuple(data["lower_is_better"]),
            "notes": tuple(data["notes"]),
        }
        return cls(**{**data, **parts})


def write_manifest(path: Path, manifest: RunManifest) -> None:
    """Write a manifest with a digest of itself, whole or not at all."""
    data = manifest.as_json()
    write_json(path, {**data, "check": digest(data)})


def read_manifest(path: Path) -> RunManifest:
    """Read a manifest.

    Raises:
        EvoError: the file is missing or damaged.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise EvoError(
            f"{path}: missing; it says what the run was made with. Restore the file"
        ) from error
    except ValueError as error:
        raise EvoError(f"{path}: damaged ({error}). Restore the file") from error
    if not isinstance(data, dict) or data.pop("check", "") != digest(data):
        raise EvoError(f"{path}: damaged (its digest does not match). Restore the file")
    try:
        return RunManifest.from_json(data)
    except (KeyError, TypeError, AttributeError) as error:
        raise EvoError(
            f"{path}: written by another version of evo-models ({error}); use that version"
        ) from error


def digest(value: Any) -> str:
    """Return the SHA-256 of ``value`` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def rows_digest(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the digest of a split's examples."""
    return digest([dict(row) for row in rows])
