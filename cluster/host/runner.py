"""Runner: answers queries with built individuals, one at a time or several in one forward pass."""

from collections.abc import Mapping, Sequence
from time import perf_counter

import torch

from cluster.host.build_batches import BuildBatch, BuiltIndividual
from cluster.host.explain import OUT_OF_MEMORY, Explain
from cluster.jobs import Execution, HostResult, HostSpec, Query, Timing
from fitness.engines import engine_kind
from fitness.engines.base import (
    AppliesAdapters,
    Engine,
    EngineError,
    MeasuresInfluence,
    PreparedRequests,
    RequestError,
    RunsModelBatches,
    RunsPaths,
)
from fitness.engines.memory import free_memory, is_out_of_memory
from fitness.requests import CallOutput, Generate, Output, Request
from operators.build.paths import LayerPath
from operators.tensors.low_rank import Adapted
from operators.tensors.weights import Stack, Weights


class Runner:
    """An engine and the prepared requests of the queries.

    Attributes:
        batching: whether several individuals may run in one forward pass; `disable_batching` ends it.
        fallbacks: why batching was disabled here or by the engine.

    Raises:
        RequestError: the model can't answer a request, such as a prompt that is too long.
        EngineError: the engine can't be made from its spec.
    """

    def __init__(self, spec: HostSpec, host: str, explain: Explain) -> None:
        self._host = host
        self._kind = spec.engine.kind
        self._explain = explain
        self._engine = _make_engine(spec)
        self._requests: Mapping[Query, tuple[Request, ...]] = spec.requests
        self._prepared: dict[Query, PreparedRequests] = {}
        self._generating: set[Query] = set()  # queries with requests that generate text
        self._fallbacks: list[str] = []
        self.batching = spec.engine.group == "auto" and isinstance(self._engine, RunsModelBatches)
        # A request that can't be answered is an error of the task: raise it before the search starts.
        # (Answers, for ensembles, are optional: their requests are prepared when a job asks for them.)
        for query in spec.requests:
            if query.kind == "score":
                self.prepare(query)

    @property
    def fallbacks(self) -> list[str]:
        engine = self._engine
        more = engine.fallbacks if isinstance(engine, RunsModelBatches) else ()
        return [*self._fallbacks, *more]

    def disable_batching(self, reason: str) -> None:
        """Build and run individuals one at a time from now on."""
        self.batching = False
        self._fallbacks.append(f"individuals are built and run one at a time from now on: {reason}")

    def prepare(self, query: Query) -> None:
        """Tokenise and batch the requests of a query, once.

        Raises:
            RequestError: a request can't be answered; the message names task and split.
        """
        if query in self._prepared:
            return
        requests = self._requests[query]
        try:
            self._prepared[query] = self._engine.prepare(requests)
        except RequestError as error:
            raise RequestError(f"task {query.task!r}, split {query.split!r}: {error}") from error
        if any(isinstance(request, Generate) for request in requests):
            self._generating.add(query)

    def can_batch(self, queries: Sequence[Query]) -> bool:
        """Whether one forward pass may answer these prepared queries for several individuals."""
        # Generated texts differ in length between individuals; influence is measured in one model.
        alone = any(query.kind == "influence" or query in self._generating for query in queries)
        return self.batching and not alone

    def model_batch_size(self, queries: Sequence[Query]) -> int:
        """How many individuals one forward pass of these prepared queries should take."""
        if not isinstance(self._engine, RunsModelBatches):
            return 1
        return self._engine.model_batch_size([self._prepared[query] for query in queries])

    def run(self, queries: Sequence[Query], batch: BuildBatch, batch_size: int) -> list[HostResult]:
        """Answer ``queries`` with each individual of ``batch``, up to ``batch_size`` in one forward pass."""
        build_s = batch.seconds / len(batch.members)
        results: list[HostResult] = []
        for at in range(0, len(batch.members), batch_size):
            members = batch.members[at : at + batch_size]
            population: Stack | list[Adapted]
            if batch.stack is not None:
                population = batch.stack[at : at + batch_size]
            else:
                population = [m.built for m in members if isinstance(m.built, Adapted)]
            ready = self.batching and not any(member.error for member in members)
            if ready and len(population) == len(members) > 1:
                results += self._run_model_batch(queries, members, population, build_s)
            else:
                results += [self._run_one(queries, member, build_s) for member in members]
        return results

    def _run_model_batch(
        self,
        queries: Sequence[Query],
        members: Sequence[BuiltIndividual],
        population: Stack | Sequence[Adapted],
        build_s: float,
    ) -> list[HostResult]:
        """Run one forward pass; run one by one if it fails, so that failures are attributed correctly."""
        started = perf_counter()
        engine = self._engine
        assert isinstance(engine, RunsModelBatches)
        found: list[list[list[Output] | EngineError]] = []
        tokens: list[int] = []
        error, no_memory = "", False
        try:
            for query in queries:
                before = engine.tokens
                found.append(engine.answer_many(population, self._prepared[query]))
                after = engine.tokens
                complete = sum(not isinstance(each, EngineError) for each in found[-1])
                if before is not None and after is not None and complete:
                    tokens.append((after - before) // complete)
        # The model may be user code, and may raise anything where it runs several individuals.
        except Exception as raised:
            error, no_memory = self._explain(raised), is_out_of_memory(raised)
        if error:
            free_memory()  # after the except block: the exception kept the tensors of its frames alive
            reason = f"a model batch of {len(members)} failed: {error}"
            if no_memory:
                self.disable_batching(reason)
            results = [self._run_one(queries, member, build_s) for member in members]
            # If each individual succeeds alone, the cause is the batch.
            if self.batching and not any(result.error for result in results):
                self.disable_batching(reason)
            return results
        timing = Timing(build_s, (perf_counter() - started) / len(members))
        results = []
        for i, member in enumerate(members):
            outputs = [each[i] for each in found]
            failed = next((o for o in outputs if isinstance(o, EngineError)), None)
            if failed is not None:
                error = self._explain(failed, member.built)
                result = HostResult((), self._host, timing, error, Execution(member.digest))
            else:
                complete_ones = tuple(tuple(o) for o in outputs if not isinstance(o, EngineError))
                execution = Execution(member.digest, tuple(tokens))
                result = HostResult(complete_ones, self._host, timing, execution=execution)
            results.append(result)
        return results

    def _run_one(
        self, queries: Sequence[Query], member: BuiltIndividual, build_s: float
    ) -> HostResult:
        started = perf_counter()
        outputs: tuple[tuple[Output, ...], ...] = ()
        tokens: tuple[int, ...] = ()
        error = member.error
        # An individual may make any code that runs it fail, also a user's module: whatever is raised
        # is recorded as the failure of that individual, and the run continues.
        try:
            if not error:
                self._install(member.built)
                answers = [self._answer(query) for query in queries]
                outputs = tuple(found for found, _ in answers)
                tokens = tuple(count for _, count in answers if count is not None)
        except Exception as raised:
            error = self._explain(raised, member.built)
        if error.startswith(OUT_OF_MEMORY):
            free_memory()  # after the except block: the exception kept the tensors of its frames alive
        timing = Timing(build_s, perf_counter() - started)
        return HostResult(outputs, self._host, timing, error, Execution(member.digest, tokens))

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
            raise EngineError(f"engine.kind: {self._kind} runs no {what}")

    def _answer(self, query: Query) -> tuple[tuple[Output, ...], int | None]:
        """The outputs, and how many tokens they took; None where the engine does not count tokens."""
        prepared = self._prepared[query]
        before = self._engine.tokens
        outputs: tuple[Output, ...]
        if query.kind == "influence":
            if not isinstance(self._engine, MeasuresInfluence):
                raise EngineError(f"engine.kind: {self._kind} measures no influence of layers")
            outputs = (CallOutput(tuple(self._engine.influence(prepared))),)
        else:
            outputs = tuple(self._engine.answer(prepared))
        after = self._engine.tokens
        return outputs, None if before is None or after is None else after - before


def _make_engine(spec: HostSpec) -> Engine:
    engine = spec.engine
    if engine.device.startswith("cuda") and not torch.cuda.is_available():
        raise EngineError(f"engine.device: {engine.device}, but torch sees no CUDA device here")
    return engine_kind(engine.kind).make(engine, spec.base.path)
