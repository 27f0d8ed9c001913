"""A server of the small model, in this process."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import pytest
from starlette.testclient import TestClient

from diffsplat.pipelines import DiffSplatPipeline
from diffsplat.web.generation_app import create_app
from diffsplat.web.generation_service import Service
from diffsplat.web.model_worker import ModelWorker, ServedModel
from diffsplat.web.server_limits import Limits
from support.background_server import background_server
from support.browsing import WatchedPages, chromium

Serve = Callable[..., TestClient]


@pytest.fixture
def serve(small_pipeline: DiffSplatPipeline) -> Iterator[Serve]:
    """Starts a server with the given limits and options of its guard; ends it after the test."""
    with ExitStack() as stack:

        def start(worker=None, *, guard: Mapping[str, Any] | None = None, **limits) -> TestClient:
            models = worker or ModelWorker.of([ServedModel("small", small_pipeline)])
            app = create_app(Service(models, Limits(**limits)), **(guard or {}))
            return stack.enter_context(TestClient(app, base_url="http://localhost:7860"))

        yield start


@pytest.fixture
def client(serve: Serve) -> TestClient:
    return serve()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium for all tests; skips where there is none."""
    with chromium() as running:
        yield running


@pytest.fixture
def pages(browser: Any) -> Iterator[WatchedPages]:
    """Opens pages; afterwards, none may have complained or called another host than this one."""
    watched = WatchedPages(browser)
    yield watched
    watched.close()
    assert watched.complaints == []
    assert watched.hosts <= {"127.0.0.1"}


@pytest.fixture
def live(small_pipeline: DiffSplatPipeline) -> Iterator[Callable[..., str]]:
    """Starts a server that browsers reach; gives its address."""
    with ExitStack() as stack:

        def start(worker=None, *, token: str | None = None, **limits) -> str:
            models = worker or ModelWorker.of([ServedModel("small", small_pipeline)])
            app = create_app(Service(models, Limits(**limits)), token=token)
            return stack.enter_context(background_server(app))

        yield start
