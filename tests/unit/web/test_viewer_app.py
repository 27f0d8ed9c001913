"""The application of the viewer: what it gives, and what it does not."""

import http.client
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import numpy as np
import pytest
import trimesh

from diffsplat.cli.main import main
from diffsplat.io.splat_formats import read_splats, write_splats
from diffsplat.web.host_and_token_guard import is_loopback
from diffsplat.web.page_routes import STATIC
from diffsplat.web.viewer_app import MAX_FILES, create_viewer_app, local_files
from support.background_server import background_server
from support.splat_figures import blocks


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("figure.ply", "figure.glb"):
        write_splats(blocks(30), tmp_path / name)
    (tmp_path / "secret.ply").write_text("not given")
    return tmp_path


@pytest.fixture
def port(folder: Path) -> Iterator[int]:
    """Of a server of two files."""
    files = local_files([folder / "figure.ply", folder / "figure.glb"])
    with background_server(create_viewer_app(files)) as url:
        yield urlsplit(url).port or 0


def ask(port: int, path: str, method: str = "GET", **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    return connection.getresponse()


def test_the_page_and_its_parts_are_served_with_their_types(port: int) -> None:
    for path, media_type in (
        ("/", "text/html; charset=utf-8"),
        ("/?azimuth=3", "text/html; charset=utf-8"),
        ("/static/js/vendor.js", "text/javascript; charset=utf-8"),
        ("/static/css/theme.css", "text/css; charset=utf-8"),
        ("/static/icon.svg", "image/svg+xml"),
        ("/static/LICENSES.txt", "text/plain; charset=utf-8"),
    ):
        answer = ask(port, path)
        assert (answer.status, answer.headers["Content-Type"]) == (200, media_type)
        assert len(answer.read()) == int(answer.headers["Content-Length"]) > 0


def test_every_answer_carries_security_headers(port: int) -> None:
    for path in ("/", "/files/0", "/nothing"):
        headers = ask(port, path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'self';")
        assert "'unsafe-inline'" not in policy
        assert "'unsafe-eval'" not in policy
        assert "http" not in policy
        assert "Access-Control-Allow-Origin" not in headers


def test_files_are_listed_and_sent(port: int, folder: Path) -> None:
    plain, converted = json.loads(ask(port, "/files.json").read())
    size = (folder / "figure.ply").stat().st_size
    assert plain == {
        "url": "files/0",
        "name": "figure.ply",
        "sent_as": "figure.ply",
        "bytes": size,
        "mesh": None,
    }
    assert ask(port, "/files/0").read() == (folder / "figure.ply").read_bytes()
    assert (converted["name"], converted["sent_as"]) == ("figure.glb", "figure.glb.ply")
    (folder / "sent.ply").write_bytes(ask(port, "/files/1").read())
    np.testing.assert_allclose(read_splats(folder / "sent.ply").means, blocks(30).means, atol=1e-6)


def test_a_mesh_beside_the_splats_is_offered_and_sent(port: int, folder: Path) -> None:
    def listed() -> list[str | None]:
        return [file["mesh"] for file in json.loads(ask(port, "/files.json").read())]

    assert listed() == [None, None]  # figure.glb holds splats
    assert ask(port, "/files/0/mesh").status == 404
    (folder / "figure.glb").unlink()
    trimesh.creation.box().export(folder / "figure.glb")
    assert listed() == ["files/0/mesh", None]
    box = trimesh.creation.box().export(file_type="glb")
    (folder / "figure.mesh.glb").write_bytes(box)
    assert listed() == ["files/0/mesh", "files/1/mesh"]
    answer = ask(port, "/files/0/mesh")
    assert (answer.headers["Content-Type"], answer.read()) == ("model/gltf-binary", box)


@pytest.mark.parametrize(
    "path",
    [
        "/files/2",
        "/files/-1",
        "/files/0/",
        "/files/00",
        "/files/secret.ply",
        "/files/../secret.ply",
        "/static/../viewer_app.py",
        "/static/..%2fviewer_app.py",
        "/static//etc/passwd",
        "/static/",
        "/../../etc/passwd",
        "//etc/passwd",
        "/secret.ply",
        "/viewer_app.py",
        "/%00",
    ],
)
def test_nothing_else_is_found(port: int, path: str) -> None:
    answer = ask(port, path)
    assert answer.status == 404
    assert answer.read() == b"There is nothing here."


def test_only_get_and_head_are_answered(port: int) -> None:
    head = ask(port, "/files/0", "HEAD")
    assert (head.status, head.read()) == (200, b"")
    assert int(head.headers["Content-Length"]) > 0
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert ask(port, "/", method).status == 405


def test_pages_elsewhere_that_point_a_name_here_get_nothing(port: int) -> None:
    for host in ("evil.example", f"evil.example:{port}", "", f"127.0.0.1.evil:{port}", f"[::2]:{port}"):
        answer = ask(port, "/files/0", Host=host)
        assert answer.status == 403, host
        assert b"element vertex" not in answer.read()


def test_this_machine_is_answered_also_through_a_forwarded_port(port: int) -> None:
    for host in (f"LOCALHOST:{port}", f"127.0.0.1:{port + 1}", "127.0.0.1", "[::1]", "[::1]:80"):
        assert ask(port, "/files/0", Host=host).status == 200, host


def test_names_of_this_machine() -> None:
    for name in ("localhost", "LocalHost", "127.0.0.1", "127.8.0.1", "::1", "[::1]"):
        assert is_loopback(name), name
    for name in ("", "[", "0.0.0.0", "::", "[::2]", "10.0.0.1", "localhost.evil"):
        assert not is_loopback(name), name


def test_a_file_that_went_away_or_broke_is_a_sentence(port: int, folder: Path) -> None:
    (folder / "figure.ply").unlink()
    (folder / "figure.glb").write_bytes(b"glTF")
    for path, name in (("/files/0", "figure.ply"), ("/files/1", "figure.glb")):
        answer = ask(port, path)
        assert answer.status == 404
        sentence = answer.read().decode()
        assert name in sentence
        assert sentence.endswith(".")
    assert ask(port, "/files.json").status == 200


def test_what_cannot_be_shown_is_refused_at_once(
    folder: Path, port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "words.txt").touch()
    figure = str(folder / "figure.ply")
    for words, reason in (
        ([str(folder / "missing.ply")], "missing.ply"),
        ([str(folder / "words.txt")], "not the name of a splat file"),
        ([str(folder)], "splat file"),
        ([figure] * (MAX_FILES + 1), f"at most {MAX_FILES}"),
        ([figure, "--port", "70000"], "expected 0 to 65535"),
        ([figure, "--port", str(port)], f"port {port}"),
    ):
        assert main(["view", *words, "--no-browser"]) == 2
        error = capsys.readouterr().err
        assert reason in error
        assert error.count("\n") == 1


def test_the_subcommand_serves_until_it_is_interrupted(
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


def test_the_bill_of_materials_has_what_is_in_the_bundle() -> None:
    bill = json.loads((STATIC / "sbom.cdx.json").read_text())
    headings = [
        line.split(",")[0] for line in (STATIC / "LICENSES.txt").read_text().splitlines() if ", http" in line
    ]
    assert [f"{part['name']} {part['version']}" for part in bill["components"]] == headings
    assert all(len(part["hashes"][0]["content"]) == 128 for part in bill["components"])


def test_the_bundle_comes_with_its_licences_and_calls_nobody() -> None:
    licences = (STATIC / "LICENSES.txt").read_text()
    for name in ("three ", "@sparkjsdev/spark ", "fflate "):
        assert f"\n{name}" in f"\n{licences}"
    for path in filter(Path.is_file, STATIC.rglob("*")):
        assert path.suffix != ".map"
        text = path.read_text()
        assert "sourceMappingURL=" not in text.replace("sourceMappingURL=\\n", "")
        if path.suffix in (".html", ".css"):
            assert "//" not in text.replace("http://www.w3.org", "")


def test_a_page_that_has_not_changed_is_not_sent_again(port: int) -> None:
    for path in ("/", "/static/js/vendor.js"):
        first = ask(port, path)
        assert first.headers["Cache-Control"] == "no-cache"
        again = ask(port, path, **{"If-None-Match": first.headers["ETag"]})
        assert (again.status, again.read()) == (304, b"")


def test_the_viewer_starts_without_torch() -> None:
    script = (
        "import sys, diffsplat.cli.view, diffsplat.web.server_process, diffsplat.web.viewer_app; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
