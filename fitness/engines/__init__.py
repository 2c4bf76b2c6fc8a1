"""Engines: what runs models. `ENGINES` is the table of them, by the name that ``engine.kind`` gives.

`base` has the protocols, each engine is a module or folder beside it, and ``tests/fitness/
test_engine_conformance.py`` tests every entry of the table. Tasks and metrics do not belong here.
Importing this package does not import torch.
"""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from fitness.functions import FunctionNameError, load_object
from fitness.requests import Call, Generate, LogLikelihood, RollingLogLikelihood
from operators.errors import EvoError

if TYPE_CHECKING:
    from fitness.engines.base import Engine


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """The settings of an engine.

    Attributes:
        kind: a name in `ENGINES`, or "package.module:NAME" of an `EngineKind`.
        build: the function that makes a torch module, "package.module:name".
        dtype: of weights and computation, as torch names it; "" for the base's own.
        batch_tokens: padded tokens in a forward pass, at most.
        threads: of one host.
        adapters: ``apply`` runs individuals that are the base with low-rank changes as factors.
        compile: use torch.compile.
        group: ``auto`` runs several individuals in one forward pass where that is faster and gives
            the same bits; ``off`` never does.
        options: of an engine that is not in the table.
    """

    kind: str = "hf"
    build: str = ""
    dtype: str = ""
    device: str = "cpu"
    batch_tokens: int = 16384
    threads: int = 1
    trust_remote_code: bool = False
    adapters: Literal["merge", "apply"] = "merge"
    compile: bool = False
    group: Literal["auto", "off"] = "auto"
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EngineKind:
    """One kind of engine: how to make it, the settings that it reads, and what it can do.

    Attributes:
        make: the engine, from its settings and the folder or file of the base.
        requests: the classes of `fitness.requests` that it answers.
        settings: fields of `EngineSpec` that it reads, beside kind, device, dtype, threads and group.
        required: those of them that must be set.
        options: the keys that it reads in ``EngineSpec.options``.
        paths: it runs data-flow paths (`fitness.engines.base.RunsPaths`).
        influence: it measures the influence of layers (`MeasuresInfluence`).
        adapters: it runs a base with low-rank factors (`AppliesAdapters`).
        model_batches: it runs several individuals in one pass (`RunsModelBatches`).
    """

    name: str
    make: "Callable[[EngineSpec, Path], Engine]"
    requests: frozenset[type]
    settings: frozenset[str] = frozenset()
    required: frozenset[str] = frozenset()
    options: frozenset[str] = frozenset()
    paths: bool = False
    influence: bool = False
    adapters: bool = False
    model_batches: bool = False


def _make_hf(spec: EngineSpec, base: Path) -> "Engine":
    from fitness.engines.dtype import dtype_of
    from fitness.engines.hf.engine import HFEngine

    return HFEngine(
        base,
        device=spec.device,
        dtype=dtype_of(spec.dtype),
        batch_tokens=spec.batch_tokens,
        trust_remote_code=spec.trust_remote_code,
        compile=spec.compile,
    )


def _make_module(spec: EngineSpec, base: Path) -> "Engine":
    from fitness.engines.module import ModuleEngine

    return ModuleEngine(spec.build, device=spec.device)


HF: Final = EngineKind(
    "hf",
    _make_hf,
    requests=frozenset({LogLikelihood, RollingLogLikelihood, Generate}),
    settings=frozenset({"batch_tokens", "trust_remote_code", "compile"}),
    paths=True,
    influence=True,
    adapters=True,
    model_batches=True,
)
"""Causal language models that transformers loads."""

MODULE: Final = EngineKind(
    "module",
    _make_module,
    requests=frozenset({Call}),
    settings=frozenset({"build"}),
    required=frozenset({"build"}),
)
"""Any torch module, scored by functions of it."""

ENGINES: Final[Mapping[str, EngineKind]] = {kind.name: kind for kind in (HF, MODULE)}

_COMMON: Final = frozenset({"kind", "device", "dtype", "threads", "group"})


def engine_kind(name: str) -> EngineKind:
    """The engine that ``name`` stands for: a name in `ENGINES`, or "package.module:NAME".

    Raises:
        EvoError: there is none; the message lists the names.
    """
    if ":" in name:
        try:
            found = load_object(name)
        except FunctionNameError as error:
            raise EvoError(f"kind: {error}") from None
        if not isinstance(found, EngineKind):
            raise EvoError(f"kind: {name!r} is a {type(found).__name__}, not an EngineKind")
        return found
    if name not in ENGINES:
        near = get_close_matches(name, ENGINES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise EvoError(
            f"kind: no engine {name!r}.{hint} There are {', '.join(ENGINES)}, and engines of your own "
            "as 'package.module:NAME'"
        )
    return ENGINES[name]


def check_settings(spec: EngineSpec) -> EngineKind:
    """The kind of ``spec``, whose settings it takes.

    Raises:
        EvoError: there is no such kind, a setting has no effect on it, or one that it needs is missing.
    """
    kind = engine_kind(spec.kind)
    taken = kind.settings | _COMMON
    changed = [f.name for f in fields(spec) if getattr(spec, f.name) != _default(f)]
    if spec.adapters == "apply" and not kind.adapters:
        able = ", ".join(k.name for k in ENGINES.values() if k.adapters)
        raise EvoError(f"adapters: apply needs a language model; use kind: {able}")
    for name in changed:
        if name not in taken | {"adapters", "options"}:
            takes = ", ".join(sorted(kind.settings)) or "no settings of its own"
            able = ", ".join(k.name for k in ENGINES.values() if name in k.settings)
            raise EvoError(
                f"{name} has no effect with kind: {kind.name}, which takes {takes}; remove it, or use "
                f"kind: {able}"
            )
    if missing := sorted(kind.required - set(changed)):
        raise EvoError(f"kind: {kind.name} needs {missing[0]}, which is not set")
    if unknown := sorted(spec.options.keys() - kind.options):
        names = ", ".join(sorted(kind.options)) or "none"
        raise EvoError(f"options: kind: {kind.name} has no {unknown[0]!r}; it has {names}")
    return kind


def _default(setting: Any) -> Any:
    return {} if setting.default is MISSING else setting.default
