"""The number of torch's threads, and work shared out among as many."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeAlias

import torch

Work: TypeAlias = Callable[[], None]


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Run the block with ``count`` threads of torch, and restore the caller's number afterwards.

    The last bits of BLAS and LAPACK results depend on the number of threads, so whatever builds or runs
    an individual uses the number of its run.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def in_threads(pieces: Iterable[Work]) -> None:
    """Do all ``pieces`` in any order, in inference mode; the first error is raised, and the rest left.

    torch's own threads stay as they are: their number is one for the whole process, and a model that
    runs meanwhile would feel a change of it, to the last bit.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        for piece in pieces:
            _do(piece)
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting = [pool.submit(_do, piece) for piece in pieces]
        try:
            for done in waiting:
                done.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _do(piece: Work) -> None:
    with torch.inference_mode():  # a setting of the thread's own
        piece()
