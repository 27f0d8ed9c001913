"""Limits of a server: queue, jobs, uploads, connections, and results that are kept."""

from dataclasses import dataclass, fields

from diffsplat.errors import require


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
    """The same, from one address but this machine's own, where a reverse proxy may be."""
    keep_jobs: int = 100
    """Finished jobs that are kept, the latest."""
    keep_bytes: int = 1_000_000_000
    """Bytes of the results of finished jobs, in memory and on disk; the latest job is kept in any case."""
    keep_seconds: float = 7 * 86_400.0
    """Seconds that a finished job is kept."""

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            require(value > 0, entry.name, value, "a number above 0")
