"""A run's configuration: what may be set, its defaults, and what is checked before anything runs."""

import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from evo.algorithms import AnyAlgorithm
from evo.algorithms.recipe_search import RecipeSearchSettings
from evo.config.racing import RacingConfig
from evo.config.trackers import TrackersConfig
from evo.errors import EvoError
from fitness.engines import EngineSpec, check_settings
from fitness.functions import name_of
from fitness.metrics.metric import Metric
from fitness.splits import DEV, SELECT, SPLITS, TEST, Split

Positive = Annotated[int, Field(ge=1)]


class _Settings(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False
    )


class TaskConfig(_Settings):
    """Examples and how they are scored.

    ``files`` gives a JSONL file for each split (``dev`` is required; ``select`` picks among finalists;
    ``test`` is scored once, at the end), or one path without its ending: ``tasks/alien`` stands for
    ``tasks/alien.dev.jsonl`` and so on. ``data`` gives a string for each split instead, for functions
    that score a torch module. ``limit`` takes only the first examples of a split.

    ``metric`` is a name of METRICS, or "package.module:name" of a function or an :class:`evo.Metric`. In code
    it may be the function or the metric itself; the config then holds its name. Only a run in the local pool
    can use one that no module holds or that is defined in ``__main__``.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    metric: str = "exact_match"
    files: dict[Split, Path] = {}
    data: dict[Split, str] = {}
    weight: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 1.0
    limit: dict[Split, Positive] = {}
    max_tokens: Positive | None = None
    stop: tuple[str, ...] = ()
    regex: str | None = None
    chat: bool = False
    end: str = "eos"
    temperature: Annotated[float, Field(ge=0.0)] = 0.0

    @field_validator("metric", mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        if isinstance(value, Metric):
            return name_of(value, module=getattr(value.score, "__module__", ""))
        return name_of(value) if callable(value) else value

    @field_validator("files", mode="before")
    @classmethod
    def _expand(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, str | Path):
            return value
        stem = _rooted(Path(value), info)
        found = {s: stem.with_name(f"{stem.name}.{s}.jsonl") for s in SPLITS}
        there = {s: p for s, p in found.items() if p.is_file()}
        if not there:
            raise ValueError(f"no such file: {found[DEV]} (nor .select.jsonl, .test.jsonl)")
        return there

    @field_validator("files")
    @classmethod
    def _files_exist(cls, value: dict[Split, Path], info: ValidationInfo) -> dict[Split, Path]:
        rooted = {split: _rooted(path, info) for split, path in value.items()}
        for split, path in rooted.items():
            if _checks_files(info) and not path.is_file():
                raise ValueError(f"{split}: no such file: {path}")
        return rooted

    @model_validator(mode="after")
    def _has_dev(self) -> "TaskConfig":
        if DEV not in self.files and DEV not in self.data:
            raise ValueError(
                "a task needs a dev split: under files (JSONL) or data (for functions)"
            )
        return self


class BudgetConfig(_Settings):
    """When the search ends: at whichever comes first.

    ``evaluations`` counts distinct individuals scored on dev, founders included; it is 300 where
    neither it nor generations nor seconds is set. ``seconds`` and ``target`` are checked between
    rounds of evaluations. ``target`` is a fitness: lower-is-better metrics count negative in it.
    ``patience`` is in generations without a better individual.
    """

    evaluations: Positive | None = None
    generations: Positive | None = None
    seconds: Annotated[float, Field(gt=0.0)] | None = None
    target: float | None = None
    patience: Positive | None = None

    @model_validator(mode="before")
    @classmethod
    def _must_end(cls, data: Any) -> Any:
        if isinstance(data, dict) and not any(
            data.get(key) is not None for key in ("evaluations", "generations", "seconds")
        ):
            return {**data, "evaluations": 300}
        return data


class PoolConfig(_Settings):
    """Where models run: ``local`` in this process, ``ray`` in ``hosts`` processes.

    Without ``kind``, a run uses ``ray`` if any other key of ``pool`` is given, if ``engine.device`` is
    ``cuda`` and this machine has a GPU, or if ``trackers.prometheus`` is given; else ``local``. Scores do
    not depend on it. A local pool ignores the other keys.

    ``hosts: auto``, the default with ``ray``, follows the cluster: as many as every node has room for,
    also nodes that join later.
    A host takes ``engine.threads`` cores and, with ``device: cuda``, ``gpus_per_host``: a number of GPUs or
    a fraction of one (default 1). ``labels`` are those that its node must have. ``memory_gib`` is what a
    host may allocate beside the founders' mapped files: nodes must have it, and a candidate that takes
    more fails (device memory is not counted; enforced on Linux). ``deadline_s`` is what an
    individual may take on a host, and its answers with the scorer: then its process is replaced, the
    others' work moves, and after three times the individual has failed.

    ``address`` is that of a running cluster (``auto``, ``HOST:PORT``); without it a Ray of our own is
    started. A host, or a replacement, must start within ``start_timeout_s`` if there is no other.
    ``ship_founders`` copies the founders' bytes to nodes: where their path does not lead to the same
    files, always, never.
    """

    kind: Literal["ray", "local"] | None = None
    hosts: Positive | Literal["auto"] | None = None
    address: str | None = None
    start_timeout_s: Annotated[float, Field(gt=0.0)] = 300.0
    deadline_s: Annotated[float, Field(gt=0.0)] = 3600.0
    gpus_per_host: Annotated[float, Field(gt=0.0)] | None = None
    memory_gib: Annotated[float, Field(gt=0.0)] | None = None
    labels: dict[str, str] = {}
    ship_founders: Literal["auto", "always", "never"] = "auto"

    @field_validator("gpus_per_host")
    @classmethod
    def _whole_or_fraction(cls, value: float | None) -> float | None:
        if value is not None and value > 1 and value != int(value):
            raise ValueError(f"a fraction of one GPU, or a whole number of them, got {value:g}")
        return value

    @field_validator("labels")
    @classmethod
    def _plain_labels(cls, value: dict[str, str]) -> dict[str, str]:
        for label in value.values():
            # Ray would read others as operators: "!name", "in(a,b)".
            if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?", label):
                raise ValueError(f"{label!r}: use letters, digits and . _ -")
        return value


class LoopConfig(_Settings):
    """``generational`` waits for a whole round before it asks again. ``steady_state`` tells each
    evaluation as it ends, and always has ``in_flight`` of them asked (default: two for each host), so
    that no host waits for a slower one; the order of completion then matters, and is recorded.
    """

    kind: Literal["generational", "steady_state"] = "generational"
    in_flight: Positive | None = None


class EngineConfig(_Settings):
    """How a host runs models.

    ``kind`` is ``hf`` for causal language models, ``module`` for the torch module that ``build``
    ("package.module:name") makes, or "package.module:NAME" of an engine of your own, which reads ``options``.
    ``dtype`` is of weights and computation: the base's own by default; with ``auto`` bfloat16 where the device
    computes in it, else float32. ``batch_tokens`` bounds a forward pass; ``auto`` measures a few on the first
    dev examples. Both are determined where the run begins, and frozen. ``compile`` is torch.compile: each
    shape takes seconds once on every host, then runs faster. ``group: auto`` runs several individuals in one
    forward pass where that is faster and gives the same bits; ``off`` never does.

    ``adapters: apply`` keeps individuals that are the base with low-rank changes (LoRA founders and their
    descendants) as factors: a host holds the base once, adds up no individual's weights, and many individuals
    share the base's matrix products. Scores differ from those of ``merge`` by rounding. Individuals without
    such a form (whole models, full-rank noise) are merged.
    """

    kind: str = "hf"
    build: str = ""
    dtype: Literal["", "auto", "float32", "bfloat16", "float16"] = ""
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?|mps)$")] = "cpu"
    batch_tokens: Positive | Literal["auto"] = 16384
    threads: Positive = 1
    trust_remote_code: bool = False
    adapters: Literal["merge", "apply"] = "merge"
    compile: bool = False
    group: Literal["auto", "off"] = "auto"
    options: dict[str, Any] = {}

    @property
    def spec(self) -> EngineSpec:
        """These settings as a host takes them."""
        return EngineSpec(**self.model_dump())

    @model_validator(mode="after")
    def _fits_kind(self) -> "EngineConfig":
        if ":" not in self.kind:  # an engine of the user's own is imported when the run begins
            try:
                check_settings(self.spec)
            except EvoError as error:
                raise ValueError(str(error)) from None
        return self


class BaselinesConfig(_Settings):
    """What to compare with at the end, beside the founders, their average and their ensemble.

    ``random_search`` spends the same budget as the run; ``static`` merges get their scale (and
    density) tuned on dev over a grid.
    """

    random_search: bool = False
    static: tuple[Literal["task_arithmetic", "ties", "dare_ties"], ...] = ()


class RunConfig(_Settings):
    """One evolution. Relative paths start at ``root``, and that at the config file's folder.

    ``vocabulary`` aligns founders with other tokens than the base's, or with heads tied in some and not
    in others: ``union`` keeps every model's tokens, ``base`` the base's; unset, such founders are refused.

    ``reuse`` names other runs' folders (``runs/*``): what they evaluated and this run would evaluate to the
    same bits is taken from their lineages.
    """

    root: Annotated[Path, Field(validate_default=True)] = Path()
    base: Path
    founders: dict[str, Path]
    vocabulary: Literal["union", "base"] | None = None
    tasks: Annotated[tuple[TaskConfig, ...], Field(min_length=1)]
    algorithm: AnyAlgorithm = RecipeSearchSettings()
    budget: BudgetConfig = BudgetConfig(evaluations=300)
    loop: LoopConfig = LoopConfig()
    racing: RacingConfig | None = None
    pool: PoolConfig = PoolConfig()
    engine: EngineConfig = EngineConfig()
    baselines: BaselinesConfig = BaselinesConfig()
    trackers: TrackersConfig = TrackersConfig()
    reuse: tuple[Path, ...] = ()
    finalists: Positive = 5
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @field_validator("loop", mode="before")
    @classmethod
    def _by_kind(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @field_validator("racing", mode="before")
    @classmethod
    def _on_or_off(cls, value: Any) -> Any:
        return ({} if value else None) if isinstance(value, bool) else value

    @field_validator("root")
    @classmethod
    def _absolute_root(cls, value: Path, info: ValidationInfo) -> Path:
        folder = Path((info.context or {}).get("folder", Path.cwd()))
        return (folder / _expanded(value)).resolve()

    @field_validator("reuse")
    @classmethod
    def _rooted_reuse(cls, value: tuple[Path, ...], info: ValidationInfo) -> tuple[Path, ...]:
        return tuple(_rooted(path, info) for path in value)

    @field_validator("base")
    @classmethod
    def _base_exists(cls, value: Path, info: ValidationInfo) -> Path:
        return _existing(value, info)

    @field_validator("founders", mode="before")
    @classmethod
    def _name_founders(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        names = [Path(str(v)).name.removesuffix(".safetensors") for v in value]
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise ValueError(f"two founders are called {twice[0]!r}: name them, as 'name: path'")
        return dict(zip(names, value, strict=True))

    @field_validator("founders")
    @classmethod
    def _founders_exist(cls, value: dict[str, Path], info: ValidationInfo) -> dict[str, Path]:
        if len(value) < 2:
            raise ValueError("evolution needs two founders or more")
        for name in value:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
                raise ValueError(f"founder name {name!r}: use letters, digits and . _ -")
        return {name: _existing(path, info) for name, path in value.items()}

    @model_validator(mode="after")
    def _races_in_rounds(self) -> "RunConfig":
        if self.racing and self.loop.kind != "generational":
            raise ValueError(
                "racing: candidates of a round race each other, and a steady_state has no rounds; set "
                "loop: generational, or remove racing"
            )
        return self

    @model_validator(mode="after")
    def _tasks_agree(self) -> "RunConfig":
        twice = [n for n, count in Counter(t.name for t in self.tasks).items() if count > 1]
        if twice:
            raise ValueError(f"tasks: two tasks are called {twice[0]!r}")
        for split in (SELECT, TEST):
            having = [t.name for t in self.tasks if split in t.files or split in t.data]
            if having and len(having) < len(self.tasks):
                lacking = next(t.name for t in self.tasks if t.name not in having)
                raise ValueError(
                    f"tasks: {having[0]!r} has a {split} split but {lacking!r} has none"
                )
        return self


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"{path}: {error}") from error


def _rooted(path: Path, info: ValidationInfo) -> Path:
    context = info.context or {}
    root = info.data.get("root") if "root" in (info.data or {}) else context.get("root")
    return Path(root or Path.cwd()) / _expanded(path)


def _checks_files(info: ValidationInfo) -> bool:
    """Not when a finished run's config is read back: an export needs no task files."""
    return bool((info.context or {}).get("check_files", True))


def _existing(path: Path, info: ValidationInfo) -> Path:
    rooted = _rooted(path, info)
    if _checks_files(info) and not rooted.exists():
        raise ValueError(f"no such checkpoint: {rooted}")
    return rooted
