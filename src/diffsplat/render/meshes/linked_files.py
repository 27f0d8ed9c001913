"""Files that a mesh file refers to, found under the names that other systems wrote."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from diffsplat.errors import InvalidInputError, MissingFileError
from diffsplat.io.file_access import read_bytes


def read_linked(name: str, *folders: Path) -> bytes:
    """The content of the file that a mesh calls ``name``, in the first of ``folders`` where it is found.

    The name may be percent-encoded, written with backslashes or other capitals, or be a path on another machine
    whose last part lies in such a folder or a folder in it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is on the network, or not a regular file.
    """
    if name.lower().startswith(("http://", "https://")):
        raise InvalidInputError("is on the network, expected a file beside the mesh")
    try:
        found = next(
            (path for folder in folders for path in _candidates(folder, name) if path.exists()), None
        )
    except (OSError, ValueError):  # a name that is too long or holds a zero byte
        found = None
    if found is None or found.is_dir():
        raise MissingFileError("is missing")
    return read_bytes(found)


def _candidates(folder: Path, name: str) -> Iterator[Path]:
    name = name.strip().strip('"').removeprefix("file://")
    plain = unquote(name).replace("\\", "/")
    spellings = dict.fromkeys((name, unquote(name), plain, plain.partition("?")[0]))
    for spelling in spellings:
        if spelling:
            yield folder / spelling
    for spelling in spellings:
        yield from _in_other_capitals(folder, spelling)
    last = plain.rpartition("/")[2]
    for place in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        yield from _in_other_capitals(place, last)


def _in_other_capitals(folder: Path, name: str) -> Iterator[Path]:
    """The paths below ``folder`` that differ from ``name`` in capitals or the composition of letters only."""
    places = [folder]
    for part in Path(name).parts:
        if part == "..":
            places = [place / part for place in places]
        else:
            places = [
                entry
                for place in places
                if place.is_dir()
                for entry in sorted(place.iterdir())
                if _folded(entry.name) == _folded(part)
            ]
    if name:
        yield from places


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
