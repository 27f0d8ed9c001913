"""The API against its own schema, in the hands of schemathesis."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, reject, settings, strategies

from diffsplat.pipelines import DiffSplatPipeline
from support.instant_model import Instant

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
)


@strategies.composite
def cases(draw: Any, operation: Any, mode: Any) -> Any:
    """Generated requests, but those that schemathesis 4 breaks off itself: it takes its own files for no JSON."""
    try:
        return draw(operation.as_strategy(generation_mode=mode))
    except ValueError as error:
        if "Unsupported type: 'Binary'" not in str(error):
            raise
        reject()


def answers(operation: Any, mode: Any, checks: list[Any], examples: int) -> set[int]:
    """Statuses that generated requests were answered with, the checks passed."""
    seen: set[int] = set()

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases(operation, mode))
    def call(case: Any) -> None:
        seen.add(case.call_and_validate(checks=checks).status_code)

    call()
    return seen


def attack(url: str, examples: int) -> dict[str, set[int]]:
    """Statuses by operation."""
    from schemathesis import GenerationMode
    from schemathesis.checks import CHECKS as KNOWN
    from schemathesis.checks import load_all_checks

    load_all_checks()
    checks = KNOWN.get_by_names(list(CHECKS))
    statuses: dict[str, set[int]] = {}
    for found in schemathesis.openapi.from_url(f"{url}api/openapi.json").get_all_operations():
        operation = found.ok()
        inputs = operation.path_parameters or operation.body
        modes = list(GenerationMode) if inputs else [GenerationMode.POSITIVE]
        statuses[operation.label] = set().union(
            *(answers(operation, mode, checks, examples if inputs else 1) for mode in modes)
        )
    return statuses


@pytest.fixture
def url(live: Callable[..., str], small_pipeline: DiffSplatPipeline) -> str:
    return live(Instant(small_pipeline), max_queued=1000)


def test_generated_requests_find_no_fault(url: str):
    statuses = attack(url, 12)
    # Which of the few requests name a model that exists is up to chance; that one is accepted is tested elsewhere.
    assert 422 in statuses["POST /api/jobs"]
    assert 404 in statuses["GET /api/jobs/{job_id}"]
    assert statuses["GET /api/models"] == {200}


@pytest.mark.slow
def test_many_generated_requests_find_no_fault(url: str):
    attack(url, 300)
