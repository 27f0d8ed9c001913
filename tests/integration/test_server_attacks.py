"""A real server process under attack: connections that say nothing, half of it, or all of it slowly."""

import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from support import health_probe
from support.serve_process import ServerProcess, outcome, server_process, submitted

CLIENTS = 50
GENEROUS_S = 20.0
"""Far more than it takes anywhere; a server that is held up takes longer, or for ever."""

HALF_A_HEAD = b"GET /api/health HTTP/1.1\r\nHost: local"
SLOW_BODY = (
    b"POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 60000\r\n\r\n{"
)


def connect(server: ServerProcess) -> socket.socket:
    address = urlsplit(server.url)
    return socket.create_connection((address.hostname or "", address.port or 0), timeout=GENEROUS_S)


def hold(stack: ExitStack, server: ServerProcess, count: int, sent: bytes = b"") -> list[socket.socket]:
    """Connections that stay open until the stack ends, each after so much was sent."""
    connections = [stack.enter_context(connect(server)) for _ in range(count)]
    for connection in connections:
        connection.sendall(sent)
    return connections


@contextmanager
def probed_health(server: ServerProcess) -> Iterator[list[float]]:
    """Seconds that health took to answer during the block, filled in at its end."""
    address = urlsplit(server.url)
    words = [sys.executable, health_probe.__file__, str(address.hostname), str(address.port)]
    waits: list[float] = []
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as probe:
        yield waits
        said, _ = probe.communicate(timeout=2 * GENEROUS_S)
        assert probe.returncode == 0
        waits.extend(map(float, said.split()))


def visit(server: ServerProcess, seed: int) -> bytes:
    """An honest client: a job, its events, its result."""
    with httpx.Client(base_url=server.url, timeout=120, verify=False) as client:
        job = submitted(client, seed=seed)
        last = outcome(client, job)
        assert (last["state"], last["seed"]) == ("done", seed)
        answer = client.get(f"/api/jobs/{job}/results/0.ply")
        assert answer.status_code == 200
        return answer.content


@pytest.fixture(scope="module")
def server(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    log = tmp_path_factory.mktemp("server") / "log"
    limits = ("--max-queued", 60, "--keep-jobs", 60, "--head-seconds", 5, "--upload-seconds", 30)
    with server_process(log, "--model", small_model, *limits) as running:
        yield running
        assert running.process.poll() is None
        assert "Traceback" not in log.read_text()


def test_honest_clients_lose_nothing(server: ServerProcess):
    with probed_health(server) as waits, ExitStack() as stack, ThreadPoolExecutor(CLIENTS) as pool:
        hold(stack, server, 100, SLOW_BODY)
        hold(stack, server, 256)
        hold(stack, server, 256, HALF_A_HEAD)
        files = list(pool.map(lambda seed: visit(server, seed), range(CLIENTS)))
    assert len(set(files)) == CLIENTS
    assert len(waits) > 5
    assert max(waits) < GENEROUS_S


@pytest.mark.parametrize("sent", [b"", HALF_A_HEAD], ids=["silent", "half a head"])
def test_who_sends_no_head_is_hung_up_on(server: ServerProcess, sent: bytes):
    with ExitStack() as stack:
        for connection in hold(stack, server, 20, sent):
            assert connection.recv(1000) == b""


def test_a_head_that_drips_has_no_longer(server: ServerProcess):
    with connect(server) as connection:
        connection.sendall(HALF_A_HEAD)
        began = time.monotonic()
        while time.monotonic() < began + GENEROUS_S and not select.select([connection], [], [], 0.05)[0]:
            connection.sendall(b"x")
        assert connection.recv(1000) == b""


def test_a_connection_that_waits_for_its_next_request_is_closed(server: ServerProcess):
    with connect(server) as connection:
        connection.sendall(b"GET /api/health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /api")
        received = b""
        while piece := connection.recv(4096):
            received += piece
        assert received.count(b"HTTP/1.1 200") == 1


def test_a_response_that_nobody_takes_is_broken_off(small_model: Path, tmp_path: Path):
    request = b"GET /static/js/vendor.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with (
        server_process(tmp_path / "log", "--model", small_model, "--stall-seconds", 1) as running,
        connect(running) as connection,
    ):
        connection.sendall(request * 50)
        time.sleep(6)
        received = sum(map(len, iter(lambda: connection.recv(1 << 20), b"")))
        whole = len(httpx.get(f"{running.url}static/js/vendor.js").content)
        assert 0 < received < 50 * whole


def test_beyond_its_requests_a_server_still_says_that_it_is_well(small_model: Path, tmp_path: Path):
    limits = ("--max-requests", 40, "--head-seconds", 5)
    with server_process(tmp_path / "log", "--model", small_model, *limits) as running, ExitStack() as stack:
        hold(stack, running, 60, SLOW_BODY)
        hold(stack, running, 100)
        assert httpx.get(f"{running.url}api/health", timeout=GENEROUS_S).status_code == 200
        refused = httpx.get(f"{running.url}api/models", timeout=GENEROUS_S)
        assert refused.status_code == 503
        assert "busy" in refused.json()["detail"]
        assert refused.headers["connection"] == "close"
