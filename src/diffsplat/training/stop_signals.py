"""Stopping a training run after the current step on SIGINT or SIGTERM."""

import logging
import signal
import threading
from typing import Any, Self

logger = logging.getLogger(__name__)


class StopSignals:
    """Turns the first SIGINT or SIGTERM into :attr:`received`; the second acts as it always did."""

    def __init__(self) -> None:
        self.received = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _receive(self, *_: object) -> None:
        self.received = True
        self.__exit__()
        logger.warning("stopping after this step; a second signal stops at once")
