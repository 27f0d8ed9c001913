"""Errors that the user can put right; everything else that is raised is a bug."""


class DiffSplatError(Exception):
    """One sentence that names what was given and what was expected."""


class InvalidInputError(DiffSplatError, ValueError):
    """A value, an option, a path or the content of a file cannot be used."""


class MissingFileError(DiffSplatError, FileNotFoundError):
    """A file or folder is not there."""


class MissingPackageError(DiffSplatError, ModuleNotFoundError):
    """An optional package is not installed."""


class AccessDeniedError(DiffSplatError, PermissionError):
    """A repository or file may not be read or written."""


class UnreachableError(DiffSplatError, ConnectionError):
    """The hub cannot be reached, or a download broke off."""


def one_line(error: BaseException) -> str:
    """The message of an error without line breaks, or the name of its type where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
