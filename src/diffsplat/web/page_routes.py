"""Routes of the web pages, and of the static files that they load."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

STATIC = Path(__file__).with_name("static")


def page_routes(pages: Mapping[str, str]) -> list[BaseRoute]:
    """Routes of pages and of everything under ``/static``.

    Args:
        pages: names of ``.html`` files by URL path.
    """
    files = _PageFiles(directory=STATIC)

    async def page(request: Request) -> Response:
        return await files.get_response(pages[request.url.path], request.scope)

    return [*(Route(path, page) for path in pages), Mount("/static", files)]


class _PageFiles(StaticFiles):
    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """A file that browsers keep, but ask about before they use it again."""
        response = super().file_response(*args, **kwargs)
        response.headers["cache-control"] = "no-cache"
        if str(args[0]).endswith(".js"):
            # Elsewhere the type comes from the system, and browsers run no module of another one.
            response.headers["content-type"] = "text/javascript; charset=utf-8"
        return response
