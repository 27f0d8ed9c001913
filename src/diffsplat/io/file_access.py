"""Reading and writing files: errors as one sentence, output files either complete or absent."""

import errno
import os
import re
import secrets
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from diffsplat.errors import DiffSplatError, DiskError, InvalidInputError

STORAGE_ERRORS = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS))
"""Errors of a disk, whoever writes to it."""


@contextmanager
def explained_os_errors(failure: str, only: frozenset[int] | None = None) -> Iterator[None]:
    """Turn errors of the operating system into one sentence for the user.

    Args:
        failure: the sentence's beginning, such as ``cannot write 'a.ply'``; the system's reason follows.
        only: error numbers that are turned; all of them by default.

    Raises:
        ValueError: in place of an error with such a number; a ``DiskError`` for those of a disk.
    """
    try:
        yield
    except DiffSplatError:
        raise
    except Exception as error:
        number = _os_error_number(error)
        if number is None or (only is not None and number not in only):
            raise
        reason = error.strerror if isinstance(error, OSError) else os.strerror(number)
        kind = DiskError if number in STORAGE_ERRORS else InvalidInputError
        raise kind(f"{failure}: {reason}") from error


def _os_error_number(error: Exception) -> int | None:
    """The system's number of an error; libraries in Rust, such as safetensors, give it in their text."""
    if isinstance(error, OSError):
        return error.errno
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found[1]) if found else None


@contextmanager
def atomic_path(target: str | Path, *, force: bool = False) -> Iterator[Path]:
    """A temporary path in the directory of ``target``, moved to ``target`` when the block succeeds.

    On any failure inside the block, an interrupt included, the temporary file is removed and an existing
    target stays as it was. A symbolic link is followed, so the file it names is the one replaced.

    Args:
        target: the file to write.
        force: allow an existing file to be replaced.

    Yields:
        Path of an empty file in the same directory with the same suffix.

    Raises:
        ValueError: see :func:`require_writable`; also when the disk is full or fails inside the block.
    """
    final = require_writable(target, force=force)
    temporary = final.parent / f".diffsplat-{secrets.token_hex(8)}{final.suffix}"
    failure = f"cannot write {str(target)!r}"
    with explained_os_errors(failure):
        temporary.touch(exist_ok=False)
    try:
        with explained_os_errors(failure, STORAGE_ERRORS):
            yield temporary
        with explained_os_errors(failure):
            if final.suffix == ".safetensors":
                give_usual_permissions(temporary)
            if force:
                os.replace(temporary, final)
            else:
                _move_to_new(temporary, final, target)
    finally:
        temporary.unlink(missing_ok=True)


def give_usual_permissions(path: Path) -> None:
    """Let others read weights, a file or all in a folder, as any new file: safetensors writes for its owner alone."""
    folder, files = (path, path.rglob("*.safetensors")) if path.is_dir() else (path.parent, [path])
    probe = folder / f".diffsplat-{secrets.token_hex(8)}"
    probe.touch(exist_ok=False)
    permissions = probe.stat().st_mode
    probe.unlink()
    for file in files:
        if not file.is_symlink():
            file.chmod(permissions)


def _move_to_new(temporary: Path, final: Path, target: str | Path) -> None:
    """Move a file to a path that is free; of several processes that want the same one, all but the first fail."""
    try:
        try:
            os.link(temporary, final)
        except FileExistsError:
            raise
        except OSError as error:  # a file system without hard links
            if error.errno in STORAGE_ERRORS:
                raise
            final.touch(exist_ok=False)
            os.replace(temporary, final)
    except FileExistsError as error:
        raise InvalidInputError(_taken(target)) from error


def _taken(target: str | Path) -> str:
    return f"{str(target)!r} exists already, expected a new path or force to replace it"


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
    failure = f"cannot write {str(target)!r}"
    with explained_os_errors(failure):
        final = Path(target).resolve()
        parent_is_directory, exists = final.parent.is_dir(), final.exists()
    if final.is_dir():
        raise InvalidInputError(f"{failure}: it is a directory, expected the path of a file")
    if exists and not final.is_file():
        raise InvalidInputError(f"{failure}: it is a device or pipe, expected a regular file")
    if exists and not force:
        raise InvalidInputError(_taken(target))
    if not parent_is_directory:
        raise InvalidInputError(f"{failure}: the directory {str(final.parent)!r} does not exist")
    if not os.access(final.parent, os.W_OK | os.X_OK):
        raise InvalidInputError(f"{failure}: the directory {str(final.parent)!r} is not writable")
    with explained_os_errors(failure), tempfile.TemporaryFile(dir=final.parent):
        pass  # Some folders take no file whatever their permissions say.
    return final


def require_suffix(path: str | Path, suffixes: Collection[str], kind: str = "") -> str:
    """The suffix of a path in lower case, if it is one of some; errors name the kind of file, as in ``a video: ``.

    Raises:
        ValueError: it is none of them.
    """
    suffix = Path(path).suffix
    if suffix.lower() not in suffixes:
        raise InvalidInputError(
            f"{str(path)!r} has the suffix {suffix!r}, expected {kind}{', '.join(suffixes)}"
        )
    return suffix.lower()


def require_readable(source: str | Path) -> Path:
    """Check that ``source`` is a regular file that may be read.

    Raises:
        ValueError: when it is missing, a directory, a device or the like, or its permissions forbid it.
    """
    path, failure = Path(source), f"cannot read {str(source)!r}"
    with explained_os_errors(failure):
        exists, regular = path.exists(), path.is_file()
    if not exists:
        raise InvalidInputError(f"{failure}: there is no such file")
    if not regular:
        kind = "a directory" if path.is_dir() else "a device or pipe"
        raise InvalidInputError(f"{failure}: it is {kind}, expected a regular file")
    if not os.access(path, os.R_OK):
        raise InvalidInputError(f"{failure}: its permissions forbid it")
    return path


def read_bytes(source: str | Path) -> bytes:
    """The content of a regular file.

    Raises:
        ValueError: see :func:`require_readable`; also when the disk fails.
    """
    path = require_readable(source)
    with explained_os_errors(f"cannot read {str(source)!r}"):
        return path.read_bytes()


def make_folder(folder: str | Path) -> Path:
    """Make a folder, and those that it lies in, unless it is there.

    Raises:
        ValueError: when it cannot be made: no permission, no space, or a file in its place.
    """
    path = Path(folder)
    with explained_os_errors(f"cannot make the folder {str(folder)!r}"):
        path.mkdir(parents=True, exist_ok=True)
    return path
