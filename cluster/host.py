"""ModelHost: founders + materialize + engine. Knows nothing of Ray, tasks or algorithms."""

import gc
import json
from time import perf_counter
from typing import Final

import torch

from cluster.adapters import ADAPTER_FILE, is_adapter
from cluster.errors import CheckpointError
from cluster.founders import base_weights, layout_for, map_founders, tensor_files
from cluster.jobs import Ask, EngineSpec, HostAnswer, HostSpec, HostStats, Job, Timing
from cluster.resources import peak_memory
from fitness.engine import Engine, EngineError, NonFiniteOutputError, Prepared, RequestError
from fitness.requests import CallOutput, Output
from operators.architectures import architecture_of
from operators.materialize import Materializer
from operators.path import PathBuilder
from operators.recipe import Recipe, Route
from operators.weights import Weights, allocate

_OUT_OF_MEMORY: Final = "out of memory"


class ModelHost:
    """Holds founders and one model's worth of weights; builds individuals and runs them.

    Requests are tokenised once for each (task, split, kind).

    Raises (on construction):
        RequestError: a task asks what this model can't answer, such as a prompt that is too long.
        CheckpointError: founders that can't be read, or changed since the run began.
        ValueError: the engine can't be made from its spec.
    """

    def __init__(self, spec: HostSpec, name: str = "local") -> None:
        self.name = name
        torch.set_num_threads(spec.engine.threads)
        self._engine = _make_engine(spec)
        founders = map_founders((spec.base, *spec.founders))
        dtype = _dtype(spec.engine.dtype)
        layout = layout_for(base_weights(spec.base.founder, founders), dtype)
        self._founders = founders
        self._materializer = Materializer(layout, founders)
        self._paths: PathBuilder | None = None
        self._buffer = allocate(layout, spec.engine.device)
        self._spec = spec
        self._prepared: dict[Ask, Prepared] = {}
        self._jobs = 0
        # A request that can't be answered is the task's fault, not that of a candidate that meets it
        # after hours of search. (Answers, for ensembles, are an extra: those wait until asked for.)
        for ask in spec.requests:
            if ask.kind == "score":
                self._prepare(ask)

    def run(self, job: Job) -> HostAnswer:
        """Build the job's individual and answer its asks. A candidate's failure is an answer too."""
        started = perf_counter()
        built = started
        try:
            for ask in job.asks:
                self._prepare(ask)
            started = perf_counter()
            if isinstance(job.recipe, Route):
                self._engine.install_path(self._path_builder().build(job.recipe))
            else:
                self._engine.install(self._materializer.build(job.recipe, self._buffer))
            built = perf_counter()
            outputs = tuple(self._answer(ask) for ask in job.asks)
            error = ""
        # A candidate may break anything that runs it, a user's module included: whatever it raises
        # is that candidate's failure, recorded by name, and the run goes on.
        except Exception as raised:
            outputs, error = (), self._explain(raised, job.recipe)
        if error.startswith(_OUT_OF_MEMORY):
            _free_memory()  # not before here: the exception kept all that its frames held
        done = perf_counter()
        self._jobs += 1
        timing = Timing(build_s=built - started, model_s=done - built)
        return HostAnswer(outputs, self.name, timing, error)

    def stats(self) -> HostStats:
        """Peak resident memory of this process, and the jobs it has done."""
        return HostStats(self.name, peak_memory(), self._jobs)

    def _answer(self, ask: Ask) -> tuple[Output, ...]:
        prepared = self._prepared[ask]
        if ask.kind == "influence":
            return (CallOutput(tuple(self._engine.influence(prepared))),)
        return tuple(self._engine.answer(prepared))

    def _prepare(self, ask: Ask) -> None:
        if ask not in self._prepared:
            try:
                self._prepared[ask] = self._engine.prepare(self._spec.requests[ask])
            except RequestError as error:
                raise RequestError(f"task {ask.task!r}, split {ask.split!r}: {error}") from error

    def _path_builder(self) -> PathBuilder:
        if self._paths is None:
            config = self._spec.base.path / "config.json"
            if not config.is_file():
                raise EngineError("data-flow paths need a language model: engine.kind: hf")
            self._paths = PathBuilder(
                self._materializer,
                self._founders,
                architecture_of(json.loads(config.read_text(encoding="utf-8"))),
                self._spec.engine.device,
            )
        return self._paths

    def _explain(self, raised: Exception, recipe: Recipe) -> str:
        text = f"{type(raised).__name__}: {raised}".removesuffix(": ")
        if _is_out_of_memory(raised):
            gib = self._spec.memory_gib
            limit = f"; pool.memory_gib allows {gib:g} GiB beside the founders" if gib else ""
            return f"{_OUT_OF_MEMORY} on {self.name} ({text}{limit})"
        if isinstance(raised, NonFiniteOutputError) and not isinstance(recipe, Route):
            bad = _first_non_finite(self._buffer)
            finite = " (all weights are finite: it is the outputs that are not)"
            text += f" (tensor {bad} is not finite)" if bad else finite
        return text


def _make_engine(spec: HostSpec) -> Engine:
    engine: EngineSpec = spec.engine
    if engine.device.startswith("cuda") and not torch.cuda.is_available():
        raise EngineError(f"engine.device: {engine.device}, but torch sees no CUDA device here")
    if engine.kind == "module":
        from fitness.module_engine import ModuleEngine

        return ModuleEngine(engine.build, device=engine.device)
    from fitness.hf_engine import HFEngine

    return HFEngine(
        spec.base.path,
        device=engine.device,
        dtype=_dtype(engine.dtype),
        batch_tokens=engine.batch_tokens,
        trust_remote_code=engine.trust_remote_code,
    )


def _dtype(name: str) -> torch.dtype | None:
    if not name:
        return None
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise CheckpointError(f"engine.dtype: {name!r} is no floating-point dtype of torch")
    return dtype


def _first_non_finite(weights: Weights) -> str | None:
    return next((n for n, t in weights.tensors.items() if not bool(torch.isfinite(t).all())), None)


def mapped_bytes(spec: HostSpec) -> int:
    """The size of all files that a host of ``spec`` maps.

    Raises:
        CheckpointError: a checkpoint has no tensor files.
    """
    paths = {entry.path for entry in (spec.base, *spec.founders)}
    files = [f for p in paths for f in ((p / ADAPTER_FILE,) if is_adapter(p) else tensor_files(p))]
    return sum(file.stat().st_size for file in files)


def _is_out_of_memory(raised: Exception) -> bool:
    if isinstance(raised, MemoryError | torch.OutOfMemoryError):
        return True
    # What torch's own allocator and the C++ library under it raise has no type of its own.
    refused = ("allocate memory", "bad_alloc")
    return isinstance(raised, RuntimeError) and any(r in str(raised) for r in refused)


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
