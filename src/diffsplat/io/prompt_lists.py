"""Text files with one prompt in every line."""

from pathlib import Path

from diffsplat.errors import InvalidInputError
from diffsplat.io.file_access import require_readable


def read_prompts(path: Path) -> tuple[str, ...]:
    """The lines of a text file that are not blank.

    Raises:
        FileNotFoundError: when there is no file.
        ValueError: when it is not in UTF-8, or holds no prompt.
    """
    try:
        text = require_readable(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{str(path)!r} is not a text file in UTF-8") from error
    lines = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not lines:
        raise InvalidInputError(f"{str(path)!r} holds no prompts, expected one in every line")
    return lines
