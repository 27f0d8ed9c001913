"""A real server process: many clients at once, its memory, its end."""

import http.client
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import torch

from diffsplat.cli.main import main
from diffsplat.io.splat_formats import read_splats
from diffsplat.pipelines import DiffSplatPipeline
from support.serve_process import ServerProcess, outcome, server_process, submitted

CLIENTS = 50


@pytest.fixture(scope="module")
def server(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    log = tmp_path_factory.mktemp("server") / "log"
    limits = ("--max-queued", 20, "--keep-jobs", 60, "--upload-seconds", 1)
    with server_process(log, "--model", small_model, *limits) as running:
        yield running
        assert running.process.poll() is None
        assert "Traceback" not in log.read_text()


def test_many_clients_each_get_their_own(server: ServerProcess, small_model: Path, tmp_path: Path):
    refused = []
    together = threading.Barrier(CLIENTS)

    def visit(seed: int) -> tuple[str, torch.Tensor]:
        with httpx.Client(base_url=server.url, timeout=120) as client:
            together.wait(60)
            refused.append(client.post("/api/jobs", json={"prompt": "", "seed": seed}).status_code)
            job = submitted(client, seed=seed)
            last = outcome(client, job)
            assert (last["state"], last["seed"]) == ("done", seed)
            path = tmp_path / f"{seed}.ply"
            path.write_bytes(client.get(f"/api/jobs/{job}/results/0.ply").content)
            return job, read_splats(path).means

    with ThreadPoolExecutor(CLIENTS) as pool:
        visits = list(pool.map(visit, range(CLIENTS)))
    assert refused == [422] * CLIENTS
    assert len({job for job, _ in visits}) == CLIENTS
    pipe = DiffSplatPipeline.from_pretrained(small_model)
    for seed, (_, means) in enumerate(visits):
        truth = pipe("a red chair", seed=seed, steps=1).splats[0].visible().means
        torch.testing.assert_close(means, truth, rtol=0, atol=1e-5)


def _flat(server: ServerProcess, first: int, jobs: int) -> None:
    """After the first jobs, memory does not grow over so many, each with its events and two of its files."""
    with httpx.Client(base_url=server.url, timeout=120) as client:

        def work(count: int) -> int:
            for seed in range(count):
                job = submitted(client, seed=seed)
                assert outcome(client, job)["state"] == "done"
                assert client.get(f"/api/jobs/{job}/results/0.spz").status_code == 200
                assert client.get(f"/api/jobs/{job}/results/0.png").status_code == 200
            return server.resident_bytes

        before = work(first)
        growth = work(jobs) - before
    assert growth < 8_000_000, f"{growth / 1e6:.1f} MB more after {jobs} jobs"


def test_memory_stays_flat(server: ServerProcess):
    _flat(server, 40, 40)


@pytest.mark.slow
def test_memory_stays_flat_over_many_jobs(server: ServerProcess):
    _flat(server, 150, 500)


def _connect(server: ServerProcess) -> socket.socket:
    address = urlsplit(server.url)
    return socket.create_connection((address.hostname or "", address.port or 0), timeout=20)


def test_slow_senders_hold_nobody_up_and_are_sent_away(server: ServerProcess):
    head = b"POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    slow = [_connect(server) for _ in range(20)]
    for connection in slow:
        connection.sendall(head + b"Content-Length: 60000\r\n\r\n{")
    with httpx.Client(base_url=server.url) as client:
        assert outcome(client, submitted(client))["state"] == "done"
    for connection in slow:
        with connection:
            assert b" 408 " in connection.recv(4096).split(b"\r\n")[0]


def test_what_is_announced_too_large_is_refused_before_it_is_sent(server: ServerProcess):
    with _connect(server) as connection:
        connection.sendall(
            b"POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 5000000000\r\n\r\n{"
        )
        assert b" 413 " in connection.recv(4096).split(b"\r\n")[0]


def test_an_endless_body_is_cut_off(server: ServerProcess):
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=20)
    endless = (b" " * 100_000 for _ in range(10_000))
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        connection.request("POST", "/api/jobs", endless, {"Content-Type": "application/json"})
    connection.close()
    assert sum(1 for _ in endless) > 9_000
    assert httpx.get(f"{server.url}api/health").status_code == 200


def test_sigterm_cancels_and_ends_in_order(small_model: Path, tmp_path: Path):
    with server_process(tmp_path / "log", "--model", small_model) as running:
        with httpx.Client(base_url=running.url, timeout=60) as client:
            jobs = [submitted(client, steps=100, count=4) for _ in range(3)]
            lasts: list[dict] = [{}] * 3
            connected = [threading.Event() for _ in jobs]

            def follow(number: int) -> None:
                with httpx.Client(base_url=running.url, timeout=60) as own:
                    lasts[number] = outcome(own, jobs[number], connected[number])

            followers = [threading.Thread(target=follow, args=(number,)) for number in range(3)]
            for follower in followers:
                follower.start()
            assert all(event.wait(30) for event in connected)
            while client.get(f"/api/jobs/{jobs[0]}").json()["steps_done"] < 2:
                time.sleep(0.01)
            stalled = _connect(running)
            stalled.sendall(
                b"POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: 9\r\n\r\n"
            )
        assert running.terminate() == 0
        for follower in followers:
            follower.join(10)
        stalled.close()
        assert [last["state"] for last in lasts] == ["cancelled"] * 3
        assert 2 <= lasts[0]["steps_done"] < 400
        log = (tmp_path / "log").read_text()
        assert "Traceback" not in log
        assert "ERROR" not in log


def test_results_outlive_the_server_and_what_was_lost_is_told(small_model: Path, tmp_path: Path):
    words = ("--model", small_model, "--results", tmp_path / "results")
    with (
        server_process(tmp_path / "log", *words) as running,
        httpx.Client(base_url=running.url, timeout=120) as client,
    ):
        kept, gone = (submitted(client, seed=seed) for seed in (3, 4))
        for job in (kept, gone):
            assert outcome(client, job)["state"] == "done"
        before = client.get(f"/api/jobs/{kept}").json()
        files = {
            suffix: client.get(f"/api/jobs/{kept}/results/0{suffix}").content for suffix in (".ply", ".png")
        }
        assert client.delete(f"/api/jobs/{gone}").status_code == 200
        long = submitted(client, steps=100, count=4, prompt="a long story")
        while client.get(f"/api/jobs/{long}").json()["steps_done"] < 2:
            time.sleep(0.01)
        assert main(["serve", "--port", "0", *map(str, words)]) == 2
        running.process.kill()
        running.process.wait()
    with (
        server_process(tmp_path / "log", *words) as running,
        httpx.Client(base_url=running.url, timeout=120) as client,
    ):
        jobs = {job["id"]: job for job in client.get("/api/jobs").json()}
        assert set(jobs) == {kept, long}
        assert jobs[kept] == before
        for suffix, content in files.items():
            assert client.get(f"/api/jobs/{kept}/results/0{suffix}").content == content
        lost = jobs[long]
        assert (lost["state"], lost["prompt"], lost["results"]) == ("failed", "a long story", [])
        assert "the server ended before this job was done" in lost["error"]
        assert client.delete(f"/api/jobs/{long}").status_code == 200
        assert outcome(client, submitted(client))["state"] == "done"
        assert running.terminate() == 0
    assert len([path for path in (tmp_path / "results").iterdir() if path.is_dir()]) == 2


def test_damaged_results_are_left_out(small_model: Path, tmp_path: Path):
    results = tmp_path / "results"
    for name, content in (
        ("a", "{"),
        ("b", "{}"),
        ("c", '{"state": "done", "generation": {"prompts": ["x"]}}'),
    ):
        (results / name).mkdir(parents=True)
        (results / name / "job.json").write_text(content)
    words = ("--model", small_model, "--results", results)
    with server_process(tmp_path / "log", *words) as running:
        assert httpx.get(f"{running.url}api/jobs").json() == []
        assert (tmp_path / "log").read_text().count("is left out") == 3


@pytest.mark.parametrize(("token", "said"), [(None, "expected --token"), ("secret", "asks for the token")])
def test_beyond_this_machine_there_is_a_warning(
    small_model: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    token: str | None,
    said: str,
):
    given: list[dict] = []
    monkeypatch.setattr("diffsplat.web.generation_app.create_app", lambda _, **options: given.append(options))
    monkeypatch.setattr("diffsplat.web.server_process.serve", lambda *_, **options: None)
    words = [
        "serve",
        "--model",
        str(small_model),
        "--host",
        "0.0.0.0",
        "--port",
        "0",
        "--allowed-host",
        "nas.example",
    ]
    assert main([*words, *(["--token", token] if token else [])]) == 0
    warning = capsys.readouterr().err
    assert "warning: listening on 0.0.0.0" in warning
    assert said in warning
    assert given == [{"token": token, "loopback_only": False, "allowed_hosts": ("nas.example",)}]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--port", "70000"), "the port is 70000, expected 0 to 65535"),
        (("--host", "no.such.host.invalid"), "cannot listen on 'no.such.host.invalid'"),
        (("--token", ""), "the token is empty"),
        (("--token", "schlüssel"), "printable ASCII"),
        (("--ephemeral", "--results", "a"), "--results and --ephemeral were given"),
        (("--max-queued", "0"), "max_queued is 0, expected a number above 0"),
        (("--port", "0", "--model", "nothing"), "unknown model 'nothing'"),
        (("--port", "0", "--model", "sd15:sketch"), "unknown variant"),
    ],
)
def test_refusals_of_the_command(capsys: pytest.CaptureFixture[str], words: tuple[str, ...], reason: str):
    assert main(["serve", *words]) == 2
    said = capsys.readouterr().err
    assert reason in said
    assert said.count("\n") == 1


def test_a_port_in_use_is_one_sentence(capsys: pytest.CaptureFixture[str]):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--port", str(port)]) == 2
    assert f"cannot listen on '127.0.0.1', port {port}" in capsys.readouterr().err


def test_a_missing_extra_is_one_sentence(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert main(["serve"]) == 2
    assert "needs fastapi, which is not installed: pip install 'diffsplat[serve]'" in capsys.readouterr().err
