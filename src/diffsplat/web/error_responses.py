"""Errors as responses: one sentence in JSON; internal errors get an id that leads to the traceback in the log."""

import logging
import secrets

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)


def error_response(status: int, sentence: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """The response of every error."""
    return JSONResponse({"detail": sentence}, status, headers)


def internal_error_sentence(error: BaseException) -> str:
    """A sentence with a new id, for the client and for the log, that says no more than the error's type."""
    return f"internal error {secrets.token_hex(4)} ({type(error).__name__}), see the server's log"


class InternalErrors:
    """ASGI middleware that answers with status 500 when the application fails."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; a response that has started is cut short."""
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except Exception as error:
            if scope["type"] != "http":
                raise
            sentence = internal_error_sentence(error)
            logger.exception("%s %s: %s", scope["method"], scope["path"], sentence)
            if not started:
                await error_response(500, sentence)(scope, receive, send)
