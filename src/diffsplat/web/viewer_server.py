"""Serves the viewer page and the files it shows to browsers on this machine."""

import json
import logging
from collections.abc import Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from diffsplat.errors import InvalidInputError
from diffsplat.web.page_assets import Asset, static_assets
from diffsplat.web.response_headers import SECURITY_HEADERS, host_allowed
from diffsplat.web.viewer_files import ShownFile

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
PAGE = "viewer.html"


class ViewerServer(ThreadingHTTPServer):
    """Answers on 127.0.0.1 with the page, its parts and the files given here, and with nothing else.

    Start it with ``serve_forever``, end it with ``shutdown`` and ``server_close``, as any server of
    :mod:`http.server`.
    """

    daemon_threads = True

    def __init__(self, files: Sequence[ShownFile], *, port: int = 0) -> None:
        """Listen, without answering yet.

        Args:
            files: that the page shows.
            port: to listen on; 0 takes a free one.

        Raises:
            ValueError: the port cannot be had.
        """
        self.files = tuple(files)
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InvalidInputError(f"port {port} of {HOST} cannot be listened on: {reason}") from error

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"http://{HOST}:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    server: ViewerServer  # pyright: ignore[reportIncompatibleVariableOverride]
    server_version = "diffsplat"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        """Answer with what is asked for."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """Answer as to GET, without the bytes."""
        self._answer(body=False)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Log requests where Python's logging sends them, not to stderr."""
        logger.debug("%s %s", self.address_string(), format % args)

    def _answer(self, *, body: bool) -> None:
        if not host_allowed(self.headers.get("Host"), self.server.server_port):
            self._send(
                HTTPStatus.FORBIDDEN, _text(f"This server answers to {self.server.url} only."), body=body
            )
            return
        try:
            asset = self._find(urlsplit(self.path).path)
        except (ValueError, OSError) as error:
            logger.warning("%s", error)
            reason = str(error)
            self._send(HTTPStatus.NOT_FOUND, _text(f"{reason[:1].upper()}{reason[1:]}."), body=body)
            return
        if asset is None:
            self._send(HTTPStatus.NOT_FOUND, _text("There is nothing here."), body=body)
        else:
            self._send(HTTPStatus.OK, asset, body=body)

    def _find(self, path: str) -> Asset | None:
        """What a path of a request stands for: names are looked up, never opened."""
        if path == "/":
            return static_assets()[PAGE]
        if path == "/files.json":
            return Asset(json.dumps(self._listing()).encode(), "application/json")
        if path.startswith("/static/"):
            return static_assets().get(path.removeprefix("/static/"))
        numbers = {f"/files/{number}": file for number, file in enumerate(self.server.files)}
        if path in numbers:
            return Asset(numbers[path].content(), "application/octet-stream")
        return None

    def _listing(self) -> list[dict[str, object]]:
        return [
            {"url": f"files/{number}", "name": file.name, "sent_as": file.sent_as, "bytes": file.size}
            for number, file in enumerate(self.server.files)
        ]

    def _send(self, status: HTTPStatus, asset: Asset, *, body: bool) -> None:
        self.send_response(status)
        for name, value in SECURITY_HEADERS.items():
            self.send_header(name, value)
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Content-Type", asset.media_type)
        self.send_header("Content-Length", str(len(asset.content)))
        self.end_headers()
        if body:
            self.wfile.write(asset.content)


def _text(sentence: str) -> Asset:
    return Asset(sentence.encode(), "text/plain; charset=utf-8")
