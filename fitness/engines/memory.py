"""Memory that ran out: how to tell, and what to do first."""

import gc

import torch


def is_out_of_memory(raised: BaseException) -> bool:
    """Whether memory ran out: this process's, or a device's."""
    if isinstance(raised, MemoryError | torch.OutOfMemoryError):
        return True
    # What torch's own allocator and the C++ library under it raise has no type of its own.
    refused = ("allocate memory", "bad_alloc")
    return isinstance(raised, RuntimeError) and any(r in str(raised) for r in refused)


def free_memory() -> None:
    """Let go of what nobody refers to any more; on a GPU torch would keep it for this process."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
