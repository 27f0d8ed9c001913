"""Preparing batches ahead of the step that needs them, in a thread or in other processes."""

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

from torch.utils.data import DataLoader, Dataset

from diffsplat.errors import DiffSplatError
from diffsplat.training.run_processes import LostProcessError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Batches(Protocol[T_co]):
    """Batches that were asked for, in order."""

    def take(self) -> T_co:
        """The next batch; an error of its preparation is raised here."""
        ...


class Prefetcher(Generic[T]):
    """Calls ``load`` with some numbers in one thread, at most ``ahead`` calls early.

    Args:
        load: gives the item of a number; it must not use global random state, which belongs to the main thread.
        numbers: to call it with.
        ahead: 0 calls in line, without a thread.
    """

    def __init__(self, load: Callable[[int], T], numbers: range, ahead: int) -> None:
        self._load = load
        self._numbers = iter(numbers)
        self._ahead = ahead
        self._waiting: deque[Future[T]] = deque()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="batches") if ahead else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def take(self) -> T:
        """The next item; an error of ``load`` is raised here."""
        if self._pool is None:
            return self._load(next(self._numbers))
        self._fill(self._ahead + 1)
        item = self._waiting.popleft().result()
        self._fill(self._ahead)
        return item

    def _fill(self, count: int) -> None:
        while self._pool is not None and len(self._waiting) < count:
            number = next(self._numbers, None)
            if number is None:
                return
            self._waiting.append(self._pool.submit(self._load, number))


class WorkerPrefetcher(Generic[T]):
    """Calls ``load`` with some numbers in worker processes, and gives the results in the order of the numbers.

    What comes is the same for any number of workers, as long as ``load`` depends on its argument alone.

    Args:
        load: gives the item of a number; it is sent to the workers.
        numbers: to call it with.
        workers: number of processes, at least 1.
        ahead: calls of a worker that may be waiting for the step that needs them, at least 1.
    """

    def __init__(self, load: Callable[[int], T], numbers: range, workers: int, ahead: int) -> None:
        self._items = _Items(load)
        self._numbers = numbers
        self._workers = workers
        self._ahead = ahead
        self._iterator: Iterator[Any] | None = None

    def __enter__(self) -> Self:
        # A server without threads or a GPU imports everything once, and workers are forked from it.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["diffsplat.training.view_batches"])
        loader = DataLoader(
            self._items,
            batch_size=None,
            sampler=self._numbers,
            num_workers=self._workers,
            prefetch_factor=self._ahead,
            multiprocessing_context=context,
            worker_init_fn=_ignore_interrupts,
        )
        self._iterator = iter(loader)
        return self

    def __exit__(self, *_: object) -> None:
        self._iterator = None  # ends the workers

    def take(self) -> T:
        """The next item; an error of ``load`` that the user can put right is raised here as it is.

        Raises:
            LostProcessError: a worker was killed.
        """
        if self._iterator is None:
            raise RuntimeError("the workers run inside a with block only")
        try:
            item = next(self._iterator)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error).split("\n")[0]:
                raise
            raise LostProcessError(
                "a process that reads data was killed, probably for lack of memory: lower --workers and start the same "
                "command again, which continues from the newest checkpoint"
            ) from error
        if isinstance(item, _Refused):
            raise item.error
        return item


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
