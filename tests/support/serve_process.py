"""``diffsplat serve`` as a process of its own."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

SERVE = (sys.executable, "-m", "diffsplat.cli.main", "serve")


@dataclass(frozen=True)
class ServerProcess:
    """A server that answers at ``url``."""

    process: subprocess.Popen
    url: str
    log: Path

    @property
    def resident_bytes(self) -> int:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise ValueError("the process has no memory")

    def terminate(self, timeout: float = 60) -> int:
        """Exit code after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)


@contextmanager
def server_process(log: Path, *words: object) -> Iterator[ServerProcess]:
    """Runs until the block ends."""
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [*SERVE, "--port", "0", *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://"), log.read_text()
        yield ServerProcess(process, url, log)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def submitted(client: httpx.Client, **options: object) -> str:
    """Id of a job; comes back as often as the server asks it to."""
    for _ in range(60):
        answer = client.post("/api/jobs", json={"prompt": "a red chair", "steps": 1} | options)
        if answer.status_code != 429:
            assert answer.status_code == 201, answer.text
            return answer.json()["id"]
        time.sleep(float(answer.headers["retry-after"]) / 4)
    raise AssertionError("the queue was always full")


def outcome(client: httpx.Client, job: str, connected: threading.Event | None = None) -> dict:
    """A job at its end."""
    with client.stream("GET", f"/api/jobs/{job}/events", timeout=120) as stream:
        for line in stream.iter_lines():
            if line.startswith("data: "):
                last = json.loads(line.removeprefix("data: "))
                if connected is not None:
                    connected.set()
    return last
