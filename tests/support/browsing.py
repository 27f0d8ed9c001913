"""A headless Chromium, and pages in it that may not complain or call elsewhere."""

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE_MS = 120_000
"""Graphics are drawn by the processor, which may be busy."""


@contextmanager
def chromium() -> Iterator[Any]:
    """The system's Chromium, with WebGL 2 in software; skips where it or Playwright is missing."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    executable = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if executable is None:
        pytest.skip("Chromium is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable,
            args=["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"],
        )
        yield browser
        browser.close()


class WatchedPages:
    """Opens pages and remembers what they complained about and whom they called."""

    def __init__(self, browser: Any) -> None:
        self.browser = browser
        self.complaints: list[str] = []
        self.hosts: set[str | None] = set()
        self._contexts: list[Any] = []

    def open(self, url: str, *, width: int = 256, height: int = 256, **context: Any) -> Any:
        """A page at ``url``, loaded and drawn.

        Args:
            url: of a page that sets ``data-state`` to "ready".
            width: pixels.
            height: pixels.
            context: further options of Playwright's ``new_context``.
        """
        opened = self.browser.new_context(viewport={"width": width, "height": height}, **context)
        self._contexts.append(opened)
        opened.set_default_timeout(PATIENCE_MS)
        page = opened.new_page()
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self._on_request(request.url))
        page.goto(url)
        settle(page)
        return page

    def close(self) -> None:
        """Close all pages."""
        for context in self._contexts:
            context.close()

    def _on_console(self, message: Any) -> None:
        if message.type in ("error", "warning") and "GPU stall due to ReadPixels" not in message.text:
            self.complaints.append(message.text)

    def _on_request(self, url: str) -> None:
        if urlsplit(url).scheme not in ("data", "blob"):
            self.hosts.add(urlsplit(url).hostname)


def settle(page: Any) -> None:
    """Wait until a page shows all it was asked for, which it looks at every tenth of a second of its own clock."""
    page.evaluate("() => new Promise(done => setTimeout(done, 250))")
    page.wait_for_selector("html[data-state=ready]", state="attached")
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def picture(page: Any, **options: Any) -> NDArray[np.float64]:
    """``[H, W, 3]`` what a page shows, 0..1."""
    return pixels(page.screenshot(**options))


def pixels(data: bytes) -> NDArray[np.float64]:
    """``[H, W, 3]`` of an image file, 0..1."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"), dtype=np.float64) / 255
