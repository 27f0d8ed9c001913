"""A function mapped over many items: in processes of this machine, or on a Ray cluster."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import torch

from diffsplat.errors import DiffSplatError, MissingPackageError, UnreachableError, one_line, optional_package

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

_KILLED = "the process that worked on it was killed, perhaps for lack of memory"
_RETRIES = 3


@dataclass(frozen=True)
class Failure:
    """An item that gave no result, and why."""

    reason: str


@dataclass(frozen=True)
class Attempt(Generic[Item, Result]):
    """A function that gives a :class:`Failure` in place of an error, so that one bad item ends nothing."""

    work: Callable[[Item], Result]

    def __call__(self, item: Item) -> Result | Failure:
        """What the function gives.

        Raises:
            MissingPackageError: since every item would fail with it.
        """
        try:
            return self.work(item)
        except MissingPackageError:
            raise
        except (DiffSplatError, OSError) as error:
            return Failure(one_line(error))
        except Exception as error:
            logger.debug("an item failed", exc_info=True)
            return Failure(f"{type(error).__name__}: {one_line(error)}")


def local_results(
    work: Callable[[Item], Result], items: Sequence[Item], processes: int
) -> Iterator[Result | Failure]:
    """Results in the order of the items, from processes of this machine.

    When a process is killed, the items that were worked on are tried once more, each in a process of its own; one that
    kills that too has failed.

    Args:
        work: with several processes it must be picklable.
        items: to call it with.
        processes: how many at once; 0 for one per core.
    """
    attempt = Attempt(work)
    workers = processes or os.cpu_count() or 1
    if workers == 1 or len(items) < 4:
        yield from map(attempt, items)
        return
    done = 0
    while done < len(items):
        try:
            for result in _pooled(attempt, items[done:], workers):
                done += 1
                yield result
        except BrokenProcessPool:
            suspects = items[done : done + _window(workers)]
            for item in suspects:
                done += 1
                yield _alone(attempt, item)


def ray_results(
    work: Callable[[Item], Result], items: Sequence[Item], address: str
) -> Iterator[Result | Failure]:
    """Results in the order of the items, from a Ray cluster: one task an item, on one core.

    A task whose worker or machine is lost is started again; an item that kills its worker four times has failed.

    Args:
        work: with everything that it needs; the package must be installed on every machine.
        items: to call it with.
        address: of the cluster; ``auto`` for the one that runs here, else one of this machine alone.
    """
    with _connected(address) as ray:
        task = ray.remote(num_cpus=1, max_retries=_RETRIES)(_called)
        attempt = ray.put(Attempt(work))
        started = (task.remote(attempt, item) for item in items)
        cores = int(ray.cluster_resources().get("CPU", 1))
        yield from _in_order(started, _window(cores), partial(_taken, ray))


def ray_worker_results(
    make: Callable[[], Callable[[Item], Result]], items: Sequence[Item], address: str
) -> Iterator[Result | Failure]:
    """Like :func:`ray_results`, from actors that each make the function once, such as one that holds a model.

    There is an actor for every GPU of the cluster, or without GPUs for every core. One that is lost is made again.
    """
    with _connected(address) as ray:
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0))
        count = min(len(items), gpus or int(resources.get("CPU", 1)))
        options = {
            "num_cpus": 1,
            "num_gpus": 1 if gpus else 0,
            "max_restarts": -1,
            "max_task_retries": _RETRIES,
        }
        actor = ray.remote(**options)(_Worker)
        actors = [actor.remote(make) for _ in range(count)]
        started = (actors[number % count].run.remote(item) for number, item in enumerate(items))
        yield from _in_order(started, _window(count), partial(_taken, ray))


class _Worker:
    def __init__(self, make: Callable[[], Callable[[Any], Any]]) -> None:
        self._attempt = Attempt(make())

    def run(self, item: Any) -> Any:
        return self._attempt(item)


def _called(attempt: Callable[[Any], Any], item: Any) -> Any:
    return attempt(item)


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    with optional_package("--ray", "ray", "cluster"):
        import ray

    options: dict[str, Any] = {} if address == "auto" else {"address": address}
    begun = not ray.is_initialized()
    try:
        ray.init(**options, ignore_reinit_error=True, log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UnreachableError(
            f"cannot reach the Ray cluster {address!r} (one with a token needs RAY_AUTH_MODE=token): {one_line(error)}"
        ) from error
    try:
        yield ray
    finally:
        if begun:
            ray.shutdown()


def _in_order(started: Iterator[Any], window: int, taken: Callable[[Any], Result]) -> Iterator[Result]:
    """Results of tasks in the order of their start, of which a window runs or waits to be taken."""
    waiting: deque[Any] = deque()
    for task in started:
        waiting.append(task)
        if len(waiting) >= window:
            yield taken(waiting.popleft())
    yield from map(taken, waiting)


def _taken(ray: Any, reference: Any) -> Any:
    errors = ray.exceptions
    try:
        return ray.get(reference)
    except (errors.WorkerCrashedError, errors.OutOfMemoryError, errors.RayActorError, errors.NodeDiedError):
        return Failure(_KILLED)
    except errors.RayTaskError as error:
        cause = error.cause
        raise cause if isinstance(cause, DiffSplatError) else error from None


def _pooled(attempt: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    executor = _executor(workers)
    started = (executor.submit(attempt, item) for item in items)
    try:
        yield from _in_order(started, _window(workers), Future.result)
    finally:
        executor.shutdown(cancel_futures=True)


def _alone(attempt: Callable[[Item], Result], item: Item) -> Result | Failure:
    with _executor(1) as executor:
        try:
            return executor.submit(attempt, item).result()
        except BrokenProcessPool:
            return Failure(_KILLED)


def _window(workers: int) -> int:
    """How many items are worked on or wait for their turn to be taken."""
    return 2 * workers


def _executor(workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, context, initializer=_start_worker)


def _start_worker() -> None:
    """Ctrl-C reaches all processes, and only the first one answers it; each worker keeps to one core."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
