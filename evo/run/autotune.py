"""``auto`` in ``engine``: found where a run begins, and from then on a number like any other.

It changes the last bits of scores, so it is frozen with the run: resumed, verified or copied, a run takes
what its config.json says.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cluster.founders.checkpoints import FounderSet
from evo.config.schema import EngineConfig, RunConfig
from evo.errors import EvoError
from evo.search.evaluator import WeighedTask

if TYPE_CHECKING:
    from fitness.requests import Request

# Enough to fill the largest budget with ordinary prompts; more would only take longer.
_EXAMPLES = 1024


def autotuned(config: RunConfig, founders: FounderSet, tasks: Sequence[WeighedTask]) -> RunConfig:
    """``config`` without ``auto``.

    Raises:
        EvoError: this machine lacks the device that hosts run on, so nothing can be found out here.
    """
    engine, unknown = config.engine, _unknown(config.engine)
    if not unknown:
        return config
    _check_device(engine, unknown[0])
    if "dtype" in unknown:
        engine = engine.model_copy(update={"dtype": _fast_dtype(engine.device)})
    if "batch_tokens" in unknown:
        requests = [r for t in tasks for r in t.task.requests("dev")[:_EXAMPLES]]
        engine = engine.model_copy(
            update={"batch_tokens": _fast_budget(engine, founders, requests)}
        )
    return config.model_copy(update={"engine": engine})


def with_autotuned(config: RunConfig, frozen: RunConfig) -> RunConfig:
    """``config`` with what a run of it has found for ``auto``."""
    found = {key: getattr(frozen.engine, key) for key in _unknown(config.engine)}
    return config.model_copy(update={"engine": config.engine.model_copy(update=found)})


def _unknown(engine: EngineConfig) -> list[str]:
    return [key for key in ("dtype", "batch_tokens") if getattr(engine, key) == "auto"]


def _check_device(engine: EngineConfig, key: str) -> None:
    import torch

    if engine.device.startswith("cuda") and not torch.cuda.is_available():
        raise EvoError(
            f"engine.{key}: auto is found out where the run begins, and this machine has no CUDA device "
            f"(engine.device: {engine.device}). Set engine.{key} to a value"
        )


def _fast_dtype(device: str) -> str:
    """bfloat16 where the device computes in it by itself, else float32."""
    import torch

    if device.startswith("cuda"):
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # AMX; the older AVX-512 instructions alone are hardly faster than float32.
        fast = device == "cpu" and bool(torch.cpu.get_capabilities().get("amx_bf16", False))
    return "bfloat16" if fast else "float32"


def _fast_budget(engine: EngineConfig, founders: FounderSet, requests: "list[Request]") -> int:
    if engine.kind != "hf":
        return int(EngineConfig.model_fields["batch_tokens"].default)  # no batches there
    from cluster.host.builder import dtype_of
    from fitness.engines.hf.engine import HFEngine
    from fitness.engines.hf.token_budget import fastest_budget
    from fitness.engines.memory import free_memory
    from operators.tensors.threads import torch_threads

    try:
        with torch_threads(engine.threads):
            return fastest_budget(
                HFEngine(
                    founders.base.path,
                    device=engine.device,
                    dtype=dtype_of(engine.dtype),
                    trust_remote_code=engine.trust_remote_code,
                    compile=engine.compile,
                ),
                requests,
            )
    finally:
        free_memory()  # hosts need it
