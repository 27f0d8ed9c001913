"""The folder for files that can be made again."""

import os
from pathlib import Path


def user_cache() -> Path:
    """``$XDG_CACHE_HOME/diffsplat``, or ``~/.cache/diffsplat``. It need not exist."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "diffsplat"
