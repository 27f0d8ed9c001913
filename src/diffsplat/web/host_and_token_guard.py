"""Which requests a server answers: they name its host, come from its own pages, and carry the token."""

import hmac
import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from diffsplat.web.error_responses import error_response

API_PREFIX = "/api/"
OPEN_PATHS = frozenset(("/api/health",))
"""Answered in any case."""
_WITHOUT_TOKEN = OPEN_PATHS | {"/api/docs"}

_READING = frozenset(("GET", "HEAD", "OPTIONS"))


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine alone."""
    address = _address(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a host is given as; None for a name."""
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None


class HostAndTokenGuard:
    """ASGI middleware that refuses requests from elsewhere.

    Args:
        app: answers the requests that pass.
        token: clients send it as ``Authorization: Bearer ...`` with every request to the API; None asks for none.
        loopback_only: refuse requests for another host than this machine. A page elsewhere can point its name
            here (DNS rebinding), but its requests still carry that name. The port may be any, so that a forwarded
            one works.
        allowed_hosts: names that are answered besides this machine. Without any, a server that is not
            ``loopback_only`` answers to every address, and to every name if it asks for a token.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        token: str | None = None,
        loopback_only: bool = True,
        allowed_hosts: Collection[str] = (),
    ) -> None:
        self._app = app
        self._token = None if token is None else token.encode()
        self._loopback_only = loopback_only
        self._allowed_hosts = frozenset(name.lower() for name in allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on."""
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        headers, path = Headers(scope=scope), scope["path"]
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._answers_to(_without_port(host)):
            known = " or ".join(("localhost", *sorted(self._allowed_hosts)))
            return error_response(
                403,
                f"this server is reached as {known}, not as {host[:100]!r}, unless --allowed-host names it",
            )
        if origin is not None and scope["method"] not in _READING and not _same_host(origin, host):
            return error_response(403, "pages of other sites may not use this server")
        protected = path.startswith(API_PREFIX) and path not in _WITHOUT_TOKEN
        if protected and not self._authorized(headers):
            sentence = "the token is missing or wrong, expected the header 'Authorization: Bearer TOKEN'"
            return error_response(401, sentence, {"www-authenticate": "Bearer"})
        return None

    def _answers_to(self, host: str) -> bool:
        if is_loopback(host) or host.lower() in self._allowed_hosts:
            return True
        if self._loopback_only or self._allowed_hosts:
            return False
        # Names can be pointed here by anyone, addresses cannot.
        return self._token is not None or _address(host) is not None

    def _authorized(self, headers: Headers) -> bool:
        if self._token is None:
            return True
        scheme, _, given = headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(
            given.strip().encode("latin-1"), self._token
        )


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


def _same_host(origin: str, host: str) -> bool:
    try:
        return urlsplit(origin).netloc.lower() == host.lower()
    except ValueError:
        return False
