"""A lock on the folder of a run, so that two trainings never write to one."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from diffsplat.errors import InvalidInputError
from diffsplat.io.file_access import make_folder
from diffsplat.training.run_processes import Processes

LOCK_FILE = ".run.lock"


@contextmanager
def locked_run(out: Path, processes: Processes) -> Iterator[None]:
    """The main process holds the folder of a run for all its processes.

    The folder is made where it is missing, and removed again when nothing was put into it. The operating system gives
    the lock back when its process ends, however it ends.

    Raises:
        InvalidInputError: when another run holds it, or the folder cannot be made; the other processes end.
    """
    with ExitStack() as stack:
        with processes.main_first():
            if processes.is_main:
                lock = _acquired(out)
                stack.callback(lock.release)
                stack.callback(_remove_unused, out)
        yield


def _acquired(out: Path) -> FileLock:
    make_folder(out)
    lock = FileLock(out / LOCK_FILE, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise InvalidInputError(
            f"another training is running in {str(out)!r}, expected a folder of its own with --out"
        ) from error
    return lock


def _remove_unused(out: Path) -> None:
    if [path.name for path in out.iterdir()] == [LOCK_FILE]:
        (out / LOCK_FILE).unlink()
        out.rmdir()
