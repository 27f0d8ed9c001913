"""The process of a server: its socket, its signals, its end."""

import contextlib
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import Config

from diffsplat.errors import require
from diffsplat.io.file_access import explained_os_errors
from diffsplat.web.server_connections import RequestLimit, limited_connections
from diffsplat.web.server_limits import Limits

_BACKLOG = 512
_GRACE_S = 5
"""Seconds for responses that are under way when the server is told to end."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any that is free.

    Raises:
        ValueError: when the address cannot be used.
    """
    require(0 <= port <= 65535, "the port", port, "0 to 65535")
    with explained_os_errors(f"cannot listen on {host!r}, port {port}"):
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    return listener


def url_of(listener: socket.socket, host: str) -> str:
    """Address of a server's page."""
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{listener.getsockname()[1]}/"


def serve(
    app: ASGIApp,
    listener: socket.socket,
    *,
    on_exit: Callable[[], None] = lambda: None,
    limits: Limits | None = None,
) -> None:
    """Answer requests until SIGTERM or SIGINT.

    Args:
        app: what answers.
        listener: from :func:`listen`.
        on_exit: called after the signal, before responses under way are waited for.
        limits: of connections.
    """
    limits = limits or Limits()
    config = Config(
        RequestLimit(app, limits),
        http=limited_connections(limits),
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_graceful_shutdown=_GRACE_S,
        lifespan="on",
    )
    _Server(config, on_exit).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Calls ``on_exit`` before it waits for responses under way, so that no stream of events holds it up."""

    def __init__(self, config: Config, on_exit: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_exit = on_exit

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Call ``on_exit``, then end as uvicorn does."""
        self._on_exit()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Unlike uvicorn's own, does not raise the signal again after an orderly end."""
        before = {
            number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
