"""Preparing batches in a thread, ahead of the step that needs them."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class Prefetcher(Generic[T]):
    """Calls ``load(first), load(first + 1), ...`` in one thread, at most ``ahead`` calls early.

    Args:
        load: gives item ``index``; it must not use global random state, which belongs to the main thread.
        first: first index.
        last: index after the last.
        ahead: 0 calls in line, without a thread.
    """

    def __init__(self, load: Callable[[int], T], first: int, last: int, ahead: int) -> None:
        self._load = load
        self._next = first
        self._last = last
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
            self._next += 1
            return self._load(self._next - 1)
        self._fill(self._ahead + 1)
        item = self._waiting.popleft().result()
        self._fill(self._ahead)
        return item

    def _fill(self, count: int) -> None:
        while self._pool is not None and len(self._waiting) < count and self._next < self._last:
            self._waiting.append(self._pool.submit(self._load, self._next))
            self._next += 1
