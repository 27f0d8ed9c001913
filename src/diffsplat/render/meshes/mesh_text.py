"""Text of mesh files: lines of any system, byte order marks, numbers that some programs write oddly."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def plain_text(data: bytes) -> bytes:
    """Text of a file without its byte order mark, as UTF-8 where the mark says how it is encoded."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace").encode()
    return data


def statements(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Keyword (in small letters) and rest of every line, comments left out and continued lines joined."""
    waiting = b""
    for part in plain_text(data).splitlines():
        line = waiting + part
        if line.endswith(b"\\") and not line.lstrip().startswith(b"#"):
            waiting = line[:-1] + b" "
            continue
        waiting = b""
        parts = line.split(None, 1)
        if parts and not parts[0].startswith(b"#"):
            yield parts[0].lower(), parts[1].strip() if len(parts) > 1 else b""


def decoded(name: bytes) -> str:
    """A name in a text file: UTF-8, or Latin-1 where it is none."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode("latin-1")


def numbers(words: Iterable[bytes]) -> list[float]:
    """The numbers before the first word that starts a comment; NaN for words that are none."""
    words = list(words)
    with suppress(ValueError):
        return [float(word) for word in words]
    values = []
    for word in words:
        if word.startswith(b"#"):
            break
        try:
            values.append(float(word))
        except ValueError:
            values.append(float("nan"))  # such as -1.#IND
    return values


def number_rows(rows: list[list[bytes]], width: int) -> NDArray[np.float64]:
    """``[N, width]`` the first numbers of each row of words, NaN where it is shorter or a word is not a number."""
    rows = [row[:width] for row in rows]
    if len({len(row) for row in rows}) == 1:
        with suppress(ValueError):
            table = np.array(rows, dtype=np.bytes_).astype(np.float64)
            return np.pad(table, ((0, 0), (0, width - table.shape[1])), constant_values=np.nan)
    padding = [np.nan] * width
    return np.array([(numbers(row) + padding)[:width] for row in rows]).reshape(-1, width)
