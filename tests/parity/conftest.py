"""Recorded training steps."""

import pytest

from support.recordings import OFFICIAL, Recordings
from support.training_recordings import TRAINING, TrainingRecordings


@pytest.fixture(scope="session")
def training(recordings: Recordings) -> TrainingRecordings:
    """In the folder given by ``--recordings``, otherwise beside the recorded passes."""
    return TrainingRecordings(TRAINING if recordings.folder == OFFICIAL else recordings.folder)
