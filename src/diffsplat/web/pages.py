"""The web pages and the files that they are made of, read from the package once."""

import mimetypes
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable
from types import MappingProxyType

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

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
class StaticFile:
    """One file of a page: its bytes and their media type."""

    content: bytes
    media_type: str


@cache
def static_files() -> MappingProxyType[str, StaticFile]:
    """Every file of ``diffsplat/web/static`` by its path there, such as ``js/viewer.js``.

    A server that looks names up here cannot be made to read anything else.
    """
    return MappingProxyType(dict(_walk(resources.files("diffsplat.web").joinpath("static"), "")))


def page_routes(pages: Mapping[str, str]) -> list[Route]:
    """Routes of pages and of the static files that they load.

    Args:
        pages: names of ``.html`` files by URL path.
    """

    async def page(request: Request) -> Response:
        return _response(pages[request.url.path])

    async def static_file(request: Request) -> Response:
        return _response(request.path_params["name"])

    return [*(Route(path, page) for path in pages), Route("/static/{name:path}", static_file)]


def _response(name: str) -> Response:
    file = static_files().get(name)
    if file is None:
        raise HTTPException(404)
    return Response(file.content, media_type=file.media_type, headers={"cache-control": "no-cache"})


def _walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, StaticFile]]:
    for entry in folder.iterdir():
        name = f"{prefix}{entry.name}"
        if entry.is_dir():
            yield from _walk(entry, f"{name}/")
        else:
            yield name, StaticFile(entry.read_bytes(), _media_type(entry.name))


def _media_type(name: str) -> str:
    suffix = name[name.rfind(".") :].lower()
    return MEDIA_TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
