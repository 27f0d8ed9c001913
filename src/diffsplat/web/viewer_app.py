"""The application of ``diffsplat view``: the viewer page and the local files that it shows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from diffsplat.errors import DiffSplatError, InvalidInputError, one_line, require
from diffsplat.io.file_access import require_readable
from diffsplat.io.splat_suffixes import MESH_SUFFIX, READABLE_SUFFIXES, splat_stem, splat_suffix
from diffsplat.web.error_responses import InternalErrors
from diffsplat.web.host_and_token_guard import HostAndTokenGuard
from diffsplat.web.page_routes import page_routes
from diffsplat.web.response_headers import ResponseHeaders

MAX_FILES = 8
"""Each needs a graphics context of its own, of which browsers give about sixteen."""

BROWSER_SUFFIXES = frozenset({".ply", ".compressed.ply", ".splat", ".spz", ".ksplat", ".sog"})
"""Formats that the page decodes by itself; others are converted to .ply for it."""

_MEDIA_TYPE = "application/octet-stream"
_MAX_JSON_BYTES = 1 << 20


@dataclass(frozen=True)
class LocalFile:
    """A file given on the command line; it is read again for every request, so that a page can be reloaded.

    Args:
        path: where it is.
        size: bytes it had when it was given.
    """

    path: Path
    size: int

    @property
    def sent_as(self) -> str:
        """File name whose suffix is the format of :meth:`response`."""
        return self.path.name if self._native else f"{self.path.name}.ply"

    @property
    def mesh(self) -> Path | None:
        """The triangle mesh beside it: ``chair.mesh.glb`` or ``chair.glb`` of ``chair.ply``."""
        stem = splat_stem(self.path)
        beside = (self.path.with_name(stem + suffix) for suffix in (MESH_SUFFIX, ".glb"))
        return next((path for path in beside if path != self.path and _holds_triangles(path)), None)

    @property
    def _native(self) -> bool:
        return splat_suffix(self.path) in BROWSER_SUFFIXES

    def response(self) -> Response:
        """The file, or a ``.ply`` that holds the same splats.

        Raises:
            ValueError: when the file cannot be read any more.
        """
        if self._native:
            return FileResponse(require_readable(self.path), media_type=_MEDIA_TYPE)
        # Reading takes torch, whose import takes seconds; most files are served without it.
        from diffsplat.io.splat_formats import read_splats, write_splats

        splats = read_splats(self.path)
        with TemporaryDirectory() as folder:
            converted = Path(folder) / "converted.ply"
            write_splats(splats, converted)
            return Response(converted.read_bytes(), media_type=_MEDIA_TYPE)

    def mesh_response(self) -> Response:
        """The file of :attr:`mesh`.

        Raises:
            ValueError: when there is none any more.
        """
        path = self.mesh
        if path is None:
            raise InvalidInputError(f"there is no mesh beside {self.path.name!r} any more")
        return FileResponse(path, media_type="model/gltf-binary")


def local_files(paths: Sequence[Path]) -> tuple[LocalFile, ...]:
    """The files to show, checked as far as that is quick.

    Raises:
        ValueError: too many, an unknown suffix, or one that is missing or no file.
    """
    require(len(paths) <= MAX_FILES, "the number of files", len(paths), f"at most {MAX_FILES}")
    for path in paths:
        if splat_suffix(path) is None:
            known = ", ".join(READABLE_SUFFIXES)
            raise InvalidInputError(f"{str(path)!r} is not the name of a splat file, expected one of {known}")
        require_readable(path)
    return tuple(LocalFile(path, path.stat().st_size) for path in paths)


def local_file_routes(files: Sequence[LocalFile]) -> list[Route]:
    """Routes of the list of files, which the viewer page asks for, and of each file."""

    async def listing(_: Request) -> Response:
        return JSONResponse(
            [
                {
                    "url": f"files/{number}",
                    "name": file.path.name,
                    "sent_as": file.sent_as,
                    "bytes": file.size,
                    "mesh": f"files/{number}/mesh" if file.mesh else None,
                }
                for number, file in enumerate(files)
            ]
        )

    routes = [
        (f"/files/{number}{part}", respond)
        for number, file in enumerate(files)
        for part, respond in (("", file.response), ("/mesh", file.mesh_response))
    ]
    return [Route("/files.json", listing), *(_file_route(path, respond) for path, respond in routes)]


def create_viewer_app(files: Sequence[LocalFile]) -> Starlette:
    """The application; it serves the viewer page, its parts and these files, to this machine alone."""
    app = Starlette(
        routes=[*page_routes({"/": "viewer.html"}), *local_file_routes(files)],
        middleware=[Middleware(ResponseHeaders), Middleware(HostAndTokenGuard), Middleware(InternalErrors)],
        exception_handlers={404: lambda *_: PlainTextResponse("There is nothing here.", 404)},
    )
    app.router.redirect_slashes = False
    return app


def _holds_triangles(path: Path) -> bool:
    """Whether a file is a ``.glb`` that does not hold splats, as far as its JSON says."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            header = file.read(20)
            text = file.read(min(int.from_bytes(header[12:16], "little"), _MAX_JSON_BYTES))
    except OSError:
        return False
    return header.startswith(b"glTF") and b"KHR_gaussian_splatting" not in text


def _file_route(path: str, respond: Callable[[], Response]) -> Route:
    def answer(_: Request) -> Response:
        try:
            return respond()
        except DiffSplatError as error:
            reason = one_line(error)
            return PlainTextResponse(f"{reason[:1].upper()}{reason[1:]}.", 404)

    return Route(path, answer)
