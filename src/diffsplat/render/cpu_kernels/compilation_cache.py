"""Compilation of the kernels: decorators, the cache on disk, the line on the log while it takes time."""

import functools
import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numba
from numba.core import event
from numba.core.caching import FunctionCache

logger = logging.getLogger(__name__)

_OPTIONS: dict[str, Any] = {
    # Everything but nnan and ninf: NaN must stay NaN for the culling comparisons to hold.
    "fastmath": {"contract", "nsz", "arcp", "reassoc"},
    "error_model": "numpy",
    "boundscheck": False,
    "nogil": True,
}


@functools.cache
def sources_digest() -> str:
    """Digest of every source file that the kernels are made of.

    numba keys a cached kernel on the one file that defines it. These kernels inline functions and constants of
    other files, so a kernel is stale as soon as any of them has changed.
    """
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for path in (*sorted(folder.glob("*.py")), folder.parent / "rasterization_constants.py"):
        digest.update(path.read_bytes())
    return digest.hexdigest()


class _KernelCache(FunctionCache):
    """numba's cache on disk, fresh only while all sources are unchanged."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file._source_stamp = sources_digest()
        # numba compares the version before it unpickles the rest, which may name classes that are gone.
        self._cache_file._version = f"{numba.__version__} {sources_digest()}"


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function that runs on one thread and releases the interpreter's lock.

    The compiled code is kept next to the sources, or in the user's cache directory when those are read-only.
    """
    dispatcher: Any = numba.njit(**_OPTIONS)(function)
    try:
        dispatcher._cache = _KernelCache(function)
    except RuntimeError as error:  # numba: no directory is writable
        logger.warning("the rasterizer will be compiled again in every process: %s", error)
    return dispatcher


def inline_kernel(function: Callable[..., Any]) -> Any:
    """Compile a small function into every kernel that calls it."""
    return numba.njit(forceinline=True, **_OPTIONS)(function)


class _CompilationListener(event.Listener):
    """Announces that a kernel of this package starts to compile."""

    def on_start(self, event: Any) -> None:
        function = getattr(event.data.get("dispatcher"), "py_func", None)
        if getattr(function, "__module__", "").startswith(__package__ or ""):
            _announce()

    def on_end(self, event: Any) -> None:
        pass


@functools.cache  # so that the line comes once
def _announce() -> None:
    logger.warning("compiling the rasterizer for this machine (20 to 30 seconds, once; kept on disk)")


@contextmanager
def announced_compilation() -> Iterator[None]:
    """Within this block the first kernel that has to be compiled is announced on the log, once per process."""
    with event.install_listener("numba:compile", _CompilationListener()):
        yield
