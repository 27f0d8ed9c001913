"""Preparing batches ahead of the step that needs them, in a thread or in other processes."""

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from torch.utils.data import DataLoader, Dataset

from diffsplat.errors import DiffSplatError
from diffsplat.training.run_processes import LostProcessError

T = TypeVar("T")


@contextmanager
def thread_batches(load: Callable[[int], T], numbers: range, ahead: int) -> Iterator[Iterator[T]]:
    """Calls ``load`` with some numbers in one thread, at most ``ahead`` calls early.

    Args:
        load: gives the item of a number; it must not use global random state, which belongs to the main thread.
        numbers: to call it with.
        ahead: 0 calls in line, without a thread.
    """
    if not ahead:
        yield map(load, numbers)
        return
    pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
    try:
        yield _submitted(pool, load, iter(numbers), ahead)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _submitted(
    pool: ThreadPoolExecutor, load: Callable[[int], T], numbers: Iterator[int], ahead: int
) -> Iterator[T]:
    waiting = deque(pool.submit(load, number) for number in islice(numbers, ahead + 1))
    while waiting:
        yield waiting.popleft().result()
        waiting.extend(pool.submit(load, number) for number in islice(numbers, 1))


@contextmanager
def worker_batches(
    load: Callable[[int], T], numbers: range, workers: int, ahead: int
) -> Iterator[Iterator[T]]:
    """Calls ``load`` with some numbers in worker processes, and gives the results in the order of the numbers.

    What comes is the same for any number of workers, as long as ``load`` depends on its argument alone. An error of
    ``load`` that the user can put right is raised as it is.

    Args:
        load: gives the item of a number; it is sent to the workers.
        numbers: to call it with.
        workers: number of processes, at least 1.
        ahead: calls of a worker that may be waiting for the step that needs them, at least 1.

    Raises:
        LostProcessError: a worker was killed; raised by the iterator.
    """
    # A server without threads or a GPU imports everything once, and workers are forked from it.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["diffsplat.training.view_batches"])
    loader = DataLoader(
        _Items(load),
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        prefetch_factor=ahead,
        multiprocessing_context=context,
        worker_init_fn=_ignore_interrupts,
    )
    items = _received(iter(loader))
    try:
        yield items
    finally:
        items.close()  # ends the workers


def _received(items: Iterator[Any]) -> Generator[Any, None, None]:
    try:
        for item in items:
            if isinstance(item, _Refused):
                raise item.error
            yield item
    except RuntimeError as error:
        if "DataLoader worker" not in str(error).split("\n")[0]:
            raise
        raise LostProcessError(
            "a process that reads data was killed, probably for lack of memory: lower --workers and start the same "
            "command again, which continues from the newest checkpoint"
        ) from error


@dataclass(frozen=True)
class _Refused:
    """What a worker cannot use; the loader would put its own traceback into the sentence."""

    error: DiffSplatError


class _Items(Dataset[Any]):
    def __init__(self, load: Callable[[int], Any]) -> None:
        self._load = load

    def __getitem__(self, number: int) -> Any:
        try:
            return self._load(number)
        except DiffSplatError as error:
            return _Refused(error)


def _ignore_interrupts(_worker: int) -> None:
    """Ctrl-C reaches all processes; the one that trains answers it after its step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
