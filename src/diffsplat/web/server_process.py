"""The process of a server: its socket, its signals, its end."""

import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn
from uvicorn.config import Config

from diffsplat.errors import InvalidInputError
from diffsplat.web.api_routes import create_app
from diffsplat.web.generation_service import Service
from diffsplat.web.request_guard import is_loopback

logger = logging.getLogger(__name__)

_BACKLOG = 512
_GRACE_S = 5
"""Seconds for answers that are under way when the server is told to end."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any that is free.

    Raises:
        ValueError: when the address cannot be used.
    """
    if not 0 <= port <= 65535:
        raise InvalidInputError(f"the port is {port}, expected 0 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        raise InvalidInputError(
            f"cannot listen on {host!r}, port {port}: {error.strerror or error}"
        ) from error
    return listener


def serve(service: Service, listener: socket.socket, *, host: str, token: str | None) -> None:
    """Answer requests until SIGTERM or SIGINT; what is not finished then is cancelled.

    Args:
        service: what is served.
        listener: from :func:`listen`.
        host: that it listens on.
        token: what clients have to send; None when everybody may ask.
    """
    app = create_app(service, token=token, loopback_only=is_loopback(host))
    config = Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=service.limits.max_connections,
        timeout_graceful_shutdown=_GRACE_S,
        lifespan="on",
    )
    _Server(config, service.stop).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Tells the jobs to end before it waits for answers under way, so that no stream of events holds it up.

    Args:
        config: of uvicorn.
        on_exit: called when the server has been told to end.
    """

    def __init__(self, config: Config, on_exit: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_exit = on_exit

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End in order."""
        self._on_exit()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Unlike uvicorn's own, an orderly end is the end of the matter: the signal is not raised again."""
        before = {
            number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
