"""Limits of a server: queue, jobs, uploads, connections, and results that are kept."""

from dataclasses import dataclass, fields

from diffsplat.errors import InvalidInputError


@dataclass(frozen=True)
class ConnectionLimits:
    """Limits of connections.

    Args:
        requests: under way at once; beyond, a request is refused (503), health excepted.
        requests_per_address: likewise, of one client; loopback addresses are excepted, where a reverse proxy may be.
        head_seconds: for the head of a request to arrive, counted from when the connection waits for one.
        stall_seconds: for which a client may take nothing of a response that it is sent.
    """

    requests: int = 256
    requests_per_address: int = 64
    head_seconds: float = 10.0
    stall_seconds: float = 30.0


@dataclass(frozen=True)
class Limits:
    """Limits of a server, each above 0."""

    max_queued: int = 16
    """Jobs that wait; beyond, a request is refused for the moment (429)."""
    max_steps: int = 100
    """Denoising steps of a job."""
    max_count: int = 4
    """Objects of a job."""
    max_upload_bytes: int = 10_000_000
    """Bytes of an image file."""
    max_pixels: int = 20_000_000
    """Width times height of an image."""
    upload_seconds: float = 30.0
    """Seconds for a request's body to arrive."""
    head_seconds: float = 10.0
    """Seconds for a request's head to arrive, from when the connection waits for one."""
    stall_seconds: float = 30.0
    """Seconds for which a client may take nothing of a response that it is sent."""
    max_requests: int = 256
    """Requests under way at once; beyond, one is refused (503), health excepted. Silent connections do not count:
    the oldest is closed when its place is needed."""
    max_requests_per_address: int = 64
    """The same, from one address but this machine's own."""
    keep_jobs: int = 100
    """Finished jobs that are kept, the latest."""
    keep_bytes: int = 1_000_000_000
    """Bytes of the results of finished jobs, in memory and on disk; the latest job is kept in any case."""
    keep_seconds: float = 7 * 86_400.0
    """Seconds that a finished job is kept."""

    @property
    def connections(self) -> ConnectionLimits:
        """Those of connections."""
        return ConnectionLimits(
            self.max_requests, self.max_requests_per_address, self.head_seconds, self.stall_seconds
        )

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if not value > 0:
                raise InvalidInputError(f"{entry.name} is {value}, expected a number above 0")
