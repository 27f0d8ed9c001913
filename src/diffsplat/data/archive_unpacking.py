"""Unpacking archives of unknown origin: tar, zip and Debian packages, with bounds."""

from __future__ import annotations

import io
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import IO, Self

from diffsplat.errors import InvalidInputError, MissingFileError, explained_errors
from diffsplat.io.file_access import explained_os_errors, make_folder

MOST_BYTES = 16 << 30
MOST_FILES = 200_000
_INNER_SUFFIXES = (".sh3f",)
"""Archives inside the archive that are unpacked too, each into a folder named after it."""
_AR_MAGIC = b"!<arch>\n"
_AR_HEADER = 60
"""Bytes before each member of a Debian package, which is an ``ar`` archive (deb(5))."""
_DONE = ".unpacked"
_MOST_DESCRIPTION = 1 << 20
"""Bytes of a tar header that describes the member after it, such as a long name."""
_DESCRIPTIONS = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)


def unpack(source: Path, target: Path) -> Path:
    """A folder of the files of ``source``: itself when it is a folder, else ``target``, filled once.

    Only regular files and folders below ``target`` are made. An interrupted call leaves no ``target``.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: the file is not a tar archive, zip archive or Debian package, is damaged, or holds more than
            ``MOST_BYTES`` or ``MOST_FILES``; or ``target`` holds something else.
    """
    if source.is_dir():
        return source
    if not source.is_file():
        raise MissingFileError(f"no such archive or folder: {str(source)!r}")
    name = f"{source.name} {source.stat().st_size}"
    if target.exists():
        if not (target / _DONE).is_file() or (target / _DONE).read_text("utf-8") != name:
            raise InvalidInputError(f"{str(target)!r} does not hold {source.name}, expected no such folder")
        return target
    make_folder(target.parent)
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=target.parent) as scratch:
        folder = make_folder(Path(scratch) / "files")
        budget = _Budget(source)
        _unpack_file(source, folder, budget)
        for inner in sorted(path for path in folder.rglob("*") if path.suffix in _INNER_SUFFIXES):
            _unpack_file(inner, inner.with_suffix(""), budget)
        (folder / _DONE).write_text(name, encoding="utf-8")
        folder.rename(target)
    return target


class _Budget:
    """What may still be unpacked."""

    def __init__(self, source: Path) -> None:
        self._source = source
        self._bytes, self._files = MOST_BYTES, MOST_FILES

    def spend(self, size: int) -> None:
        self._bytes -= size
        self._files -= 1
        if self._bytes < 0 or self._files < 0:
            raise InvalidInputError(
                f"{str(self._source)!r} holds more than {MOST_BYTES >> 30} GiB or {MOST_FILES} files"
            )


class _BoundedTarInfo(tarfile.TarInfo):
    """A tar header; one that describes another member is read into memory whole, and has a bound."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        header = super().frombuf(buf, encoding, errors)
        if header.type in _DESCRIPTIONS and header.size > _MOST_DESCRIPTION:
            raise ValueError(
                f"a tar header has {header.size:,} bytes, expected at most {_MOST_DESCRIPTION:,}"
            )
        return header


def _unpack_file(source: Path, target: Path, budget: _Budget) -> None:
    with (
        explained_errors(
            f"{str(source)!r} is a damaged archive", Exception
        ),  # the readers raise almost anything
        source.open("rb") as file,
        explained_os_errors(f"cannot unpack {str(source)!r}"),
    ):
        debian = file.read(len(_AR_MAGIC)) == _AR_MAGIC
        file.seek(0)
        if archive := _opened_tar(_debian_data(source) if debian else file):
            with archive:
                _extract_tar(archive, target, budget)
        elif zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as archive:
                for member in archive.infolist():
                    budget.spend(member.file_size)
                    archive.extract(member, target)
        else:
            raise InvalidInputError(f"{str(source)!r} is not a readable tar or zip archive or Debian package")


def _opened_tar(file: IO[bytes]) -> tarfile.TarFile | None:
    """A tar archive, compressed or not; None for another file."""
    try:
        return tarfile.open(fileobj=file, tarinfo=_BoundedTarInfo)
    except tarfile.ReadError:
        return None


def _extract_tar(archive: tarfile.TarFile, target: Path, budget: _Budget) -> None:
    for member in archive:
        budget.spend(member.size)
        if member.isfile() or member.isdir():
            archive.extract(member, target, filter="data")
    while rest := archive.fileobj.read(1 << 20) if archive.fileobj else b"":
        budget.spend(len(rest))  # the end of the stream is where a cut shows


def _debian_data(package: Path) -> io.BytesIO:
    """The ``data.tar`` of a Debian package."""
    with package.open("rb") as file:
        file.seek(len(_AR_MAGIC))
        while len(header := file.read(_AR_HEADER)) == _AR_HEADER and header[48:58].strip().isdigit():
            size = int(header[48:58])
            if header.startswith(b"data.tar"):
                return io.BytesIO(file.read(size))
            file.seek(size + size % 2, io.SEEK_CUR)
    raise InvalidInputError(f"{str(package)!r} holds no data.tar, expected a Debian package")
