"""ModelHost: builds the individuals of jobs and runs them."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from cluster.host.build_batches import FACTOR_BATCH, BatchBuilder
from cluster.host.builder import Builder
from cluster.host.explain import OUT_OF_MEMORY, Explain
from cluster.host.resources import peak_memory
from cluster.host.runner import Runner
from cluster.jobs import HostResult, HostSpec, HostStats, Job, Timing
from fitness.engines.memory import free_memory
from operators.build.sums import kernel_problem
from operators.tensors.threads import torch_threads


class ModelHost:
    """Founders, a builder and an engine in one process.

    Raises:
        RequestError: the model can't answer a request, such as a prompt that is too long.
        CheckpointError: founders can't be read, or changed since the run began.
        EngineError: the engine can't be made from its spec.
    """

    def __init__(self, spec: HostSpec, name: str = "local") -> None:
        self.name = name
        self._threads = spec.engine.threads
        self._explain = Explain(name, spec.memory_gib)
        self._model_batch = 1  # individuals that share a forward pass, for the last jobs
        self._jobs = 0
        self._busy_s = 0.0
        engine = spec.engine
        with torch_threads(self._threads):
            self._runner = Runner(spec, name, self._explain)
            builder = Builder(
                spec.base,
                spec.founders,
                dtype=engine.dtype,
                device=engine.device,
                adapters=engine.adapters,
            )
            # On a CPU, building the next individuals would slow down those that run.
            ahead = engine.device.startswith("cuda")
            self._batch_builder = BatchBuilder(builder, self._explain, ahead=ahead)

    def run(self, job: Job) -> HostResult:
        """Build the job's individual and answer its queries. A failure is a result with an error.

        The individual is digested before it runs, so a failure has a digest of its weights, too.
        """
        return self.run_all((job,))[0]

    def run_all(self, jobs: Sequence[Job]) -> tuple[HostResult, ...]:
        """Each job's result, as :meth:`run` gives it to the last bit; times are shared equally.

        Successive jobs with the same queries are built in one pass over the founders, and run in model batches
        where that is faster.
        """
        with torch_threads(self._threads):
            results = self._run_all(jobs)
            failed = [i for i, r in enumerate(results) if r.error.startswith(OUT_OF_MEMORY)]
            if failed:
                free_memory()
            if failed and (self._batch_builder.wide or self._runner.batching):
                # An out-of-memory error in a batch is retried with batch size 1.
                self._batch_builder.narrow()
                self._runner.disable_batching(results[failed[0]].error)
                for i in failed:
                    (results[i],) = self._run_all([jobs[i]])
        self._jobs += len(jobs)
        self._busy_s += sum(result.timing.total_s for result in results)
        return tuple(results)

    def stats(self) -> HostStats:
        """Peak memory of this process, jobs done, seconds they took, and what is degraded."""
        useful = self._model_batch * (2 if self._batch_builder.ahead else 1)
        degraded = [*self._runner.fallbacks, *self._batch_builder.fallbacks]
        if problem := kernel_problem():
            degraded.append(problem)
        unique = tuple(dict.fromkeys(degraded))
        return HostStats(self.name, peak_memory(), self._jobs, self._busy_s, useful, unique)

    def _run_all(self, jobs: Sequence[Job]) -> list[HostResult]:
        results: dict[int, HostResult] = {}
        batches: list[tuple[range, int]] = []  # positions of jobs, and their model batch size
        for positions in self._alike(jobs):
            try:
                model_batch, build_batch = self._batch_sizes(jobs[positions[0]])
            # User code may run here; whatever it raises is the failure of these individuals.
            except Exception as raised:
                error = self._explain(raised)
                results |= {i: HostResult((), self.name, Timing(), error) for i in positions}
            else:
                starts = range(0, len(positions), build_batch)
                batches += [(positions[i : i + build_batch], model_batch) for i in starts]
        recipes = [[jobs[i].recipe for i in positions] for positions, _ in batches]
        built = self._batch_builder.build(recipes)
        for (positions, model_batch), batch in zip(batches, built, strict=True):
            found = self._runner.run(jobs[positions[0]].queries, batch, model_batch)
            results |= dict(zip(positions, found, strict=True))
        return [results[i] for i in range(len(jobs))]

    def _alike(self, jobs: Sequence[Job]) -> Iterator[range]:
        """Positions of successive jobs with the same queries and individuals of the same form."""
        end = 0
        for _, group in groupby(
            jobs, lambda job: (job.queries, self._batch_builder.form(job.recipe))
        ):
            start, end = end, end + sum(1 for _ in group)
            yield range(start, end)

    def _batch_sizes(self, job: Job) -> tuple[int, int]:
        """The sizes of the model batch and of the build batch for jobs like this one."""
        for query in job.queries:
            self._runner.prepare(query)
        self._model_batch = 1
        form = self._batch_builder.form(job.recipe)
        if form == "path":
            return 1, 1
        can_batch = self._runner.can_batch(job.queries)
        if form == "factors":  # the engine divides these itself
            most = FACTOR_BATCH if can_batch else 1
            return most, most
        if can_batch:
            self._model_batch = self._runner.model_batch_size(job.queries)
        return self._model_batch, self._batch_builder.batch_size(self._model_batch)
