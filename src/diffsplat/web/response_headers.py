"""What every answer to a browser carries, and which requests are answered at all."""

from types import MappingProxyType

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        # Spark compiles WebAssembly and runs its sorting in workers that it makes from text in the bundle.
        "script-src 'self' 'wasm-unsafe-eval'",
        "worker-src 'self' blob:",
        "connect-src 'self' blob: data:",
        "img-src 'self' blob: data:",
        "media-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)

SECURITY_HEADERS = MappingProxyType(
    {
        "Content-Security-Policy": CONTENT_SECURITY_POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
)

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})


def host_allowed(header: str | None, port: int, names: frozenset[str] = LOOPBACK_NAMES) -> bool:
    """Whether the ``Host`` header of a request names this server.

    A page elsewhere can point a name of its own at 127.0.0.1 and have a browser read from here (DNS
    rebinding); its requests still carry that name.

    Args:
        header: as it came, or None.
        port: that this server listens on.
        names: that it goes by.
    """
    if header is None:
        return False
    name, colon, digits = header.strip().lower().rpartition(":")
    if not colon or digits.endswith("]"):
        return port == 80 and header.strip().lower() in names
    return name in names and digits == str(port)
