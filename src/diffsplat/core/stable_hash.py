"""Numbers that a text has on every machine and in every run, to choose, order and seed by."""

import hashlib


def stable_hash(text: str) -> int:
    """The first 64 bits of the SHA-256 of ``text`` in UTF-8."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big")


def stable_seed(text: str) -> int:
    """The first 32 bits of :func:`stable_hash`."""
    return stable_hash(text) >> 32
