"""Released weights: what there is, what is here, and fetching the rest from the Hugging Face Hub. Needs no torch."""

import os
from pathlib import Path

WEIGHTS_VARIABLE = "DIFFSPLAT_WEIGHTS"
"""Environment variable that names the folder of the release folders."""


def default_weights() -> Path:
    """The folder of release folders and base models: ``DIFFSPLAT_WEIGHTS`` or ``~/.cache/diffsplat/weights``.

    It need not exist.
    """
    named = os.environ.get(WEIGHTS_VARIABLE)
    return Path(named).expanduser() if named else Path.home() / ".cache" / "diffsplat" / "weights"
