"""Errors that the user can put right; everything else that is raised is a bug."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class DiffSplatError(Exception):
    """One sentence that names what was given and what was expected."""


class InvalidInputError(DiffSplatError, ValueError):
    """A value, an option, a path or the content of a file cannot be used."""


class DiskError(InvalidInputError):
    """A disk is full, fails, or takes nothing."""


class MissingFileError(DiffSplatError, FileNotFoundError):
    """A file or folder is not there."""


class MissingPackageError(DiffSplatError, ModuleNotFoundError):
    """An optional package is not installed."""


class AccessDeniedError(DiffSplatError, PermissionError):
    """A repository or file may not be read or written."""


class UnreachableError(DiffSplatError, ConnectionError):
    """The hub cannot be reached, or a download broke off."""


def require(condition: bool, name: str, value: object, expected: str) -> None:
    """Refuse the value of an option unless a condition holds.

    Raises:
        ValueError: naming the option, its value and what was expected.
    """
    if not condition:
        raise InvalidInputError(f"{name} is {value}, expected {expected}")


def require_at_least(least: float, options: object, *names: str) -> None:
    """Refuse options of a configuration that are below a number, or NaN.

    Raises:
        ValueError: naming the first of them, its value and the number.
    """
    for name in names:
        value = getattr(options, name)
        require(value >= least, name, value, f"at least {least:g}")


@contextmanager
def optional_package(purpose: str, package: str, extra: str) -> Iterator[None]:
    """Explain imports in a block that fail.

    Args:
        purpose: what the package is needed for.
        package: its name.
        extra: of diffsplat, which installs it.

    Raises:
        MissingPackageError: in place of an ``ImportError``.
    """
    try:
        yield
    except ImportError as error:
        raise MissingPackageError(
            f"{purpose} needs {package}, which is not installed: pip install 'diffsplat[{extra}]'"
        ) from error


@contextmanager
def explained_errors(failure: str, *kinds: type[Exception]) -> Iterator[None]:
    """Turn errors of some kinds in a block into one sentence; a ``DiffSplatError`` is one already.

    Args:
        failure: the sentence's beginning, such as ``'a.npy' is not an array``; the error's own message follows.
        kinds: of errors that are turned.

    Raises:
        ValueError: in place of such an error.
    """
    try:
        yield
    except DiffSplatError:
        raise
    except kinds as error:
        raise InvalidInputError(f"{failure}: {one_line(error)}") from error


def listed(words: Sequence[str]) -> str:
    """``a``, ``a and b`` or ``a, b and c``."""
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last


def one_line(error: BaseException) -> str:
    """The message of an error without line breaks, or the name of its type where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
