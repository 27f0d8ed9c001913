"""What every request passes first: the right host, the right origin, the token; and headers on every answer."""

import hmac
import ipaddress
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from diffsplat.web.response_headers import LOOPBACK_NAMES, SECURITY_HEADERS

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

API_PREFIX = "/api/"
OPEN_PATHS = frozenset(("/api/health",))
"""What is answered without the token, besides the page itself, which asks for it."""

_READING = frozenset(("GET", "HEAD", "OPTIONS"))
_HEADERS = tuple(
    (name.lower().encode(), value.encode())
    for name, value in {**SECURITY_HEADERS, "Cache-Control": "no-store"}.items()
)


def is_loopback(host: str) -> bool:
    """Whether a name or address is that of this machine alone."""
    if host.lower() in LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Guard:
    """ASGI middleware.

    Args:
        app: what answers requests that pass.
        token: clients send it as ``Authorization: Bearer ...``; None when everybody may ask.
        loopback_only: refuse requests that name another host than this machine, so that a page elsewhere whose
            name was pointed here (DNS rebinding) gets nothing.
    """

    def __init__(self, app: App, *, token: str | None = None, loopback_only: bool = True) -> None:
        self._app = app
        self._token = None if token is None else token.encode()
        self._loopback_only = loopback_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message.get("headers", ())}
                missing = [header for header in _HEADERS if header[0] not in present]
                message["headers"] = [*message.get("headers", ()), *missing]
            await send(message)

        refusal = self._refusal(scope)
        if refusal is None:
            await self._app(scope, receive, send_with_headers)
        else:
            await _answer(send_with_headers, *refusal)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Status and sentence for a request that may not pass."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if self._loopback_only and not is_loopback(_name_of(host)):
            return 403, f"this server is reached as localhost, not as {host[:100]!r}"
        origin = headers.get(b"origin")
        if origin is not None and scope["method"] not in _READING and not _same(origin, host):
            return 403, "a page of another site may not use this server"
        path = scope["path"]
        if path.startswith(API_PREFIX) and path not in OPEN_PATHS and not self._is_known(headers):
            return 401, "the token is missing or wrong, expected the header 'Authorization: Bearer TOKEN'"
        return None

    def _is_known(self, headers: dict[bytes, bytes]) -> bool:
        if self._token is None:
            return True
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), self._token)


def _name_of(host: str) -> str:
    """A Host header without its port."""
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


def _same(origin: bytes, host: str) -> bool:
    try:
        return urlsplit(origin.decode("latin-1")).netloc.lower() == host.lower()
    except ValueError:
        return False


async def _answer(send: Send, status: int, sentence: str) -> None:
    body = json.dumps({"detail": sentence}).encode()
    headers: Iterable[tuple[bytes, bytes]] = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *([(b"www-authenticate", b"Bearer")] if status == 401 else []),
    ]
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})
