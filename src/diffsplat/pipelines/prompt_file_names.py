"""File names made of prompts. Needs no torch."""

import re
import unicodedata

_LONGEST_NAME = 60


def slug(prompt: str) -> str:
    """A file name made of a prompt: lower-case ASCII letters and digits joined by hyphens."""
    plain = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode().lower()
    return "-".join(re.findall("[a-z0-9]+", plain))[:_LONGEST_NAME].strip("-") or "object"
