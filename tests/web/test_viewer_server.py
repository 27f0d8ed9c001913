"""The server of the viewer: what it gives, and what it does not."""

import http.client
import json
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
from splat_figures import blocks

from diffsplat.cli.main import main
from diffsplat.io.splat_formats import read_splats, write_splats
from diffsplat.web.page_assets import static_assets
from diffsplat.web.response_headers import host_allowed
from diffsplat.web.viewer_files import MAX_FILES, shown_files
from diffsplat.web.viewer_server import ViewerServer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("figure.ply", "figure.glb"):
        write_splats(blocks(30), tmp_path / name)
    (tmp_path / "secret.ply").write_text("not given")
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[ViewerServer]:
    with ViewerServer(shown_files([folder / "figure.ply", folder / "figure.glb"])) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def ask(server: ViewerServer, path: str, method: str = "GET", **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    return connection.getresponse()


def test_the_page_and_its_parts_are_served_with_their_types(server: ViewerServer) -> None:
    for path, media_type in (
        ("/", "text/html; charset=utf-8"),
        ("/?azimuth=3", "text/html; charset=utf-8"),
        ("/static/js/vendor.js", "text/javascript; charset=utf-8"),
        ("/static/css/theme.css", "text/css; charset=utf-8"),
        ("/static/icon.svg", "image/svg+xml"),
        ("/static/LICENSES.txt", "text/plain; charset=utf-8"),
    ):
        answer = ask(server, path)
        assert (answer.status, answer.headers["Content-Type"]) == (200, media_type)
        assert len(answer.read()) == int(answer.headers["Content-Length"]) > 0


def test_every_answer_carries_security_headers(server: ViewerServer) -> None:
    for path in ("/", "/files/0", "/nothing"):
        headers = ask(server, path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'self';")
        assert "'unsafe-inline'" not in policy
        assert "'unsafe-eval'" not in policy
        assert "http" not in policy
        assert "Access-Control-Allow-Origin" not in headers


def test_files_are_listed_and_sent(server: ViewerServer, folder: Path) -> None:
    plain, converted = json.loads(ask(server, "/files.json").read())
    size = (folder / "figure.ply").stat().st_size
    assert plain == {"url": "files/0", "name": "figure.ply", "sent_as": "figure.ply", "bytes": size}
    assert ask(server, "/files/0").read() == (folder / "figure.ply").read_bytes()
    assert (converted["name"], converted["sent_as"]) == ("figure.glb", "figure.glb.ply")
    (folder / "sent.ply").write_bytes(ask(server, "/files/1").read())
    np.testing.assert_allclose(read_splats(folder / "sent.ply").means, blocks(30).means, atol=1e-6)


@pytest.mark.parametrize(
    "path",
    [
        "/files/2",
        "/files/-1",
        "/files/0/",
        "/files/00",
        "/files/secret.ply",
        "/files/../secret.ply",
        "/static/../viewer_server.py",
        "/static/..%2fviewer_server.py",
        "/static//etc/passwd",
        "/static/",
        "/../../etc/passwd",
        "//etc/passwd",
        "/secret.ply",
        "/viewer_server.py",
        "/%00",
    ],
)
def test_nothing_else_is_found(server: ViewerServer, path: str) -> None:
    answer = ask(server, path)
    assert answer.status == 404
    assert answer.read() == b"There is nothing here."


def test_only_get_and_head_are_answered(server: ViewerServer) -> None:
    head = ask(server, "/files/0", "HEAD")
    assert (head.status, head.read()) == (200, b"")
    assert int(head.headers["Content-Length"]) > 0
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert ask(server, "/", method).status == 501


def test_pages_elsewhere_that_point_a_name_here_get_nothing(server: ViewerServer) -> None:
    port = server.server_port
    for host in (
        "evil.example",
        f"evil.example:{port}",
        "127.0.0.1",
        f"127.0.0.1:{port + 1}",
        "",
        f"127.0.0.1.evil:{port}",
    ):
        answer = ask(server, "/files/0", Host=host)
        assert answer.status == 403, host
        assert b"element vertex" not in answer.read()
    assert ask(server, "/files/0", Host=f"LOCALHOST:{port}").status == 200


def test_host_names_with_and_without_ports() -> None:
    assert host_allowed("localhost", 80)
    assert host_allowed("[::1]:8000", 8000)
    assert host_allowed("[::1]", 80)
    assert not host_allowed("[::1]", 8000)
    assert not host_allowed(None, 80)
    assert not host_allowed("[::2]:8000", 8000)


def test_a_file_that_went_away_or_broke_is_a_sentence(server: ViewerServer, folder: Path) -> None:
    (folder / "figure.ply").unlink()
    (folder / "figure.glb").write_bytes(b"glTF")
    for path, name in (("/files/0", "figure.ply"), ("/files/1", "figure.glb")):
        answer = ask(server, path)
        assert answer.status == 404
        sentence = answer.read().decode()
        assert name in sentence
        assert sentence.endswith(".")
    assert ask(server, "/files.json").status == 200


def test_what_cannot_be_shown_is_refused_at_once(
    folder: Path, server: ViewerServer, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "words.txt").touch()
    figure = str(folder / "figure.ply")
    for words, reason in (
        ([str(folder / "missing.ply")], "missing.ply"),
        ([str(folder / "words.txt")], "not the name of a splat file"),
        ([str(folder)], "splat file"),
        ([figure] * (MAX_FILES + 1), f"at most {MAX_FILES}"),
        ([figure, "--port", "70000"], "expected 0 to 65535"),
        ([figure, "--port", str(server.server_port)], f"port {server.server_port}"),
    ):
        assert main(["view", *words, "--no-browser"]) == 2
        error = capsys.readouterr().err
        assert reason in error
        assert error.count("\n") == 1


def test_the_verb_serves_until_it_is_interrupted(
    folder: Path, start_command: Callable[..., subprocess.Popen[bytes]]
) -> None:
    process = start_command("view", str(folder / "figure.ply"), "--no-browser")
    try:
        assert process.stdout is not None
        url = process.stdout.readline().decode().strip()
        with urlopen(f"{url}files.json", timeout=30) as answer:
            assert json.load(answer)[0]["name"] == "figure.ply"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0
    assert b"Traceback" not in errors


def test_the_bundle_comes_with_its_licences_and_calls_nobody() -> None:
    assets = static_assets()
    licences = assets["LICENSES.txt"].content.decode()
    for name in ("three ", "@sparkjsdev/spark ", "fflate "):
        assert f"\n{name}" in f"\n{licences}"
    for name, asset in assets.items():
        assert not name.endswith(".map")
        text = asset.content.decode()
        assert "sourceMappingURL=" not in text.replace("sourceMappingURL=\\n", "")
        if name.endswith((".html", ".css")):
            assert "//" not in text.replace("http://www.w3.org", "")
