"""Autotuning: values for ``auto`` in ``engine``, found where a run begins.

They change the last bits of scores, so they are frozen with the run: a resumed, verified or copied run takes
what its config.json says.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cluster.founders.checkpoints import FounderSet
from evo.config.schema import EngineConfig, RunConfig
from evo.errors import EvoError
from evo.search.objective import WeighedTask
from fitness.splits import DEV

if TYPE_CHECKING:
    from fitness.requests import Request

# Enough to fill the largest budget with ordinary prompts.
_EXAMPLES = 1024


def autotuned(config: RunConfig, founders: FounderSet, tasks: Sequence[WeighedTask]) -> RunConfig:
    """``config`` with a value for each ``auto``.

    Raises:
        EvoError: this machine lacks the device of the hosts, so nothing can be measured here; or the
            engine has no token budget to measure.
    """
    engine, keys = config.engine, _auto_keys(config.engine)
    if not keys:
        return config
    _check_device(engine, keys[0])
    if "dtype" in keys:
        engine = engine.model_copy(update={"dtype": _fast_dtype(engine.device)})
    if "batch_tokens" in keys:
        requests = [r for t in tasks for r in t.task.requests(DEV)[:_EXAMPLES]]
        engine = engine.model_copy(
            update={"batch_tokens": _fast_budget(engine, founders, requests)}
        )
    return config.model_copy(update={"engine": engine})


def with_autotuned(config: RunConfig, frozen: RunConfig) -> RunConfig:
    """``config`` with the values that the run of ``frozen`` has found for ``auto``."""
    found = {key: getattr(frozen.engine, key) for key in _auto_keys(config.engine)}
    return config.model_copy(update={"engine": config.engine.model_copy(update=found)})


def _auto_keys(engine: EngineConfig) -> list[str]:
    return [key for key in ("dtype", "batch_tokens") if getattr(engine, key) == "auto"]


def _check_device(engine: EngineConfig, key: str) -> None:
    import torch

    if engine.device.startswith("cuda") and not torch.cuda.is_available():
        raise EvoError(
            f"engine.{key}: auto is measured where the run begins, and this machine has no CUDA device "
            f"(engine.device: {engine.device}). Set engine.{key} to a value"
        )


def _fast_dtype(device: str) -> str:
    """bfloat16 where the device has instructions for it, else float32."""
    import torch

    if device.startswith("cuda"):
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # AMX; with the older AVX-512 instructions bfloat16 is hardly faster than float32.
        fast = device == "cpu" and bool(torch.cpu.get_capabilities().get("amx_bf16", False))
    return "bfloat16" if fast else "float32"


def _fast_budget(engine: EngineConfig, founders: FounderSet, requests: "list[Request]") -> int:
    from fitness.engines import engine_kind
    from fitness.engines.hf.token_budget import HasTokenBudget, fastest_budget
    from fitness.engines.memory import free_memory
    from operators.tensors.threads import torch_threads

    default = EngineConfig.model_fields["batch_tokens"].default
    spec = engine.model_copy(update={"batch_tokens": default}).spec
    made = None
    try:
        with torch_threads(engine.threads):
            made = engine_kind(engine.kind).make(spec, founders.base.path)
            if not isinstance(made, HasTokenBudget):
                raise EvoError(
                    f"engine.batch_tokens: auto: engine.kind: {engine.kind} has no token budget to "
                    "measure. Set engine.batch_tokens to a value"
                )
            return fastest_budget(made, requests)
    finally:
        made = None
        free_memory()  # hosts need it
