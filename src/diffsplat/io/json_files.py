"""JSON objects in files."""

import json
from pathlib import Path
from typing import Any

from diffsplat.errors import InvalidInputError, MissingFileError
from diffsplat.io.file_access import atomic_path, read_bytes


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


def write_json(content: Any, path: Path, *, force: bool = True) -> None:
    """Write JSON, complete or not at all.

    Args:
        content: JSON values.
        path: file, in a folder that exists.
        force: replace an existing file.

    Raises:
        ValueError: when the file cannot be written, or exists without ``force``.
    """
    with atomic_path(path, force=force) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
