"""Connections of a server: how many there are, and how long each may keep it waiting.

uvicorn limits neither how long a request's head takes to arrive nor how long a response takes to be received, and
counts silent connections like requests. Here, silent connections make room for new ones.
"""

import asyncio
from collections import Counter
from functools import partial
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from diffsplat.web.error_responses import error_response
from diffsplat.web.host_and_token_guard import OPEN_PATHS, is_loopback
from diffsplat.web.server_limits import Limits

_NEVER = float("inf")
_GRACE_S = 0.25
"""Seconds that a connection has in any case."""
_RESERVE = 32
"""Connections beyond the requests that may be under way, so that health and refusals are always answered."""


class LimitedConnection(H11Protocol):
    """uvicorn's connection, closed when it is silent for too long, or when its place is needed while it is silent."""

    def __init__(self, *args: Any, limits: Limits, **options: Any) -> None:
        super().__init__(*args, **options)
        self._limits = limits
        self._head_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  as in uvicorn
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._await_head()
        # Not at once: when several arrive together, none of their heads has been read yet.
        self.loop.call_later(_GRACE_S, self._make_room)

    @property
    def waits_until(self) -> float:
        """When its wait for a head ends, on the loop's clock; never while a request is under way."""
        return _NEVER if self._head_timer is None else self._head_timer.when()

    def data_received(self, data: bytes) -> None:
        """Take a piece of a request."""
        super().data_received(data)
        self._await_head()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self._await_head()

    def pause_writing(self) -> None:
        """The client takes less than it is sent."""
        super().pause_writing()
        self._watch_receipt()

    def resume_writing(self) -> None:
        """The client has caught up."""
        super().resume_writing()
        self._stall_timer = _cancelled(self._stall_timer)

    def connection_lost(self, exc: Exception | None) -> None:
        """End all timers."""
        self._head_timer, self._stall_timer = _cancelled(self._head_timer), _cancelled(self._stall_timer)
        super().connection_lost(exc)

    def _watch_receipt(self, left_before: int | None = None) -> None:
        """Close the connection when the client has taken nothing since ``left_before`` bytes were to be sent."""
        left = self.transport.get_write_buffer_size()
        if left == left_before:
            self.transport.abort()
        else:
            self._stall_timer = self.loop.call_later(self._limits.stall_seconds, self._watch_receipt, left)

    def _make_room(self) -> None:
        """While there are too many connections, close the one that has waited longest for a request."""
        there = [other for other in self.connections if not other.transport.is_closing()]
        if len(there) <= self._limits.max_requests + _RESERVE:
            return
        silent = [
            other for other in there if isinstance(other, LimitedConnection) and other.waits_until < _NEVER
        ]
        if silent:
            # A connection that has carried a request is likelier to carry another.
            min(silent, key=lambda other: (other.cycle is not None, other.waits_until)).transport.abort()

    def _await_head(self) -> None:
        """Start or end the timer of the head, as the connection waits for one or not."""
        under_way = self.cycle is not None and not self.cycle.response_complete
        if under_way or self.transport.is_closing():
            self._head_timer = _cancelled(self._head_timer)
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(self._limits.head_seconds, self.transport.close)


def _cancelled(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()


def limited_connections(limits: Limits) -> Any:
    """What uvicorn's option ``http`` takes."""
    return partial(LimitedConnection, limits=limits)


class RequestLimit:
    """ASGI middleware that refuses requests while too many are under way, health excepted."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app = app
        self._limits = limits
        self._under_way: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            return await self._app(scope, receive, send)
        address = (scope.get("client") or ("", 0))[0]
        if self._crowded(address):
            sentence = "the server is busy; try again in a moment"
            refusal = error_response(503, sentence, {"retry-after": "5", "connection": "close"})
            return await refusal(scope, receive, send)
        self._under_way[address] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._under_way[address] -= 1
            if not self._under_way[address]:
                del self._under_way[address]

    def _crowded(self, address: str) -> bool:
        of_address = 0 if is_loopback(address) else self._under_way[address]
        return (
            of_address >= self._limits.max_requests_per_address
            or self._under_way.total() >= self._limits.max_requests
        )
