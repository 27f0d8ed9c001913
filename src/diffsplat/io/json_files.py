"""JSON objects in files."""

import json
from pathlib import Path
from typing import Any

from diffsplat.errors import InvalidInputError, MissingFileError
from diffsplat.io.file_access import read_bytes


def read_json(path: Path, remedy: str = "download it again") -> dict[str, Any]:
    """A JSON object.

    Args:
        path: file.
        remedy: what its user can do when it is missing or damaged.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is no JSON object.
    """
    if not path.is_file():
        raise MissingFileError(f"the file {str(path)!r} is missing, {remedy}")
    try:
        content = json.loads(read_bytes(path))
    except ValueError as error:
        raise InvalidInputError(f"{str(path)!r} is not valid JSON, {remedy}: {error}") from error
    if not isinstance(content, dict):
        raise InvalidInputError(f"{str(path)!r} is not a JSON object, {remedy}")
    return content
