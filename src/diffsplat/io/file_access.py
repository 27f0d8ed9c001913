"""Output files that are either complete or absent."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffsplat.errors import InvalidInputError


@contextmanager
def atomic_path(target: str | Path, *, force: bool = False) -> Iterator[Path]:
    """Lend a temporary path beside ``target`` that takes its place when the block succeeds.

    On any failure inside the block, an interrupt included, the temporary file is removed and an existing
    target stays as it was. A symbolic link is followed, so the file it names is the one replaced.

    Args:
        target: the file to write.
        force: allow an existing file to be replaced.

    Yields:
        Path of an empty file in the same directory with the same suffix.

    Raises:
        ValueError: see :func:`require_writable`.
    """
    final = require_writable(target, force=force)
    temporary = final.parent / f".diffsplat-{secrets.token_hex(8)}{final.suffix}"
    try:
        temporary.touch(exist_ok=False)
    except OSError as error:
        raise InvalidInputError(f"cannot write {str(target)!r}: {error.strerror}") from error
    try:
        yield temporary
        os.replace(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)


def require_writable(target: str | Path, *, force: bool = False) -> Path:
    """Check that a file may be written, before any long work is done for it.

    Args:
        target: the file to write.
        force: allow an existing file to be replaced.

    Returns:
        The absolute path with symbolic links resolved.

    Raises:
        ValueError: when ``target`` is a directory, a device or the like, exists without ``force``, or lies in
            a directory that is missing or not writable.
    """
    try:
        final = Path(target).resolve()
        parent_is_directory, exists = final.parent.is_dir(), final.exists()
    except OSError as error:
        raise InvalidInputError(f"cannot write {str(target)!r}: {error.strerror}") from error
    if final.is_dir():
        raise InvalidInputError(
            f"cannot write {str(target)!r}: it is a directory, expected the path of a file"
        )
    if exists and not final.is_file():
        raise InvalidInputError(
            f"cannot write {str(target)!r}: it is a device or pipe, expected a regular file"
        )
    if exists and not force:
        raise InvalidInputError(f"{str(target)!r} exists already, expected a new path or force to replace it")
    if not parent_is_directory:
        raise InvalidInputError(
            f"cannot write {str(target)!r}: the directory {str(final.parent)!r} does not exist"
        )
    if not os.access(final.parent, os.W_OK | os.X_OK):
        raise InvalidInputError(
            f"cannot write {str(target)!r}: the directory {str(final.parent)!r} is not writable"
        )
    return final


def require_readable(source: str | Path) -> Path:
    """Check that ``source`` is a regular file.

    Raises:
        ValueError: when it is missing, a directory, a device or the like.
    """
    path = Path(source)
    try:
        exists, regular = path.exists(), path.is_file()
    except OSError as error:
        raise InvalidInputError(f"cannot read {str(source)!r}: {error.strerror}") from error
    if not exists:
        raise InvalidInputError(f"cannot read {str(source)!r}: there is no such file")
    if not regular:
        kind = "a directory" if path.is_dir() else "a device or pipe"
        raise InvalidInputError(f"cannot read {str(source)!r}: it is {kind}, expected a regular file")
    return path
