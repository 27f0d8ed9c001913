"""Captions of a data set from a file: JSON or CSV."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from diffsplat.errors import InvalidInputError
from diffsplat.io.file_access import require_readable

Captions = dict[str, tuple[str, ...]]


def read_captions(path: Path | str) -> Captions:
    """Captions by object, from one of two kinds of file.

    - ``.json``: an object whose keys name objects and whose values are a caption or a list of captions:
      ``{"0/10010": "a red chair", "0/10011": ["a mug", "a blue mug"]}``.
    - ``.csv``: two columns, name and caption, as in Cap3D; a name may come several times. A first row
      ``uid,caption`` (or ``id,caption``, ``name,caption``, ``uid,text``) is a heading.

    Raises:
        ValueError: the file is missing, of another kind, not of this form, or empty.
    """
    source = require_readable(path)
    suffix = source.suffix.lower()
    try:
        if suffix == ".json":
            pairs = _json_pairs(json.loads(source.read_text(encoding="utf-8-sig")))
        elif suffix == ".csv":
            with source.open(encoding="utf-8-sig", newline="") as lines:
                pairs = _csv_pairs(list(csv.reader(lines)))
        else:
            raise InvalidInputError(f"its suffix is {suffix!r}, expected .json or .csv")
    except (ValueError, csv.Error) as error:
        raise InvalidInputError(f"cannot read captions from {str(path)!r}: {error}") from error
    captions: Captions = {}
    for name, text in pairs:
        words = " ".join(text.split())
        if words and words not in captions.get(name, ()):
            captions[name] = (*captions.get(name, ()), words)
    if not captions:
        raise InvalidInputError(f"{str(path)!r} holds no caption")
    return captions


def _json_pairs(values: Any) -> list[tuple[str, str]]:
    if not isinstance(values, dict):
        raise InvalidInputError("expected a JSON object from names to captions")
    pairs = []
    for name, texts in values.items():
        for text in texts if isinstance(texts, list) else [texts]:
            if not isinstance(text, str):
                raise InvalidInputError(f"the caption of {name!r} is {text!r}, expected text")
            pairs.append((name, text))
    return pairs


def _csv_pairs(rows: list[list[str]]) -> list[tuple[str, str]]:
    if rows and [cell.strip().lower() for cell in rows[0]] in _HEADINGS:
        rows = rows[1:]
    for number, row in enumerate(rows, 1):
        if row and len(row) != 2:
            raise InvalidInputError(f"row {number} has {len(row)} columns, expected a name and a caption")
    return [(row[0].strip(), row[1]) for row in rows if row]


_HEADINGS = [[name, text] for name in ("uid", "id", "name") for text in ("caption", "text")]
