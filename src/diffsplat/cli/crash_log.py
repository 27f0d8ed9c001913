"""Log files with the traceback of an internal error."""

import platform
import secrets
import tempfile
import time
import traceback
from pathlib import Path

from diffsplat import __version__
from diffsplat.errors import DiffSplatError
from diffsplat.io.file_access import atomic_path


def write_crash_log(error: BaseException) -> Path | None:
    """Write the traceback of ``error`` to a new file in the folder of temporary files.

    Returns:
        Path of the file, readable by its owner alone; None when it cannot be written.
    """
    head = f"diffsplat {__version__}, Python {platform.python_version()}, {platform.platform()}\n\n"
    name = f"diffsplat-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}.log"
    try:
        path = Path(tempfile.gettempdir()) / name
        with atomic_path(path) as temporary:
            temporary.chmod(0o600)
            temporary.write_text(head + "".join(traceback.format_exception(error)), encoding="utf-8")
    except (OSError, DiffSplatError):
        return None
    return path
