"""Jobs: a bounded queue, the one thread that works on it, and results that expire. Needs no torch."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from diffsplat.errors import DiffSplatError, one_line
from diffsplat.web.error_responses import internal_error_sentence
from diffsplat.web.server_limits import Limits

if TYPE_CHECKING:
    from torch import Tensor

    from diffsplat.pipelines.generation_options import ResolvedGeneration
    from diffsplat.pipelines.image_and_control_conditions import ConditionImages
    from diffsplat.pipelines.pipeline_output import GeneratedObject

State = Literal["queued", "running", "done", "failed", "cancelled"]
IMAGE_FIELDS = ("image", "control", "ip_adapter_image")
REPEATABLE_FIELD = "control"
"""The one of them that a form may repeat."""
FINISHED: frozenset[State] = frozenset(("done", "failed", "cancelled"))

logger = logging.getLogger(__name__)

_ID_BYTES = 18
_IDLE_S = 5.0
"""How often an idle worker looks for results that have expired."""
_SMOOTHING = 0.3
"""Weight of the latest job in the mean duration, which a full queue answers with."""


Advance = Callable[[int, int], None]
"""``(steps done, total steps)``; raises :class:`CancelledError` when the job is to end."""


class CancelledError(Exception):
    """The job was cancelled while it ran."""


class QueueFullError(Exception):
    """No more jobs are taken at the moment.

    Args:
        retry_after_s: seconds after which a place should be free.
    """

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"the queue is full; try again in {retry_after_s} s")
        self.retry_after_s = retry_after_s


class StoppedError(Exception):
    """The server is stopping."""


@dataclass(frozen=True)
class Job:
    """A job at one moment.

    Args:
        id: unguessable name.
        model: by name.
        generation: the options; without an elevation it is estimated from the image.
        images: at the model's size; of a job that ends without results none are kept.
        state: where it stands.
        steps_done: denoising steps that are done.
        results: the generated objects, when done.
        error: why it failed, one sentence.
        made_s: clock when it was taken.
        finished_s: clock at its end.
    """

    id: str
    model: str
    generation: ResolvedGeneration
    images: ConditionImages | None = None
    state: State = "queued"
    steps_done: int = 0
    results: tuple[GeneratedObject, ...] = ()
    error: str | None = None
    made_s: float = 0.0
    finished_s: float | None = None

    @property
    def steps(self) -> int:
        """Denoising steps of all objects, computed one at a time."""
        return self.generation.steps * len(self.generation.objects)

    @property
    def finished(self) -> bool:
        """Whether nothing about it will change any more."""
        return self.state in FINISHED

    @property
    def named_images(self) -> dict[str, Tensor]:
        """Images ``[3, S, S]`` that it is made from: ``image``, ``control``, ``control-2``, ``ip_adapter_image``."""
        if self.images is None:
            return {}
        maps = () if self.images.control is None else self.images.control.split(3)
        named = {
            f"control-{number}" if number > 1 else "control": each for number, each in enumerate(maps, 1)
        }
        others = {"image": self.images.image, "ip_adapter_image": self.images.prompt}
        return named | {name: image for name, image in others.items() if image is not None}

    @property
    def nbytes(self) -> int:
        """Memory of its results and images."""
        images = 0 if self.images is None else self.images.nbytes
        return images + sum(result.nbytes for result in self.results)


class JobKeeper:
    """Keeps jobs when the process ends; this one keeps none."""

    def begin(self, job: Job) -> None:
        """Keep a job that was taken; until it ends, it is one that would be lost."""

    def finish(self, job: Job) -> None:
        """Keep a job that has ended, with its results."""

    def forget(self, identity: str) -> None:
        """Keep a job no longer."""

    def jobs(self) -> list[Job]:
        """Jobs of earlier servers, in the order of their ends; those that were not done have failed."""
        return []


class JobQueue:
    """Accepts jobs and processes them one after the other, in a thread of its own.

    Args:
        perform: generates the objects of a job; a ``DiffSplatError`` tells the client what was wrong.
        limits: bounds of the queue and of what is kept.
        keeper: keeps jobs when the process ends; has those of earlier ones.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        perform: Callable[[Job, Advance], Sequence[GeneratedObject]],
        limits: Limits,
        keeper: JobKeeper | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._perform = perform
        self._keeper = keeper or JobKeeper()
        self._limits = limits
        self._clock = clock
        self._changed = threading.Condition(threading.RLock())
        self._jobs = {job.id: job for job in self._keeper.jobs()}
        self._waiting: deque[str] = deque()
        self._to_cancel: set[str] = set()
        self._listeners: dict[str, list[Callable[[], None]]] = {}
        self._mean_s = 5.0
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="generation", daemon=True)

    def start(self) -> None:
        """Start processing."""
        self._thread.start()

    def stop(self) -> None:
        """Accept no more jobs, cancel those that wait or run; does not wait, see :meth:`join`."""
        with self._changed:
            self._stopping = True
            for job in [job for job in self._jobs.values() if not job.finished]:
                self.cancel(job.id)
            self._changed.notify_all()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread to end after :meth:`stop`; returns whether it did."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return len(self._waiting)

    @property
    def alive(self) -> bool:
        """Whether jobs are processed."""
        return self._thread.is_alive() and not self._stopping

    def require_place(self) -> None:
        """Refuse what :meth:`submit` would refuse now, before work is spent on its images.

        Raises:
            QueueFullError: when there is no place.
            StoppedError: when the server is stopping.
        """
        with self._changed:
            if self._stopping:
                raise StoppedError("the server is stopping")
            if len(self._waiting) >= self._limits.max_queued:
                raise QueueFullError(max(1, round(self._mean_s)))

    def submit(
        self, model: str, generation: ResolvedGeneration, images: ConditionImages | None = None
    ) -> Job:
        """Put a job at the end of the queue.

        Raises:
            QueueFullError: when there is no place.
            StoppedError: when the server is stopping.
            DiskError: when it cannot be kept.
        """
        with self._changed:
            self.require_place()
            self._expire()
            identity = secrets.token_urlsafe(_ID_BYTES)
            job = Job(identity, model, generation, images, made_s=self._clock())
            self._keeper.begin(job)
            self._jobs[job.id] = job
            self._waiting.append(job.id)
            self._changed.notify_all()
            return job

    def all(self) -> list[Job]:
        """Every job: finished ones in the order of their ends, then the others as they came."""
        with self._changed:
            self._expire()
            finished = [job for job in self._jobs.values() if job.finished]
            return finished + [job for job in self._jobs.values() if not job.finished]

    def find(self, identity: str) -> Job | None:
        """The job as it is now; None when there is none, or no longer."""
        with self._changed:
            self._expire()
            return self._jobs.get(identity)

    def position(self, identity: str) -> int | None:
        """How many jobs come before this one in the queue; None when it does not wait."""
        with self._changed:
            return self._waiting.index(identity) if identity in self._waiting else None

    def cancel(self, identity: str) -> Job | None:
        """End a job that waits or runs; forget one that is finished. Returns it as it is afterwards.

        A running job ends with the denoising step that is being computed.
        """
        with self._changed:
            job = self.find(identity)
            if job is None:
                return None
            if job.finished:
                return self._drop(identity)
            if job.state == "queued":
                self._waiting.remove(identity)
                self._tell_waiting()
                return self._finish(job, "cancelled")
            self._to_cancel.add(identity)
            return job

    @contextmanager
    def watch(self, identity: str, listener: Callable[[], None]) -> Iterator[None]:
        """Have ``listener`` called, from any thread, after every change of a job or of its place in the queue."""
        with self._changed:
            self._listeners.setdefault(identity, []).append(listener)
        try:
            yield
        finally:
            with self._changed:
                remaining = self._listeners[identity]
                remaining.remove(listener)
                if not remaining:
                    del self._listeners[identity]

    def _work(self) -> None:
        while (job := self._next()) is not None:
            began = self._clock()
            self._run(job)
            self._mean_s += _SMOOTHING * (self._clock() - began - self._mean_s)

    def _next(self) -> Job | None:
        """Wait for a job and mark it as running; None to end."""
        with self._changed:
            while not self._waiting and not self._stopping:
                self._changed.wait(_IDLE_S)
                self._expire()
            if self._stopping:
                return None
            job = self._update(replace(self._jobs[self._waiting.popleft()], state="running"))
            self._tell_waiting()
            return job

    def _run(self, job: Job) -> None:
        def advance(done: int, _total: int) -> None:
            with self._changed:
                if job.id in self._to_cancel:
                    raise CancelledError
                self._update(replace(self._jobs[job.id], steps_done=done))

        try:
            results = tuple(self._perform(job, advance))
        except CancelledError:
            self._finish(self._jobs[job.id], "cancelled")
        except DiffSplatError as error:
            self._finish(self._jobs[job.id], "failed", error=one_line(error))
        except BaseException as error:  # whatever it is, the thread has to go on with the next job
            sentence = internal_error_sentence(error)
            logger.exception("a job: %s", sentence)
            self._finish(self._jobs[job.id], "failed", error=sentence)
        else:
            state: State = "cancelled" if job.id in self._to_cancel else "done"
            self._finish(self._jobs[job.id], state, results=results if state == "done" else ())

    def _finish(
        self, job: Job, state: State, *, results: tuple[GeneratedObject, ...] = (), error: str | None = None
    ) -> Job:
        images, now = job.images if results else None, self._clock()
        ended = replace(job, images=images, state=state, results=results, error=error, finished_s=now)
        self._keep(ended)
        with self._changed:
            self._to_cancel.discard(job.id)
            # At the end of the order, so that the oldest ending comes first when jobs expire.
            self._jobs.pop(job.id)
            self._update(ended)
            self._expire()
            return ended

    def _keep(self, job: Job) -> None:
        try:
            self._keeper.finish(job)
        except Exception:
            logger.exception("the results of a job are kept in memory only")

    def _update(self, job: Job) -> Job:
        self._jobs[job.id] = job
        self._tell(job.id)
        return job

    def _tell(self, identity: str) -> None:
        for listener in self._listeners.get(identity, ()):
            try:
                listener()
            except Exception:
                logger.exception("a listener of a job")

    def _tell_waiting(self) -> None:
        """Their places have changed."""
        for identity in self._waiting:
            self._tell(identity)

    def _expire(self) -> None:
        """Forget finished jobs: those too old, then the oldest while there are too many or they are too big."""
        finished = [job for job in self._jobs.values() if job.finished_s is not None]
        held, now = sum(job.nbytes for job in finished), self._clock()
        for index, job in enumerate(finished):
            left = len(finished) - index
            old = now - (job.finished_s or 0.0) > self._limits.keep_seconds
            crowded = left > self._limits.keep_jobs or (held > self._limits.keep_bytes and left > 1)
            if not old and not crowded:
                return
            held -= job.nbytes
            self._drop(job.id)

    def _drop(self, identity: str) -> Job:
        self._keeper.forget(identity)
        return self._jobs.pop(identity)
