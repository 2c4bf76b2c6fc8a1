"""ModelHost: founders + materialize + engine. Knows nothing of Ray, tasks or algorithms."""

import gc
from time import perf_counter
from typing import Final

import torch

from cluster.adapters import ADAPTER_FILE, is_adapter
from cluster.build import Builder, dtype_of
from cluster.founders import tensor_files
from cluster.jobs import Ask, EngineSpec, HostAnswer, HostSpec, HostStats, Job, Made, Timing
from cluster.resources import peak_memory
from fitness.engine import Engine, EngineError, NonFiniteOutputError, Prepared, RequestError
from fitness.requests import CallOutput, Output
from operators.path import LayerPath
from operators.recipe import Recipe, Route
from operators.weights import Weights

_OUT_OF_MEMORY: Final = "out of memory"


class ModelHost:
    """Builds individuals and runs them.

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
        self._builder = Builder(
            spec.base, spec.founders, dtype=spec.engine.dtype, device=spec.engine.device
        )
        self._spec = spec
        self._prepared: dict[Ask, Prepared] = {}
        self._jobs = 0
        # A request that can't be answered is the task's fault, not that of a candidate that meets it
        # after hours of search. (Answers, for ensembles, are an extra: those wait until asked for.)
        for ask in spec.requests:
            if ask.kind == "score":
                self._prepare(ask)

    def run(self, job: Job) -> HostAnswer:
        """Build the job's individual and answer its asks. A candidate's failure is an answer too.

        What was built is digested before it runs, so a failure's weights are on record as well.
        """
        started = perf_counter()
        built = started
        weights = ""
        tokens: tuple[int, ...] = ()
        try:
            for ask in job.asks:
                self._prepare(ask)
            started = perf_counter()
            individual = self._builder.build(job.recipe)
            weights = self._builder.digest(individual)
            if isinstance(individual, LayerPath):
                self._engine.install_path(individual)
            else:
                self._engine.install(individual)
            built = perf_counter()
            answers = [self._answer(ask) for ask in job.asks]
            outputs = tuple(found for found, _ in answers)
            tokens = tuple(count for _, count in answers if count is not None)
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
        return HostAnswer(outputs, self.name, timing, error, Made(weights, tokens))

    def stats(self) -> HostStats:
        """Peak resident memory of this process, and the jobs it has done."""
        return HostStats(self.name, peak_memory(), self._jobs)

    def _answer(self, ask: Ask) -> tuple[tuple[Output, ...], int | None]:
        """The outputs, and how many tokens they took; None where the engine counts none."""
        prepared = self._prepared[ask]
        before = self._engine.tokens
        outputs: tuple[Output, ...]
        if ask.kind == "influence":
            outputs = (CallOutput(tuple(self._engine.influence(prepared))),)
        else:
            outputs = tuple(self._engine.answer(prepared))
        after = self._engine.tokens
        return outputs, None if before is None or after is None else after - before

    def _prepare(self, ask: Ask) -> None:
        if ask not in self._prepared:
            try:
                self._prepared[ask] = self._engine.prepare(self._spec.requests[ask])
            except RequestError as error:
                raise RequestError(f"task {ask.task!r}, split {ask.split!r}: {error}") from error

    def _explain(self, raised: Exception, recipe: Recipe) -> str:
        text = f"{type(raised).__name__}: {raised}".removesuffix(": ")
        if _is_out_of_memory(raised):
            gib = self._spec.memory_gib
            limit = f"; pool.memory_gib allows {gib:g} GiB beside the founders" if gib else ""
            return f"{_OUT_OF_MEMORY} on {self.name} ({text}{limit})"
        if isinstance(raised, NonFiniteOutputError) and not isinstance(recipe, Route):
            bad = _first_non_finite(self._builder.buffer)
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
        dtype=dtype_of(engine.dtype),
        batch_tokens=engine.batch_tokens,
        trust_remote_code=engine.trust_remote_code,
        compile=engine.compile,
    )


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
