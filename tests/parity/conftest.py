"""Inputs and outputs recorded from the original implementation, in a folder that ``--fixtures`` may replace."""

from pathlib import Path

import pytest
from recordings import OFFICIAL, Recordings


def pytest_addoption(parser: pytest.Parser) -> None:
    # pytest has a --fixtures of its own, which lists Python functions and stays available as --funcargs.
    parser._anonymous._arggroup.conflict_handler = "resolve"
    parser.addoption(
        "--fixtures",
        dest="recordings",
        type=Path,
        default=OFFICIAL,
        metavar="DIR",
        help="folder of recorded inputs and outputs; what it lacks is skipped",
    )


@pytest.fixture(scope="session")
def recordings(request: pytest.FixtureRequest) -> Recordings:
    folder = request.config.getoption("recordings", default=OFFICIAL)
    if not folder.is_dir():
        raise pytest.UsageError(f"--fixtures {folder}: there is no such folder")
    return Recordings(folder)
