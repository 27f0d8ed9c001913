"""The file of constraints names every dependency, within its bounds."""

import re
import tomllib
from pathlib import Path

import pytest

packaging = pytest.importorskip("packaging.requirements")
ROOT = Path(__file__).resolve().parents[2]


def test_every_dependency_is_pinned_within_its_bounds():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["serve"]]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    for requirement in map(packaging.Requirement, wanted):
        if requirement.name != "torch":
            assert requirement.specifier.contains(pins.pop(requirement.name)), requirement
    assert pins == {}


def test_private_interfaces_have_upper_bounds():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounded = {re.split("[><=]", entry)[0] for entry in project["dependencies"] if "<" in entry}
    assert bounded >= {"numba", "llvmlite", "starlette", "uvicorn"}
