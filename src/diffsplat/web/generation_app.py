"""The application of ``diffsplat serve``: the pages, the API, and errors as responses."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from diffsplat import __version__
from diffsplat.errors import DiffSplatError, DiskError, one_line
from diffsplat.web.api_docs_page import docs_page
from diffsplat.web.api_routes import router
from diffsplat.web.api_schemas import first_sentence
from diffsplat.web.error_responses import InternalErrors, error_response
from diffsplat.web.generation_service import Service
from diffsplat.web.host_and_token_guard import HostAndTokenGuard
from diffsplat.web.job_queue import QueueFullError, StoppedError
from diffsplat.web.page_routes import page_routes
from diffsplat.web.response_headers import ResponseHeaders
from diffsplat.web.uploaded_images import TooLargeError
from diffsplat.web.viewer_app import local_file_routes

logger = logging.getLogger(__name__)

_PAGES = {"/": "generate.html", "/viewer": "viewer.html"}
_DOCS_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; connect-src 'self'; img-src blob:; "
    "style-src 'unsafe-inline'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
}


def create_app(
    service: Service,
    *,
    token: str | None = None,
    loopback_only: bool = True,
    allowed_hosts: Collection[str] = (),
) -> FastAPI:
    """The application; its jobs are worked on while it runs.

    Args:
        service: models, jobs and files.
        token: see :class:`~diffsplat.web.host_and_token_guard.HostAndTokenGuard`.
        loopback_only: likewise.
        allowed_hosts: likewise.
    """

    app = FastAPI(
        title="diffsplat",
        version=__version__,
        summary="Text, images and control maps to 3D Gaussian splats.",
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
        lifespan=_lifespan,
        routes=[*page_routes(_PAGES), *local_file_routes(())],
        middleware=[
            Middleware(ResponseHeaders),
            Middleware(
                HostAndTokenGuard, token=token, loopback_only=loopback_only, allowed_hosts=allowed_hosts
            ),
            Middleware(InternalErrors),
        ],
    )
    for kind, respond in _RESPONSES.items():
        app.add_exception_handler(kind, lambda _, error, respond=respond: respond(error))
    app.state.service = service
    app.state.token_needed = token is not None
    app.include_router(router)
    app.add_api_route("/api/docs", _documentation, include_in_schema=False, response_class=HTMLResponse)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    service.jobs.start()
    try:
        yield
    finally:
        if not await asyncio.to_thread(service.close):
            logger.warning("a denoising step did not end in time")


async def _documentation(request: Request) -> HTMLResponse:
    return HTMLResponse(docs_page(request.app.openapi()), headers=_DOCS_HEADERS)


def _http_error(error: HTTPException) -> JSONResponse:
    standard = {
        "Not Found": "there is nothing here, see /api/docs",
        "Method Not Allowed": "this address has another method, see /api/docs",
    }
    sentence = standard.get(error.detail, error.detail)
    return error_response(error.status_code, sentence, dict(error.headers or {}))


_RESPONSES: dict[type[Exception], Callable[[Any], JSONResponse]] = {
    HTTPException: _http_error,
    RequestValidationError: lambda error: error_response(422, first_sentence(list(error.errors()))),
    TooLargeError: lambda error: error_response(413, one_line(error)),
    DiskError: lambda error: error_response(507, one_line(error)),
    DiffSplatError: lambda error: error_response(422, one_line(error)),
    QueueFullError: lambda error: error_response(429, str(error), {"retry-after": str(error.retry_after_s)}),
    StoppedError: lambda error: error_response(503, str(error)),
}
"""Responses to expected errors, by type; any other is answered by :class:`InternalErrors`."""
