"""ModelHost: founders + materialize + engine. Knows nothing of Ray, tasks or algorithms."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from time import perf_counter
from typing import Final

import torch

from cluster.founders.adapters import ADAPTER_FILE, is_adapter
from cluster.founders.checkpoints import tensor_files
from cluster.host.build_batches import FACTOR_BATCH, BatchBuilder, BuildBatch, BuiltIndividual
from cluster.host.builder import Builder
from cluster.host.resources import peak_memory
from cluster.jobs import Execution, HostResult, HostSpec, HostStats, Job, Query, Timing
from fitness.engines import engine_kind
from fitness.engines.base import (
    AppliesAdapters,
    Engine,
    EngineError,
    MeasuresInfluence,
    NonFiniteOutputError,
    PreparedRequests,
    RequestError,
    RunsModelBatches,
    RunsPaths,
)
from fitness.engines.memory import free_memory, is_out_of_memory
from fitness.requests import CallOutput, Generate, Output
from operators.build.paths import LayerPath
from operators.build.sums import kernel_problem
from operators.tensors.low_rank import Adapted
from operators.tensors.threads import torch_threads
from operators.tensors.weights import Stack, Weights

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
        self._spec = spec
        with torch_threads(spec.engine.threads):
            self._open(spec)

    def _open(self, spec: HostSpec) -> None:
        self._engine = _make_engine(spec)
        self._builder = Builder(
            spec.base,
            spec.founders,
            dtype=spec.engine.dtype,
            device=spec.engine.device,
            adapters=spec.engine.adapters,
        )
        # Only where a device runs them: processors that build for the next one would run this one slower.
        self._batch_builder = BatchBuilder(
            self._builder, self._explain, ahead=spec.engine.device.startswith("cuda")
        )
        self._prepared: dict[Query, PreparedRequests] = {}
        self._written: set[Query] = set()  # what is answered by texts
        # Whether several individuals may run in one forward pass.
        self._batching = spec.engine.group == "auto" and isinstance(self._engine, RunsModelBatches)
        self._together = 1  # how many of those asked for last do
        self._degraded: list[str] = []
        self._jobs = 0
        self._busy_s = 0.0
        # A request that can't be answered is the task's fault, not that of a candidate that meets it
        # after hours of search. (Answers, for ensembles, are an extra: those wait until asked for.)
        for query in spec.requests:
            if query.kind == "score":
                self._prepare(query)

    def run(self, job: Job) -> HostResult:
        """Build the job's individual and answer its asks. A candidate's failure is an answer too.

        What was built is digested before it runs, so a failure's weights are on record as well.
        """
        return self.run_all((job,))[0]

    def run_all(self, jobs: Sequence[Job]) -> tuple[HostResult, ...]:
        """Each job's answer, as :meth:`run` gives it to the last bit; the times are shared out.

        Those with the same asks are built in one pass, and run together where the engine is faster so.
        """
        with torch_threads(self._spec.engine.threads):
            return self._run_all(jobs)

    def _run_all(self, jobs: Sequence[Job]) -> tuple[HostResult, ...]:
        answers = self._answer_all(jobs)
        short = [i for i, a in enumerate(answers) if a.error.startswith(_OUT_OF_MEMORY)]
        if short:
            free_memory()
        if short and (self._batch_builder.wide or self._batching):
            # An out-of-memory error in a batch is retried with batch size 1.
            self._batch_builder.narrow()
            self._disable_batching(answers[short[0]].error)
            for i in short:
                (answers[i],) = self._answer_all([jobs[i]])
        self._jobs += len(jobs)
        self._busy_s += sum(answer.timing.total_s for answer in answers)
        return tuple(answers)

    def stats(self) -> HostStats:
        """Peak resident memory of this process, jobs done, how long they took, and what is degraded."""
        useful = self._together * (2 if self._batch_builder.ahead else 1)
        degraded = [*self._degraded, *self._batch_builder.fallbacks]
        if isinstance(self._engine, RunsModelBatches):
            degraded += self._engine.fallbacks
        if problem := kernel_problem():
            degraded.append(problem)
        unique = tuple(dict.fromkeys(degraded))
        return HostStats(self.name, peak_memory(), self._jobs, self._busy_s, useful, unique)

    def _disable_batching(self, error: str) -> None:
        self._batching = False
        self._degraded.append(f"individuals are built and run one at a time from now on: {error}")

    def _answer_all(self, jobs: Sequence[Job]) -> list[HostResult]:
        answers: dict[int, HostResult] = {}
        groups: list[tuple[range, int]] = []
        for places in self._alike(jobs):
            try:
                together, size = self._plan(jobs[places[0]])
            except Exception as raised:
                error = self._explain(raised)
                answers |= {i: HostResult((), self.name, Timing(), error) for i in places}
            else:
                groups += [(places[i : i + size], together) for i in range(0, len(places), size)]
        recipes = [[jobs[i].recipe for i in places] for places, _ in groups]
        built = self._batch_builder.build(recipes)
        for (places, together), batch in zip(groups, built, strict=True):
            found = self._run_batch([jobs[i] for i in places], batch, together)
            answers |= dict(zip(places, found, strict=True))
        return [answers[i] for i in range(len(jobs))]

    def _alike(self, jobs: Sequence[Job]) -> Iterator[range]:
        """The places of jobs that follow each other and ask the same of individuals of one form."""
        at = 0
        for _, group in groupby(
            jobs, lambda job: (job.queries, self._batch_builder.form(job.recipe))
        ):
            start, at = at, at + sum(1 for _ in group)
            yield range(start, at)

    def _plan(self, job: Job) -> tuple[int, int]:
        """How many individuals to run together for jobs like this one, and how many to build at once."""
        for query in job.queries:
            self._prepare(query)
        self._together = 1
        form = self._batch_builder.form(job.recipe)
        if form == "path":
            return 1, 1
        # Of texts everyone writes other ones, of another number of tokens.
        alone = any(query.kind == "influence" or query in self._written for query in job.queries)
        company = self._batching and not alone
        if form == "factors":  # the engine shares these out by itself
            most = FACTOR_BATCH if company else 1
            return most, most
        if company and isinstance(self._engine, RunsModelBatches):
            self._together = self._engine.model_batch_size(
                [self._prepared[query] for query in job.queries]
            )
        return self._together, self._batch_builder.batch_size(self._together)

    def _run_batch(self, jobs: Sequence[Job], batch: BuildBatch, together: int) -> list[HostResult]:
        build_s = batch.seconds / len(jobs)
        answers: list[HostResult] = []
        for at in range(0, len(jobs), together):
            some, members = jobs[at : at + together], batch.members[at : at + together]
            population: Stack | list[Adapted]
            if batch.stack is not None:
                population = batch.stack[at : at + together]
            else:
                population = [m.built for m in members if isinstance(m.built, Adapted)]
            ready = self._batching and not any(member.error for member in members)
            if ready and len(population) == len(some) > 1:
                answers += self._run_model_batch(some, members, population, build_s)
            else:
                answers += self._run_each(some, members, build_s)
        return answers

    def _run_each(
        self, jobs: Sequence[Job], members: Sequence[BuiltIndividual], build_s: float
    ) -> list[HostResult]:
        pairs = zip(jobs, members, strict=True)
        return [self._run_one(job, member, build_s) for job, member in pairs]

    def _run_model_batch(
        self,
        jobs: Sequence[Job],
        members: Sequence[BuiltIndividual],
        population: Stack | Sequence[Adapted],
        build_s: float,
    ) -> list[HostResult]:
        """Answers by one forward pass; one by one if that fails, so that a failure is attributed correctly."""
        started = perf_counter()
        engine = self._engine
        assert isinstance(engine, RunsModelBatches)
        found: list[list[list[Output] | EngineError]] = []
        tokens: list[int] = []
        error, no_memory = "", False
        try:
            for query in jobs[0].queries:
                before = engine.tokens
                found.append(engine.answer_many(population, self._prepared[query]))
                after = engine.tokens
                whole = sum(not isinstance(each, EngineError) for each in found[-1])
                if before is not None and after is not None and whole:
                    tokens.append((after - before) // whole)
        # A model is anyone's code, and may raise anything where it runs several individuals.
        except Exception as raised:
            error, no_memory = self._explain(raised), is_out_of_memory(raised)
        if error:
            free_memory()  # not before here: the exception kept all that its frames held
            if no_memory:
                self._disable_batching(f"a model batch of {len(jobs)} failed: {error}")
            answers = self._run_each(jobs, members, build_s)
            # Where each of them succeeds alone, the batch is at fault and not one of them.
            if self._batching and not any(answer.error for answer in answers):
                self._disable_batching(f"a model batch of {len(jobs)} failed: {error}")
            return answers
        timing = Timing(build_s, (perf_counter() - started) / len(jobs))
        answers = []
        for place, member in enumerate(members):
            outputs = [each[place] for each in found]
            failed = next((o for o in outputs if isinstance(o, EngineError)), None)
            if failed is not None:
                error = self._explain(failed, member.built)
                answer = HostResult((), self.name, timing, error, Execution(member.digest))
            else:
                whole_ones = tuple(tuple(o) for o in outputs if not isinstance(o, EngineError))
                made = Execution(member.digest, tuple(tokens))
                answer = HostResult(whole_ones, self.name, timing, execution=made)
            answers.append(answer)
        return answers

    def _run_one(self, job: Job, member: BuiltIndividual, build_s: float) -> HostResult:
        started = perf_counter()
        outputs: tuple[tuple[Output, ...], ...] = ()
        tokens: tuple[int, ...] = ()
        error = member.error
        # A candidate may break anything that runs it, a user's module included: whatever it raises
        # is that candidate's failure, recorded by name, and the run goes on.
        try:
            if not error:
                self._install(member.built)
                answers = [self._answer(query) for query in job.queries]
                outputs = tuple(found for found, _ in answers)
                tokens = tuple(count for _, count in answers if count is not None)
        except Exception as raised:
            error = self._explain(raised, member.built)
        if error.startswith(_OUT_OF_MEMORY):
            free_memory()  # not before here: the exception kept all that its frames held
        timing = Timing(build_s, perf_counter() - started)
        return HostResult(outputs, self.name, timing, error, Execution(member.digest, tokens))

    def _install(self, built: Weights | LayerPath | Adapted | None) -> None:
        engine = self._engine
        if isinstance(built, Weights):
            engine.install(built)
        elif isinstance(built, LayerPath) and isinstance(engine, RunsPaths):
            engine.install_path(built)
        elif isinstance(built, Adapted) and isinstance(engine, AppliesAdapters):
            engine.install_adapted(built)
        else:
            what = "data-flow paths" if isinstance(built, LayerPath) else "low-rank factors"
            raise EngineError(f"engine.kind: {self._spec.engine.kind} runs no {what}")

    def _answer(self, query: Query) -> tuple[tuple[Output, ...], int | None]:
        """The outputs, and how many tokens they took; None where the engine counts none."""
        prepared = self._prepared[query]
        before = self._engine.tokens
        outputs: tuple[Output, ...]
        if query.kind == "influence":
            if not isinstance(self._engine, MeasuresInfluence):
                kind = self._spec.engine.kind
                raise EngineError(f"engine.kind: {kind} measures no influence of layers")
            outputs = (CallOutput(tuple(self._engine.influence(prepared))),)
        else:
            outputs = tuple(self._engine.answer(prepared))
        after = self._engine.tokens
        return outputs, None if before is None or after is None else after - before

    def _prepare(self, query: Query) -> None:
        if query not in self._prepared:
            try:
                requests = self._spec.requests[query]
                self._prepared[query] = self._engine.prepare(requests)
                if any(isinstance(request, Generate) for request in requests):
                    self._written.add(query)
            except RequestError as error:
                raise RequestError(
                    f"task {query.task!r}, split {query.split!r}: {error}"
                ) from error

    def _explain(
        self, raised: Exception, built: Weights | LayerPath | Adapted | None = None
    ) -> str:
        text = f"{type(raised).__name__}: {raised}".removesuffix(": ")
        if is_out_of_memory(raised):
            gib = self._spec.memory_gib
            limit = f"; pool.memory_gib allows {gib:g} GiB beside the founders" if gib else ""
            return f"{_OUT_OF_MEMORY} on {self.name} ({text}{limit})"
        if isinstance(raised, NonFiniteOutputError) and isinstance(built, Weights):
            bad = _first_non_finite(built)
            finite = " (all weights are finite: it is the outputs that are not)"
            text += f" (tensor {bad} is not finite)" if bad else finite
        return text


def _make_engine(spec: HostSpec) -> Engine:
    engine = spec.engine
    if engine.device.startswith("cuda") and not torch.cuda.is_available():
        raise EngineError(f"engine.device: {engine.device}, but torch sees no CUDA device here")
    return engine_kind(engine.kind).make(engine, spec.base.path)


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
