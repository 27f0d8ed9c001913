"""Inputs and outputs recorded from the original implementation, in a folder that ``--fixtures`` may replace."""

from pathlib import Path

import pytest
from recordings import OFFICIAL, Recordings


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fixtures",
        type=Path,
        default=OFFICIAL,
        metavar="DIR",
        help="folder of recorded inputs and outputs; what it lacks is skipped",
    )


@pytest.fixture(scope="session")
def recordings(request: pytest.FixtureRequest) -> Recordings:
    return Recordings(request.config.getoption("--fixtures", default=OFFICIAL))
