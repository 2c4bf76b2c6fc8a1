"""mergekit-evolve on a CPU, timed. Runs in mergekit's own environment, by ``against_mergekit_evolve.py``.

python mergekit_evolve_driver.py CONFIG --storage-path FOLDER ...     (the options of mergekit-evolve)

mergekit-evolve 0.1.5 asks for a GPU. What is patched so that it runs without one, and nothing else:

1. Its actors ask Ray for ``num_gpus=1``: here for one core.
2. Its pool has one actor per GPU, and counts none: ``--num-gpus 1`` is one worker.
3. On disk: it empties the cache of ``torch.<device>``, and ``torch.cpu`` has no such function.
4. In memory: lm-eval looks for the tokenizer where the merged model came from, which is nowhere: it is
   given the one of the genome's base model.
5. It names a class of ``lm_eval.models.vllm_causallms``, which lm-eval 0.4.13 no longer imports where vLLM is
   not installed (and vLLM is for GPUs): there is an empty one by that name.
6. In memory: the tasks that give tensors are refused by pydantic, whose check of ``Task[torch.Tensor]`` is
   left out.
7. On disk: lm-eval puts a model on CUDA where nobody says otherwise: here on the CPU.

The last line of output is JSON: evaluations, seconds of the search (calls of the strategy, so neither
start-up nor CMA-ES), processor seconds of all its processes meanwhile, and of the workers' seconds those
in the model's forward pass.
"""

import json
import sys
from time import perf_counter
from typing import Any


def prepare() -> None:
    """Patches 3, 5, 6 and 7: in this process before mergekit is imported, and in every process of Ray."""
    from functools import partialmethod
    from types import ModuleType

    import lm_eval.models
    import lm_eval.models.huggingface
    import torch

    stub = ModuleType("lm_eval.models.vllm_causallms")
    stub.VLLM = type("VLLM", (), {})  # type: ignore[attr-defined]
    sys.modules[stub.__name__] = lm_eval.models.vllm_causallms = stub
    torch.cpu.empty_cache = lambda: None

    model = lm_eval.models.huggingface.HFLM
    model.__init__ = partialmethod(model.__init__, device="cpu")

    import mergekit.plan

    mergekit.plan.ReturnTensor = mergekit.plan.ReturnTensor.model_construct


prepare()

import lm_eval.models.huggingface  # noqa: E402
import mergekit.evo.strategy as strategy  # noqa: E402
import mergekit.scripts.evolve as evolve  # noqa: E402
import psutil  # noqa: E402  Ray's own copy, on the path once Ray is imported
import ray  # noqa: E402
import transformers  # noqa: E402
from mergekit.evo import actors  # noqa: E402

CALLS: list[dict[str, float]] = []


def processor_seconds() -> float:
    """Of this process and all that it started, those that have ended among them."""
    me = psutil.Process()
    return sum(sum(p.cpu_times()[:4]) for p in (me, *me.children(recursive=True)))


def timed(actor: Any, genotype: Any, evaluate: Any) -> dict[str, Any]:
    """An evaluation, with its seconds and those of the forward passes in it."""
    model = lm_eval.models.huggingface.HFLM
    forward, inside = model._model_call, [0.0]

    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        began = perf_counter()
        try:
            return forward(self, *arguments, **named)
        finally:
            inside[0] += perf_counter() - began

    model._model_call = call
    began = perf_counter()
    try:
        found = dict(evaluate(actor, genotype))
    finally:
        model._model_call = forward
    return {**found, "seconds": perf_counter() - began, "forward_s": inside[0]}


class OnDisk(actors.OnDiskMergeEvaluator.__ray_actor_class__):
    """Timed."""

    def evaluate_genotype(self, genotype: Any) -> dict[str, Any]:
        return timed(self, genotype, super().evaluate_genotype.__func__)


class InMemory(actors.InMemoryMergeEvaluator.__ray_actor_class__):
    """Patch 4."""

    def _maybe_init_model(self, config: Any) -> None:
        plain = lm_eval.models.huggingface.HFLM
        donor = self.genome.definition.base_model.model.path

        def with_tokenizer(pretrained: Any) -> Any:
            tokenizer = transformers.AutoTokenizer.from_pretrained(donor, use_fast=True)
            return plain(pretrained=pretrained, tokenizer=tokenizer)

        lm_eval.models.huggingface.HFLM = with_tokenizer
        try:
            super()._maybe_init_model(config)
        finally:
            lm_eval.models.huggingface.HFLM = plain

    def evaluate_genotype(self, genotype: Any) -> dict[str, Any]:
        return timed(self, genotype, super().evaluate_genotype.__func__)


class Strategy(strategy.ActorPoolEvaluationStrategy):
    """Times each generation."""

    def evaluate_genotypes(self, genotypes: Any) -> list[dict[str, Any]]:
        began, before = perf_counter(), processor_seconds()
        found = super().evaluate_genotypes(genotypes)
        CALLS.append(
            {
                "evaluations": len(found),
                "seconds": perf_counter() - began,
                "cpu_s": processor_seconds() - before,
                "worker_s": sum(f["seconds"] for f in found),
                "forward_s": sum(f["forward_s"] for f in found),
                "best": max(f["score"] for f in found),
            }
        )
        return found


def main() -> None:
    began = perf_counter()
    hook = {"worker_process_setup_hook": prepare}
    # "local": never somebody else's Ray on this machine.
    ray.init("local", include_dashboard=False, log_to_driver=False, runtime_env=hook)
    strategy.OnDiskMergeEvaluator = ray.remote(num_cpus=1)(OnDisk)  # patch 1
    strategy.InMemoryMergeEvaluator = ray.remote(num_cpus=1)(InMemory)
    evolve.ActorPoolEvaluationStrategy = Strategy
    arguments = [*sys.argv[1:], "--num-gpus", "1", "--no-merge-cuda", "--no-save-final-model"]
    evolve.main(arguments, standalone_mode=False)  # patch 2
    # The first call of the pool starts its worker: start-up, as in ours.
    first, rest = CALLS[0], CALLS[1:]
    account = {key: sum(call[key] for call in rest) for key in first if key != "best"}
    account["best"] = max(call["best"] for call in CALLS)
    account["startup_s"] = perf_counter() - began - account["seconds"]
    print(json.dumps(account))


if __name__ == "__main__":
    main()
