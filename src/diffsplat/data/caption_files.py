"""Captions of objects from a file: JSON or CSV."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffsplat.errors import InvalidInputError
from diffsplat.io.file_access import require_readable

Captions = dict[str, tuple[str, ...]]
_Line = tuple[str, str, str]
"""Name, caption, noun."""


@dataclass(frozen=True)
class CaptionedObject:
    """What a file says of an object.

    Args:
        captions: one or more, in the order of the file.
        noun: what it is, empty where the file gives none.
    """

    captions: tuple[str, ...]
    noun: str = ""


def read_captions(path: Path | str) -> Captions:
    """Captions by object; see :func:`read_captioned_objects`."""
    return {name: item.captions for name, item in read_captioned_objects(path).items()}


def read_captioned_objects(path: Path | str) -> dict[str, CaptionedObject]:
    """Captions and nouns by object, from one of two kinds of file.

    - ``.json``: an object whose keys name objects and whose values are a caption, a list of captions or
      ``{"caption": ..., "noun": ...}``: ``{"0/10010": "a red chair", "0/10011": ["a mug", "a blue mug"]}``.
      Or a list of ``{"file": ..., "caption": ..., "noun": ...}``.
    - ``.csv``: name, caption and, where wanted, noun; the first two columns as in Cap3D. A name may come several
      times. A first row ``file,caption`` (or ``uid``, ``id``, ``name`` and ``text``) is a heading.

    Raises:
        ValueError: the file is missing, of another kind, not of this form, or empty.
    """
    source = require_readable(path)
    suffix = source.suffix.lower()
    try:
        if suffix == ".json":
            lines = _json_lines(json.loads(source.read_text(encoding="utf-8-sig")))
        elif suffix == ".csv":
            with source.open(encoding="utf-8-sig", newline="") as rows:
                lines = _csv_lines(list(csv.reader(rows)))
        else:
            raise InvalidInputError(f"its suffix is {suffix!r}, expected .json or .csv")
    except (ValueError, csv.Error, RecursionError) as error:
        raise InvalidInputError(f"cannot read captions from {str(path)!r}: {error}") from error
    objects: dict[str, CaptionedObject] = {}
    for name, text, noun in lines:
        words = " ".join(text.split())
        known = objects.get(name, CaptionedObject(()))
        if words:
            captions = tuple(dict.fromkeys((*known.captions, words)))
            objects[name] = CaptionedObject(captions, known.noun or noun.strip().lower())
    if not objects:
        raise InvalidInputError(f"{str(path)!r} holds no caption")
    return objects


def _json_lines(values: Any) -> list[_Line]:
    if isinstance(values, list):
        values = {_text(row, "file"): row for row in values}
    if not isinstance(values, dict):
        raise InvalidInputError("expected a JSON object from names to captions, or a list of objects")
    lines = []
    for name, texts in values.items():
        for item in texts if isinstance(texts, list) else [texts]:
            if isinstance(item, dict):
                lines.append((name, _text(item, "caption"), _text(item, "noun", "")))
            elif isinstance(item, str):
                lines.append((name, item, ""))
            else:
                raise InvalidInputError(f"the caption of {name!r} is {item!r}, expected text")
    return lines


def _text(row: Any, key: str, default: str | None = None) -> str:
    value = row.get(key, default) if isinstance(row, dict) else None
    if not isinstance(value, str):
        raise InvalidInputError(f"{row!r} lacks a text {key!r}")
    return value


def _csv_lines(rows: list[list[str]]) -> list[_Line]:
    if rows and [cell.strip().lower() for cell in rows[0][:2]] in _HEADINGS:
        rows = rows[1:]
    for number, row in enumerate(rows, 1):
        if row and len(row) not in (2, 3):
            raise InvalidInputError(f"row {number} has {len(row)} columns, expected a name and a caption")
    return [(row[0].strip(), row[1], row[2] if len(row) > 2 else "") for row in rows if row]


_HEADINGS = [[name, text] for name in ("file", "uid", "id", "name") for text in ("caption", "text")]
