"""Refusals as one sentence."""

REFUSALS: tuple[type[Exception], ...] = (ValueError, OSError, ImportError)
"""Errors that tell a user what to change; anything else is a fault of the program and keeps its traceback."""


def describe(error: BaseException) -> str:
    """One line that says what was wrong."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.strerror}: {str(error.filename)!r}"
    if isinstance(error, UnicodeDecodeError):
        return f"the text is not {error.encoding}: {error.reason} at byte {error.start}"
    text = " ".join(str(error).split())
    return text or type(error).__name__
