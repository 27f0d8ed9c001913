"""A server in a thread of the tests' own process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from diffsplat.web.server_process import listen, url_of

HOST = "127.0.0.1"


@contextmanager
def background_server(app: ASGIApp) -> Iterator[str]:
    """Runs until the block ends; gives the address."""
    with listen(HOST, 0) as listener:
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", ws="none", timeout_graceful_shutdown=1)
        )
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield url_of(listener, HOST)
        finally:
            server.should_exit = True
            thread.join()
