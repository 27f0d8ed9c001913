"""Rendering and generating on a Ray cluster of this machine, a worker and the driver of which are killed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "ray_runs.py"


@pytest.mark.slow
@pytest.mark.parametrize(("what", "objects"), [("render", 48), ("generate", 24)])
def test_kills_lose_nothing_and_make_nothing_twice(
    what: str, objects: int, small_model: Path, tmp_path: Path
):
    """A shard holds 40 objects, a part of the list 4."""
    pytest.importorskip("ray")
    words = ["--objects", str(objects), "--only", what, "--model", str(small_model)]
    ran = subprocess.run(
        [sys.executable, str(SCRIPT), *words, "--folder", str(tmp_path / "runs")],
        stdout=subprocess.PIPE,
        timeout=1800,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )
    found = json.loads(ran.stdout.splitlines()[-1])[what]
    assert found["same_files"]
    assert found["same_files_after_kills"]
    assert found["driver_was_running"]
    assert found["files_before_restart"] == found["of_these_untouched"] > 0
