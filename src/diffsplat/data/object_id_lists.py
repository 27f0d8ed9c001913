"""Files that list objects, and the rows of a data set that they mean."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from diffsplat.data import shard_schema
from diffsplat.errors import InvalidInputError
from diffsplat.io.file_access import require_readable

if TYPE_CHECKING:
    import pyarrow


def read_ids(path: str | Path) -> frozenset[str]:
    """Objects listed in a file: a JSON list, or the first column of text lines or a CSV.

    Raises:
        ValueError: the file is missing, of another form, or empty.
    """
    source = require_readable(path)
    try:
        text = source.read_text(encoding="utf-8-sig")
        names = json.loads(text) if source.suffix.lower() == ".json" else _first_column(text)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InvalidInputError("expected a list of texts")
    except (ValueError, csv.Error, RecursionError) as error:
        raise InvalidInputError(f"cannot read objects from {str(path)!r}: {error}") from error
    ids = frozenset(filter(None, (name.strip() for name in names)))
    if not ids:
        raise InvalidInputError(f"{str(path)!r} lists no object")
    return ids


def is_named(name: str, ids: Collection[str]) -> bool:
    """Whether a list means an object: by its name, without its source (``0/10010``), or by the last part."""
    return any(form in ids for form in (name, name.split("/", 1)[-1], name.rsplit("/", 1)[-1]))


def named(object_ids: pyarrow.ChunkedArray, ids: Collection[str]) -> NDArray[np.bool_]:
    """``[N]`` whether a list means the objects, as :func:`is_named`; repainted versions count as their object."""
    pa, compute = shard_schema.import_pyarrow(), shard_schema.import_compute()
    wanted = pa.array(sorted(ids), pa.string())
    found = np.zeros(len(object_ids), dtype=bool)
    for pattern in ("#.*$", "^[^/]*/|#.*$", "^.*/|#.*$"):
        forms = compute.replace_substring_regex(object_ids, pattern, "")
        found |= np.asarray(compute.is_in(forms, wanted), dtype=bool)
    return found


def _first_column(text: str) -> list[str]:
    return [row[0] for row in csv.reader(text.splitlines()) if row]
