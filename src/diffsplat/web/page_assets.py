"""The files that the pages are made of, read from the package once."""

import mimetypes
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from types import MappingProxyType

MEDIA_TYPES = MappingProxyType(
    {
        ".css": "text/css; charset=utf-8",
        ".html": "text/html; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".svg": "image/svg+xml",
        ".txt": "text/plain; charset=utf-8",
    }
)


@dataclass(frozen=True)
class Asset:
    """One file of a page: its bytes and what a browser has to be told they are."""

    content: bytes
    media_type: str


@cache
def static_assets() -> MappingProxyType[str, Asset]:
    """Every file of ``diffsplat/web/static`` by its path there, such as ``js/viewer.js``.

    A server that looks names up here cannot be talked into reading anything else.
    """
    return MappingProxyType(dict(_walk(resources.files("diffsplat.web").joinpath("static"), "")))


def _walk(folder: Traversable, prefix: str) -> list[tuple[str, Asset]]:
    found: list[tuple[str, Asset]] = []
    for entry in folder.iterdir():
        name = f"{prefix}{entry.name}"
        if entry.is_dir():
            found += _walk(entry, f"{name}/")
        else:
            found.append((name, Asset(entry.read_bytes(), _media_type(entry.name))))
    return found


def _media_type(name: str) -> str:
    suffix = name[name.rfind(".") :].lower()
    return MEDIA_TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
