"""A small Hugging Face Hub on this machine: the few routes that downloading a model needs."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34


@dataclass
class FakeHub:
    """What it holds, how it misbehaves, and what it was asked.

    Args:
        files: content by repository and path.
        heads: commit that a repository's branch ``main`` names.
        gated: repositories whose files are refused.
        cut: paths whose first transfer breaks in the middle.
        down: answers every request with 503.
    """

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    heads: dict[str, str] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    cut: set[str] = field(default_factory=set)
    down: bool = False
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    address: str = ""

    def transfers(self) -> list[str]:
        """Paths of the files whose content was asked for."""
        return [
            path.split("/resolve/")[1].split("/", 1)[1]
            for verb, path, _ in self.asked
            if verb == "GET" and "/resolve/" in path
        ]

    def head(self, repository: str) -> str:
        return self.heads.get(repository, COMMIT)


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        self.hub.asked.append((self.command, path, self.headers.get("Range", "")))
        if self.hub.down:
            self.send(503, b"")
        elif match := re.fullmatch(r"api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path):
            self.describe(match[1], match[2] or "revision", match[3] or "main")
        elif match := re.fullmatch(r"([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self.transfer(match[1], match[2], match[3])
        else:
            self.send(404, b"")

    def describe(self, repository: str, kind: str, revision: str) -> None:
        files = self.hub.files.get(repository)
        if files is None:
            self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif revision not in ("main", self.hub.head(repository), COMMIT):
            self.send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif kind == "tree":
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": _etag(content)}
                for name, content in files.items()
            ]
            self.send(200, json.dumps(entries).encode())
        else:
            siblings = [{"rfilename": name, "size": len(content)} for name, content in files.items()]
            commit = self.hub.head(repository) if revision == "main" else revision
            self.send(200, json.dumps({"id": repository, "sha": commit, "siblings": siblings}).encode())

    def transfer(self, repository: str, revision: str, name: str) -> None:
        content = self.hub.files[repository].get(name)
        if repository in self.hub.gated:
            self.send(403, b"", {"X-Error-Code": "GatedRepo"})
            return
        if content is None:
            self.send(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        facts = {"ETag": f'"{_etag(content)}"', "X-Repo-Commit": revision, "Accept-Ranges": "bytes"}
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        if wanted:
            facts["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.send(206 if wanted else 200, content[start:], facts, broken=name in self.hub.cut)

    def send(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, *, broken: bool = False
    ) -> None:
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if broken:
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
            self.hub.cut.clear()
        else:
            self.wfile.write(body)


def _etag(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


@contextmanager
def running_hub() -> Iterator[FakeHub]:
    hub = FakeHub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
