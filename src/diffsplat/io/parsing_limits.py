"""Limits and checks for parsing files of unknown origin: decompressed size, JSON size and types."""

import json
import zlib
from math import nan
from typing import Any

from diffsplat.errors import InvalidInputError

GROWTH = 10
"""How many times larger than the file what is unpacked from it may be."""

_MODERATE = 1 << 26
"""Bytes that are always allowed: Gaussians in a regular order are packed several hundred times smaller."""

_MAX_JSON_MARKS = 200_000


def unpacked_limit(size: int) -> int:
    """Bytes that may be unpacked from a file of ``size`` bytes."""
    return max(GROWTH * size, _MODERATE)


def gunzip(data: bytes, most: int) -> tuple[bytes, int]:
    """The first ``most`` bytes of a gzip stream, inflated, and how many bytes follow it where it ends there.

    Raises:
        ValueError: when the stream is broken or cut.
    """
    decoder = zlib.decompressobj(wbits=31)
    try:
        inflated = decoder.decompress(data, most)
        more = not decoder.eof and bool(decoder.decompress(decoder.unconsumed_tail, 1))
    except zlib.error as error:
        raise InvalidInputError(f"its gzip stream is broken ({error})") from error
    if not (decoder.eof or more):
        raise InvalidInputError("its gzip stream is cut")
    return inflated, len(decoder.unused_data)


def parse_json(data: bytes) -> dict[str, Any]:
    """A JSON object, members that are null left out.

    Raises:
        ValueError: when it is no JSON, no object, nested too deeply, or has absurdly many parts.
    """
    marks = sum(data.count(mark) for mark in (b",", b"[", b"{"))
    if marks > _MAX_JSON_MARKS:
        raise InvalidInputError(f"its JSON has {marks} parts, expected at most {_MAX_JSON_MARKS}")
    try:
        parsed = json.loads(data, object_hook=without_nulls)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError("its JSON is broken") from error
    if not isinstance(parsed, dict):
        raise InvalidInputError("its JSON is not an object")
    return parsed


def without_nulls(members: dict[str, Any]) -> dict[str, Any]:
    """A JSON object without the members that programs write as null for "none"."""
    return {key: value for key, value in members.items() if value is not None}


def integer(holder: Any, key: str, default: int | None = None) -> int:
    """A whole number of 0 or more in a parsed JSON object.

    Raises:
        ValueError: when it is missing without a default, or something else.
    """
    value = holder.get(key, default) if isinstance(holder, dict) else None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 53:
        raise InvalidInputError(f"its JSON lacks a whole number {key!r}")
    return value


def mapping(holder: Any, key: str) -> dict[str, Any]:
    """An object in a parsed JSON object.

    Raises:
        ValueError: when it is missing or something else.
    """
    value = holder.get(key) if isinstance(holder, dict) else None
    if not isinstance(value, dict):
        raise InvalidInputError(f"its JSON lacks an object {key!r}")
    return value


def sequence(holder: Any, key: str) -> list[Any]:
    """An array in a parsed JSON object, empty where it is missing.

    Raises:
        ValueError: when it is something else.
    """
    value = holder.get(key, []) if isinstance(holder, dict) else None
    if not isinstance(value, list):
        raise InvalidInputError(f"its JSON has a {key!r} that is not an array")
    return value


def numbers(holder: Any, key: str, *, null: bool = False) -> list[float]:
    """An array of finite numbers in a parsed JSON object.

    Args:
        holder: the object.
        key: of the array.
        null: accept ``null``, which JavaScript writes for NaN, as NaN.

    Raises:
        ValueError: when it is missing or holds something else.
    """
    values = sequence(holder, key)
    if not values or not all(_is_number(value) or (null and value is None) for value in values):
        raise InvalidInputError(f"its JSON lacks numbers {key!r}")
    return [nan if value is None else float(value) for value in values]


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -1e38 < value < 1e38
