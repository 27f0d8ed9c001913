"""A server of the small model, in this process."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from starlette.testclient import TestClient

from diffsplat.pipelines import DiffSplatPipeline
from diffsplat.web.api import create_app
from diffsplat.web.generator import Generator, ServedModel
from diffsplat.web.guard import Guard
from diffsplat.web.limits import Limits
from diffsplat.web.service import Service

Serve = Callable[..., TestClient]


@pytest.fixture
def serve(small_pipeline: DiffSplatPipeline) -> Iterator[Serve]:
    """Starts a server with the given limits and token; ends it after the test."""
    with ExitStack() as stack:

        def start(generator=None, *, token: str | None = None, **limits) -> TestClient:
            models = generator or Generator.of([ServedModel("small", small_pipeline)])
            app = Guard(create_app(Service(models, Limits(**limits))), token=token)
            return stack.enter_context(TestClient(app, base_url="http://localhost:7860"))

        yield start


@pytest.fixture
def client(serve: Serve) -> TestClient:
    return serve()
