"""The pages of ``diffsplat serve``: files of the package, looked up by name and never opened by it."""

from fastapi import APIRouter, HTTPException
from fastapi.responses import JSONResponse, Response

from diffsplat.web.page_assets import static_assets

_HEADERS = {"cache-control": "no-cache"}

pages = APIRouter(include_in_schema=False)


@pages.get("/")
async def generate_page() -> Response:
    """Where objects are generated."""
    return _asset("generate.html")


@pages.get("/viewer")
async def viewer_page() -> Response:
    """Where files of one's own are looked at."""
    return _asset("viewer.html")


@pages.get("/files.json")
async def files_of_the_viewer() -> Response:
    """The viewer has nothing to begin with."""
    return JSONResponse([])


@pages.get("/static/{name:path}")
async def static_file(name: str) -> Response:
    """A part of a page."""
    return _asset(name)


def _asset(name: str) -> Response:
    asset = static_assets().get(name)
    if asset is None:
        raise HTTPException(404, "there is nothing here, see /api/docs")
    return Response(asset.content, media_type=asset.media_type, headers=_HEADERS)
